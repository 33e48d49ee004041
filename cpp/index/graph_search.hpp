// SPDX-License-Identifier: Apache-2.0
// Best-first search of a graph, written once over what scores a hop.
//
// A Hop is a model of
//   void seed(WalkScratch&, Collect)        offers the best starting rows to the beam
//   void prefetch(row)                      asks for what gather(row) will read
//   void gather(row, VisitedRows&, HopRows&)  neighbours that the walk has not met, and asks for what
//                                           score() will read
//   void score(HopRows&)                    their scores
// so that what a step needs can arrive while other walks of the batch take theirs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/aligned.hpp"
#include "core/prefetch.hpp"
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

struct HopRows {
    std::size_t n = 0;
    std::uint32_t rows[kMaxDegree];
    float scores[kMaxDegree];
};

// For walks of which only the beam matters.
struct CollectNone {
    void operator()(float, std::uint32_t) const {}
};

// One walk, in steps. It leaves the ef best rows in scratch.beam, by the hop's scores; collect(score, row)
// sees every row that was scored.
template <class Hop, class Collect>
class Walk {
public:
    // n: rows of the graph.
    Walk(Hop hop, std::size_t n, std::size_t ef, WalkScratch& scratch, Collect collect)
        : hop_(std::move(hop)), scratch_(scratch), collect_(std::move(collect)) {
        scratch.beam.reset(ef);
        scratch.visited.reset(n);
        hop_.seed(scratch, collect_);
        advance();
    }
    bool done() const { return done_; }
    void step() {
        if (!gathered_) {
            hop_.gather(row_, scratch_.visited, found_);
            std::uint32_t next;
            if (scratch_.beam.peek(next)) hop_.prefetch(next);
            gathered_ = true;
            return;
        }
        hop_.score(found_);
        Beam& beam = scratch_.beam;
        for (std::size_t i = 0; i < found_.n; ++i) {
            collect_(found_.scores[i], found_.rows[i]);
            if (found_.scores[i] > beam.worst()) beam.push(found_.scores[i], found_.rows[i]);
        }
        advance();
    }

private:
    void advance() {
        gathered_ = false;
        done_ = !scratch_.beam.pop(row_);
        if (!done_) hop_.prefetch(row_);
    }

    Hop hop_;
    WalkScratch& scratch_;
    Collect collect_;
    std::uint32_t row_ = 0;
    bool gathered_ = false, done_ = false;
    HopRows found_;
};

template <class Hop, class Collect>
void walk(Hop hop, std::size_t n, std::size_t ef, WalkScratch& scratch, Collect collect) {
    Walk<Hop, Collect> w(std::move(hop), n, ef, scratch, std::move(collect));
    while (!w.done()) w.step();
}

inline constexpr std::size_t kTogether = 4;  // walks that take turns

// Takes the walks of queries [begin, end) in turns, a step each, so that memory works for all at once;
// ended(query) is called at the end of its walk.
template <class MakeWalk, class Ended>
void walk_together(std::size_t begin, std::size_t end, const MakeWalk& make, const Ended& ended) {
    using W = decltype(make(begin));
    struct Place {
        std::optional<W> walk;
        std::size_t query = 0;
    };
    std::array<Place, kTogether> places;
    std::size_t next = begin, running = 0;
    const auto start = [&](Place& p) {
        p.query = next;
        p.walk.emplace(make(next++));
    };
    for (Place& p : places) {
        if (next == end) break;
        start(p);
        ++running;
    }
    while (running > 0) {
        for (Place& p : places) {
            if (!p.walk) continue;
            if (!p.walk->done()) {
                p.walk->step();
                continue;
            }
            ended(p.query);
            if (next < end) {
                start(p);
            } else {
                p.walk.reset();
                --running;
            }
        }
    }
}

inline void prefetch_list(const GraphView& graph, std::uint32_t row) {
    const auto* list = reinterpret_cast<const std::uint8_t*>(graph.list(row));
    for (std::size_t b = 0; b < graph.degree * sizeof(std::uint32_t); b += kCacheLine) prefetch_line(list + b);
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

// A hop over one scorer per row: score(rows, n, out), and fetch(rows, n), which asks for what it will read.
template <class ScoreRows, class FetchRows>
class RowHop {
public:
    // seeds: how many of the entries the walk starts from.
    RowHop(const GraphView& graph, ScoreRows score, FetchRows fetch, std::size_t seeds)
        : graph_(graph), score_(score), fetch_(fetch), n_seeds_(seeds) {}

    // Only the best entries count as visited: a walk may still come upon the others.
    template <class Collect>
    void seed(WalkScratch& scratch, Collect& collect) {
        const std::vector<std::uint32_t>& entries = *graph_.entries;
        scratch.seed_scores.resize(entries.size());
        score_(entries.data(), entries.size(), scratch.seed_scores.data());
        scratch.seeds.reset(n_seeds_);
        for (std::size_t i = 0; i < entries.size(); ++i) {
            if (scratch.seed_scores[i] > scratch.seeds.worst()) scratch.seeds.push(scratch.seed_scores[i], entries[i]);
        }
        for (std::size_t i = 0; i < scratch.seeds.size(); ++i) {
            const ScoredRow s = scratch.seeds[i];
            scratch.visited.insert(s.row);
            scratch.beam.push(s.score, s.row);
            collect(s.score, s.row);
        }
    }
    void prefetch(std::uint32_t row) const { prefetch_list(graph_, row); }
    void gather(std::uint32_t row, VisitedRows& visited, HopRows& found) const {
        found.n = unvisited(graph_, row, visited, found.rows);
        fetch_(found.rows, found.n);
    }
    void score(HopRows& found) const { score_(found.rows, found.n, found.scores); }

private:
    const GraphView& graph_;
    ScoreRows score_;
    FetchRows fetch_;
    std::size_t n_seeds_;
};

struct FetchNothing {
    void operator()(const std::uint32_t*, std::size_t) const {}
};

}  // namespace residua::index
