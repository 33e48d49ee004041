// SPDX-License-Identifier: Apache-2.0
// The best token of a document: every table that this machine runs against the scalar one for codes, and against
// float64 for floats, with rows that end where an unreadable page begins.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernel/dispatch.hpp"
#include "kernel_test.hpp"

using namespace residua;
using namespace residua::kernel;
using namespace residua::testing;

namespace {

constexpr float kLeast = -std::numeric_limits<float>::infinity();

struct Lanes {
    std::vector<float> best;
    std::vector<std::uint32_t> at;
    explicit Lanes(std::size_t n) : best(n, kLeast), at(n, 77) {}
};

// Two blocks, one after the other, for nq queries.
Lanes two_blocks(const TokenKernels& kernels, const std::uint8_t* cells, std::size_t n_cells,
                 std::size_t joined, const std::vector<float>& scale, const std::vector<float>& add,
                 const std::vector<TokenQuery>& queries, bool where) {
    Lanes lanes(queries.size() * kByteRows);
    for (std::uint32_t b = 0; b < 2; ++b) {
        kernels.best(cells + b * n_cells * kCellBytes * kByteRows, n_cells, joined, scale.data() + b * kByteRows,
                     add.data() + b * kByteRows, queries.data(), queries.size(), b, lanes.best.data(),
                     where ? lanes.at.data() : nullptr);
    }
    return lanes;
}

}  // namespace

TEST_CASE("tokens: best of codes agrees bit for bit on all tables") {
    Guarded end;
    for (const std::size_t n_cells : {1u, 7u, 8u, 32u, 96u}) {
        for (const int largest : {1, 15, 31, 63, 127, 255}) {
            std::vector<std::uint8_t> codes = bytes<std::uint8_t>(2 * n_cells * kCellBytes * kByteRows);
            for (auto& c : codes) c = static_cast<std::uint8_t>(c % (largest + 1));
            std::fill(codes.begin(), codes.begin() + 200 % codes.size(), static_cast<std::uint8_t>(largest));
            const std::uint8_t* cells = end.place(codes);
            const std::vector<float> scale = normals(2 * kByteRows);
            std::vector<float> add = normals(2 * kByteRows);
            add[kByteRows + 5] = kLeast;  // a missing token
            const int limit = token_weight_max(largest);
            const std::size_t joined = joined_cells(largest);
            CHECK(2 * static_cast<int>(joined) * largest * limit <= 32'767);
            for (const std::size_t nq : {1u, 3u, 4u, 8u, 9u, 17u}) {
                std::vector<std::int8_t> weights = bytes<std::int8_t>(nq * n_cells * kCellBytes);
                for (auto& w : weights) w = static_cast<std::int8_t>(std::clamp<int>(w, -limit, limit));
                std::fill_n(weights.begin(), n_cells * kCellBytes, static_cast<std::int8_t>(limit));
                std::vector<TokenQuery> queries(nq);
                for (std::size_t i = 0; i < nq; ++i) {
                    queries[i] = {weights.data() + i * n_cells * kCellBytes, 0.01f * normals(1)[0], normals(1)[0]};
                }
                const Lanes expected = two_blocks(by_name("scalar").tokens, cells, n_cells, joined, scale, add, queries, true);
                for (const KernelTable* table : available()) {
                    CAPTURE(table->name);
                    const Lanes found = two_blocks(table->tokens, cells, n_cells, joined, scale, add, queries, true);
                    CHECK(found.best == expected.best);
                    CHECK(found.at == expected.at);
                    CHECK(two_blocks(table->tokens, cells, n_cells, 1, scale, add, queries, false).best == expected.best);
                }
            }
        }
    }
}

TEST_CASE("tokens: best of float rows") {
    Guarded end;
    for (const std::size_t d : {1u, 2u, 15u, 16u, 17u, 96u, 130u}) {
        for (const std::size_t n : {1u, 5u, 6u, 7u, 12u, 13u, 25u}) {
            for (const std::size_t n_panels : {1u, 2u, 3u}) {
                const std::size_t lanes = n_panels * kPanelRows;
                const std::vector<float> panels = normals(lanes * d);
                const std::vector<float> values = normals(n * d);
                const float* rows = end.place(values);
                for (const KernelTable* table : available()) {
                    CAPTURE(table->name);
                    std::vector<float> best(lanes, kLeast), at(lanes, -1.0f), only(lanes, kLeast);
                    const auto run = [&](const float* x, std::vector<float>& b, float* a) {
                        return table->tokens.best_rows(x, d, n, panels.data(), n_panels, d, 100.0f, b.data(), a);
                    };
                    CHECK(run(rows, best, at.data()) == 0.0f);
                    CHECK(run(rows, only, nullptr) == 0.0f);
                    CHECK(only == best);
                    for (std::size_t lane = 0; lane < lanes; ++lane) {
                        const float* q = panels.data() + lane / kPanelRows * d * kPanelRows + lane % kPanelRows;
                        double largest = -1e300, bound = 0, chosen = 0;
                        for (std::size_t r = 0; r < n; ++r) {
                            double sum = 0, size = 0;
                            for (std::size_t k = 0; k < d; ++k) {
                                const double term = static_cast<double>(q[k * kPanelRows]) * rows[r * d + k];
                                sum += term;
                                size += std::abs(term);
                            }
                            largest = std::max(largest, sum);
                            bound = std::max(bound, static_cast<double>(d + 16) * 0x1p-24 * size);
                            if (static_cast<float>(r) + 100.0f == at[lane]) chosen = sum;
                        }
                        CHECK(std::abs(static_cast<double>(best[lane]) - largest) <= bound);
                        CHECK(std::abs(chosen - largest) <= 2 * bound);
                    }
                    // A row's products do not depend on the rows beside it.
                    std::vector<float> alone(lanes, kLeast);
                    for (std::size_t r = 0; r < n; ++r) {
                        table->tokens.best_rows(rows + r * d, d, 1, panels.data(), n_panels, d, 0, alone.data(), nullptr);
                    }
                    CHECK(alone == best);
                    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kLeast}) {
                        std::vector<float> broken = values, b(lanes, kLeast);
                        broken[(n - 1) * d + d / 2] = bad;
                        CHECK(std::isnan(run(broken.data(), b, nullptr)));
                    }
                }
            }
        }
    }
}

TEST_CASE("tokens: int8 rows as floats") {
    Guarded end;
    for (const std::size_t d : {1u, 7u, 8u, 16u, 17u, 130u}) {
        const std::vector<std::int8_t> values = bytes<std::int8_t>(3 * d);
        const std::int8_t* rows = end.place(values);
        const std::vector<float> scale = normals(3);
        for (const KernelTable* table : available()) {
            CAPTURE(table->name);
            std::vector<float> scaled(3 * d + 1, 77.0f), plain(3 * d);
            table->tokens.widen_i8(rows, scale.data(), 3, d, scaled.data());
            table->tokens.widen_i8(rows, nullptr, 3, d, plain.data());
            CHECK(scaled.back() == 77.0f);
            for (std::size_t i = 0; i < 3 * d; ++i) {
                CHECK(plain[i] == static_cast<float>(values[i]));
                CHECK(scaled[i] == scale[i / d] * static_cast<float>(values[i]));
            }
        }
    }
}
