// SPDX-License-Identifier: Apache-2.0
// Differing bits of packed rows by 8-byte words and the machine's bit count, several queries per
// pass over the rows. Shared by all instruction sets of x86-64-v2 and above, where counting a word
// costs one instruction. Include from an ISA translation unit only.
#pragma once

#include <bit>
#include <cstring>

#include "kernel/bit_kernels.hpp"

namespace residua::kernel {
namespace {

inline std::uint64_t load_word(const std::uint8_t* p) {
    std::uint64_t w;
    std::memcpy(&w, p, sizeof w);
    return w;
}

// The last bytes % 8 bytes of a row in the low bytes of a word; nothing outside the row is read.
inline std::uint64_t load_tail(const std::uint8_t* row, std::size_t bytes) {
    const std::size_t tail = bytes % 8;
    if (bytes >= 8) return tail == 0 ? 0 : load_word(row + bytes - 8) >> (8 * (8 - tail));
    std::uint64_t w = 0;
    for (std::size_t i = 0; i < tail; ++i) w |= std::uint64_t{row[i]} << (8 * i);
    return w;
}

static_assert(std::endian::native == std::endian::little, "load_tail places bytes for little-endian words");

// Distances of one row to NQ queries, `bytes` apart; tails[i] is the tail word of query i.
template <std::size_t NQ>
inline void row_distances(const std::uint8_t* queries, const std::uint64_t* tails, const std::uint8_t* row,
                          std::size_t bytes, std::int32_t* out, std::size_t stride) {
    std::uint64_t sums[NQ] = {};
    const std::size_t whole = bytes / 8 * 8;
    for (std::size_t at = 0; at < whole; at += 8) {
        const std::uint64_t w = load_word(row + at);
        for (std::size_t i = 0; i < NQ; ++i) {
            sums[i] += static_cast<std::uint64_t>(std::popcount(w ^ load_word(queries + i * bytes + at)));
        }
    }
    if (whole != bytes) {
        const std::uint64_t w = load_tail(row, bytes);
        for (std::size_t i = 0; i < NQ; ++i) sums[i] += static_cast<std::uint64_t>(std::popcount(w ^ tails[i]));
    }
    for (std::size_t i = 0; i < NQ; ++i) out[i * stride] = static_cast<std::int32_t>(sums[i]);
}

// kBytes: the length of a row where it is known at compile time, else 0.
template <std::size_t NQ, std::size_t kBytes>
void tile_distances(const std::uint8_t* queries, const std::uint8_t* rows, std::size_t n, std::size_t length,
                    std::int32_t* out, std::size_t stride) {
    const std::size_t bytes = kBytes == 0 ? length : kBytes;
    std::uint64_t tails[NQ];
    for (std::size_t i = 0; i < NQ; ++i) tails[i] = load_tail(queries + i * bytes, bytes);
    for (std::size_t r = 0; r < n; ++r) row_distances<NQ>(queries, tails, rows + r * bytes, bytes, out + r, stride);
}

template <std::size_t NQ>
void tile_distances(const std::uint8_t* queries, const std::uint8_t* rows, std::size_t n, std::size_t bytes,
                    std::int32_t* out, std::size_t stride) {
    switch (bytes) {  // one bit for each of 256, 384, 512, 768, 1,024 dims
        case 32: return tile_distances<NQ, 32>(queries, rows, n, bytes, out, stride);
        case 48: return tile_distances<NQ, 48>(queries, rows, n, bytes, out, stride);
        case 64: return tile_distances<NQ, 64>(queries, rows, n, bytes, out, stride);
        case 96: return tile_distances<NQ, 96>(queries, rows, n, bytes, out, stride);
        case 128: return tile_distances<NQ, 128>(queries, rows, n, bytes, out, stride);
        default: return tile_distances<NQ, 0>(queries, rows, n, bytes, out, stride);
    }
}

// out[i * stride + r] for nq <= kHammingTile queries.
inline void tile_distances(const std::uint8_t* queries, std::size_t nq, const std::uint8_t* rows, std::size_t n,
                           std::size_t bytes, std::int32_t* out, std::size_t stride) {
    static_assert(kHammingTile == 4);
    switch (nq) {
        case 1: return tile_distances<1>(queries, rows, n, bytes, out, stride);
        case 2: return tile_distances<2>(queries, rows, n, bytes, out, stride);
        case 3: return tile_distances<3>(queries, rows, n, bytes, out, stride);
        default: return tile_distances<4>(queries, rows, n, bytes, out, stride);
    }
}

inline void hamming_words(const std::uint8_t* queries, std::size_t nq, const std::uint8_t* rows, std::size_t n,
                          std::size_t bytes, std::int32_t* out) {
    for (std::size_t i = 0; i < nq; i += kHammingTile) {
        const std::size_t tile = nq - i < kHammingTile ? nq - i : kHammingTile;
        tile_distances(queries + i * bytes, tile, rows, n, bytes, out + i * n, n);
    }
}

}  // namespace
}  // namespace residua::kernel
