// SPDX-License-Identifier: Apache-2.0
// The row kernels of every instruction set of this machine against the plain ones, and row forms of codes.
#if __has_include(<doctest/doctest.h>)
#include <doctest/doctest.h>
#else
#include <doctest.h>
#endif

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "codec/scalar_codec.hpp"
#include "kernel/dispatch.hpp"

using namespace residua;
using namespace residua::kernel;

TEST_CASE("row kernels: fields agree on all instruction sets") {
    std::mt19937 rng(1);
    const RowKernels& plain = by_name("scalar").rows;
    for (int trial = 0; trial < 300; ++trial) {
        FieldLayout layout;
        layout.n_runs = 1 + rng() % 4;
        int limit = 127;
        for (std::uint32_t r = 0; r < layout.n_runs; ++r) {
            const int width = 1 << rng() % 4;
            layout.runs[r] = {1 + static_cast<std::uint32_t>(rng() % 9), static_cast<std::uint8_t>(width),
                              static_cast<std::uint8_t>(rng() % 5)};
            limit = std::min(limit, field_weight_max(width));
        }
        const bool extreme = trial % 3 == 0;
        const std::size_t stride = layout.bytes() + rng() % 5, n = 1 + rng() % 20;
        std::vector<std::uint8_t> codes(n * stride);  // exact: a sanitizer sees a read past the end
        for (auto& c : codes) c = extreme ? 255 : static_cast<std::uint8_t>(rng());
        std::vector<std::int8_t> weights(layout.weights());
        for (auto& w : weights) {
            w = static_cast<std::int8_t>(extreme ? (trial % 2 ? limit : -limit)
                                                 : static_cast<int>(rng() % (2 * limit + 1)) - limit);
        }
        std::vector<std::uint32_t> rows(n);
        for (auto& r : rows) r = static_cast<std::uint32_t>(rng() % n);
        std::vector<std::int32_t> expected(n), got(n);
        plain.fields(layout, codes.data(), stride, rows.data(), n, weights.data(), expected.data());
        for (const KernelTable* table : available()) {
            table->rows.fields(layout, codes.data(), stride, rows.data(), n, weights.data(), got.data());
            CHECK_MESSAGE(got == expected, table->name);
        }
    }
}

TEST_CASE("row kernels: products of signed bytes agree on all instruction sets") {
    std::mt19937 rng(2);
    for (int trial = 0; trial < 200; ++trial) {
        const std::size_t bytes = (1 + rng() % 30) * kPieceBytes, n = 1 + rng() % 20;
        const bool extreme = trial % 3 == 0;
        const auto value = [&] { return static_cast<std::int8_t>(extreme ? (rng() % 2 ? 127 : -127) : static_cast<int>(rng() % 255) - 127); };
        std::vector<std::int8_t> query(bytes), x(n * bytes);
        for (auto& v : query) v = value();
        for (auto& v : x) v = value();
        std::vector<std::uint32_t> rows(n);
        for (auto& r : rows) r = static_cast<std::uint32_t>(rng() % n);
        for (const KernelTable* table : available()) {
            std::vector<std::int32_t> got(n);
            table->rows.signed_bytes(query.data(), x.data(), bytes, rows.data(), n, bytes, got.data());
            for (std::size_t i = 0; i < n; ++i) {
                std::int32_t sum = 0;
                for (std::size_t j = 0; j < bytes; ++j) sum += query[j] * x[rows[i] * bytes + j];
                CHECK_MESSAGE(got[i] == sum, table->name);
            }
        }
    }
}

TEST_CASE("row forms: codes come back, and estimates are near the scores of a scan") {
    std::mt19937 rng(3);
    std::normal_distribution<float> normal;
    for (const std::size_t dim : {1u, 7u, 16u, 31u, 33u, 100u}) {
        for (const int bits : {4, 8}) {
            codec::ScalarParams p;
            p.metric = Metric::l2;
            p.dim = dim;
            p.bits = bits;
            p.center.assign(dim, 0.1f);
            p.query_mean.assign(dim, 0.0f);
            p.step.assign(dim, 1.0f);
            const codec::ScalarCodec codec(p);
            constexpr std::size_t kRows = 40;
            std::vector<float> x(kRows * dim);
            for (float& v : x) v = normal(rng);
            std::vector<std::uint8_t> codes(kRows * codec.code_bytes()), again(codes.size());
            codec.encode({x.data(), kRows, dim}, codes.data(), 1, codec::Effort::rounded);
            std::vector<std::uint8_t> form(kRows * codec.row_bytes());
            codec.to_rows(codes.data(), kRows, form.data());
            codec.from_rows(form.data(), kRows, again.data());
            CHECK(codes == again);
            std::vector<std::uint32_t> rows(kRows);
            for (std::uint32_t r = 0; r < kRows; ++r) rows[r] = kRows - 1 - r;
            std::vector<float> got(kRows), expected(kRows);
            codec.prepare_rows({x.data(), 1, dim}, 1)->score(form.data(), rows.data(), kRows, 0, got.data());
            codec::gathering_scorer(codec, codec.prepare({x.data(), 1, dim}, 1))
                ->score(form.data(), rows.data(), kRows, 0, expected.data());
            for (std::size_t i = 0; i < kRows; ++i) {
                CHECK(got[i] == doctest::Approx(expected[i]).epsilon(0.02).scale(1.0 + static_cast<double>(dim)));
            }
        }
    }
}
