// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernel/generic/bit-count-inl.hpp"
#include "kernel/plane_kernels.hpp"

namespace residua::kernel {
namespace {

inline std::size_t hamming_scan_scalar(const std::uint8_t* blocks, std::size_t n_blocks, std::size_t bytes,
                                       const std::uint8_t* tables, std::size_t nq, const std::int32_t* limits,
                                       std::uint32_t* mask, std::int32_t* dist) {
    const std::size_t block_bytes = kBlockRows * bytes;
    for (std::size_t b = 0; b < n_blocks; ++b) {
        std::uint32_t any = 0;
        for (std::size_t i = 0; i < nq; ++i) {
            std::int32_t* sums = dist + i * kBlockRows;
            for (std::size_t r = 0; r < kBlockRows; ++r) sums[r] = 0;
            for (std::size_t at = 0; at < block_bytes; at += kStripBytes) {
                const std::uint8_t* strip = blocks + b * block_bytes + at;
                const std::uint8_t* table = tables + i * block_bytes + at;
                for (std::size_t j = 0; j < kStripBytes; ++j) {
                    sums[j] += table[strip[j] & 15u];
                    sums[j + kStripBytes] += table[strip[j] >> 4];
                }
            }
            mask[i] = 0;
            for (std::size_t r = 0; r < kBlockRows; ++r) {
                mask[i] |= static_cast<std::uint32_t>(sums[r] <= limits[i]) << r;
            }
            any |= mask[i];
        }
        if (any != 0) return b;
    }
    return n_blocks;
}

constexpr BitKernels scalar_bit_kernels() { return {hamming_words, hamming_scan_scalar}; }

}  // namespace
}  // namespace residua::kernel
