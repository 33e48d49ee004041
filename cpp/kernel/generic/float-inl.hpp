// SPDX-License-Identifier: Apache-2.0
// The floating-point kernels over the vector vocabulary of one instruction set, at any width that
// divides kPanelRows. Include after simd/vec_*.hpp, from an ISA translation unit only.
#pragma once

#include <limits>

#include "kernel/float_kernels.hpp"
#include "kernel/generic/bf16-inl.hpp"

namespace residua::kernel {
namespace {

struct RowF32 {
    using Elem = float;
    static F32 load(const Elem* p) { return f32_load(p); }
    static F32 load_n(const Elem* p, std::size_t n) { return f32_load_n(p, n); }
};
struct RowF16 {
    using Elem = std::uint16_t;
    static F32 load(const Elem* p) { return f32_load_f16(p); }
    static F32 load_n(const Elem* p, std::size_t n) { return f32_load_f16_n(p, n); }
};
struct RowBf16 {
    using Elem = std::uint16_t;
    static F32 load(const Elem* p) { return f32_load_bf16(p); }
    static F32 load_n(const Elem* p, std::size_t n) { return f32_load_bf16_n(p, n); }
};
struct RowI8 {
    using Elem = std::int8_t;
    static F32 load(const Elem* p) { return f32_load_i8(p); }
    static F32 load_n(const Elem* p, std::size_t n) { return f32_load_i8_n(p, n); }
};

// What one pair of vectors adds to the float32 accumulator. Padding (0, 0) adds nothing.
struct DotStep {
    F32 operator()(F32 q, F32 x, F32 acc) const { return f32_fma(q, x, acc); }
};
struct L2Step {
    F32 operator()(F32 q, F32 x, F32 acc) const {
        const F32 t = f32_sub(q, x);
        return f32_fma(t, t, acc);
    }
};
struct ScaledL2Step {
    F32 scale;
    F32 operator()(F32 q, F32 x, F32 acc) const {
        const F32 t = f32_fnma(scale, x, q);
        return f32_fma(t, t, acc);
    }
};

// Four accumulators hide the latency of the fused multiply-add.
template <class Row, class Step>
float reduce(const float* q, const typename Row::Elem* x, std::size_t d, Step step) {
    constexpr std::size_t L = F32::kLanes;
    F32 a0 = f32_zero(), a1 = f32_zero(), a2 = f32_zero(), a3 = f32_zero();
    std::size_t i = 0;
    for (; i + 4 * L <= d; i += 4 * L) {
        a0 = step(f32_load(q + i), Row::load(x + i), a0);
        a1 = step(f32_load(q + i + L), Row::load(x + i + L), a1);
        a2 = step(f32_load(q + i + 2 * L), Row::load(x + i + 2 * L), a2);
        a3 = step(f32_load(q + i + 3 * L), Row::load(x + i + 3 * L), a3);
    }
    for (; i + L <= d; i += L) a0 = step(f32_load(q + i), Row::load(x + i), a0);
    if (i < d) a1 = step(f32_load_n(q + i, d - i), Row::load_n(x + i, d - i), a1);
    return f32_sum(f32_add(f32_add(a0, a1), f32_add(a2, a3)));
}

template <class Row>
float simd_dot(const float* q, const typename Row::Elem* x, std::size_t d) {
    return reduce<Row>(q, x, d, DotStep{});
}
template <class Row>
float simd_l2(const float* q, const typename Row::Elem* x, std::size_t d) {
    return reduce<Row>(q, x, d, L2Step{});
}
inline float simd_l2_i8(const float* q, const std::int8_t* x, float scale, std::size_t d) {
    return reduce<RowI8>(q, x, d, ScaledL2Step{f32_set(scale)});
}

// Fusing is allowed where the product is exact (dot), and must be avoided where it is rounded (l2).
struct ExactDotStep {
    F64 operator()(F32 q, F32 x, F64 acc) const { return f64_fma(f64_widen(q), f64_widen(x), acc); }
};
struct ExactL2Step {
    F64 operator()(F32 q, F32 x, F64 acc) const {
        const F64 t = f64_sub(f64_widen(q), f64_widen(x));
        return f64_add(f64_mul(t, t), acc);
    }
};
struct ScaledExactL2Step {
    F64 scale;
    F64 operator()(F32 q, F32 x, F64 acc) const {
        const F64 t = f64_sub(f64_widen(q), f64_mul(scale, f64_widen(x)));
        return f64_add(f64_mul(t, t), acc);
    }
};

// Element i belongs to lane i mod 16 whatever the vector width, and lanes are added as a tree.
template <class Row, class Step>
double exact_reduce(const float* q, const typename Row::Elem* x, std::size_t d, Step step) {
    constexpr std::size_t L = F32::kLanes;
    constexpr std::size_t kLanes = 16;
    constexpr std::size_t kParts = kLanes / L;
    F64 acc[kParts];
    for (std::size_t p = 0; p < kParts; ++p) acc[p] = f64_zero();
    std::size_t i = 0;
    for (; i + kLanes <= d; i += kLanes) {
        for (std::size_t p = 0; p < kParts; ++p) {
            acc[p] = step(f32_load(q + i + p * L), Row::load(x + i + p * L), acc[p]);
        }
    }
    for (std::size_t p = 0; p < kParts && i < d; ++p) {
        const std::size_t n = d - i < L ? d - i : L;
        acc[p] = n == L ? step(f32_load(q + i), Row::load(x + i), acc[p])
                        : step(f32_load_n(q + i, n), Row::load_n(x + i, n), acc[p]);
        i += n;
    }
    double lane[kLanes];
    for (std::size_t p = 0; p < kParts; ++p) f64_store(lane + p * L, acc[p]);
    for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
        for (std::size_t j = 0; j < half; ++j) lane[j] += lane[j + half];
    }
    return lane[0];
}

template <class Row>
double simd_exact_dot(const float* q, const typename Row::Elem* x, std::size_t d) {
    return exact_reduce<Row>(q, x, d, ExactDotStep{});
}
template <class Row>
double simd_exact_l2(const float* q, const typename Row::Elem* x, std::size_t d) {
    return exact_reduce<Row>(q, x, d, ExactL2Step{});
}
inline double simd_exact_l2_i8(const float* q, const std::int8_t* x, float scale, std::size_t d) {
    return exact_reduce<RowI8>(q, x, d, ScaledExactL2Step{f64_set(static_cast<double>(scale))});
}

inline void simd_f16_to_f32(const std::uint16_t* in, float* out, std::size_t n) {
    constexpr std::size_t L = F32::kLanes;
    std::size_t i = 0;
    for (; i + L <= n; i += L) f32_store(out + i, f32_load_f16(in + i));
    if (i < n) f32_store_n(out + i, f32_load_f16_n(in + i, n - i), n - i);
}

inline void simd_f32_to_f16(const float* in, std::uint16_t* out, std::size_t n) {
    constexpr std::size_t L = F32::kLanes;
    std::size_t i = 0;
    for (; i + L <= n; i += L) f32_store_f16(out + i, f32_load(in + i));
    if (i < n) f32_store_f16_n(out + i, f32_load_n(in + i, n - i), n - i);
}

template <class Row>
void simd_pack_panel(const typename Row::Elem* x, std::size_t stride, std::size_t n, std::size_t d, float* panel) {
    constexpr std::size_t L = F32::kLanes;
    for (std::size_t r0 = 0; r0 < kPanelRows; r0 += L) {
        for (std::size_t k = 0; k < d; k += L) {
            const std::size_t width = d - k < L ? d - k : L;
            F32 rows[L];
            for (std::size_t r = 0; r < L; ++r) {
                const typename Row::Elem* p = x + (r0 + r) * stride + k;
                rows[r] = r0 + r >= n ? f32_zero() : width == L ? Row::load(p) : Row::load_n(p, width);
            }
            f32_transpose(rows);
            for (std::size_t c = 0; c < width; ++c) f32_store(panel + (k + c) * kPanelRows + r0, rows[c]);
        }
    }
}

// Twelve sums stay in registers and hide the latency of the multiply-add: 6 queries by two vectors,
// or on vectors of a whole panel row by two chains, the even and the odd k.
template <std::size_t NQ>
struct TileSums {
    F32 v[NQ][kPanelRows / F32::kLanes];
};

// D is d where the compiler is to know it, or 0; sums are the same.
template <std::size_t NQ, std::size_t D = 0>
inline TileSums<NQ> tile_sums(const float* q, std::size_t q_stride, const float* panel, std::size_t dims) {
    const std::size_t d = D == 0 ? dims : D;
    constexpr std::size_t L = F32::kLanes;
    constexpr std::size_t V = kPanelRows / L;
    constexpr std::size_t C = V == 1 ? 2 : 1;
    F32 acc[C][NQ][V];
    for (auto& chain : acc) {
        for (auto& row : chain) {
            for (F32& sum : row) sum = f32_zero();
        }
    }
    const auto step = [&](std::size_t k, F32(&sums)[NQ][V]) {
        F32 b[V];
        for (std::size_t v = 0; v < V; ++v) b[v] = f32_load(panel + k * kPanelRows + v * L);
        for (std::size_t i = 0; i < NQ; ++i) {
            const F32 a = f32_set(q[i * q_stride + k]);
            for (std::size_t v = 0; v < V; ++v) sums[i][v] = f32_fma(a, b[v], sums[i][v]);
        }
    };
    std::size_t k = 0;
    for (; k + C <= d; k += C) {
        for (std::size_t c = 0; c < C; ++c) step(k + c, acc[c]);
    }
    if (k < d) step(k, acc[0]);
    TileSums<NQ> sums;
    for (std::size_t i = 0; i < NQ; ++i) {
        for (std::size_t v = 0; v < V; ++v) {
            sums.v[i][v] = C == 1 ? acc[0][i][v] : f32_add(acc[0][i][v], acc[C - 1][i][v]);
        }
    }
    return sums;
}

template <std::size_t NQ>
void gemm_tile(const float* q, std::size_t q_stride, const float* panel, std::size_t d, float* out,
               std::size_t out_stride) {
    constexpr std::size_t L = F32::kLanes;
    const TileSums<NQ> sums = tile_sums<NQ>(q, q_stride, panel, d);
    for (std::size_t i = 0; i < NQ; ++i) {
        for (std::size_t v = 0; v < kPanelRows / L; ++v) f32_store(out + i * out_stride + v * L, sums.v[i][v]);
    }
}

inline void simd_gemm_panel(const float* q, std::size_t q_stride, std::size_t nq, const float* panel, std::size_t d,
                            float* out, std::size_t out_stride) {
    switch (nq) {
        case 1: return gemm_tile<1>(q, q_stride, panel, d, out, out_stride);
        case 2: return gemm_tile<2>(q, q_stride, panel, d, out, out_stride);
        case 3: return gemm_tile<3>(q, q_stride, panel, d, out, out_stride);
        case 4: return gemm_tile<4>(q, q_stride, panel, d, out, out_stride);
        case 5: return gemm_tile<5>(q, q_stride, panel, d, out, out_stride);
        default: return gemm_tile<6>(q, q_stride, panel, d, out, out_stride);
    }
}

template <std::size_t NQ, std::size_t D = 0>
void nearest_tile(const float* q, std::size_t q_stride, const float* panels, std::size_t n_panels, std::size_t d,
                  const float* bias, std::size_t number, float* best, float* at, std::uint32_t* out) {
    constexpr std::size_t L = F32::kLanes;
    constexpr std::size_t V = kPanelRows / L;
    F32 top[NQ][V], panel_of[NQ][V];
    const auto for_each = [&](auto use) {
        for (std::size_t i = 0; i < NQ; ++i) {
            for (std::size_t v = 0; v < V; ++v) use(i, v, i * kPanelRows + v * L);
        }
    };
    for_each([&](std::size_t i, std::size_t v, std::size_t j) {
        top[i][v] = number == 0 ? f32_set(-std::numeric_limits<float>::infinity()) : f32_load(best + j);
        panel_of[i][v] = number == 0 ? f32_zero() : f32_load(at + j);
    });
    for (std::size_t p = 0; p < n_panels; ++p) {
        const TileSums<NQ> sums = tile_sums<NQ, D>(q, q_stride, panels + p * d * kPanelRows, d);
        const F32 here = f32_set(static_cast<float>(number + p));
        for_each([&](std::size_t i, std::size_t v, std::size_t) {
            f32_keep_larger(f32_add(sums.v[i][v], f32_load(bias + p * kPanelRows + v * L)), here, top[i][v],
                            panel_of[i][v]);
        });
    }
    if (out == nullptr) {
        for_each([&](std::size_t i, std::size_t v, std::size_t j) {
            f32_store(best + j, top[i][v]);
            f32_store(at + j, panel_of[i][v]);
        });
        return;
    }
    static constexpr float kLane[kPanelRows] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (std::size_t i = 0; i < NQ; ++i) {
        float largest = f32_max_lane(top[i][0]), row = 0x1p24f;
        for (std::size_t v = 1; v < V; ++v) {
            const float other = f32_max_lane(top[i][v]);
            largest = other > largest ? other : largest;
        }
        for (std::size_t v = 0; v < V; ++v) {
            const F32 rows = f32_fma(panel_of[i][v], f32_set(kPanelRows), f32_load(kLane + v * L));
            const float first = f32_min_lane_where(rows, top[i][v], largest);
            row = first < row ? first : row;
        }
        out[i] = static_cast<std::uint32_t>(row);
    }
}

inline void simd_nearest_panels(const float* q, std::size_t q_stride, std::size_t nq, const float* panels,
                                std::size_t n_panels, std::size_t d, const float* bias, std::size_t number,
                                float* best, float* at, std::uint32_t* out) {
    switch (nq) {
        case 1: return nearest_tile<1>(q, q_stride, panels, n_panels, d, bias, number, best, at, out);
        case 2: return nearest_tile<2>(q, q_stride, panels, n_panels, d, bias, number, best, at, out);
        case 3: return nearest_tile<3>(q, q_stride, panels, n_panels, d, bias, number, best, at, out);
        case 4: return nearest_tile<4>(q, q_stride, panels, n_panels, d, bias, number, best, at, out);
        case 5: return nearest_tile<5>(q, q_stride, panels, n_panels, d, bias, number, best, at, out);
        default: break;
    }
    switch (d) {  // sub-spaces of product quantization are narrow
        case 4: return nearest_tile<6, 4>(q, q_stride, panels, n_panels, d, bias, number, best, at, out);
        case 8: return nearest_tile<6, 8>(q, q_stride, panels, n_panels, d, bias, number, best, at, out);
        default: return nearest_tile<6>(q, q_stride, panels, n_panels, d, bias, number, best, at, out);
    }
}

constexpr FloatKernels simd_float_kernels() {
    return {
        .dot_f32 = simd_dot<RowF32>,
        .dot_f16 = simd_dot<RowF16>,
        .dot_bf16 = simd_dot<RowBf16>,
        .dot_i8 = simd_dot<RowI8>,
        .l2_f32 = simd_l2<RowF32>,
        .l2_f16 = simd_l2<RowF16>,
        .l2_bf16 = simd_l2<RowBf16>,
        .l2_i8 = simd_l2_i8,
        .exact_dot_f32 = simd_exact_dot<RowF32>,
        .exact_dot_f16 = simd_exact_dot<RowF16>,
        .exact_dot_bf16 = simd_exact_dot<RowBf16>,
        .exact_dot_i8 = simd_exact_dot<RowI8>,
        .exact_l2_f32 = simd_exact_l2<RowF32>,
        .exact_l2_f16 = simd_exact_l2<RowF16>,
        .exact_l2_bf16 = simd_exact_l2<RowBf16>,
        .exact_l2_i8 = simd_exact_l2_i8,
        .f16_to_f32 = simd_f16_to_f32,
        .f32_to_f16 = simd_f32_to_f16,
        .bf16_to_f32 = convert_bf16_to_f32,
        .f32_to_bf16 = convert_f32_to_bf16,
        .pack_panel_f32 = simd_pack_panel<RowF32>,
        .pack_panel_f16 = simd_pack_panel<RowF16>,
        .pack_panel_bf16 = simd_pack_panel<RowBf16>,
        .gemm_panel = simd_gemm_panel,
        .nearest_panels = simd_nearest_panels,
    };
}

}  // namespace
}  // namespace residua::kernel
