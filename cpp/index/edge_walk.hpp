// SPDX-License-Identifier: Apache-2.0
// The walk of graph_search.hpp over records of an EdgeStore. A record is asked for some hops before it is
// read: a walk looks at nearly all rows of its beam in the end, so that their order matters little, and
// waiting for memory would take longer than scoring.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/prefetch.hpp"
#include "index/edge_store.hpp"
#include "index/graph_search.hpp"

namespace residua::index {

inline constexpr std::size_t kRecordsAhead = 2;

// Leaves the ef best rows of the walk in scratch.beam; collect(score, row) sees every row that was met, and
// fetch(row) the ones whose record is read: nearly all that the beam will hold.
template <class Collect, class Fetch>
void walk_edges(const EdgeView& edges, const codec::EdgeScorer& scorer, std::size_t query, std::size_t ef,
                WalkScratch& scratch, Collect collect, Fetch fetch) {
    constexpr bool kCollects = !std::is_same_v<Collect, CollectNone>;
    const std::size_t n = edges.size();
    const std::vector<std::uint32_t>& entries = edges.entries->rows;
    Beam& beam = scratch.beam;
    VisitedRows& visited = scratch.visited;
    beam.reset(ef);
    visited.reset(n);
    alignas(kCacheLine) float scores[kMaxUnitRows];
    const EdgeForm& form = edges.form;
    // Offers the rows of a unit that the walk has not met; all of them where somebody collects.
    const auto offer = [&](const std::uint32_t* rows, const std::uint8_t* unit, Beam& to) {
        std::uint32_t above = scorer.scores(unit, query, kCollects ? kWorstScore : to.worst(), scores);
        for (; above != 0; above &= above - 1) {
            const auto j = static_cast<std::size_t>(std::countr_zero(above));
            if (rows[j] >= n || !visited.insert(rows[j])) continue;
            collect(scores[j], rows[j]);
            if (scores[j] > to.worst()) {
                to.push(scores[j], rows[j]);
                prefetch_line(edges.slots.data + rows[j]);
            }
        }
    };

    scratch.seeds.reset(std::min(kWalkSeeds, ef));
    std::uint32_t rows[kMaxUnitRows];
    for (std::size_t i = 0, u = 0; i < entries.size(); i += form.unit_rows, ++u) {
        const std::size_t m = std::min(form.unit_rows, entries.size() - i);
        std::fill(std::copy_n(entries.begin() + static_cast<std::ptrdiff_t>(i), m, rows), rows + form.unit_rows, kNoRow);
        offer(rows, edges.entries->units.data() + u * form.unit_bytes, scratch.seeds);
    }
    for (std::size_t i = 0; i < scratch.seeds.size(); ++i) beam.push(scratch.seeds[i].score, scratch.seeds[i].row);

    struct Asked {
        std::uint32_t row, slot;
    };
    Asked ahead[kRecordsAhead];
    std::size_t first = 0, waiting = 0;
    const auto ask = [&] {
        std::uint32_t row;
        while (waiting < kRecordsAhead && beam.pop(row)) {
            const std::uint32_t slot = edges.slots.data[row];
            const std::size_t units = units_of(slot);
            if (units == 0) continue;
            const std::uint8_t* record = edges.record(slot);
            for (std::size_t b = 0; b < form.lines(units); ++b) prefetch_line(record + b * kCacheLine);
            ahead[(first + waiting++) % kRecordsAhead] = {row, slot};
        }
    };
    for (ask(); waiting > 0; ask()) {
        const auto [from, slot] = ahead[first];
        first = (first + 1) % kRecordsAhead;
        --waiting;
        ask();
        const std::size_t units = units_of(slot);
        const auto* row = reinterpret_cast<const std::uint32_t*>(edges.record(slot));
        const auto* unit = reinterpret_cast<const std::uint8_t*>(row + units * form.unit_rows);
        for (std::size_t u = 0; u < units; ++u, row += form.unit_rows, unit += form.unit_bytes) offer(row, unit, beam);
        fetch(from);
    }
}

}  // namespace residua::index
