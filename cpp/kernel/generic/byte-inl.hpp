// SPDX-License-Identifier: Apache-2.0
// The byte kernels on the vector vocabulary (kernel/simd). Include from an ISA translation unit only.
// A vector holds one cell of kVecRows rows; kCellVecs of them are summed at a time for all queries of
// a tile, so that codes are read once and weights are spread once per kCellVecs vectors.
#pragma once

#include "kernel/generic/byte-scalar-inl.hpp"

namespace residua::kernel {
namespace {

constexpr std::size_t kVecRows = sizeof(Bytes) / kCellBytes;
constexpr std::size_t kCellVecBytes = kVecRows * kCellBytes;
constexpr std::size_t kCellRowBytes = kByteRows * kCellBytes;  // one cell of a whole block
constexpr std::size_t kCellStep = kCellVecs * kVecRows;        // rows summed at a time
constexpr std::size_t kCellAhead = 4096;                       // bytes between a load and its prefetch

static_assert(kByteRows % kCellStep == 0);

// Coarse sums of rows [first, first + kCellStep) of a block for NQ queries.
template <int kBits, std::size_t NQ>
inline void coarse_sums(const ByteLayout& layout, const std::uint8_t* block, std::size_t first,
                        const ByteScan* queries, CellSums (&sums)[NQ][kCellVecs]) {
    for (auto& of_query : sums) {
        for (CellSums& s : of_query) s = zero_sums();
    }
    const std::uint8_t* at = block + first * kCellBytes;
    for (std::size_t c = 0; c < layout.cells; ++c, at += kCellRowBytes) {
        prefetch(at + kCellAhead);
        Bytes codes[kCellVecs], high[kCellVecs];
        for (std::size_t v = 0; v < kCellVecs; ++v) {
            codes[v] = load_bytes(at + v * kCellVecBytes);
            if constexpr (kBits == 4) {
                high[v] = high_nibbles(codes[v]);
                codes[v] = low_nibbles(codes[v]);
            }
        }
        for (std::size_t i = 0; i < NQ; ++i) {
            if constexpr (kBits == 8) {
                const Bytes w = spread_cell(queries[i].coarse + c * 4);
                for (std::size_t v = 0; v < kCellVecs; ++v) sums[i][v] = add_cells(sums[i][v], codes[v], w);
            } else {
                const Bytes wl = spread_cell(queries[i].coarse + c * 8);
                const Bytes wh = spread_cell(queries[i].coarse + c * 8 + 4);
                for (std::size_t v = 0; v < kCellVecs; ++v) {
                    sums[i][v] = add_nibble_cells(sums[i][v], codes[v], wl, high[v], wh);
                }
            }
        }
    }
}

template <int kBits, std::size_t NQ>
std::size_t byte_scan_tile(const ByteLayout& layout, const std::uint8_t* blocks, std::size_t n_blocks,
                           const ByteScan* queries, std::uint32_t* mask) {
    const std::size_t block_bytes = layout.block_bytes();
    for (std::size_t b = 0; b < n_blocks; ++b) {
        const std::uint8_t* block = blocks + b * block_bytes;
        const std::uint8_t* add = block + layout.add_offset();
        const std::uint8_t* scale = block + layout.scale_offset();
        std::uint32_t any = 0;
        for (std::size_t i = 0; i < NQ; ++i) mask[i] = 0;
        for (std::size_t first = 0; first < kByteRows; first += kCellStep) {
            CellSums sums[NQ][kCellVecs];
            coarse_sums<kBits, NQ>(layout, block, first, queries, sums);
            for (std::size_t i = 0; i < NQ; ++i) {
                const ByteScan& q = queries[i];
                for (std::size_t v = 0; v < kCellVecs; ++v) {
                    const std::size_t row = first + v * kVecRows;
                    mask[i] |= cells_reaching(sums[i][v], q.unit, q.upper, add + row * 4, scale + row * 4, q.threshold)
                               << row;
                }
                any |= mask[i];
            }
        }
        if (any != 0) return b;
    }
    return n_blocks;
}

template <int kBits>
std::size_t byte_scan_bits(const ByteLayout& layout, const std::uint8_t* blocks, std::size_t n_blocks,
                           const ByteScan* queries, std::size_t nq, std::uint32_t* mask) {
    static_assert(kCellTile <= 8);
    switch (nq) {
        case 1: return byte_scan_tile<kBits, 1>(layout, blocks, n_blocks, queries, mask);
        case 2: return byte_scan_tile<kBits, 2>(layout, blocks, n_blocks, queries, mask);
        case 3: return byte_scan_tile<kBits, 3>(layout, blocks, n_blocks, queries, mask);
        case 4: return byte_scan_tile<kBits, 4>(layout, blocks, n_blocks, queries, mask);
        default: break;
    }
    // What is left of a tile is padded with its last query.
    ByteScan padded[kCellTile];
    std::uint32_t found[kCellTile];
    for (std::size_t i = 0; i < kCellTile; ++i) padded[i] = queries[i < nq ? i : nq - 1];
    const std::size_t at = byte_scan_tile<kBits, kCellTile>(layout, blocks, n_blocks, padded, found);
    for (std::size_t i = 0; i < nq; ++i) mask[i] = found[i];
    return at;
}

inline std::size_t byte_scan_simd(const ByteLayout& layout, const std::uint8_t* blocks, std::size_t n_blocks,
                                  const ByteScan* queries, std::size_t nq, std::uint32_t* mask) {
    return layout.bits == 8 ? byte_scan_bits<8>(layout, blocks, n_blocks, queries, nq, mask)
                            : byte_scan_bits<4>(layout, blocks, n_blocks, queries, nq, mask);
}

template <int kBits>
void byte_exact_bits(const ByteLayout& layout, const std::uint8_t* block, const std::int16_t* fine,
                     std::uint32_t rows, std::int64_t* out) {
    constexpr std::size_t kWeights = kBits == 8 ? 4 : 8;
    for (std::size_t r = 0; r < kByteRows; ++r) out[r] = 0;
    for (std::size_t first = 0; first < kByteRows; first += kVecRows) {
        if ((rows >> first & ((std::uint64_t{1} << kVecRows) - 1)) == 0) continue;
        for (std::size_t begin = 0; begin < layout.cells; begin += kFineCells) {
            const std::size_t end = layout.cells - begin < kFineCells ? layout.cells : begin + kFineCells;
            CellSums sums = zero_sums();
            for (std::size_t c = begin; c < end; ++c) {
                const Bytes codes = load_bytes(block + c * kCellRowBytes + first * kCellBytes);
                const std::int16_t* w = fine + c * kWeights;
                if constexpr (kBits == 8) {
                    sums = add_fine_cells(sums, codes, w);
                } else {
                    sums = add_fine_cells(sums, low_nibbles(codes), w);
                    sums = add_fine_cells(sums, high_nibbles(codes), w + 4);
                }
            }
            std::int32_t part[kVecRows];
            store_sums(sums, part);
            for (std::size_t r = 0; r < kVecRows; ++r) out[first + r] += part[r];
        }
    }
}

inline void byte_exact_simd(const ByteLayout& layout, const std::uint8_t* block, const std::int16_t* fine,
                            std::uint32_t rows, std::int64_t* out) {
    layout.bits == 8 ? byte_exact_bits<8>(layout, block, fine, rows, out)
                     : byte_exact_bits<4>(layout, block, fine, rows, out);
}

inline void byte_decode_simd(const ByteLayout& layout, const std::uint8_t* code, const float* step,
                             const float* center, float scale, std::size_t dim, float* out) {
    const float half = 0.5f * static_cast<float>(layout.top());
    const F32 f = f32_set(scale), h = f32_set(half);
    const std::size_t whole = dim / kUnpackDims * kUnpackDims;
    for (std::size_t at = 0; at < whole; at += kUnpackDims) {
        F32 u[kUnpackDims / F32::kLanes];
        layout.bits == 8 ? unpack_bytes(code + at, u) : unpack_nibbles(code + at / 2, u);
        for (std::size_t j = 0; j < kUnpackDims; j += F32::kLanes) {
            const F32 value = f32_mul(f32_mul(f, f32_load(step + at + j)), f32_sub(u[j / F32::kLanes], h));
            f32_store(out + at + j, f32_add(value, f32_load(center + at + j)));
        }
    }
    byte_decode_from(layout, code, step, center, scale, whole, dim, out);
}

constexpr ByteKernels simd_byte_kernels() { return {kCellTile, byte_scan_simd, byte_exact_simd, byte_decode_simd}; }

}  // namespace
}  // namespace residua::kernel
