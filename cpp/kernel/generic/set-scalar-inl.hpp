// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernel/set_kernels.hpp"

namespace residua::kernel {
namespace {

inline void members_scalar(const std::uint8_t* values, std::size_t n, const std::uint8_t* set, std::uint64_t* out) {
    std::uint8_t is_in[256];
    for (std::size_t x = 0; x < 256; ++x) is_in[x] = set[x / 128 * 16 + x % 16] >> (x / 16 % 8) & 1;
    for (std::size_t begin = 0; begin < n; begin += 64) {
        const std::size_t end = n - begin < 64 ? n : begin + 64;
        std::uint64_t word = 0;
        for (std::size_t i = begin; i < end; ++i) word |= std::uint64_t{is_in[values[i]]} << (i - begin);
        out[begin / 64] = word;
    }
}

constexpr SetKernels scalar_set_kernels() { return {members_scalar}; }

}  // namespace
}  // namespace residua::kernel
