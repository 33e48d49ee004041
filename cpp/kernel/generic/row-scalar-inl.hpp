// SPDX-License-Identifier: Apache-2.0
// The row kernels in plain C++. Include from an ISA translation unit only.
#pragma once

#include "kernel/row_kernels.hpp"

namespace residua::kernel {
namespace {

inline std::int32_t run_scalar(const FieldRun& run, const std::uint8_t* code, const std::int8_t* weights) {
    const unsigned mask = (1u << run.width) - 1;
    std::int32_t sum = 0;
    for (std::size_t h = 0; h < run.halves; h += 2) {
        const std::size_t bytes = run.halves - h >= 2 ? kPieceBytes : kHalfPiece;
        for (std::size_t s = 0; s < run.subs(); ++s, weights += kPieceBytes) {
            for (std::size_t i = 0; i < bytes; ++i) {
                const unsigned field = (static_cast<unsigned>(code[i]) >> (s * run.width)) & mask;
                sum += static_cast<std::int32_t>(field) * weights[i];
            }
        }
        code += bytes;
    }
    return sum;
}

inline void fields_scalar(const FieldLayout& layout, const std::uint8_t* codes, std::size_t stride,
                          const std::uint32_t* rows, std::size_t n, const std::int8_t* weights, std::int32_t* out) {
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint8_t* code = codes + rows[i] * stride;
        const std::int8_t* w = weights;
        out[i] = 0;
        for (std::uint32_t r = 0; r < layout.n_runs; ++r) {
            out[i] += run_scalar(layout.runs[r], code, w) * (1 << layout.runs[r].shift);
            code += layout.runs[r].bytes();
            w += layout.runs[r].weights();
        }
    }
}

inline void signed_bytes_scalar(const std::int8_t* query, const std::int8_t* x, std::size_t stride,
                                const std::uint32_t* rows, std::size_t n, std::size_t bytes, std::int32_t* out) {
    for (std::size_t i = 0; i < n; ++i) {
        const std::int8_t* row = x + rows[i] * stride;
        std::int32_t sum = 0;
        for (std::size_t j = 0; j < bytes; ++j) sum += static_cast<std::int32_t>(query[j]) * row[j];
        out[i] = sum;
    }
}

constexpr RowKernels scalar_row_kernels() { return {fields_scalar, signed_bytes_scalar}; }

}  // namespace
}  // namespace residua::kernel
