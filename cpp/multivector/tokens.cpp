// SPDX-License-Identifier: Apache-2.0
#include "multivector/tokens.hpp"

#include <algorithm>

#include "kernel/dispatch.hpp"

namespace residua::multivector {

const float* as_floats(const TokenSets& sets, std::size_t first, std::size_t n, AlignedVector<float>& buffer) {
    const std::size_t at = first * sets.dim, values = n * sets.dim;
    if (sets.type == TokenType::f32 && sets.scale == nullptr) return static_cast<const float*>(sets.data) + at;
    if (buffer.size() < values) buffer.resize(values);
    if (sets.type == TokenType::f16) {
        kernel::active().floats.f16_to_f32(static_cast<const std::uint16_t*>(sets.data) + at, buffer.data(), values);
    } else if (sets.type == TokenType::i8) {
        kernel::active().tokens.widen_i8(static_cast<const std::int8_t*>(sets.data) + at,
                                         sets.scale == nullptr ? nullptr : sets.scale + first, n, sets.dim,
                                         buffer.data());
        return buffer.data();
    } else {
        std::copy_n(static_cast<const float*>(sets.data) + at, values, buffer.data());
    }
    for (std::size_t t = 0; t < n && sets.scale != nullptr; ++t) {
        float* row = buffer.data() + t * sets.dim;
        for (std::size_t i = 0; i < sets.dim; ++i) row[i] *= sets.scale[first + t];
    }
    return buffer.data();
}

}  // namespace residua::multivector
