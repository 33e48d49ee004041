// SPDX-License-Identifier: Apache-2.0
// Byte sets on the vector vocabulary (kernel/simd). Include from an ISA translation unit only.
#pragma once

#include "kernel/set_kernels.hpp"

namespace residua::kernel {
namespace {

inline void members_simd(const std::uint8_t* values, std::size_t n, const std::uint8_t* set, std::uint64_t* out) {
    constexpr std::size_t kWidth = sizeof(Bytes);
    const ByteSet s = load_set(set);
    const auto word_of = [&](const std::uint8_t* p) {
        std::uint64_t word = 0;
        for (std::size_t at = 0; at < 64; at += kWidth) word |= bytes_in(load_bytes(p + at), s) << at;
        return word;
    };
    const std::size_t whole = n / 64;
    for (std::size_t w = 0; w < whole; ++w) out[w] = word_of(values + 64 * w);
    if (n % 64 == 0) return;
    std::uint8_t tail[64] = {};
    for (std::size_t i = 0; i < n % 64; ++i) tail[i] = values[64 * whole + i];
    out[whole] = word_of(tail) & ((std::uint64_t{1} << n % 64) - 1);
}

constexpr SetKernels simd_set_kernels() { return {members_simd}; }

}  // namespace
}  // namespace residua::kernel
