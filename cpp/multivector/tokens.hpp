// SPDX-License-Identifier: Apache-2.0
// Sets of token vectors, one after the other: set i owns tokens offsets[i] … offsets[i + 1] - 1.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/aligned.hpp"

namespace residua::multivector {

enum class TokenType : std::uint8_t { f32, f16, i8 };

constexpr std::size_t type_bytes(TokenType type) {
    return type == TokenType::f32 ? 4 : type == TokenType::f16 ? 2 : 1;
}

struct TokenSets {
    const void* data = nullptr;  // row-major, `dim` elements per token
    TokenType type = TokenType::f32;
    std::size_t dim = 0;
    const std::int64_t* offsets = nullptr;  // n + 1, ascending from 0
    std::size_t n = 0;
    const float* scale = nullptr;  // per token what its elements are multiplied by; null: 1

    std::size_t begin(std::size_t i) const { return static_cast<std::size_t>(offsets[i]); }
    std::size_t count(std::size_t i) const { return static_cast<std::size_t>(offsets[i + 1] - offsets[i]); }
    std::size_t total() const { return begin(n); }
};

// Room for n more elements; many small calls copy the vector rarely.
template <class T>
void make_room(std::vector<T>& v, std::size_t n) {
    if (v.capacity() - v.size() < n) v.reserve(std::max(v.size() + n, v.capacity() + v.capacity() / 2));
}

// n tokens from `first` on as float32 rows, where they lie if they are that already, otherwise in `buffer`.
const float* as_floats(const TokenSets& sets, std::size_t first, std::size_t n, AlignedVector<float>& buffer);

}  // namespace residua::multivector
