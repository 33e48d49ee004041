// SPDX-License-Identifier: Apache-2.0
// Data sheet of the packed-bit kernels: Hamming distance of rows of `bytes` bytes each.
// Exact integers, equal bit for bit on every instruction set. No alignment required.
#pragma once

#include <cstddef>
#include <cstdint>

namespace residua::kernel {

inline constexpr std::size_t kHammingTile = 4;  // queries per pass over the codes

struct BitKernels {
    // out[i * n + r] = number of differing bits of query i and row r.
    void (*hamming)(const std::uint8_t* queries, std::size_t nq, const std::uint8_t* rows, std::size_t n,
                    std::size_t bytes, std::int32_t* out);
    // Scans rows [0, n) in groups of 32 and stops at the first group in which some row of some query
    // (nq <= kHammingTile) has distance <= limits[i]. Returns that group's first row (n when there is
    // none); mask[i] gets the rows that qualify, dist[i * 32 + j] the distances of the group's rows
    // (unspecified past the last row).
    std::size_t (*hamming_scan)(const std::uint8_t* queries, std::size_t nq, const std::uint8_t* rows, std::size_t n,
                                std::size_t bytes, const std::int32_t* limits, std::uint32_t* mask,
                                std::int32_t* dist);
};

}  // namespace residua::kernel
