// SPDX-License-Identifier: Apache-2.0
// Data sheet of the row kernels, which score codes one row at a time, wherever the rows lie: what a
// walk over a graph needs, where blocks of 32 rows would be scattered.
//
// Field code. The levels of a row are cut into fields of 8, 4, 2 or 1 bits; a run of fields of one width
// stands in pieces of 32 bytes, and its last piece may be a half of 16. Sub-vector s of a piece is bits
// [s * width, (s + 1) * width) of every byte, so a piece of width w holds 8 / w sub-vectors of 32 fields,
// and is read with shifts and masks alone. Runs follow each other in order.
//
// Weights. int8, 32 per sub-vector in the order of the code; a half piece has 32 as well, of which the
// first 16 count. |weight| <= field_weight_max(width), so that sums of one piece fit 16 bits:
// 2 * 255 * 64, 4 * 15 * 127, 8 * 3 * 127, 16 * 127. The sum of a run is multiplied by 2^shift.
// All sums are exact integers, equal on all instruction sets. No alignment is required.
#pragma once

#include <cstddef>
#include <cstdint>

namespace residua::kernel {

inline constexpr std::size_t kPieceBytes = 32;
inline constexpr std::size_t kHalfPiece = 16;
inline constexpr std::size_t kMaxFieldRuns = 16;

constexpr int field_weight_max(int width) { return width == 8 ? 64 : 127; }

struct FieldRun {
    std::uint32_t halves = 0;  // half pieces
    std::uint8_t width = 8;    // 8, 4, 2 or 1
    std::uint8_t shift = 0;    // at most 7

    std::size_t subs() const { return 8u / width; }
    std::size_t bytes() const { return halves * kHalfPiece; }
    std::size_t weights() const { return (halves + 1) / 2 * subs() * kPieceBytes; }
};

struct FieldLayout {
    std::uint32_t n_runs = 0;
    FieldRun runs[kMaxFieldRuns];

    std::size_t bytes() const {
        std::size_t s = 0;
        for (std::uint32_t r = 0; r < n_runs; ++r) s += runs[r].bytes();
        return s;
    }
    std::size_t weights() const {
        std::size_t s = 0;
        for (std::uint32_t r = 0; r < n_runs; ++r) s += runs[r].weights();
        return s;
    }
};

struct RowKernels {
    // out[i] = sum over runs of 2^shift * (sum of weight * field), of the row at codes + rows[i] * stride.
    // Reads layout.bytes() bytes per row.
    void (*fields)(const FieldLayout& layout, const std::uint8_t* codes, std::size_t stride, const std::uint32_t* rows,
                   std::size_t n, const std::int8_t* weights, std::int32_t* out);

    // out[i] = sum of query * row, signed bytes from -127 to 127; `bytes` is a multiple of kPieceBytes and
    // at most 131,072, so sums fit.
    void (*signed_bytes)(const std::int8_t* query, const std::int8_t* x, std::size_t stride, const std::uint32_t* rows,
                         std::size_t n, std::size_t bytes, std::int32_t* out);
};

}  // namespace residua::kernel
