// SPDX-License-Identifier: Apache-2.0
// What searches of an HNSWIndex share: the forms of a batch of queries, and what walks work with.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "index/hnsw_index.hpp"

namespace residua::index {

// Edges say where a walk goes, where neighbours' codes lie beside their lists; else rows do. Rows one by one, and
// units, are scanned. `last` scores the rows that were found when they are not settled by their vectors.
struct HNSWIndex::Scorers {
    std::function<std::unique_ptr<codec::RowScorer>()> prepare_rows;
    std::function<std::unique_ptr<codec::EdgeScorer>()> prepare_units;  // none without a codec
    bool turbo = false;
    std::unique_ptr<codec::RowScorer> last;

    // Many searches end without.
    const codec::RowScorer& rows() {
        std::call_once(once_rows, [this] { prepared_rows = prepare_rows(); });
        return *prepared_rows;
    }
    const codec::EdgeScorer& units() {
        std::call_once(once_units, [this] { prepared_units = prepare_units(); });
        return *prepared_units;
    }
    const codec::EdgeScorer* edges() { return turbo ? &units() : nullptr; }

private:
    std::once_flag once_rows, once_units;
    std::unique_ptr<codec::RowScorer> prepared_rows;
    std::unique_ptr<codec::EdgeScorer> prepared_units;
};

// Scratches for a number of walks, which go back to the index.
class HNSWIndex::Scratches {
public:
    Scratches(const HNSWIndex& index, std::size_t n) : index_(index) {
        for (std::size_t i = 0; i < n; ++i) scratch_.push_back(index.take_scratch());
    }
    ~Scratches() {
        for (auto& s : scratch_) index_.give_scratch(std::move(s));
    }
    Scratches(const Scratches&) = delete;
    Scratches& operator=(const Scratches&) = delete;
    std::unique_ptr<WalkScratch>& operator[](std::size_t i) { return scratch_[i]; }

private:
    const HNSWIndex& index_;
    std::vector<std::unique_ptr<WalkScratch>> scratch_;
};

}  // namespace residua::index
