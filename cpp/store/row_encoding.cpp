// SPDX-License-Identifier: Apache-2.0
#include "store/row_encoding.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/half.hpp"

namespace residua::store {
namespace {

// Calls f with a function that gives element i of the row.
template <class F>
auto with_elements(RowType type, const void* in, float scale, F&& f) {
    switch (type) {
        case RowType::f16: {
            const auto* p = static_cast<const std::uint16_t*>(in);
            return f([p](std::size_t i) { return float_from_half(p[i]); });
        }
        case RowType::bf16: {
            const auto* p = static_cast<const std::uint16_t*>(in);
            return f([p](std::size_t i) { return float_from_bf16(p[i]); });
        }
        case RowType::i8: {
            const auto* p = static_cast<const std::int8_t*>(in);
            return f([p, scale](std::size_t i) { return scale * static_cast<float>(p[i]); });
        }
        case RowType::f32: break;
    }
    const auto* p = static_cast<const float*>(in);
    return f([p](std::size_t i) { return p[i]; });
}

void encode_int8(const float* x, std::size_t dim, std::int8_t* out, float& scale) noexcept {
    float largest = 0;
    for (std::size_t i = 0; i < dim; ++i) largest = std::max(largest, std::fabs(x[i]));
    scale = largest / 127.0f;
    // A row of the smallest subnormals: the quotient may round to zero.
    if (largest > 0) scale = std::max(scale, std::numeric_limits<float>::denorm_min());
    for (std::size_t i = 0; i < dim; ++i) {
        const float q = scale > 0 ? std::nearbyint(x[i] / scale) : 0.0f;
        out[i] = static_cast<std::int8_t>(std::clamp(q, -127.0f, 127.0f));
    }
}

}  // namespace

HalfFit half_fit(const float* x, std::size_t dim) noexcept {
    double error = 0, norm = 0;
    std::uint32_t largest = 0;
    for (std::size_t i = 0; i < dim; ++i) {
        const std::uint16_t half = half_from_float(x[i]);
        largest |= static_cast<std::uint32_t>((half & 0x7fffu) >= 0x7c00u);
        const double value = x[i];
        const double difference = value - static_cast<double>(float_from_half(half));
        error += difference * difference;
        norm += value * value;
    }
    if (largest != 0) return HalfFit::overflows;
    if (error > kHalfTolerance * kHalfTolerance * norm) {
        // Every element that is not zero has become zero exactly when the error is the vector itself.
        return error == norm ? HalfFit::vanishes : HalfFit::coarse;
    }
    return HalfFit::good;
}

void encode_row(RowType type, const float* x, std::size_t dim, void* out, float& scale) noexcept {
    scale = 1.0f;
    switch (type) {
        case RowType::f32: std::memcpy(out, x, dim * sizeof(float)); break;
        case RowType::f16: std::transform(x, x + dim, static_cast<std::uint16_t*>(out), half_from_float); break;
        case RowType::bf16: std::transform(x, x + dim, static_cast<std::uint16_t*>(out), bf16_from_float); break;
        case RowType::i8: encode_int8(x, dim, static_cast<std::int8_t*>(out), scale); break;
    }
}

void decode_row(RowType type, const void* in, float scale, std::size_t dim, float* out) noexcept {
    with_elements(type, in, scale, [&](auto&& at) {
        for (std::size_t i = 0; i < dim; ++i) out[i] = at(i);
    });
}

float inverse_norm(RowType type, const void* in, float scale, std::size_t dim) noexcept {
    const double squares = with_elements(type, in, scale, [&](auto&& at) {
        double sum = 0;
        for (std::size_t i = 0; i < dim; ++i) sum += static_cast<double>(at(i)) * static_cast<double>(at(i));
        return sum;
    });
    if (squares == 0) return 0.0f;
    const double inverse = 1.0 / std::sqrt(squares);
    return static_cast<float>(std::min(inverse, static_cast<double>(std::numeric_limits<float>::max())));
}

}  // namespace residua::store
