// SPDX-License-Identifier: Apache-2.0
// The Hamming scan on the vector vocabulary (kernel/simd). Include from an ISA translation unit only.
#pragma once

#include "kernel/generic/bit-count-inl.hpp"
#include "kernel/plane_kernels.hpp"

namespace residua::kernel {
namespace {

// Table entries are at most 4, so a byte sums up this many vectors of strips, and 16 bits that many.
constexpr std::size_t kHammingRun = 255 / 4;
constexpr std::size_t kHammingSpan = 65535 / 4 / kHammingRun * kHammingRun;

// Adds `run` >= 1 vectors of strips to the sums of NQ queries, whose tables lie `stride` bytes apart.
template <std::size_t NQ>
inline void add_strips(const std::uint8_t* strips, std::size_t run, const std::uint8_t* tables, std::size_t stride,
                       RowsU16* sums) {
    constexpr std::size_t kStep = kVecStrips * kStripBytes;
    Bytes low[NQ], high[NQ];
    const auto for_each_query = [&](std::size_t v, auto use) {
        const Bytes codes = load_bytes(strips + v * kStep);
        const Bytes x = low_nibbles(codes);
        const Bytes y = high_nibbles(codes);
        for (std::size_t i = 0; i < NQ; ++i) {
            const Bytes table = load_bytes(tables + i * stride + v * kStep);
            use(i, look_up(table, x), look_up(table, y));
        }
    };
    for_each_query(0, [&](std::size_t i, Bytes x, Bytes y) {
        low[i] = x;
        high[i] = y;
    });
    for (std::size_t v = 1; v < run; ++v) {
        for_each_query(v, [&](std::size_t i, Bytes x, Bytes y) {
            low[i] = add_bytes(low[i], x);
            high[i] = add_bytes(high[i], y);
        });
    }
    for (std::size_t i = 0; i < NQ; ++i) sums[i].add(low[i], high[i]);
}

template <std::size_t NQ>
inline void add_to(const RowsU16* sums, std::int32_t* dist) {
    for (std::size_t i = 0; i < NQ; ++i) {
        std::int32_t part[kBlockRows];
        store_rows(widen(sums[i]), part);
        for (std::size_t r = 0; r < kBlockRows; ++r) dist[i * kBlockRows + r] += part[r];
    }
}

// Distances of one block to NQ queries: dist[i * kBlockRows + r].
template <std::size_t NQ>
inline void block_distances(const std::uint8_t* block, std::size_t block_bytes, const std::uint8_t* tables,
                            std::int32_t* dist) {
    constexpr std::size_t kStep = kVecStrips * kStripBytes;
    const std::size_t vectors = block_bytes / kStep;
    for (std::size_t i = 0; i < NQ * kBlockRows; ++i) dist[i] = 0;
    for (std::size_t begin = 0; begin < vectors; begin += kHammingSpan) {
        const std::size_t end = vectors - begin < kHammingSpan ? vectors : begin + kHammingSpan;
        RowsU16 sums[NQ];
        for (RowsU16& s : sums) s.clear();
        for (std::size_t v = begin; v < end; v += kHammingRun) {
            const std::size_t run = end - v < kHammingRun ? end - v : kHammingRun;
            add_strips<NQ>(block + v * kStep, run, tables + v * kStep, block_bytes, sums);
        }
        add_to<NQ>(sums, dist);
    }
    if (block_bytes % kStep == 0) return;
    // Vectors wider than a byte of dims: the last strips and their tables, with zeros behind them.
    const std::size_t rest = block_bytes % kStep;
    std::uint8_t strips[kStep] = {}, padded[NQ][kStep] = {};
    for (std::size_t j = 0; j < rest; ++j) {
        strips[j] = block[vectors * kStep + j];
        for (std::size_t i = 0; i < NQ; ++i) padded[i][j] = tables[i * block_bytes + vectors * kStep + j];
    }
    RowsU16 sums[NQ];
    for (RowsU16& s : sums) s.clear();
    add_strips<NQ>(strips, 1, padded[0], kStep, sums);
    add_to<NQ>(sums, dist);
}

template <std::size_t NQ>
std::size_t hamming_tile(const std::uint8_t* blocks, std::size_t n_blocks, std::size_t bytes,
                         const std::uint8_t* tables, const std::int32_t* limits, std::uint32_t* mask,
                         std::int32_t* dist) {
    const std::size_t block_bytes = kBlockRows * bytes;
    for (std::size_t b = 0; b < n_blocks; ++b) {
        block_distances<NQ>(blocks + b * block_bytes, block_bytes, tables, dist);
        std::uint32_t any = 0;
        for (std::size_t i = 0; i < NQ; ++i) {
            mask[i] = rows_at_most(dist + i * kBlockRows, limits[i]);
            any |= mask[i];
        }
        if (any != 0) return b;
    }
    return n_blocks;
}

inline std::size_t hamming_scan_simd(const std::uint8_t* blocks, std::size_t n_blocks, std::size_t bytes,
                                     const std::uint8_t* tables, std::size_t nq, const std::int32_t* limits,
                                     std::uint32_t* mask, std::int32_t* dist) {
    static_assert(kHammingTile == 4);
    switch (nq) {
        case 1: return hamming_tile<1>(blocks, n_blocks, bytes, tables, limits, mask, dist);
        case 2: return hamming_tile<2>(blocks, n_blocks, bytes, tables, limits, mask, dist);
        case 3: return hamming_tile<3>(blocks, n_blocks, bytes, tables, limits, mask, dist);
        default: return hamming_tile<4>(blocks, n_blocks, bytes, tables, limits, mask, dist);
    }
}

constexpr BitKernels simd_bit_kernels() { return {hamming_words, hamming_scan_simd}; }

}  // namespace
}  // namespace residua::kernel
