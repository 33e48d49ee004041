// SPDX-License-Identifier: Apache-2.0
// Data sheet of the floating-point kernels. Queries are float32; rows are float32, IEEE half or
// bfloat16 (both as uint16_t), or signed bytes with one scale per row. Two families:
//   * filters (dot_*, l2_*, gemm_panel) accumulate in float32. Any of them is within
//     (d + 16) * 2^-24 * sum |term| of the true value; instruction sets differ in the last bits.
//   * exact_* accumulate in float64 over 16 interleaved lanes in one fixed order and agree bit for
//     bit between instruction sets. Products of the inputs are exact in float64, so it does not
//     matter whether they are fused with the addition.
// No alignment beyond the element's own is required, and nothing past the stated sizes is read.
#pragma once

#include <cstddef>
#include <cstdint>

namespace residua::kernel {

// Panel width of gemm_panel, the same for every instruction set so that packed data are portable.
inline constexpr std::size_t kPanelRows = 16;
inline constexpr std::size_t kTileQueries = 6;

struct FloatKernels {
    // Sum of q[i] * x[i]. For a byte row the caller applies the row's scale.
    float (*dot_f32)(const float* q, const float* x, std::size_t d);
    float (*dot_f16)(const float* q, const std::uint16_t* x, std::size_t d);
    float (*dot_bf16)(const float* q, const std::uint16_t* x, std::size_t d);
    float (*dot_i8)(const float* q, const std::int8_t* x, std::size_t d);
    // Sum of (q[i] - x[i])^2, without cancellation; a byte row's values are scale * x[i].
    float (*l2_f32)(const float* q, const float* x, std::size_t d);
    float (*l2_f16)(const float* q, const std::uint16_t* x, std::size_t d);
    float (*l2_bf16)(const float* q, const std::uint16_t* x, std::size_t d);
    float (*l2_i8)(const float* q, const std::int8_t* x, float scale, std::size_t d);

    // The same sums in float64: what a reported score is made of.
    double (*exact_dot_f32)(const float* q, const float* x, std::size_t d);
    double (*exact_dot_f16)(const float* q, const std::uint16_t* x, std::size_t d);
    double (*exact_dot_bf16)(const float* q, const std::uint16_t* x, std::size_t d);
    double (*exact_dot_i8)(const float* q, const std::int8_t* x, std::size_t d);
    double (*exact_l2_f32)(const float* q, const float* x, std::size_t d);
    double (*exact_l2_f16)(const float* q, const std::uint16_t* x, std::size_t d);
    double (*exact_l2_bf16)(const float* q, const std::uint16_t* x, std::size_t d);
    double (*exact_l2_i8)(const float* q, const std::int8_t* x, float scale, std::size_t d);

    void (*f16_to_f32)(const std::uint16_t* in, float* out, std::size_t n);
    // Round to nearest even; overflow gives infinity.
    void (*f32_to_f16)(const float* in, std::uint16_t* out, std::size_t n);
    void (*bf16_to_f32)(const std::uint16_t* in, float* out, std::size_t n);
    void (*f32_to_bf16)(const float* in, std::uint16_t* out, std::size_t n);

    // Transposes n <= kPanelRows rows of x (row-major, `stride` elements apart) into a d x kPanelRows
    // panel, k-major: panel[k * kPanelRows + r]; missing rows become zero.
    void (*pack_panel_f32)(const float* x, std::size_t stride, std::size_t n, std::size_t d, float* panel);
    void (*pack_panel_f16)(const std::uint16_t* x, std::size_t stride, std::size_t n, std::size_t d, float* panel);
    void (*pack_panel_bf16)(const std::uint16_t* x, std::size_t stride, std::size_t n, std::size_t d, float* panel);

    // out[i * out_stride + r] = sum_k q[i * q_stride + k] * panel[k * kPanelRows + r]
    // for i < nq <= kTileQueries and all kPanelRows r. Every sum takes its k in the one order of
    // its instruction set, so a pair's result does not depend on the tile it stands in.
    void (*gemm_panel)(const float* q, std::size_t q_stride, std::size_t nq, const float* panel, std::size_t d,
                       float* out, std::size_t out_stride);

    // Searches the rows of panels `number` … number + n_panels - 1, which stand one after the other, for the
    // largest <q_i, row> + bias[row]; bias is that of these panels, and sums are those of gemm_panel. With
    // `out`, out[i] is the row, of equals the first. Without, more panels follow, and `best` and `at` keep the
    // largest value of every lane and the number of its panel (kPanelRows each per query) for the call that
    // goes on; number 0 starts anew. Rows are below 2^24, and `best` and `at` are not used by a single call.
    void (*nearest_panels)(const float* q, std::size_t q_stride, std::size_t nq, const float* panels,
                           std::size_t n_panels, std::size_t d, const float* bias, std::size_t number, float* best,
                           float* at, std::uint32_t* out);
};

}  // namespace residua::kernel
