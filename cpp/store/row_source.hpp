// SPDX-License-Identifier: Apache-2.0
// Rows of numbers as a scan reads them: where they lie, their type, and what turns a raw sum into a
// score. Owns nothing; valid until the store behind it changes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/bitset.hpp"

namespace residua::store {

enum class RowType : std::uint8_t { f32 = 0, f16 = 1, i8 = 2, bf16 = 3 };

constexpr std::size_t row_type_bytes(RowType type) {
    return type == RowType::f32 ? 4 : type == RowType::i8 ? 1 : 2;
}

struct RowSource {
    const void* data = nullptr;
    RowType type = RowType::f32;
    std::size_t n = 0;
    std::size_t dim = 0;
    std::size_t stride_bytes = 0;
    const float* row_scale = nullptr;   // i8: value = scale * code; otherwise null
    const float* inv_norm = nullptr;    // cosine: 1 / norm of the row as kept; otherwise null
    const Bitset* allowed = nullptr;    // null: every row
    bool own_norm = false;              // cosine: divide by the norm of the dims shown, not by inv_norm

    const void* row(std::size_t i) const { return static_cast<const unsigned char*>(data) + i * stride_bytes; }

    // The first `dims` dims of every row, as vectors of their own.
    RowSource prefix(std::size_t dims) const {
        RowSource out = *this;
        if (dims == dim) return out;
        out.dim = dims;
        out.inv_norm = nullptr;
        out.own_norm = true;
        return out;
    }
};

}  // namespace residua::store
