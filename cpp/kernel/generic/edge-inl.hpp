// SPDX-License-Identifier: Apache-2.0
// The edge kernels on the vector vocabulary (kernel/simd). Include from an ISA translation unit only.
#pragma once

#include "kernel/generic/edge-scalar-inl.hpp"

namespace residua::kernel {
namespace {

constexpr std::size_t kEdgeVecBytes = kVecStrips * kStripBytes;
constexpr std::size_t kEdgeRunBytes = 255 / kCoarseMax * kEdgeVecBytes;  // codes whose entries fit a byte's sum
static_assert(kEdgeRunBytes % kEdgeGroupBytes == 0);

// Adds the entries of kBytes of codes, whole groups; `low` and `high` halves of the sums are of the same rows.
template <std::size_t kBytes>
inline void add_edge_run(const std::uint8_t* codes, const std::uint8_t* tables, RowsU16& sums) {
    constexpr std::size_t kHalf = kGroupStrips / 2 * kStripBytes;
    Bytes low, high;
    for (std::size_t v = 0; v < kBytes; v += kEdgeVecBytes) {
        const Bytes x = load_bytes(codes + v);
        const std::uint8_t* table = tables + v / kEdgeGroupBytes * (2 * kHalf) + v % kEdgeGroupBytes;
        const Bytes a = look_up(load_bytes(table), low_nibbles(x));
        const Bytes b = look_up(load_bytes(table + kHalf), high_nibbles(x));
        low = v == 0 ? a : add_bytes(low, a);
        high = v == 0 ? b : add_bytes(high, b);
    }
    sums.add(low, high);
}

inline std::uint32_t edge_scores_simd(const PlaneLayout& layout, const std::uint8_t* unit, const EdgeScan& query,
                                      float threshold, float* out) {
    constexpr std::size_t kRunGroups = kEdgeRunBytes / kEdgeGroupBytes;
    constexpr std::size_t kTableBytes = kGroupStrips * kStripBytes;
    RowsU16 sums;
    sums.clear();
    for (std::uint32_t t = layout.planes; t-- > 0;) {
        sums.twice();
        const std::size_t groups = layout.groups[t];
        std::size_t g = 0;
        for (; g + kRunGroups <= groups; g += kRunGroups) {
            add_edge_run<kEdgeRunBytes>(unit + g * kEdgeGroupBytes, query.tables + g * kTableBytes, sums);
        }
        for (; g < groups; ++g) {
            add_edge_run<kEdgeGroupBytes>(unit + g * kEdgeGroupBytes, query.tables + g * kTableBytes, sums);
        }
        unit += groups * kEdgeGroupBytes;
    }
    std::int32_t halves[2 * kEdgeRows];
    store_rows(widen(sums), halves);
    float total[kEdgeRows];
    for (std::size_t r = 0; r < kEdgeRows; ++r) total[r] = static_cast<float>(halves[r] + halves[r + kEdgeRows]);
    const auto* add = reinterpret_cast<const float*>(unit);
    const auto* scale = reinterpret_cast<const std::uint16_t*>(unit + kEdgeRows * sizeof(float));
    const F32 u = f32_set(query.unit), offset = f32_set(query.offset), constant = f32_set(query.constant);
    const F32 limit = f32_set(threshold);
    std::uint32_t above = 0;
    for (std::size_t r = 0; r < kEdgeRows; r += F32::kLanes) {
        const F32 inner = f32_add(f32_mul(u, f32_load(total + r)), offset);
        const F32 score = f32_add(f32_add(f32_mul(f32_load_f16(scale + r), inner), f32_load(add + r)), constant);
        f32_store(out + r, score);
        above |= f32_above(score, limit) << r;
    }
    return above;
}

constexpr EdgeKernels simd_edge_kernels() { return {pack_edges, unpack_edge, edge_scores_simd}; }

}  // namespace
}  // namespace residua::kernel
