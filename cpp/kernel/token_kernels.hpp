// SPDX-License-Identifier: Apache-2.0
// Data sheet of the token kernels, which find the best token of a document for every query token.
//
// Floats. Query tokens stand in panels (kernel/float_kernels.hpp), document tokens row by row. A product is within
// (d + 16) * 2^-24 * sum |term| of the true one and depends on its two tokens only, not on their places.
//
// Codes. Tokens stand in blocks of kByteRows, a byte per dim, in the cells of a ByteLayout of 8 bits
// (kernel/byte_kernels.hpp): what PlaneKernels::expand makes of a block of recurrent codes.
//
// Query weights are int8, in the order of the cells: |w| <= 127 where bytes are at most 127, otherwise 64, so that
// a pair of products fits 16 bits. Sums are exact: below 65,536 * 255 * 64 < 2^31. The score of token r is
//     scale[r] * (unit * sum + offset) + add[r]
// in separate multiplications and additions, so that instruction sets agree bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/byte_kernels.hpp"
#include "kernel/float_kernels.hpp"

namespace residua::kernel {

constexpr int token_weight_max(int largest_byte) { return largest_byte <= 127 ? 127 : 64; }

// Cells whose pairs of products fit 16 bits together: what a kernel may add before it widens. A power of 2, at most 8.
constexpr std::size_t joined_cells(int largest_byte) {
    std::size_t joined = 1;
    while (joined < 8 && 4 * static_cast<int>(joined) * largest_byte * token_weight_max(largest_byte) <= 32'767) {
        joined *= 2;
    }
    return joined;
}

struct TokenQuery {
    const std::int8_t* weights;
    float unit;
    float offset;
};

struct TokenKernels {
    // n rows, `stride` floats apart, against n_panels panels, d * kPanelRows floats apart. best[p * kPanelRows + j]
    // becomes the largest of itself and the products of query token j of panel p; where the product with row r is
    // larger, at[p * kPanelRows + j] = number + r, unless at is null; below 2^24. Returns 0 when all products are
    // finite, NaN otherwise.
    float (*best_rows)(const float* rows, std::size_t stride, std::size_t n, const float* panels,
                       std::size_t n_panels, std::size_t d, float number, float* best, float* at);

    // One block, any number of query tokens; joined is that of joined_cells() or less. best[i * kByteRows + r] becomes the larger of itself and the score of
    // token r, which must not be NaN; where the score is larger, at[i * kByteRows + r] = number, unless at is null.
    void (*best)(const std::uint8_t* cells, std::size_t n_cells, std::size_t joined, const float* scale,
                 const float* add, const TokenQuery* queries, std::size_t nq, std::uint32_t number, float* best,
                 std::uint32_t* at);

    // out[r * d + i] = scale[r] * rows[r * d + i] for n rows; scale == nullptr: 1.
    void (*widen_i8)(const std::int8_t* rows, const float* scale, std::size_t n, std::size_t d, float* out);
};

}  // namespace residua::kernel
