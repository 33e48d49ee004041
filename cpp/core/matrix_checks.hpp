// SPDX-License-Identifier: Apache-2.0
// What every edge of the library checks of vectors before they go in.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "core/matrix.hpp"

namespace residua {

// The first row with NaN or infinity.
inline std::optional<std::size_t> first_non_finite_row(ConstMatrix x) {
    for (std::size_t r = 0; r < x.rows; ++r) {
        const float* v = x.row(r);
        // Integers, because compilers may not reorder a sum of floats into vectors.
        std::uint32_t largest = 0;
        for (std::size_t i = 0; i < x.cols; ++i) {
            largest = std::max(largest, std::bit_cast<std::uint32_t>(v[i]) & 0x7fff'ffffu);
        }
        if (largest >= 0x7f80'0000u) return r;
    }
    return std::nullopt;
}

// The first row without a direction.
inline std::optional<std::size_t> first_zero_row(ConstMatrix x) {
    for (std::size_t r = 0; r < x.rows; ++r) {
        if (std::all_of(x.row(r), x.row(r) + x.cols, [](float v) { return v == 0.0f; })) return r;
    }
    return std::nullopt;
}

}  // namespace residua
