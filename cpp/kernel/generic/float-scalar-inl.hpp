// SPDX-License-Identifier: Apache-2.0
// The floating-point kernels in plain C++: the reference of every instruction set.
#pragma once

#include <limits>

#include "kernel/float_kernels.hpp"
#include "kernel/generic/bf16-inl.hpp"

namespace residua::kernel {
namespace {

// Conversions between IEEE half and float32 without tables or branches on the value's class:
// the exponent is moved by a multiplication, which also normalises subnormals and rounds to
// nearest even (after M. Dukhan, FP16).
inline float half_to_float(std::uint16_t h) {
    const std::uint32_t w = static_cast<std::uint32_t>(h) << 16;
    const std::uint32_t magnitude = w + w;
    const float normal = __builtin_bit_cast(float, (magnitude >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
    const float subnormal = __builtin_bit_cast(float, (magnitude >> 17) | (126u << 23)) - 0.5f;
    const std::uint32_t bits = magnitude < (1u << 27) ? __builtin_bit_cast(std::uint32_t, subnormal)
                                                      : __builtin_bit_cast(std::uint32_t, normal);
    return __builtin_bit_cast(float, (w & 0x80000000u) | bits);
}

inline std::uint16_t float_to_half(float f) {
    const std::uint32_t w = __builtin_bit_cast(std::uint32_t, f);
    const std::uint32_t magnitude = w + w;
    const float abs = __builtin_bit_cast(float, w & 0x7FFFFFFFu);
    const float scaled = (abs * 0x1.0p+112f) * 0x1.0p-110f;  // overflows to infinity where half does
    std::uint32_t bias = magnitude & 0xFF000000u;
    if (bias < 0x71000000u) bias = 0x71000000u;
    const float rounded = __builtin_bit_cast(float, (bias >> 1) + 0x07800000u) + scaled;
    const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, rounded);
    const std::uint32_t half = ((bits >> 13) & 0x7C00u) + (bits & 0x0FFFu);
    return static_cast<std::uint16_t>(((w & 0x80000000u) >> 16) | (magnitude > 0xFF000000u ? 0x7E00u : half));
}

// An element of a row as a float.
struct ScalarF32 {
    using Elem = float;
    static float value(Elem x) { return x; }
};
template <float (*convert)(std::uint16_t)>
struct ScalarHalf {
    using Elem = std::uint16_t;
    static float value(Elem x) { return convert(x); }
};
using ScalarF16 = ScalarHalf<half_to_float>;
using ScalarBf16 = ScalarHalf<bf16_to_float>;
struct ScalarI8 {
    using Elem = std::int8_t;
    static float value(Elem x) { return static_cast<float>(x); }
};

// Sixteen lanes and a tree, in float32 or float64: element i belongs to lane i mod 16.
template <class Sum, class Term>
Sum lane_sum(std::size_t d, Term term) {
    constexpr std::size_t kLanes = 16;
    Sum lane[kLanes] = {};
    std::size_t i = 0;
    for (; i + kLanes <= d; i += kLanes) {
        for (std::size_t j = 0; j < kLanes; ++j) lane[j] += term(i + j);
    }
    for (std::size_t j = 0; i < d; ++i, ++j) lane[j] += term(i);
    for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
        for (std::size_t j = 0; j < half; ++j) lane[j] += lane[j + half];
    }
    return lane[0];
}

template <class Sum, class Row>
Sum scalar_dot(const float* q, const typename Row::Elem* x, std::size_t d) {
    return lane_sum<Sum>(d, [=](std::size_t i) { return static_cast<Sum>(q[i]) * static_cast<Sum>(Row::value(x[i])); });
}

template <class Sum, class Row>
Sum scalar_l2(const float* q, const typename Row::Elem* x, std::size_t d) {
    return lane_sum<Sum>(d, [=](std::size_t i) {
        const Sum t = static_cast<Sum>(q[i]) - static_cast<Sum>(Row::value(x[i]));
        return t * t;
    });
}

template <class Sum>
Sum scalar_l2_i8(const float* q, const std::int8_t* x, float scale, std::size_t d) {
    return lane_sum<Sum>(d, [=](std::size_t i) {
        const Sum t = static_cast<Sum>(q[i]) - static_cast<Sum>(scale) * static_cast<Sum>(x[i]);
        return t * t;
    });
}

inline void scalar_f16_to_f32(const std::uint16_t* in, float* out, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) out[i] = half_to_float(in[i]);
}

inline void scalar_f32_to_f16(const float* in, std::uint16_t* out, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) out[i] = float_to_half(in[i]);
}

template <class Row>
void scalar_pack_panel(const typename Row::Elem* x, std::size_t stride, std::size_t n, std::size_t d, float* panel) {
    for (std::size_t k = 0; k < d; ++k) {
        for (std::size_t r = 0; r < kPanelRows; ++r) {
            panel[k * kPanelRows + r] = r < n ? Row::value(x[r * stride + k]) : 0.0f;
        }
    }
}

inline void scalar_gemm_panel(const float* q, std::size_t q_stride, std::size_t nq, const float* panel, std::size_t d,
                              float* out, std::size_t out_stride) {
    for (std::size_t i = 0; i < nq; ++i) {
        float sum[kPanelRows] = {};
        for (std::size_t k = 0; k < d; ++k) {
            for (std::size_t r = 0; r < kPanelRows; ++r) sum[r] += q[i * q_stride + k] * panel[k * kPanelRows + r];
        }
        for (std::size_t r = 0; r < kPanelRows; ++r) out[i * out_stride + r] = sum[r];
    }
}

inline void scalar_nearest_panels(const float* q, std::size_t q_stride, std::size_t nq, const float* panels,
                                  std::size_t n_panels, std::size_t d, const float* bias, std::size_t number,
                                  float* best, float* at, std::uint32_t* out) {
    float sums[kTileQueries * kPanelRows], own_best[kTileQueries * kPanelRows], own_at[kTileQueries * kPanelRows];
    if (number == 0 && out != nullptr) {
        best = own_best;
        at = own_at;
    }
    for (std::size_t j = 0; number == 0 && j < nq * kPanelRows; ++j) {
        best[j] = -std::numeric_limits<float>::infinity();
        at[j] = 0.0f;
    }
    for (std::size_t p = 0; p < n_panels; ++p) {
        scalar_gemm_panel(q, q_stride, nq, panels + p * d * kPanelRows, d, sums, kPanelRows);
        for (std::size_t j = 0; j < nq * kPanelRows; ++j) {
            const float value = sums[j] + bias[p * kPanelRows + j % kPanelRows];
            if (!(value > best[j])) continue;
            best[j] = value;
            at[j] = static_cast<float>(number + p);
        }
    }
    for (std::size_t i = 0; out != nullptr && i < nq; ++i) {
        float top = -std::numeric_limits<float>::infinity();
        for (std::size_t j = i * kPanelRows; j < (i + 1) * kPanelRows; ++j) {
            const auto row = static_cast<std::uint32_t>(at[j]) * static_cast<std::uint32_t>(kPanelRows) +
                             static_cast<std::uint32_t>(j - i * kPanelRows);
            if (j > i * kPanelRows && (best[j] < top || (best[j] == top && row > out[i]))) continue;
            top = best[j];
            out[i] = row;
        }
    }
}

constexpr FloatKernels scalar_float_kernels() {
    return {
        .dot_f32 = scalar_dot<float, ScalarF32>,
        .dot_f16 = scalar_dot<float, ScalarF16>,
        .dot_bf16 = scalar_dot<float, ScalarBf16>,
        .dot_i8 = scalar_dot<float, ScalarI8>,
        .l2_f32 = scalar_l2<float, ScalarF32>,
        .l2_f16 = scalar_l2<float, ScalarF16>,
        .l2_bf16 = scalar_l2<float, ScalarBf16>,
        .l2_i8 = scalar_l2_i8<float>,
        .exact_dot_f32 = scalar_dot<double, ScalarF32>,
        .exact_dot_f16 = scalar_dot<double, ScalarF16>,
        .exact_dot_bf16 = scalar_dot<double, ScalarBf16>,
        .exact_dot_i8 = scalar_dot<double, ScalarI8>,
        .exact_l2_f32 = scalar_l2<double, ScalarF32>,
        .exact_l2_f16 = scalar_l2<double, ScalarF16>,
        .exact_l2_bf16 = scalar_l2<double, ScalarBf16>,
        .exact_l2_i8 = scalar_l2_i8<double>,
        .f16_to_f32 = scalar_f16_to_f32,
        .f32_to_f16 = scalar_f32_to_f16,
        .bf16_to_f32 = convert_bf16_to_f32,
        .f32_to_bf16 = convert_f32_to_bf16,
        .pack_panel_f32 = scalar_pack_panel<ScalarF32>,
        .pack_panel_f16 = scalar_pack_panel<ScalarF16>,
        .pack_panel_bf16 = scalar_pack_panel<ScalarBf16>,
        .gemm_panel = scalar_gemm_panel,
        .nearest_panels = scalar_nearest_panels,
    };
}

}  // namespace
}  // namespace residua::kernel
