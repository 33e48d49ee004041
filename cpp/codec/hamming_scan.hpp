// SPDX-License-Identifier: Apache-2.0
// Top-k of packed codes by Hamming distance, on blocks in strips (kernel/bit_kernels.hpp).
#pragma once

#include <cstddef>
#include <cstdint>

#include "codec/block_rows.hpp"
#include "core/aligned.hpp"
#include "core/top_k.hpp"
#include "kernel/bit_kernels.hpp"

namespace residua::codec {

// The kernel's tables of n packed codes of `bytes` bytes.
class HammingQueries {
public:
    HammingQueries(const std::uint8_t* codes, std::size_t n, std::size_t bytes);

    std::size_t size() const { return n_; }
    std::size_t bytes() const { return bytes_; }
    // Bit i of a query's code.
    bool bit(std::size_t query, std::size_t i) const;

    const std::uint8_t* tables(std::size_t query) const { return tables_.data() + query * kernel::kBlockRows * bytes_; }

private:
    std::size_t n_, bytes_;
    AlignedVector<std::uint8_t> tables_;
};

// Offers all `rows`, stored in `blocks`, to pools[0 … q_end - q_begin) for the queries
// [q_begin, q_end); a score is dim - 2 * distance.
void hamming_topk(const kernel::BitKernels& kernels, const HammingQueries& queries, std::size_t q_begin,
                  std::size_t q_end, const std::uint8_t* blocks, const BlockRows& rows, std::size_t dim, TopK* pools);

// Scores of the kBlockRows rows of one block.
void hamming_scores(const kernel::BitKernels& kernels, const HammingQueries& queries, std::size_t query,
                    const std::uint8_t* block, std::size_t dim, float* out);

}  // namespace residua::codec
