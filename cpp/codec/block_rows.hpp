// SPDX-License-Identifier: Apache-2.0
// Which rows of consecutive blocks a scan may offer.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/bitset.hpp"
#include "kernel/plane_kernels.hpp"

namespace residua::codec {

// Rows first_row … first_row + n_rows - 1 of an index, in blocks numbered from 0.
class BlockRows {
public:
    BlockRows(std::size_t first_row, std::size_t n_rows, const Bitset* allowed)
        : first_row_(first_row), n_rows_(n_rows), allowed_(allowed) {}

    std::size_t blocks() const { return (n_rows_ + kernel::kBlockRows - 1) / kernel::kBlockRows; }

    // Blocks [begin, end), renumbered from 0.
    BlockRows slice(std::size_t begin, std::size_t end) const {
        const std::size_t first = begin * kernel::kBlockRows;
        const std::size_t last = end * kernel::kBlockRows;
        return {first_row_ + first, (last < n_rows_ ? last : n_rows_) - first, allowed_};
    }

    std::uint32_t row(std::size_t block, std::size_t j) const {
        return static_cast<std::uint32_t>(first_row_ + block * kernel::kBlockRows + j);
    }

    // Rows of a block that exist and are allowed.
    std::uint32_t mask(std::size_t block) const {
        const std::size_t at = block * kernel::kBlockRows;
        std::uint32_t rows = n_rows_ - at < kernel::kBlockRows ? (1u << (n_rows_ - at)) - 1u : ~0u;
        if (allowed_ != nullptr) {
            const std::size_t word = (first_row_ + at) / kernel::kBlockRows;
            const std::size_t shift = (first_row_ + at) % kernel::kBlockRows;
            const std::uint64_t bits = allowed_->block32(word) | std::uint64_t{allowed_->block32(word + 1)} << 32;
            rows &= static_cast<std::uint32_t>(bits >> shift);
        }
        return rows;
    }

    // Moves `begin` to the first block below `end` with an allowed row and returns the end of the run
    // of such blocks that it starts.
    std::size_t run(std::size_t& begin, std::size_t end) const {
        if (allowed_ == nullptr) return end;
        while (begin < end && mask(begin) == 0) ++begin;
        std::size_t stop = begin;
        while (stop < end && mask(stop) != 0) ++stop;
        return stop;
    }

private:
    std::size_t first_row_;
    std::size_t n_rows_;
    const Bitset* allowed_;
};

}  // namespace residua::codec
