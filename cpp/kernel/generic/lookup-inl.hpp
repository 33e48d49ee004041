// SPDX-License-Identifier: Apache-2.0
// The look-up scans on the vector vocabulary (kernel/simd). Include from an ISA translation unit only.
#pragma once

#include <cstring>

#include "kernel/lookup_kernels.hpp"

namespace residua::kernel {
namespace {

constexpr std::size_t kNibbleRun = 255 / kNibbleEntryMax;  // vectors of strips whose entries fit a byte together

// Adds `run` <= kNibbleRun vectors of strips to the sums of NQ queries; tables[i] are those of the first.
template <std::size_t NQ>
inline void add_run(const std::uint8_t* strips, std::size_t run, const std::uint8_t* const* tables, RowsU16* sums) {
    constexpr std::size_t kStep = kVecStrips * kStripBytes;
    Bytes low[NQ], high[NQ];
    for (std::size_t v = 0; v < run; ++v) {
        const Bytes codes = load_bytes(strips + v * kStep);
        const Bytes x = low_nibbles(codes), y = high_nibbles(codes);
        for (std::size_t i = 0; i < NQ; ++i) {
            const Bytes table = load_bytes(tables[i] + v * kStep);
            low[i] = v == 0 ? look_up(table, x) : add_bytes(low[i], look_up(table, x));
            high[i] = v == 0 ? look_up(table, y) : add_bytes(high[i], look_up(table, y));
        }
    }
    for (std::size_t i = 0; i < NQ; ++i) sums[i].add(low[i], high[i]);
}

template <std::size_t NQ>
std::size_t scan_nibble_tile(const std::uint8_t* blocks, std::size_t n_blocks, std::size_t bytes,
                             const LookupScan* queries, std::uint32_t* mask) {
    constexpr std::size_t kStep = kVecStrips * kStripBytes;
    const std::size_t block_bytes = kBlockRows * bytes;
    const std::size_t vectors = block_bytes / kStep, rest = block_bytes % kStep;
    for (std::size_t b = 0; b < n_blocks; ++b) {
        const std::uint8_t* strips = blocks + b * block_bytes;
        RowsU16 sums[NQ];
        for (RowsU16& s : sums) s.clear();
        const std::uint8_t* tables[NQ];
        for (std::size_t i = 0; i < NQ; ++i) tables[i] = queries[i].tables;
        std::size_t v = 0;
        for (; v + kNibbleRun <= vectors; v += kNibbleRun) {
            add_run<NQ>(strips + v * kStep, kNibbleRun, tables, sums);
            for (std::size_t i = 0; i < NQ; ++i) tables[i] += kNibbleRun * kStep;
        }
        if (v < vectors) {
            add_run<NQ>(strips + v * kStep, vectors - v, tables, sums);
            for (std::size_t i = 0; i < NQ; ++i) tables[i] += (vectors - v) * kStep;
        }
        if (rest != 0) {  // vectors wider than a byte of a code: tables end in zeros
            std::uint8_t last[kStep] = {};
            std::memcpy(last, strips + vectors * kStep, rest);
            add_run<NQ>(last, 1, tables, sums);
        }
        std::uint32_t any = 0;
        for (std::size_t i = 0; i < NQ; ++i) {
            mask[i] = rows_at_least(widen_small(sums[i]), queries[i].least);
            any |= mask[i];
        }
        if (any != 0) return b;
    }
    return n_blocks;
}

// Rows of a vector of codes that reach `least`, a bit each.
template <std::size_t NQ>
inline void byte_masks(const std::uint8_t* codes, std::size_t code_step, std::size_t bytes, const LookupScan* queries,
                       std::uint64_t* mask) {
    const std::uint8_t* tables[NQ];
    ByteSums sums[NQ];
    for (std::size_t i = 0; i < NQ; ++i) {
        tables[i] = queries[i].tables;
        sums[i].clear();
    }
    Bytes first[NQ], second[NQ];
    std::size_t at = 0;
    for (; at + 2 <= bytes; at += 2) {  // two entries fit a byte
        look_up_256<NQ>(tables, load_columns(codes + at * kBlockRows, code_step), first);
        for (std::size_t i = 0; i < NQ; ++i) tables[i] += 256;
        look_up_256<NQ>(tables, load_columns(codes + (at + 1) * kBlockRows, code_step), second);
        for (std::size_t i = 0; i < NQ; ++i) {
            tables[i] += 256;
            sums[i].add(add_bytes(first[i], second[i]));
        }
    }
    if (at < bytes) {
        look_up_256<NQ>(tables, load_columns(codes + at * kBlockRows, code_step), first);
        for (std::size_t i = 0; i < NQ; ++i) sums[i].add(first[i]);
    }
    for (std::size_t i = 0; i < NQ; ++i) mask[i] = sums[i].at_least(queries[i].least);
}

template <std::size_t NQ>
std::size_t scan_byte_tile(const std::uint8_t* blocks, std::size_t n_blocks, std::size_t bytes,
                           const LookupScan* queries, std::uint32_t* mask) {
    constexpr std::size_t kColumnRows = kVecStrips * kStripBytes;
    constexpr std::size_t kColumnBlocks = kColumnRows < kBlockRows ? 1 : kColumnRows / kBlockRows;
    const std::size_t block_bytes = kBlockRows * bytes;
    for (std::size_t b = 0; b < n_blocks; b += kColumnBlocks) {
        // An odd last block stands in for the one behind it.
        const std::size_t step = b + kColumnBlocks <= n_blocks ? block_bytes : 0;
        std::uint64_t rows[NQ] = {};
        for (std::size_t part = 0; part * kColumnRows < kBlockRows; ++part) {
            std::uint64_t some[NQ];
            byte_masks<NQ>(blocks + b * block_bytes + part * kColumnRows, step, bytes, queries, some);
            for (std::size_t i = 0; i < NQ; ++i) rows[i] |= some[i] << (part * kColumnRows);
        }
        for (std::size_t j = 0; j < kColumnBlocks && b + j < n_blocks; ++j) {
            std::uint32_t any = 0;
            for (std::size_t i = 0; i < NQ; ++i) {
                mask[i] = static_cast<std::uint32_t>(rows[i] >> (j * kBlockRows));
                any |= mask[i];
            }
            if (any != 0) return b + j;
        }
    }
    return n_blocks;
}

inline std::size_t scan_nibbles_simd(const std::uint8_t* blocks, std::size_t n_blocks, std::size_t bytes,
                                     const LookupScan* queries, std::size_t nq, std::uint32_t* mask) {
    static_assert(kLookupTile == 4);
    switch (nq) {
        case 1: return scan_nibble_tile<1>(blocks, n_blocks, bytes, queries, mask);
        case 2: return scan_nibble_tile<2>(blocks, n_blocks, bytes, queries, mask);
        case 3: return scan_nibble_tile<3>(blocks, n_blocks, bytes, queries, mask);
        default: return scan_nibble_tile<4>(blocks, n_blocks, bytes, queries, mask);
    }
}

inline std::size_t scan_bytes_simd(const std::uint8_t* blocks, std::size_t n_blocks, std::size_t bytes,
                                   const LookupScan* queries, std::size_t nq, std::uint32_t* mask) {
    static_assert(kLookupTile == 4);
    switch (nq) {
        case 1: return scan_byte_tile<1>(blocks, n_blocks, bytes, queries, mask);
        case 2: return scan_byte_tile<2>(blocks, n_blocks, bytes, queries, mask);
        case 3: return scan_byte_tile<3>(blocks, n_blocks, bytes, queries, mask);
        default: return scan_byte_tile<4>(blocks, n_blocks, bytes, queries, mask);
    }
}

constexpr LookupKernels simd_lookup_kernels() { return {scan_nibbles_simd, scan_bytes_simd}; }

}  // namespace
}  // namespace residua::kernel
