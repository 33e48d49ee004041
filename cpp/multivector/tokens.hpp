// SPDX-License-Identifier: Apache-2.0
// Sets of token vectors, one after the other: set i owns tokens offsets[i] … offsets[i + 1] - 1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace residua::multivector {

enum class TokenType : std::uint8_t { f32, f16, i8 };

struct TokenSets {
    const void* data = nullptr;  // row-major, `dim` elements per token
    TokenType type = TokenType::f32;
    std::size_t dim = 0;
    const std::int64_t* offsets = nullptr;  // n + 1, ascending from 0
    std::size_t n = 0;

    std::size_t begin(std::size_t i) const { return static_cast<std::size_t>(offsets[i]); }
    std::size_t count(std::size_t i) const { return static_cast<std::size_t>(offsets[i + 1] - offsets[i]); }
    std::size_t total() const { return begin(n); }
};

}  // namespace residua::multivector
