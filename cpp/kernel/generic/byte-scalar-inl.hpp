// SPDX-License-Identifier: Apache-2.0
// The byte kernels in plain C++. Include from an ISA translation unit only.
#pragma once

#include <cstring>

#include "kernel/byte_kernels.hpp"

namespace residua::kernel {
namespace {

// Sum of a cell's codes times its weights.
template <int kBits, class Sum, class Weight>
inline Sum cell_sum(const std::uint8_t* cell, const Weight* w) {
    Sum s = 0;
    for (std::size_t j = 0; j < kCellBytes; ++j) {
        if constexpr (kBits == 8) {
            s += static_cast<Sum>(cell[j]) * w[j];
        } else {
            s += static_cast<Sum>(cell[j] & 15) * w[j] + static_cast<Sum>(cell[j] >> 4) * w[j + kCellBytes];
        }
    }
    return s;
}

template <int kBits, class Sum, class Weight>
inline void block_sums(const ByteLayout& layout, const std::uint8_t* block, const Weight* weights, Sum* out) {
    for (std::size_t r = 0; r < kByteRows; ++r) out[r] = 0;
    for (std::size_t c = 0; c < layout.cells; ++c) {
        const std::uint8_t* cells = block + c * kByteRows * kCellBytes;
        const Weight* w = weights + c * layout.cell_dims();
        for (std::size_t r = 0; r < kByteRows; ++r) out[r] += cell_sum<kBits, Sum>(cells + r * kCellBytes, w);
    }
}

inline float float_at(const std::uint8_t* p, std::size_t i) {
    float f;
    std::memcpy(&f, p + i * sizeof f, sizeof f);
    return f;
}

template <int kBits>
std::size_t byte_scan_plain(const ByteLayout& layout, const std::uint8_t* blocks, std::size_t n_blocks,
                            const ByteScan* queries, std::size_t nq, std::uint32_t* mask) {
    for (std::size_t b = 0; b < n_blocks; ++b) {
        const std::uint8_t* block = blocks + b * layout.block_bytes();
        std::uint32_t any = 0;
        for (std::size_t i = 0; i < nq; ++i) {
            std::int32_t sums[kByteRows];
            block_sums<kBits>(layout, block, queries[i].coarse, sums);
            mask[i] = 0;
            for (std::size_t r = 0; r < kByteRows; ++r) {
                const float inner = queries[i].unit * static_cast<float>(sums[r]) + queries[i].upper;
                const float bound = float_at(block + layout.scale_offset(), r) * inner +
                                    float_at(block + layout.add_offset(), r);
                mask[i] |= static_cast<std::uint32_t>(bound >= queries[i].threshold) << r;
            }
            any |= mask[i];
        }
        if (any != 0) return b;
    }
    return n_blocks;
}

inline std::size_t byte_scan_scalar(const ByteLayout& layout, const std::uint8_t* blocks, std::size_t n_blocks,
                                    const ByteScan* queries, std::size_t nq, std::uint32_t* mask) {
    return layout.bits == 8 ? byte_scan_plain<8>(layout, blocks, n_blocks, queries, nq, mask)
                            : byte_scan_plain<4>(layout, blocks, n_blocks, queries, nq, mask);
}

inline void byte_exact_scalar(const ByteLayout& layout, const std::uint8_t* block, const std::int16_t* fine,
                              std::uint32_t, std::int64_t* out) {
    layout.bits == 8 ? block_sums<8>(layout, block, fine, out) : block_sums<4>(layout, block, fine, out);
}

// Dims [begin, dim); the tail of the vector kernels too.
inline void byte_decode_from(const ByteLayout& layout, const std::uint8_t* code, const float* step,
                             const float* center, float scale, std::size_t begin, std::size_t dim, float* out) {
    const float half = 0.5f * static_cast<float>(layout.top());
    for (std::size_t i = begin; i < dim; ++i) {
        const unsigned u = layout.bits == 8 ? code[i] : (code[i / 2] >> (i % 2 * 4)) & 15u;
        out[i] = (scale * step[i]) * (static_cast<float>(u) - half) + center[i];
    }
}

inline void byte_decode_scalar(const ByteLayout& layout, const std::uint8_t* code, const float* step,
                               const float* center, float scale, std::size_t dim, float* out) {
    byte_decode_from(layout, code, step, center, scale, 0, dim, out);
}

constexpr ByteKernels scalar_byte_kernels() { return {4, byte_scan_scalar, byte_exact_scalar, byte_decode_scalar}; }

}  // namespace
}  // namespace residua::kernel
