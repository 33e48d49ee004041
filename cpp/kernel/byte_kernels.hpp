// SPDX-License-Identifier: Apache-2.0
// Data sheet of the byte kernels, which score and decode scalar codes of 8 or 4 bits per dim.
//
// Row code. 8 bits: dim i is byte i. 4 bits: dim 2i is the low and dim 2i + 1 the high half of byte i.
// Codes are unsigned, 0 … top, top = 2^bits - 1, and are filled up with zeros to whole cells of 4 bytes.
//
// Block of kByteRows = 32 rows: cell c of all rows stands together, row by row, 128 bytes. After the
// cells come 32 float32 `add` and 32 float32 `scale` values. A block is 32 * (4 * cells + 8) bytes long
// and starts on a 64-byte boundary.
//
// Query. Integer weights, a cell's in this order: 8 bits: of its 4 dims; 4 bits: of its 4 low, then of
// its 4 high halves. Weights of filled-up places are zero.
//   coarse: int8, |w| <= byte_coarse_max(bits): 64 or 127, so that a pair of products fits 16 bits.
//           A sum is below 65,536 * 255 * 64 < 2^31.
//   fine:   int16, |w| <= kFineMax. Cell sums fit 32 bits for kFineCells cells at a time.
// The coarse sums are a filter: a row is kept by an upper bound of its score (codec/byte_query.hpp).
// Integers agree bit for bit on all instruction sets. So do the bound and decoded values, whose
// multiplications and additions are separate, never fused, in the stated order. `scale` is not negative.
#pragma once

#include <cstddef>
#include <cstdint>

namespace residua::kernel {

inline constexpr std::size_t kByteRows = 32;
inline constexpr std::size_t kCellBytes = 4;
inline constexpr std::size_t kByteTile = 8;  // most queries per pass over the codes
inline constexpr int kFineMax = 32767;
// Cells whose products fit 32-bit sums: 4 * 255 * 32767 each (8 bits), less at 4 bits.
inline constexpr std::size_t kFineCells = 64;

constexpr int byte_coarse_max(int bits) { return bits == 8 ? 64 : 127; }

struct ByteLayout {
    std::size_t cells = 0;
    int bits = 8;  // 8 or 4

    std::size_t top() const { return bits == 8 ? 255 : 15; }
    std::size_t cell_dims() const { return bits == 8 ? 4 : 8; }
    std::size_t dims() const { return cells * cell_dims(); }  // filled up
    std::size_t code_bytes() const { return cells * kCellBytes; }
    std::size_t add_offset() const { return kByteRows * code_bytes(); }
    std::size_t scale_offset() const { return add_offset() + kByteRows * 4; }
    std::size_t block_bytes() const { return kByteRows * (code_bytes() + 8); }
};

// What the scan needs of one query.
struct ByteScan {
    const std::int8_t* coarse;
    // With S the coarse sum of a row, its score is at most   add + scale * (unit * S + upper).
    float unit;
    float upper;
    float threshold;  // rows whose bound is below it are dropped
};

struct ByteKernels {
    std::size_t tile;  // queries per pass that suit the registers, at most kByteTile

    // Scans blocks [0, n_blocks) for 1 <= nq <= tile queries and stops at the first block in which
    // some row of some query reaches its threshold. Returns its number (n_blocks when there is none);
    // mask[i] gets the rows of query i that do.
    std::size_t (*scan)(const ByteLayout& layout, const std::uint8_t* blocks, std::size_t n_blocks,
                        const ByteScan* queries, std::size_t nq, std::uint32_t* mask);

    // out[r] = sum of fine weight * code, for the rows of one block whose bit is set in `rows`; others are
    // unspecified.
    void (*exact)(const ByteLayout& layout, const std::uint8_t* block, const std::int16_t* fine, std::uint32_t rows,
                  std::int64_t* out);

    // out[i] = (scale * step[i]) * (u[i] - top / 2) + center[i] for i < dim, from one row code.
    void (*decode)(const ByteLayout& layout, const std::uint8_t* code, const float* step, const float* center,
                   float scale, std::size_t dim, float* out);
};

}  // namespace residua::kernel
