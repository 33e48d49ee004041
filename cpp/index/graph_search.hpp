// SPDX-License-Identifier: Apache-2.0
// Best-first search of a graph, written once over what scores a hop.
//
// A Hop is a model of
//   void seed(WalkScratch&, Collect)             offers the best starting rows to the beam
//   void prefetch(row)                           what expand(row) will read first
//   std::size_t expand(row, VisitedRows&, std::uint32_t* rows, float* scores)
//                                                neighbours that the walk has not met, and their scores; at
//                                                most kMaxDegree
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/bitset.hpp"
#include "index/beam.hpp"
#include "index/graph.hpp"

namespace residua::index {

inline constexpr std::size_t kWalkSeeds = 8;  // entries that a walk starts from

// What one walk after the other uses.
struct WalkScratch {
    Beam beam;
    Beam found;  // of the rows that may be returned, where not every row may
    VisitedRows visited;
    Beam seeds;
    std::vector<float> seed_scores;
};

// Leaves the ef best rows of the walk in scratch.beam, by the hop's scores; collect(score, row) sees every
// row that was scored. n: rows of the graph.
template <class Hop, class Collect>
void walk(Hop& hop, std::size_t n, std::size_t ef, WalkScratch& scratch, Collect collect) {
    Beam& beam = scratch.beam;
    beam.reset(ef);
    scratch.visited.reset(n);
    hop.seed(scratch, collect);
    std::uint32_t rows[kMaxDegree];
    float scores[kMaxDegree];
    std::uint32_t row, next;
    while (beam.pop(row)) {
        if (beam.peek(next)) hop.prefetch(next);
        const std::size_t met = hop.expand(row, scratch.visited, rows, scores);
        for (std::size_t i = 0; i < met; ++i) {
            collect(scores[i], rows[i]);
            if (scores[i] > beam.worst()) beam.push(scores[i], rows[i]);
        }
    }
}

// Neighbours that are the reader's and new; their number.
inline std::size_t unvisited(const GraphView& graph, std::uint32_t row, VisitedRows& visited, std::uint32_t* out) {
    const std::uint32_t* list = graph.list(row);
    std::size_t n = 0;
    for (std::size_t i = 0; i < graph.degree; ++i) {
        const std::uint32_t r = load_row(list + i);
        if (r < graph.n) {
            if (visited.insert(r)) out[n++] = r;
        } else if (r == kNoRow) {
            break;
        }
    }
    return n;
}

inline void prefetch_line(const void* p) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(p);
#else
    (void)p;
#endif
}

// A hop over one scorer per row: score(rows, n, out).
template <class ScoreRows>
class RowHop {
public:
    // seeds: how many of the entries the walk starts from.
    RowHop(const GraphView& graph, ScoreRows score, std::size_t seeds) : graph_(graph), score_(score), n_seeds_(seeds) {}

    // Only the best entries count as visited: a walk may still come upon the others.
    template <class Collect>
    void seed(WalkScratch& scratch, Collect collect) {
        const std::vector<std::uint32_t>& entries = *graph_.entries;
        scratch.seed_scores.resize(entries.size());
        score_(entries.data(), entries.size(), scratch.seed_scores.data());
        scratch.seeds.reset(n_seeds_);
        for (std::size_t i = 0; i < entries.size(); ++i) scratch.seeds.push(scratch.seed_scores[i], entries[i]);
        for (std::size_t i = 0; i < scratch.seeds.size(); ++i) {
            const ScoredRow s = scratch.seeds[i];
            scratch.visited.insert(s.row);
            scratch.beam.push(s.score, s.row);
            collect(s.score, s.row);
        }
    }
    void prefetch(std::uint32_t row) const {
        const auto* list = reinterpret_cast<const std::uint8_t*>(graph_.list(row));
        for (std::size_t b = 0; b < graph_.degree * sizeof(std::uint32_t); b += 64) prefetch_line(list + b);
    }
    std::size_t expand(std::uint32_t row, VisitedRows& visited, std::uint32_t* rows, float* scores) {
        const std::size_t n = unvisited(graph_, row, visited, rows);
        score_(rows, n, scores);
        return n;
    }

private:
    const GraphView& graph_;
    ScoreRows score_;
    std::size_t n_seeds_;
};

}  // namespace residua::index
