// SPDX-License-Identifier: Apache-2.0
// Data sheet of the bit-plane kernels, which score recurrent binary codes.
//
// Codes. A code has g groups of 32 dims; group j spends bits[j] bits per dim, bits descending. The
// unsigned value u of a dim has bits[j] bits; plane t holds bit t of every dim whose group has
// bits[j] > t, so plane t covers the first groups(t) groups and plane 0 covers all.
//
// Row code (what codec.encode returns): plane T-1 first, then T-2 … 0; within a plane group by
// group, 4 bytes each, dims in np.packbits order (the first dim in the most significant bit).
//
// Block of kBlockRows = 32 rows: a "strip" is 4 dims of one plane of all 32 rows, 16 bytes; byte j
// holds row j in its low and row j + 16 in its high nibble; the first of the 4 dims is the nibble's
// most significant bit. Strips stand in row-code order: 8 strips per group. After the strips come
// 32 float32 `add` and 32 float16 `scale` values, one per row. A block is
// 32 * (code_bytes + 6) bytes long and starts on a 64-byte boundary.
//
// Query. Integer weights Q, |Q| <= kWeightMax, one per dim. The exact integer score of a row is
//     S = sum over dims of Q * u = sum over planes t of 2^t * (sum of Q over the dims whose bit t is set).
// One strip of 4 weights gives 16 subset sums; they do not depend on the plane, so a query has one
// table per strip of plane 0, 8 * groups[0] in all. Every strip's sums are shifted to start at 0.
//   exact:  the shifted sums, 0 … 4 * kWeightMax, their low 6 bits for all strips, 16 bytes each, and
//           then their high 7 bits for all strips, so that byte sums of 4 and of 2 cannot overflow;
//   coarse: the shifted sums in one common step, rounded to 0 … kCoarseMax, 16 bytes per strip, so
//           that byte sums of 4 strips cannot overflow. Their rounding error is the reason why the
//           scan is a filter: it keeps rows by an upper bound (codec/plane_query.hpp derives it).
// Floating-point steps are separate multiplications and additions in the stated order, never fused,
// so all instruction sets agree bit for bit. `scale` values are finite and not negative.
#pragma once

#include <cstddef>
#include <cstdint>

namespace residua::kernel {

inline constexpr std::size_t kBlockRows = 32;
inline constexpr std::size_t kGroupDims = 32;
inline constexpr std::size_t kStripBytes = 16;  // also the entries of a strip's table
inline constexpr std::size_t kGroupStrips = 8;
inline constexpr int kMaxPlanes = 8;
inline constexpr int kWeightMax = 2047;
inline constexpr int kCoarseMax = 63;
inline constexpr int kExactLowBits = 6;
inline constexpr std::size_t kPlaneTile = 2;  // queries per pass over the codes

struct PlaneLayout {
    std::uint32_t planes = 0;              // T
    std::uint32_t groups[kMaxPlanes] = {};  // groups[t]: groups that have plane t; non-increasing in t

    std::size_t total_groups() const {
        std::size_t s = 0;
        for (std::uint32_t t = 0; t < planes; ++t) s += groups[t];
        return s;
    }
    std::size_t code_bytes() const { return total_groups() * 4; }
    std::size_t strip_bytes() const { return total_groups() * kGroupStrips * kStripBytes; }
    std::size_t add_offset() const { return strip_bytes(); }
    std::size_t scale_offset() const { return strip_bytes() + kBlockRows * 4; }
    std::size_t block_bytes() const { return strip_bytes() + kBlockRows * 6; }
};

// What the scan needs of one query.
struct PlaneScan {
    const std::uint8_t* coarse;
    // With A the sum over planes p >= t of 2^(p-t) * (coarse sum of plane p), the estimate of a row is
    // at most   add + scale * (unit[t] * A + upper[t]).
    float unit[kMaxPlanes];
    float upper[kMaxPlanes];
    std::uint32_t check_planes;  // bit t: compare that bound after plane t; bit 0 is always set
    float threshold;             // rows whose bound is below it are dropped
};

// What the tables of one strip are made of and what they miss.
struct StripTable {
    std::int32_t low;      // the sum that is shifted to 0
    std::int32_t total;    // sum of the weights
    std::int32_t squares;  // of the weights
    // With e = kCoarseMax * (shifted sum) - range * (coarse entry), an exact integer, over the 16 entries:
    std::int32_t error_sum, error_squares, error_high, error_low;
};

struct PlaneKernels {
    // Planes per group, on average, from which scanning a batch in cells (expand) beats the tables.
    float cells_from;

    // Row codes of `bytes` bytes (n <= 32 rows, `stride` bytes apart) to the strips of a block; missing
    // rows are zero.
    void (*pack)(std::size_t bytes, const std::uint8_t* rows, std::size_t stride, std::size_t n,
                 std::uint8_t* strips);
    // One row of a block back to its row code.
    void (*unpack)(std::size_t bytes, const std::uint8_t* strips, std::size_t row, std::uint8_t* code);

    // The unsigned value of every dim of a block, a byte each, in the cells of a ByteLayout of 8 bits
    // with 8 * groups[0] cells (kernel/byte_kernels.hpp).
    void (*expand)(const PlaneLayout& layout, const std::uint8_t* strips, std::uint8_t* cells);

    // Scans blocks [0, n_blocks) for 1 <= nq <= kPlaneTile queries and stops at the first block in
    // which some row of some query survives. Returns its number (n_blocks when there is none);
    // mask[i] gets its rows whose bound after plane 0 reaches the threshold. A block is left after a
    // finer check (one that all queries ask for) as soon as no row of any query can survive.
    std::size_t (*scan)(const PlaneLayout& layout, const std::uint8_t* blocks, std::size_t n_blocks,
                        const PlaneScan* queries, std::size_t nq, std::uint32_t* mask);

    // out[r] = sum over planes of 2^t * (sum of the exact table entries of row r), for one block.
    void (*exact)(const PlaneLayout& layout, const std::uint8_t* block, const std::uint8_t* tables,
                  std::int64_t* out);

    // The tables of n_strips strips of 4 weights: `coarse` in steps of range / kCoarseMax, where no strip's
    // absolute weights sum up to more than `range`, and `exact`.
    void (*tables)(const std::int16_t* weights, std::size_t n_strips, std::int32_t range, std::uint8_t* coarse,
                   std::uint8_t* exact, StripTable* out);
};

}  // namespace residua::kernel
