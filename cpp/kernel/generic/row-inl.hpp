// SPDX-License-Identifier: Apache-2.0
// The row kernels on the vector vocabulary (kernel/simd). Include from an ISA translation unit only.
#pragma once

#include "kernel/generic/row-scalar-inl.hpp"

namespace residua::kernel {
namespace {

constexpr std::size_t kRowsAhead = 8;  // rows between a read and its prefetch
constexpr std::size_t kLine = 64;

inline void prefetch_row(const void* row, std::size_t bytes) {
    const auto* p = static_cast<const std::uint8_t*>(row);
    for (std::size_t b = 0; b < bytes; b += kLine) prefetch(p + b);
}

template <int kWidth>
inline PieceSums add_run(PieceSums total, const FieldRun& run, const std::uint8_t* code, const std::int8_t* weights) {
    PieceSums sums = piece_zero();
    const auto add_piece = [&](PieceBytes x) {
        PieceSums pairs = piece_zero();
        for (int s = 0; s < 8 / kWidth; ++s, weights += kPieceBytes) {
            const PieceBytes field = kWidth == 8 ? x : piece_field<kWidth>(x, s * kWidth);
            pairs = piece_multiply(pairs, field, piece_load(weights));
        }
        sums = piece_widen(sums, pairs);
    };
    const std::size_t pieces = run.halves / 2;
    for (std::size_t p = 0; p < pieces; ++p, code += kPieceBytes) add_piece(piece_load(code));
    if (run.halves % 2 != 0) add_piece(piece_load_half(code));
    return piece_add(total, piece_shift(sums, run.shift));
}

inline void fields_simd(const FieldLayout& layout, const std::uint8_t* codes, std::size_t stride,
                        const std::uint32_t* rows, std::size_t n, const std::int8_t* weights, std::int32_t* out) {
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint8_t* code = codes + rows[i] * stride;
        const std::int8_t* w = weights;
        PieceSums total = piece_zero();
        for (std::uint32_t r = 0; r < layout.n_runs; ++r) {
            const FieldRun& run = layout.runs[r];
            switch (run.width) {
                case 8: total = add_run<8>(total, run, code, w); break;
                case 4: total = add_run<4>(total, run, code, w); break;
                case 2: total = add_run<2>(total, run, code, w); break;
                default: total = add_run<1>(total, run, code, w); break;
            }
            code += run.bytes();
            w += run.weights();
        }
        out[i] = piece_total(total);
    }
}

inline void signed_bytes_simd(const std::int8_t* query, const std::int8_t* x, std::size_t stride,
                              const std::uint32_t* rows, std::size_t n, std::size_t bytes, std::int32_t* out) {
    for (std::size_t i = 0; i < n && i < kRowsAhead; ++i) prefetch_row(x + rows[i] * stride, bytes);
    for (std::size_t i = 0; i < n; ++i) {
        if (i + kRowsAhead < n) prefetch_row(x + rows[i + kRowsAhead] * stride, bytes);
        const std::int8_t* row = x + rows[i] * stride;
        PieceSums a = piece_zero(), b = piece_zero();
        std::size_t j = 0;
        for (; j + 2 * kPieceBytes <= bytes; j += 2 * kPieceBytes) {
            a = piece_multiply_signed(a, piece_load(query + j), piece_load(row + j));
            b = piece_multiply_signed(b, piece_load(query + j + kPieceBytes), piece_load(row + j + kPieceBytes));
        }
        if (j < bytes) a = piece_multiply_signed(a, piece_load(query + j), piece_load(row + j));
        out[i] = piece_total(piece_add(a, b));
    }
}

constexpr RowKernels simd_row_kernels() { return {fields_simd, signed_bytes_simd}; }

}  // namespace
}  // namespace residua::kernel
