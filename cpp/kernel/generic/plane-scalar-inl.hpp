// SPDX-License-Identifier: Apache-2.0
// The plane kernels in plain C++. Include from an ISA translation unit only.
#pragma once

#include <cstring>

#include "kernel/generic/float-scalar-inl.hpp"
#include "kernel/generic/plane-pack-inl.hpp"

namespace residua::kernel {
namespace {

// The sums of one plane, added to sums[r]; `entry(strip, nibble)` is a table.
template <class Int, class Entry>
void add_plane(const std::uint8_t* strips, std::size_t n_strips, Entry entry, Int* sums) {
    for (std::size_t s = 0; s < n_strips; ++s) {
        const std::uint8_t* strip = strips + s * kStripBytes;
        for (std::size_t j = 0; j < kStripBytes; ++j) {
            sums[j] += entry(s, strip[j] & 15u);
            sums[j + kStripBytes] += entry(s, strip[j] >> 4);
        }
    }
}

inline std::uint32_t surviving_rows(const PlaneScan& q, std::uint32_t t, const std::int32_t* sums,
                                    const std::uint8_t* add, const std::uint8_t* scale) {
    std::uint32_t mask = 0;
    for (std::size_t r = 0; r < kBlockRows; ++r) {
        float a;
        std::uint16_t f;
        std::memcpy(&a, add + r * sizeof a, sizeof a);
        std::memcpy(&f, scale + r * sizeof f, sizeof f);
        const float inner = q.unit[t] * static_cast<float>(sums[r]) + q.upper[t];
        const float bound = half_to_float(f) * inner + a;
        mask |= static_cast<std::uint32_t>(bound >= q.threshold) << r;
    }
    return mask;
}

inline std::size_t scan_scalar(const PlaneLayout& layout, const std::uint8_t* blocks, std::size_t n_blocks,
                               const PlaneScan* queries, std::size_t nq, std::uint32_t* mask) {
    const std::uint32_t checks = common_checks(queries, nq);
    for (std::size_t b = 0; b < n_blocks; ++b) {
        const std::uint8_t* block = blocks + b * layout.block_bytes();
        const std::uint8_t* strips = block;
        std::int32_t sums[kPlaneTile][kBlockRows] = {};
        std::uint32_t any = 0;
        for (std::uint32_t t = layout.planes; t-- > 0;) {
            const std::size_t n_strips = layout.groups[t] * kGroupStrips;
            for (std::size_t i = 0; i < nq; ++i) {
                const std::uint8_t* coarse = queries[i].coarse;
                for (std::int32_t& sum : sums[i]) sum *= 2;
                add_plane(strips, n_strips,
                          [coarse](std::size_t s, unsigned x) { return std::int32_t{coarse[s * kStripBytes + x]}; },
                          sums[i]);
            }
            strips += n_strips * kStripBytes;
            if (((checks >> t) & 1u) == 0) continue;
            any = 0;
            for (std::size_t i = 0; i < nq; ++i) {
                mask[i] = surviving_rows(queries[i], t, sums[i], block + layout.add_offset(),
                                         block + layout.scale_offset());
                any |= mask[i];
            }
            if (any == 0) break;
        }
        if (any != 0) return b;
    }
    return n_blocks;
}

inline void exact_scalar(const PlaneLayout& layout, const std::uint8_t* block, const std::uint8_t* tables,
                         std::int64_t* out) {
    const std::uint8_t* high_tables = tables + layout.groups[0] * kGroupStrips * kStripBytes;
    for (std::size_t r = 0; r < kBlockRows; ++r) out[r] = 0;
    for (std::uint32_t t = layout.planes; t-- > 0;) {
        const std::size_t n_strips = layout.groups[t] * kGroupStrips;
        for (std::size_t r = 0; r < kBlockRows; ++r) out[r] *= 2;
        add_plane(block, n_strips,
                  [tables, high_tables](std::size_t s, unsigned x) {
                      const std::size_t at = s * kStripBytes + x;
                      return std::int64_t{tables[at]} + (std::int64_t{high_tables[at]} << kExactLowBits);
                  },
                  out);
        block += n_strips * kStripBytes;
    }
}

constexpr PlaneKernels scalar_plane_kernels() { return {2.0f, pack_planes, unpack_planes, expand_planes, scan_scalar, exact_scalar, fill_tables}; }

}  // namespace
}  // namespace residua::kernel
