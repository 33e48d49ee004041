// SPDX-License-Identifier: Apache-2.0
// The look-up scans in plain C++: the reference of every instruction set.
#pragma once

#include "kernel/lookup_kernels.hpp"

namespace residua::kernel {
namespace {

// add_block(block, tables, sums) adds a block's entries to the sums of its rows.
template <class AddBlock>
std::size_t scan_lookups(const std::uint8_t* blocks, std::size_t n_blocks, std::size_t bytes,
                         const LookupScan* queries, std::size_t nq, std::uint32_t* mask, AddBlock add_block) {
    for (std::size_t b = 0; b < n_blocks; ++b) {
        std::uint32_t any = 0;
        for (std::size_t i = 0; i < nq; ++i) {
            std::int32_t sums[kBlockRows] = {};
            add_block(blocks + b * kBlockRows * bytes, queries[i].tables, sums);
            mask[i] = 0;
            for (std::size_t r = 0; r < kBlockRows; ++r) {
                mask[i] |= static_cast<std::uint32_t>(sums[r] >= queries[i].least) << r;
            }
            any |= mask[i];
        }
        if (any != 0) return b;
    }
    return n_blocks;
}

inline std::size_t scan_nibbles_scalar(const std::uint8_t* blocks, std::size_t n_blocks, std::size_t bytes,
                                       const LookupScan* queries, std::size_t nq, std::uint32_t* mask) {
    return scan_lookups(blocks, n_blocks, bytes, queries, nq, mask,
                        [bytes](const std::uint8_t* strip, const std::uint8_t* table, std::int32_t* sums) {
                            for (std::size_t s = 0; s < 2 * bytes; ++s, strip += kStripBytes, table += kStripBytes) {
                                for (std::size_t j = 0; j < kStripBytes; ++j) {
                                    sums[j] += table[strip[j] & 15u];
                                    sums[j + kStripBytes] += table[strip[j] >> 4];
                                }
                            }
                        });
}

inline std::size_t scan_bytes_scalar(const std::uint8_t* blocks, std::size_t n_blocks, std::size_t bytes,
                                     const LookupScan* queries, std::size_t nq, std::uint32_t* mask) {
    return scan_lookups(blocks, n_blocks, bytes, queries, nq, mask,
                        [bytes](const std::uint8_t* codes, const std::uint8_t* table, std::int32_t* sums) {
                            for (std::size_t i = 0; i < bytes; ++i, codes += kBlockRows, table += 256) {
                                for (std::size_t r = 0; r < kBlockRows; ++r) sums[r] += table[codes[r]];
                            }
                        });
}

constexpr LookupKernels scalar_lookup_kernels() { return {scan_nibbles_scalar, scan_bytes_scalar}; }

}  // namespace
}  // namespace residua::kernel
