// SPDX-License-Identifier: Apache-2.0
// One vector as float32, float16, bfloat16 or int8 with a scale, and back.
#pragma once

#include <cstddef>
#include <cstdint>

#include "store/row_source.hpp"

namespace residua::store {

// How far from the vector, relative to its norm, an automatic store lets float16 round.
inline constexpr double kHalfTolerance = 1e-3;

enum class HalfFit : std::uint8_t {
    good,
    coarse,     // rounding error above kHalfTolerance of the norm
    vanishes,   // a vector that is not zero rounds to zero
    overflows,
};

HalfFit half_fit(const float* x, std::size_t dim) noexcept;

// `out` has room for dim elements of `type`; `scale` is written for i8 and is 1 otherwise.
void encode_row(RowType type, const float* x, std::size_t dim, void* out, float& scale) noexcept;
void decode_row(RowType type, const void* in, float scale, std::size_t dim, float* out) noexcept;

// 1 / norm of a kept row; 0 for a row of zeros, never infinite.
float inverse_norm(RowType type, const void* in, float scale, std::size_t dim) noexcept;

}  // namespace residua::store
