// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernel/generic/bit-count-inl.hpp"

namespace residua::kernel {
namespace {

inline std::size_t hamming_scan_simd(const std::uint8_t* queries, std::size_t nq, const std::uint8_t* rows,
                                     std::size_t n, std::size_t bytes, const std::int32_t* limits,
                                     std::uint32_t* mask, std::int32_t* dist) {
    return hamming_scan_words(queries, nq, rows, n, bytes, limits, mask, dist, rows_at_most);
}

constexpr BitKernels simd_bit_kernels() { return {hamming_words, hamming_scan_simd}; }

}  // namespace
}  // namespace residua::kernel
