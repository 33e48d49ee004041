// SPDX-License-Identifier: Apache-2.0
// The edge kernels in plain C++. Include from an ISA translation unit only.
#pragma once

#include <cstring>

#include "kernel/edge_kernels.hpp"
#include "kernel/generic/float-scalar-inl.hpp"

namespace residua::kernel {
namespace {

// A code byte is 8 dims: its high nibble belongs to the first of two strips, so that bytes 0 and 1 of a
// group are strips 0 … 3 and bytes 2 and 3 the ones that share their places.
inline void pack_edges(std::size_t bytes, const std::uint8_t* rows, std::size_t stride, std::size_t n,
                       std::uint8_t* strips) {
    constexpr std::size_t kCodeBytes = kGroupDims / 8;
    for (std::size_t b = 0; b < bytes; b += kCodeBytes, strips += kEdgeGroupBytes) {
        std::memset(strips, 0, kEdgeGroupBytes);
        for (std::size_t j = 0; j < n; ++j) {
            const std::uint8_t* code = rows + j * stride + b;
            for (std::size_t i = 0; i < kCodeBytes / 2; ++i) {
                const unsigned x = code[i], y = code[i + kCodeBytes / 2];
                strips[2 * i * kEdgeRows + j] = static_cast<std::uint8_t>((x >> 4) | (y & 0xF0u));
                strips[(2 * i + 1) * kEdgeRows + j] = static_cast<std::uint8_t>((x & 15u) | ((y << 4) & 0xF0u));
            }
        }
    }
}

inline void unpack_edge(std::size_t bytes, const std::uint8_t* strips, std::size_t row, std::uint8_t* code) {
    constexpr std::size_t kCodeBytes = kGroupDims / 8;
    for (std::size_t b = 0; b < bytes; b += kCodeBytes, strips += kEdgeGroupBytes) {
        for (std::size_t i = 0; i < kCodeBytes / 2; ++i) {
            const unsigned x = strips[2 * i * kEdgeRows + row], y = strips[(2 * i + 1) * kEdgeRows + row];
            code[b + i] = static_cast<std::uint8_t>((x << 4) | (y & 15u));
            code[b + i + kCodeBytes / 2] = static_cast<std::uint8_t>((x & 0xF0u) | (y >> 4));
        }
    }
}

// sums: of 16 rows, at `scalars` their add and scale.
inline std::uint32_t finish_edges(const std::int32_t* sums, const std::uint8_t* scalars, const EdgeScan& query,
                                  float threshold, float* out) {
    std::uint32_t above = 0;
    for (std::size_t r = 0; r < kEdgeRows; ++r) {
        float add;
        std::uint16_t scale;
        std::memcpy(&add, scalars + r * sizeof add, sizeof add);
        std::memcpy(&scale, scalars + kEdgeRows * sizeof add + r * sizeof scale, sizeof scale);
        const float inner = query.unit * static_cast<float>(sums[r]) + query.offset;
        out[r] = half_to_float(scale) * inner + add + query.constant;
        above |= static_cast<std::uint32_t>(out[r] > threshold) << r;
    }
    return above;
}

inline std::uint32_t edge_scores_scalar(const PlaneLayout& layout, const std::uint8_t* unit, const EdgeScan& query,
                                        float threshold, float* out) {
    std::int32_t sums[kEdgeRows] = {};
    for (std::uint32_t t = layout.planes; t-- > 0;) {
        for (std::int32_t& s : sums) s *= 2;
        const std::uint8_t* tables = query.tables;
        for (std::uint32_t g = 0; g < layout.groups[t]; ++g) {
            for (std::size_t l = 0; l < kGroupStrips / 2; ++l, tables += kStripBytes) {
                const std::uint8_t* other = tables + kGroupStrips / 2 * kStripBytes;
                for (std::size_t j = 0; j < kEdgeRows; ++j) {
                    const unsigned x = unit[l * kEdgeRows + j];
                    sums[j] += tables[x & 15u] + other[x >> 4];
                }
            }
            tables += kGroupStrips / 2 * kStripBytes;
            unit += kEdgeGroupBytes;
        }
    }
    return finish_edges(sums, unit, query, threshold, out);
}

constexpr EdgeKernels scalar_edge_kernels() { return {pack_edges, unpack_edge, edge_scores_scalar}; }

}  // namespace
}  // namespace residua::kernel
