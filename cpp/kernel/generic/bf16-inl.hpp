// SPDX-License-Identifier: Apache-2.0
// bfloat16 is the upper half of a float32. Shared by all instruction sets: compilers make vector code
// of these loops. Include from an ISA translation unit only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace residua::kernel {
namespace {

inline float bf16_to_float(std::uint16_t b) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(b) << 16); }

inline std::uint16_t float_to_bf16(float f) {
    const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, f);
    // A carry out of the mantissa steps into the exponent, up to infinity; NaN must not get there.
    const std::uint32_t rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
    return static_cast<std::uint16_t>(((bits & 0x7FFFFFFFu) > 0x7F800000u ? bits | 0x00400000u : rounded) >> 16);
}

inline void convert_bf16_to_f32(const std::uint16_t* in, float* out, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) out[i] = bf16_to_float(in[i]);
}

inline void convert_f32_to_bf16(const float* in, std::uint16_t* out, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) out[i] = float_to_bf16(in[i]);
}

}  // namespace
}  // namespace residua::kernel
