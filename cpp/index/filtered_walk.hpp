// SPDX-License-Identifier: Apache-2.0
// Best-first search among the rows that pass a filter, over the edges of the whole graph. A step scores
// neighbours that pass; where they are few it looks at the lists of neighbours that do not, without
// scoring those, and takes what passes from there (ACORN, SIGMOD 2024; NaviX, VLDB 2025). Where rows that
// pass are nowhere near, rows that do not lead on for a while.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/bitset.hpp"
#include "index/beam.hpp"
#include "index/graph.hpp"
#include "index/graph_search.hpp"

namespace residua::index {

// Steps that a walk takes over rows that do not pass, without coming upon any that does.
inline constexpr std::size_t kBridgeSteps = 32;
inline constexpr std::size_t kBridges = 16;

// score(rows, n, out) and fetch(rows, n) are those of a RowHop.
template <class ScoreRows, class FetchRows>
class FilteredWalk {
public:
    FilteredWalk(const GraphView& graph, const Bitset& allowed, ScoreRows score, FetchRows fetch, WalkScratch& scratch)
        : graph_(graph), allowed_(allowed), score_(score), fetch_(fetch), scratch_(scratch) {
        rows_.reserve(2 * graph.degree);
    }

    // Leaves the ef best rows that pass in scratch.beam. `starts` are scored rows that pass or do not.
    void run(std::size_t ef, std::span<const ScoredRow> starts) {
        scratch_.beam.reset(ef);
        scratch_.seeds.reset(kBridges);
        scratch_.visited.reset(graph_.n);
        for (const ScoredRow& s : starts) {
            if (!scratch_.visited.insert(s.row)) continue;
            (passes(s.row) ? scratch_.beam : scratch_.seeds).push(s.score, s.row);
        }
        std::uint32_t row;
        for (std::size_t bridged = 0;;) {
            const bool found = scratch_.beam.pop(row);
            if (!found && (scratch_.beam.full() || bridged == kBridgeSteps || !scratch_.seeds.pop(row))) break;
            bridged = step(row) || found ? 0 : bridged + 1;
        }
    }

private:
    bool passes(std::uint32_t row) const { return allowed_.holds(row); }

    // Whether rows that pass came in.
    bool step(std::uint32_t row) {
        const std::size_t target = graph_.degree;
        rows_.clear();
        failed_.clear();
        look(row, [this](std::uint32_t r) { failed_.push_back(r); });
        if (2 * rows_.size() < target) {
            for (const std::uint32_t r : failed_) prefetch_list(graph_, r);
            for (std::size_t i = 0; i < failed_.size() && rows_.size() < target; ++i) {
                scratch_.visited.insert(failed_[i]);
                look(failed_[i], [](std::uint32_t) {});
            }
        }
        if (!rows_.empty()) {
            take(rows_, scratch_.beam);
            return true;
        }
        take(failed_, scratch_.seeds);
        return false;
    }
    template <class Fail>
    void look(std::uint32_t row, Fail fail) {
        const std::uint32_t* list = graph_.list(row);
        for (std::size_t i = 0; i < graph_.degree; ++i) {
            const std::uint32_t r = load_row(list + i);
            if (r == kNoRow) break;
            if (r >= graph_.n) continue;
            if (!passes(r)) {
                if (!scratch_.visited.test(r)) fail(r);
            } else if (scratch_.visited.insert(r)) {
                rows_.push_back(r);
            }
        }
    }
    void take(const std::vector<std::uint32_t>& rows, Beam& beam) {
        fetch_(rows.data(), rows.size());
        scores_.resize(rows.size());
        score_(rows.data(), rows.size(), scores_.data());
        for (std::size_t i = 0; i < rows.size(); ++i) {
            if (scores_[i] > beam.worst()) beam.push(scores_[i], rows[i]);
        }
        if (std::uint32_t next; beam.peek(next)) prefetch_list(graph_, next);
    }

    const GraphView& graph_;
    const Bitset& allowed_;
    ScoreRows score_;
    FetchRows fetch_;
    WalkScratch& scratch_;
    std::vector<std::uint32_t> rows_, failed_;
    std::vector<float> scores_;
};

}  // namespace residua::index
