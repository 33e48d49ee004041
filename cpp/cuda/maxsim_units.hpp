// SPDX-License-Identifier: Apache-2.0
// What the MaxSim kernels share: how warps get documents, or parts of them, and what becomes of the largest products
// that they find. Device code; cuda/maxsim.hpp is the interface.
//
// A unit of work is a part of a document: all of it where documents are many. Warps take units from a counter, so that
// long documents hold nobody up. A group is the query tokens that one pass over the documents answers, in tiles of 16.
#pragma once

#include <cmath>

#include "cuda/simt.hpp"

namespace residua::cuda {

inline constexpr int kQueryTile = 16;

struct MaxsimUnits {
    const std::int64_t* offsets;   // of tokens, by document
    const std::uint32_t* chosen;   // documents to score, or null: all of them
    std::uint32_t first, n;        // of those, the ones of this launch
    std::uint32_t parts;           // of a document
    std::uint32_t tile;            // tokens that a warp takes at a time
    std::uint32_t* next;           // per group: units taken so far
    // Where results go: scores (sets, row) of whole documents if `best` is null, else (unit, query token) of this launch.
    float* scores;
    std::size_t row;               // documents that are scored in all
    const std::uint32_t* sets;     // where the tokens of every query begin, n_sets + 1
    std::uint32_t n_sets, query_tokens;
    float* best;

    struct Unit {
        std::uint32_t number, document;
        std::uint32_t tile, end;   // tiles; none left where equal
        std::uint32_t count;       // tokens of the document
        std::size_t begin;         // its first token
        RZ_DEVICE bool any() const { return tile < end; }
    };

    // The next unit that has tokens; those without are answered at once. All lanes of a warp call it together.
    RZ_DEVICE Unit take(std::uint32_t group, std::uint32_t group_tokens) const {
        for (;;) {
            std::uint32_t number = 0;
            if (lane_index() == 0) number = atomic_add(next + group, 1u);
            number = shuffle(number, 0);
            if (number >= n * parts) return {number, 0, 0, 0, 0, 0};
            const std::uint32_t slot = first + number / parts, part = number % parts;
            Unit unit;
            unit.number = number;
            unit.document = chosen == nullptr ? slot : chosen[slot];
            unit.begin = static_cast<std::size_t>(offsets[unit.document]);
            unit.count = static_cast<std::uint32_t>(static_cast<std::size_t>(offsets[unit.document + 1]) - unit.begin);
            const std::uint32_t tiles = unit.count / tile + (unit.count % tile != 0 ? 1u : 0u);
            unit.tile = static_cast<std::uint32_t>(std::uint64_t{tiles} * part / parts);
            unit.end = static_cast<std::uint32_t>(std::uint64_t{tiles} * (part + 1) / parts);
            if (unit.any()) return unit;
            answer_empty(number, group, group_tokens);
        }
    }

    RZ_DEVICE void answer_empty(std::uint32_t number, std::uint32_t group, std::uint32_t group_tokens) const {
        const auto lane = static_cast<std::uint32_t>(lane_index());
        if (best == nullptr) {
            for (std::uint32_t q = lane; q < n_sets; q += kWarp) scores[q * row + first + number] = -INFINITY;
            return;
        }
        const std::uint32_t begin = group * group_tokens;
        for (std::uint32_t i = lane; i < group_tokens && begin + i < query_tokens; i += kWarp) {
            best[std::size_t{number} * query_tokens + begin + i] = -INFINITY;
        }
    }

    // `mine`: the best scores of the group's tokens for a unit, in memory of the warp. Query tokens are added up in their
    // order in float64, as on the CPU.
    RZ_DEVICE void answer(std::uint32_t number, std::uint32_t group, std::uint32_t group_tokens, const float* mine) const {
        const auto lane = static_cast<std::uint32_t>(lane_index());
        sync_warp();
        if (best == nullptr) {
            for (std::uint32_t q = lane; q < n_sets; q += kWarp) {
                double sum = 0;
                for (std::uint32_t i = sets[q]; i < sets[q + 1]; ++i) sum += static_cast<double>(mine[i]);
                scores[q * row + first + number] = static_cast<float>(sum);
            }
        } else {
            const std::uint32_t begin = group * group_tokens;
            for (std::uint32_t i = lane; i < group_tokens && begin + i < query_tokens; i += kWarp) {
                best[std::size_t{number} * query_tokens + begin + i] = mine[i];
            }
        }
        sync_warp();
    }
};

}  // namespace residua::cuda
