// SPDX-License-Identifier: Apache-2.0
// IEEE 754 binary16 and bfloat16 <-> binary32 in integer arithmetic, the same on every machine.
#pragma once

#include <bit>
#include <cstdint>

namespace residua {

inline constexpr float kHalfMax = 65504.0f;

// Rounds to nearest, ties to even. From 65520 on the result is infinity; NaN stays a quiet NaN and
// keeps the upper bits of its payload.
constexpr std::uint16_t half_from_float(float value) noexcept {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (bits >> 16) & 0x8000u;
    const std::uint32_t abs = bits & 0x7fffffffu;
    if (abs >= 0x47800000u) {  // 65536 and above, infinity, NaN
        const std::uint32_t nan = abs > 0x7f800000u ? 0x0200u | ((abs >> 13) & 0x03ffu) : 0u;
        return static_cast<std::uint16_t>(sign | 0x7c00u | nan);
    }
    if (abs < 0x38800000u) {  // below 2^-14: subnormal, in units of 2^-24
        // Adding 0.5 puts the unit 2^-24 at the last place of the float, whose own rounding is ours.
        const float shifted = std::bit_cast<float>(abs) + 0.5f;
        return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
    }
    // Move the exponent bias from 127 to 15 and round the 13 dropped bits; a carry out of the
    // mantissa steps into the exponent, up to infinity.
    const std::uint32_t rounded = abs - (112u << 23) + 0x0fffu + ((abs >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | (rounded >> 13));
}

constexpr float float_from_half(std::uint16_t half) noexcept {
    const std::uint32_t sign = (half & 0x8000u) << 16;
    const std::uint32_t exponent = (half >> 10) & 0x1fu;
    const std::uint32_t mantissa = half & 0x03ffu;
    if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in binary32
        const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
    }
    const std::uint32_t wide = exponent == 0x1fu ? 0xffu : exponent + 112u;
    return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

// Rounds to nearest, ties to even; NaN stays a quiet NaN.
constexpr std::uint16_t bf16_from_float(float value) noexcept {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits | 0x00400000u) >> 16);
    return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

constexpr float float_from_bf16(std::uint16_t bits) noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace residua
