// SPDX-License-Identifier: Apache-2.0
// The token kernels in plain C++: the reference of every instruction set.
#pragma once

#include "kernel/token_kernels.hpp"

namespace residua::kernel {
namespace {

// Sums of one query over a block, in scores.
inline void keep_best(const std::int32_t* sums, const float* scale, const float* add, float unit, float offset,
                      std::uint32_t number, float* best, std::uint32_t* at) {
    float score[kByteRows];
    for (std::size_t r = 0; r < kByteRows; ++r) {
        score[r] = scale[r] * (unit * static_cast<float>(sums[r]) + offset) + add[r];
    }
    if (at != nullptr) {
        for (std::size_t r = 0; r < kByteRows; ++r) at[r] = score[r] > best[r] ? number : at[r];
    }
    for (std::size_t r = 0; r < kByteRows; ++r) best[r] = score[r] > best[r] ? score[r] : best[r];
}

inline void best_scalar(const std::uint8_t* cells, std::size_t n_cells, std::size_t, const float* scale,
                        const float* add, const TokenQuery* queries, std::size_t nq, std::uint32_t number, float* best,
                        std::uint32_t* at) {
    for (std::size_t i = 0; i < nq; ++i) {
        std::int32_t sums[kByteRows] = {};
        for (std::size_t c = 0; c < n_cells; ++c) {
            const std::int8_t* w = queries[i].weights + c * kCellBytes;
            const std::uint8_t* x = cells + c * kByteRows * kCellBytes;
            for (std::size_t r = 0; r < kByteRows; ++r) {
                for (std::size_t b = 0; b < kCellBytes; ++b) sums[r] += w[b] * x[r * kCellBytes + b];
            }
        }
        keep_best(sums, scale, add, queries[i].unit, queries[i].offset, number, best + i * kByteRows,
                  at == nullptr ? nullptr : at + i * kByteRows);
    }
}

inline float best_rows_scalar(const float* rows, std::size_t stride, std::size_t n, const float* panels,
                              std::size_t n_panels, std::size_t d, float number, float* best, float* at) {
    float check = 0;
    for (std::size_t r = 0; r < n; ++r) {
        for (std::size_t p = 0; p < n_panels; ++p) {
            float sum[kPanelRows] = {};
            for (std::size_t k = 0; k < d; ++k) {
                const float* q = panels + (p * d + k) * kPanelRows;
                for (std::size_t j = 0; j < kPanelRows; ++j) sum[j] += rows[r * stride + k] * q[j];
            }
            for (std::size_t j = 0; j < kPanelRows; ++j) {
                const std::size_t lane = p * kPanelRows + j;
                if (sum[j] > best[lane] && at != nullptr) at[lane] = number + static_cast<float>(r);
                best[lane] = sum[j] > best[lane] ? sum[j] : best[lane];
                check += sum[j] * 0.0f;
            }
        }
    }
    return check;
}

inline void widen_i8_scalar(const std::int8_t* rows, const float* scale, std::size_t n, std::size_t d, float* out) {
    for (std::size_t r = 0; r < n; ++r, rows += d, out += d) {
        const float s = scale == nullptr ? 1.0f : scale[r];
        for (std::size_t i = 0; i < d; ++i) out[i] = s * static_cast<float>(rows[i]);
    }
}

constexpr TokenKernels scalar_token_kernels() { return {best_rows_scalar, best_scalar, widen_i8_scalar}; }

}  // namespace
}  // namespace residua::kernel
