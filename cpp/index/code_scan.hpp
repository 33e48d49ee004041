// SPDX-License-Identifier: Apache-2.0
// Scans of codes that stand in blocks, by any number of threads.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "codec/codec.hpp"
#include "core/bitset.hpp"
#include "core/top_k.hpp"
#include "index/exact_scan.hpp"
#include "index/settle.hpp"

namespace residua::index {

// The `keep` best of the rows in view for every query of the scorer.
std::vector<TopK> scan_blocks(const codec::Scorer& scorer, codec::BlockView view, std::size_t block_bytes, std::size_t keep,
                              const Bitset* allowed, const TieOrder* order, int num_threads);

// Some rows of a table, numbered anew as they were gathered; ties go by what they were.
class GatheredOrder final : public TieOrder {
public:
    GatheredOrder(std::span<const std::uint32_t> rows, const TieOrder* order) : rows_(rows), order_(order) {}
    bool before(std::uint32_t a, std::uint32_t b) const override {
        return order_ != nullptr ? order_->before(rows_[a], rows_[b]) : rows_[a] < rows_[b];
    }
    void rename(RowLists& lists) const {
        for (auto& list : lists) {
            for (ScoredRow& r : list) r.row = rows_[r.row];
        }
    }

private:
    std::span<const std::uint32_t> rows_;
    const TieOrder* order_;
};

// Copies of some rows of a source, with their scalars.
struct GatheredRows {
    GatheredRows(const store::RowSource& from, std::span<const std::uint32_t> rows, int num_threads);
    GatheredRows(const GatheredRows&) = delete;
    GatheredRows& operator=(const GatheredRows&) = delete;

    store::RowSource source;

private:
    AlignedVector<std::uint8_t> bytes_;
    std::vector<float> scales_, norms_;
};

}  // namespace residua::index
