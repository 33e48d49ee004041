// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernel/generic/bit-count-inl.hpp"

namespace residua::kernel {
namespace {

inline std::size_t hamming_scan_scalar(const std::uint8_t* queries, std::size_t nq, const std::uint8_t* rows,
                                       std::size_t n, std::size_t bytes, const std::int32_t* limits,
                                       std::uint32_t* mask, std::int32_t* dist) {
    return hamming_scan_words(queries, nq, rows, n, bytes, limits, mask, dist,
                              [](const std::int32_t* values, std::int32_t limit) {
                                  std::uint32_t m = 0;
                                  for (int j = 0; j < 32; ++j) m |= static_cast<std::uint32_t>(values[j] <= limit) << j;
                                  return m;
                              });
}

constexpr BitKernels scalar_bit_kernels() { return {hamming_words, hamming_scan_scalar}; }

}  // namespace
}  // namespace residua::kernel
