// SPDX-License-Identifier: Apache-2.0
// Every kernel of every table that this machine runs against the scalar one: bit for bit, and float
// filters within the bound of their data sheet. Rows end where an unreadable page begins and start at
// odd addresses. Needs no Python, so the same cases run under an emulator.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "codec/edge_query.hpp"
#include "codec/plane_query.hpp"
#include "codec/plane_scan.hpp"
#include "core/aligned.hpp"
#include "core/half.hpp"
#include "kernel/dispatch.hpp"
#include "kernel_test.hpp"

using namespace residua;
using namespace residua::kernel;
using namespace residua::testing;

namespace {

std::vector<std::size_t> dims() {
    std::vector<std::size_t> d;
    for (std::size_t i = 1; i <= 130; ++i) d.push_back(i);
    for (std::size_t i = 767; i <= 769; ++i) d.push_back(i);
    return d;
}

using Convert = void (*)(const float*, std::uint16_t*, std::size_t);

std::vector<std::uint16_t> halves(std::size_t n, Convert convert) {
    std::vector<std::uint16_t> h(n);
    convert(normals(n).data(), h.data(), n);
    return h;
}

// A bound on the sum of the magnitudes of the terms: (|q| + |x|)^2 covers products and squares.
double reach(std::span<const float> q, std::span<const double> x) {
    double sum = 0;
    for (std::size_t i = 0; i < q.size(); ++i) {
        sum += std::pow(std::fabs(static_cast<double>(q[i])) + std::fabs(x[i]), 2);
    }
    return sum;
}

// `filter` and `exact` are called as f(kernels, query, row, d).
template <class T, class Value, class Filter, class Exact>
void check_pairs(const std::vector<T>& pool, Value value, Filter filter, Exact exact) {
    const FloatKernels& reference = by_name("scalar").floats;
    Guarded row_memory, query_memory;
    for (const KernelTable* table : available()) {
        CAPTURE(table->name);
        for (const std::size_t d : dims()) {
            CAPTURE(d);
            const std::vector<T> row(pool.begin(), pool.begin() + static_cast<std::ptrdiff_t>(d));
            const std::vector<float> query = normals(d);
            const T* x = row_memory.place(row);
            const float* q = query_memory.place(query);
            std::vector<double> values(d);
            for (std::size_t i = 0; i < d; ++i) values[i] = value(row[i]);

            const double wanted = exact(reference, q, x, d);
            REQUIRE(same_bits(exact(table->floats, q, x, d), wanted));
            const double bound = (static_cast<double>(d) + 16) * 0x1p-24 * reach(query, values);
            REQUIRE(std::fabs(static_cast<double>(filter(table->floats, q, x, d)) - wanted) <= bound);

            // One element off any vector's alignment.
            std::vector<T> shifted(d + 1);
            std::copy(row.begin(), row.end(), shifted.begin() + 1);
            REQUIRE(same_bits(exact(table->floats, q, shifted.data() + 1, d), wanted));
        }
    }
}

template <class T, class Value>
void check_rows(const std::vector<T>& pool, Value value,
                float (*FloatKernels::*dot)(const float*, const T*, std::size_t),
                double (*FloatKernels::*exact_dot)(const float*, const T*, std::size_t)) {
    check_pairs(
        pool, value, [=](const FloatKernels& k, auto... a) { return (k.*dot)(a...); },
        [=](const FloatKernels& k, auto... a) { return (k.*exact_dot)(a...); });
}

struct HalfKind {
    const char* name;
    void (*FloatKernels::*widen)(const std::uint16_t*, float*, std::size_t);
    void (*FloatKernels::*narrow)(const float*, std::uint16_t*, std::size_t);
    void (*FloatKernels::*pack)(const std::uint16_t*, std::size_t, std::size_t, std::size_t, float*);
};
constexpr HalfKind kHalves[] = {
    {"float16", &FloatKernels::f16_to_f32, &FloatKernels::f32_to_f16, &FloatKernels::pack_panel_f16},
    {"bfloat16", &FloatKernels::bf16_to_f32, &FloatKernels::f32_to_bf16, &FloatKernels::pack_panel_bf16},
};

template <class T>
void check_pack(void (*FloatKernels::*pack)(const T*, std::size_t, std::size_t, std::size_t, float*),
                const std::vector<T>& pool) {
    Guarded memory;
    for (const KernelTable* table : available()) {
        CAPTURE(table->name);
        for (std::size_t d = 1; d <= 40; ++d) {
            for (std::size_t n = 1; n <= kPanelRows; ++n) {
                const auto size = static_cast<std::ptrdiff_t>(n * d);
                const T* x = memory.place(std::vector<T>(pool.begin(), pool.begin() + size));
                std::vector<float> wanted(d * kPanelRows, -1.0f), got(wanted);
                (by_name("scalar").floats.*pack)(x, d, n, d, wanted.data());
                (table->floats.*pack)(x, d, n, d, got.data());
                REQUIRE(got == wanted);
            }
        }
    }
}

}  // namespace

TEST_CASE("the tables that this machine runs") {
    std::string names;
    for (const KernelTable* table : available()) names += std::string(" ") + table->name;
    MESSAGE("kernels:" << names);
    CHECK(std::string(available().back()->name) == "scalar");
#if defined(__aarch64__)
    CHECK(std::string(active().name) == "neon");
#endif
}

TEST_CASE("pair kernels agree with the scalar ones") {
    const FloatKernels& k = by_name("scalar").floats;
    const auto from_f16 = [&](std::uint16_t h) { float f; k.f16_to_f32(&h, &f, 1); return static_cast<double>(f); };
    const auto from_bf16 = [&](std::uint16_t h) { float f; k.bf16_to_f32(&h, &f, 1); return static_cast<double>(f); };
    const auto itself = [](auto x) { return static_cast<double>(x); };
    const auto f32 = normals(800);
    const auto f16 = halves(800, k.f32_to_f16), bf16 = halves(800, k.f32_to_bf16);
    const auto i8 = bytes<std::int8_t>(800);
    check_rows<float>(f32, itself, &FloatKernels::dot_f32, &FloatKernels::exact_dot_f32);
    check_rows<float>(f32, itself, &FloatKernels::l2_f32, &FloatKernels::exact_l2_f32);
    check_rows<std::uint16_t>(f16, from_f16, &FloatKernels::dot_f16, &FloatKernels::exact_dot_f16);
    check_rows<std::uint16_t>(f16, from_f16, &FloatKernels::l2_f16, &FloatKernels::exact_l2_f16);
    check_rows<std::uint16_t>(bf16, from_bf16, &FloatKernels::dot_bf16, &FloatKernels::exact_dot_bf16);
    check_rows<std::uint16_t>(bf16, from_bf16, &FloatKernels::l2_bf16, &FloatKernels::exact_l2_bf16);
    check_rows<std::int8_t>(i8, itself, &FloatKernels::dot_i8, &FloatKernels::exact_dot_i8);
    constexpr float kScale = 0.0123f;
    check_pairs(
        i8, [](std::int8_t x) { return static_cast<double>(kScale) * x; },
        [](const FloatKernels& t, const float* q, const std::int8_t* x, std::size_t d) {
            return t.l2_i8(q, x, kScale, d);
        },
        [](const FloatKernels& t, const float* q, const std::int8_t* x, std::size_t d) {
            return t.exact_l2_i8(q, x, kScale, d);
        });
}

TEST_CASE("conversions and panels agree with the scalar ones") {
    std::vector<std::uint16_t> all(65536);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
    std::vector<float> floats(100'003);
    for (float& f : floats) f = std::bit_cast<float>(static_cast<std::uint32_t>(rng()()));
    const FloatKernels& reference = by_name("scalar").floats;
    for (const HalfKind& kind : kHalves) {
        CAPTURE(kind.name);
        std::vector<float> wide(all.size()), wide_got(all.size());
        std::vector<std::uint16_t> narrow(floats.size()), narrow_got(floats.size());
        (reference.*kind.widen)(all.data(), wide.data(), all.size());
        (reference.*kind.narrow)(floats.data(), narrow.data(), floats.size());
        for (const KernelTable* table : available()) {
            CAPTURE(table->name);
            (table->floats.*kind.widen)(all.data(), wide_got.data(), all.size());
            std::size_t wrong = 0;
            for (std::size_t i = 0; i < all.size(); ++i) {
                wrong += std::isnan(wide[i]) ? !std::isnan(wide_got[i]) : !same_bits(wide[i], wide_got[i]);
            }
            CHECK(wrong == 0);
            (table->floats.*kind.narrow)(floats.data(), narrow_got.data(), floats.size());
            wrong = 0;
            std::vector<float> back(floats.size());
            (reference.*kind.widen)(narrow_got.data(), back.data(), floats.size());
            for (std::size_t i = 0; i < floats.size(); ++i) {
                wrong += std::isnan(floats[i]) ? !std::isnan(back[i]) : narrow[i] != narrow_got[i];
            }
            CHECK(wrong == 0);
        }
        check_pack<std::uint16_t>(kind.pack, halves(640, reference.*kind.narrow));
    }
    check_pack<float>(&FloatKernels::pack_panel_f32, normals(640));
}

TEST_CASE("gemm_panel stays within its bound, and a value does not depend on its tile") {
    for (const KernelTable* table : available()) {
        CAPTURE(table->name);
        const FloatKernels& k = table->floats;
        for (const std::size_t d : dims()) {
            const auto q = normals(kTileQueries * d), panel = normals(kPanelRows * d);
            float full[kTileQueries * kPanelRows];
            k.gemm_panel(q.data(), d, kTileQueries, panel.data(), d, full, kPanelRows);
            std::size_t wrong = 0;
            for (std::size_t i = 0; i < kTileQueries; ++i) {
                for (std::size_t r = 0; r < kPanelRows; ++r) {
                    double sum = 0, size = 0;
                    for (std::size_t j = 0; j < d; ++j) {
                        const double x = static_cast<double>(panel[j * kPanelRows + r]);
                        const double term = static_cast<double>(q[i * d + j]) * x;
                        sum += term;
                        size += std::fabs(term);
                    }
                    const double error = std::fabs(static_cast<double>(full[i * kPanelRows + r]) - sum);
                    wrong += !(error <= (static_cast<double>(d) + 16) * 0x1p-24 * size);
                }
                float one[kPanelRows];
                k.gemm_panel(q.data() + i * d, d, 1, panel.data(), d, one, kPanelRows);
                wrong += std::memcmp(one, full + i * kPanelRows, sizeof one) != 0;
            }
            REQUIRE(wrong == 0);
        }
    }
}

TEST_CASE("Hamming kernels agree with the scalar ones") {
    const BitKernels& reference = by_name("scalar").bits;
    Guarded memory;
    for (const KernelTable* table : available()) {
        CAPTURE(table->name);
        for (const std::size_t length : dims()) {
            CAPTURE(length);
            constexpr std::size_t kQueries = 5, kRows = 13, kBlocks = 3;
            const auto queries = bytes<std::uint8_t>(kQueries * length);
            const std::uint8_t* rows = memory.place(bytes<std::uint8_t>(kRows * length));
            std::vector<std::int32_t> wanted(kQueries * kRows), got(wanted);
            reference.hamming(queries.data(), kQueries, rows, kRows, length, wanted.data());
            table->bits.hamming(queries.data(), kQueries, rows, kRows, length, got.data());
            REQUIRE(got == wanted);

            const std::uint8_t* blocks = memory.place(bytes<std::uint8_t>(kBlocks * kBlockRows * length));
            auto tables = bytes<std::uint8_t>(kHammingTile * kBlockRows * length);
            for (std::uint8_t& entry : tables) entry %= 5;
            for (std::size_t nq = 1; nq <= kHammingTile; ++nq) {
                for (const double share : {0.35, 0.45, 1.0}) {
                    const auto limit = static_cast<std::int32_t>(share * 8 * static_cast<double>(length));
                    const std::vector<std::int32_t> limits(nq, limit);
                    std::uint32_t mask[2][kHammingTile] = {};
                    std::vector<std::int32_t> dist[2] = {std::vector<std::int32_t>(nq * kBlockRows),
                                                         std::vector<std::int32_t>(nq * kBlockRows)};
                    std::size_t at[2];
                    for (const int side : {0, 1}) {
                        const BitKernels& k = side == 0 ? reference : table->bits;
                        at[side] = k.hamming_scan(blocks, kBlocks, length, tables.data(), nq, limits.data(), mask[side],
                                                  dist[side].data());
                    }
                    REQUIRE(at[0] == at[1]);
                    if (at[0] == kBlocks) continue;
                    REQUIRE(std::memcmp(mask[0], mask[1], sizeof mask[0]) == 0);
                    REQUIRE(dist[0] == dist[1]);
                }
            }
        }
    }
}

TEST_CASE("plane kernels agree with the scalar ones") {
    const PlaneKernels& reference = by_name("scalar").planes;
    constexpr std::size_t kBlocks = 12;
    for (std::size_t groups = 1; groups <= 60; ++groups) {
        CAPTURE(groups);
        std::vector<std::uint8_t> bits(groups);
        for (std::size_t g = 0; g < groups; ++g) {
            bits[g] = static_cast<std::uint8_t>(1 + groups % 8 * (groups - g - 1) / groups);
        }
        const PlaneLayout layout = codec::plane_layout(bits);
        AlignedVector<std::uint8_t> blocks(kBlocks * layout.block_bytes());
        const auto codes = bytes<std::uint8_t>(kBlocks * kBlockRows * layout.code_bytes());
        for (std::size_t b = 0; b < kBlocks; ++b) {
            std::uint8_t* block = blocks.data() + b * layout.block_bytes();
            const std::uint8_t* rows = codes.data() + b * kBlockRows * layout.code_bytes();
            reference.pack(layout.code_bytes(), rows, layout.code_bytes(), kBlockRows, block);
            const auto add = normals(kBlockRows);
            auto scale = halves(kBlockRows, by_name("scalar").floats.f32_to_f16);
            for (std::uint16_t& s : scale) s &= 0x7FFFu;
            std::memcpy(block + layout.add_offset(), add.data(), kBlockRows * sizeof(float));
            std::memcpy(block + layout.scale_offset(), scale.data(), kBlockRows * sizeof(std::uint16_t));
        }
        std::vector<codec::PlaneQuery> queries;
        for (std::size_t i = 0; i < kPlaneTile; ++i) queries.emplace_back(layout, normals(groups * kGroupDims));
        std::int64_t sums[kBlockRows], sums_got[kBlockRows];
        float scores[kBlockRows], best = -std::numeric_limits<float>::infinity();
        for (std::size_t b = 0; b < kBlocks; ++b) {
            const std::uint8_t* block = blocks.data() + b * layout.block_bytes();
            reference.exact(layout, block, queries[0].exact_tables(), sums);
            codec::score_block(reference, layout, queries[0], block, scores);
            for (const float s : scores) best = std::max(best, s);
            for (const KernelTable* table : available()) {
                CAPTURE(table->name);
                table->planes.exact(layout, block, queries[0].exact_tables(), sums_got);
                REQUIRE(std::memcmp(sums, sums_got, sizeof sums) == 0);
                AlignedVector<std::uint8_t> cells[2];
                for (auto& c : cells) c.resize(groups * kGroupDims * kBlockRows);
                reference.expand(layout, block, cells[0].data());
                table->planes.expand(layout, block, cells[1].data());
                REQUIRE(cells[0] == cells[1]);
                AlignedVector<std::uint8_t> packed(layout.strip_bytes());
                const std::uint8_t* rows = codes.data() + b * kBlockRows * layout.code_bytes();
                table->planes.pack(layout.code_bytes(), rows, layout.code_bytes(), kBlockRows, packed.data());
                REQUIRE(std::memcmp(packed.data(), block, packed.size()) == 0);
                std::vector<std::uint8_t> code(layout.code_bytes());
                table->planes.unpack(layout.code_bytes(), block, 17, code.data());
                REQUIRE(std::memcmp(code.data(), rows + 17 * code.size(), code.size()) == 0);
            }
        }
        for (const float threshold : {best, 0.7f * best, 0.3f * best, -1e30f}) {
            for (std::size_t nq = 1; nq <= kPlaneTile; ++nq) {
                for (const std::uint32_t checks : {1u, ~0u}) {
                    PlaneScan scans[kPlaneTile];
                    for (std::size_t i = 0; i < nq; ++i) {
                        scans[i] = queries[i].with_threshold(threshold);
                        scans[i].check_planes = checks;
                    }
                    std::uint32_t mask[kPlaneTile] = {};
                    const std::size_t at = reference.scan(layout, blocks.data(), kBlocks, scans, nq, mask);
                    for (const KernelTable* table : available()) {
                        CAPTURE(table->name);
                        std::uint32_t got[kPlaneTile] = {};
                        REQUIRE(table->planes.scan(layout, blocks.data(), kBlocks, scans, nq, got) == at);
                        if (at < kBlocks) REQUIRE(std::memcmp(mask, got, sizeof mask) == 0);
                    }
                }
            }
        }
    }
}

TEST_CASE("edge kernels agree with the scalar ones, and with exact scores of planes") {
    const KernelTable& reference = by_name("scalar");
    for (std::size_t groups = 1; groups <= 60; ++groups) {
        CAPTURE(groups);
        std::vector<std::uint8_t> bits(groups);
        for (std::size_t g = 0; g < groups; ++g) {
            bits[g] = static_cast<std::uint8_t>(1 + groups % 8 * (groups - g - 1) / groups);
        }
        const PlaneLayout layout = codec::plane_layout(bits);
        const std::size_t length = layout.code_bytes(), strips = layout.total_groups() * kEdgeGroupBytes;
        const auto codes = bytes<std::uint8_t>(kEdgeRows * length);
        const auto add = normals(kEdgeRows);
        const auto scale = halves(kEdgeRows, reference.floats.f32_to_f16);
        const auto weights = normals(groups * kGroupDims);
        const codec::EdgeQuery query(layout, weights, 0.5f);
        AlignedVector<std::uint8_t> block(layout.block_bytes());
        reference.planes.pack(length, codes.data(), length, kEdgeRows, block.data());
        std::memcpy(block.data() + layout.add_offset(), add.data(), sizeof(float) * kEdgeRows);
        std::memcpy(block.data() + layout.scale_offset(), scale.data(), sizeof(std::uint16_t) * kEdgeRows);
        float exact[kBlockRows], want[kEdgeRows], got[kEdgeRows];
        codec::score_block(reference.planes, layout, codec::PlaneQuery(layout, weights, 0.5f), block.data(), exact);
        Guarded memory;
        for (const KernelTable* table : available()) {
            CAPTURE(table->name);
            std::vector<std::uint8_t> unit(edge_unit_bytes(layout));
            table->edges.pack(length, codes.data(), length, kEdgeRows, unit.data());
            for (std::size_t r = 0; r < kEdgeRows; ++r) {
                std::vector<std::uint8_t> code(length);
                table->edges.unpack(length, unit.data(), r, code.data());
                REQUIRE(std::memcmp(code.data(), codes.data() + r * length, length) == 0);
            }
            std::memcpy(unit.data() + strips, add.data(), sizeof(float) * kEdgeRows);
            std::memcpy(unit.data() + strips + sizeof(float) * kEdgeRows, scale.data(), 2 * kEdgeRows);
            reference.edges.scores(layout, unit.data(), query.scan(), 0.0f, want);
            for (const float threshold : {-1e30f, exact[0], want[3]}) {
                const std::uint32_t above = table->edges.scores(layout, memory.place(unit), query.scan(), threshold, got);
                REQUIRE(std::memcmp(want, got, sizeof want) == 0);
                for (std::size_t r = 0; r < kEdgeRows; ++r) REQUIRE((above >> r & 1) == (want[r] > threshold ? 1u : 0u));
            }
        }
        // A strip's entry misses its sum by half a step, and so does every plane of it.
        float range = 0;
        for (std::size_t s = 0; s < groups * kGroupDims; s += 4) {
            float sum = 0;
            for (std::size_t i = s; i < s + 4; ++i) sum += std::fabs(weights[i]);
            range = std::max(range, sum);
        }
        double halves_missed = 0.0;
        for (std::uint32_t t = 0; t < layout.planes; ++t) halves_missed += std::ldexp(layout.groups[t] * kGroupStrips, static_cast<int>(t));
        const double step = range / static_cast<double>(edge_entry_max(layout));
        for (std::size_t r = 0; r < kEdgeRows; ++r) {
            const double slack = std::fabs(static_cast<double>(float_from_half(scale[r]))) * (0.5 * step * halves_missed + 1e-3 * range * halves_missed);
            REQUIRE(std::fabs(static_cast<double>(want[r]) - exact[r]) <= slack + 1e-3);
        }
    }
}

TEST_CASE("byte kernels agree with the scalar ones") {
    const ByteKernels& reference = by_name("scalar").bytes;
    constexpr std::size_t kBlocks = 6;
    for (const int bits : {8, 4}) {
        CAPTURE(bits);
        for (std::size_t cells = 1; cells <= 200; cells += 1 + cells / 20) {
            CAPTURE(cells);
            const ByteLayout layout{cells, bits};
            const auto random = bytes<std::uint8_t>(kBlocks * layout.block_bytes());
            AlignedVector<std::uint8_t> blocks(random.begin(), random.end());
            for (std::size_t b = 0; b < kBlocks; ++b) {
                auto factors = normals(2 * kByteRows);
                for (std::size_t r = 0; r < kByteRows; ++r) factors[kByteRows + r] = std::fabs(factors[kByteRows + r]);
                std::memcpy(blocks.data() + b * layout.block_bytes() + layout.add_offset(), factors.data(),
                            factors.size() * sizeof(float));
            }
            auto coarse = bytes<std::int8_t>(kByteTile * layout.dims());
            for (std::int8_t& w : coarse) w = static_cast<std::int8_t>(w % (byte_coarse_max(bits) + 1));
            coarse[0] = static_cast<std::int8_t>(byte_coarse_max(bits));
            std::vector<std::int16_t> fine(layout.dims());
            for (std::int16_t& w : fine) w = static_cast<std::int16_t>(static_cast<int>(rng()() % 65535) - kFineMax);
            const auto step = normals(layout.dims()), center = normals(layout.dims());
            for (const KernelTable* table : available()) {
                CAPTURE(table->name);
                for (std::size_t nq = 1; nq <= table->bytes.tile; ++nq) {
                    for (const float threshold : {-1e30f, 1.0f, 3.0f, 1e30f}) {
                        ByteScan scans[kByteTile];
                        for (std::size_t i = 0; i < nq; ++i) {
                            scans[i] = {coarse.data() + i * layout.dims(), 1e-3f, 0.1f, threshold};
                        }
                        std::uint32_t mask[2][kByteTile] = {};
                        const std::size_t at = reference.scan(layout, blocks.data(), kBlocks, scans, nq, mask[0]);
                        REQUIRE(table->bytes.scan(layout, blocks.data(), kBlocks, scans, nq, mask[1]) == at);
                        if (at < kBlocks) REQUIRE(std::memcmp(mask[0], mask[1], sizeof mask[0]) == 0);
                    }
                }
                std::int64_t sums[2][kByteRows];
                reference.exact(layout, blocks.data(), fine.data(), ~0u, sums[0]);
                table->bytes.exact(layout, blocks.data(), fine.data(), ~0u, sums[1]);
                REQUIRE(std::memcmp(sums[0], sums[1], sizeof sums[0]) == 0);
                std::vector<float> out[2] = {std::vector<float>(layout.dims()), std::vector<float>(layout.dims())};
                const std::size_t dim = layout.dims() - cells % 4;
                reference.decode(layout, blocks.data(), step.data(), center.data(), 0.7f, dim, out[0].data());
                table->bytes.decode(layout, blocks.data(), step.data(), center.data(), 0.7f, dim, out[1].data());
                REQUIRE(std::memcmp(out[0].data(), out[1].data(), dim * sizeof(float)) == 0);
            }
        }
    }
}
