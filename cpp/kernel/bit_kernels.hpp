// SPDX-License-Identifier: Apache-2.0
// Data sheet of the packed-bit kernels: Hamming distance of codes of `bytes` bytes each.
// Exact integers, equal bit for bit on every instruction set. No alignment required.
//
// The scan reads blocks of kBlockRows rows in strips, as the plane kernels do (kernel/plane_kernels.hpp):
// 2 * bytes strips of kStripBytes, each one nibble of all rows. A query is a table per strip: entry x is
// the number of bits in which x differs from the query's nibble, 0 … 4.
#pragma once

#include <cstddef>
#include <cstdint>

namespace residua::kernel {

inline constexpr std::size_t kHammingTile = 4;  // queries per pass over the codes

struct BitKernels {
    // out[i * n + r] = number of differing bits of query i and row r, of packed rows.
    void (*hamming)(const std::uint8_t* queries, std::size_t nq, const std::uint8_t* rows, std::size_t n,
                    std::size_t bytes, std::int32_t* out);
    // Scans blocks [0, n_blocks) and stops at the first one in which some row of some query
    // (nq <= kHammingTile; the tables of query i start at tables + i * 32 * bytes) has distance
    // <= limits[i]. Returns its number (n_blocks when there is none); mask[i] gets the rows that
    // qualify, dist[i * 32 + r] all distances of that block.
    std::size_t (*hamming_scan)(const std::uint8_t* blocks, std::size_t n_blocks, std::size_t bytes,
                                const std::uint8_t* tables, std::size_t nq, const std::int32_t* limits,
                                std::uint32_t* mask, std::int32_t* dist);
};

}  // namespace residua::kernel
