// SPDX-License-Identifier: Apache-2.0
// Data sheet of the look-up kernels, which scan codes whose score is a sum of table entries: one entry for every
// 4-bit or 8-bit number of a code (product quantization). Tables hold whole numbers, rounded from floats, so a scan
// is a filter; codec/lookup_query.hpp says which rows it keeps and why none is lost.
//
// Block of kBlockRows = 32 rows.
//   4 bits: strips of one nibble of all rows, in the layout of kernel/plane_kernels.hpp; strip 2i is the high
//           and strip 2i + 1 the low half of byte i of a row code.
//   8 bits: byte i of all rows stands together, 32 bytes.
// Either way a block has 32 * bytes bytes for row codes of `bytes` bytes.
//
// Tables of a query: 16 entries per strip, 0 … kNibbleEntryMax, or 256 per byte, 0 … kByteEntryMax, in the
// order of the block. 4-bit tables are filled up with zeros to whole kTableStrips. No sum exceeds kLookupSumMax.
// Sums are exact: all instruction sets agree.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/plane_kernels.hpp"

namespace residua::kernel {

inline constexpr std::size_t kLookupTile = 4;  // queries per pass over the codes
inline constexpr std::size_t kTableStrips = 4;
inline constexpr int kNibbleEntryMax = 127;  // two fit a byte
inline constexpr int kByteEntryMax = 127;   // two fit a byte
inline constexpr int kLookupSumMax = 65534;

// Bytes that a query's tables take.
constexpr std::size_t nibble_table_bytes(std::size_t bytes) {
    return (2 * bytes + kTableStrips - 1) / kTableStrips * kTableStrips * kStripBytes;
}
constexpr std::size_t byte_table_bytes(std::size_t bytes) { return 256 * bytes; }

struct LookupScan {
    const std::uint8_t* tables;
    std::int32_t least;  // rows with a smaller sum are dropped; 0 … kLookupSumMax + 1
};

struct LookupKernels {
    // Scans blocks [0, n_blocks) for 1 <= nq <= kLookupTile queries and stops at the first block in which some
    // row of some query is kept. Returns its number (n_blocks when there is none); mask[i] gets the rows of query i.
    std::size_t (*scan_nibbles)(const std::uint8_t* blocks, std::size_t n_blocks, std::size_t bytes,
                                const LookupScan* queries, std::size_t nq, std::uint32_t* mask);
    std::size_t (*scan_bytes)(const std::uint8_t* blocks, std::size_t n_blocks, std::size_t bytes,
                              const LookupScan* queries, std::size_t nq, std::uint32_t* mask);
};

}  // namespace residua::kernel
