// SPDX-License-Identifier: Apache-2.0
// Candidates of a coarser score, scored again: the later stages of a funnel over codes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/top_k.hpp"

namespace residua::index {

using RowLists = std::vector<std::vector<ScoredRow>>;

// Scores of rows, which ascend, for one query.
using ScoreRows = std::function<void(std::size_t query, std::span<const std::uint32_t> rows, float* out)>;

// Per query the `keep` best of its candidates, best first, ties by `order`.
RowLists settle(RowLists candidates, std::size_t keep, const TieOrder* order, int num_threads,
                const ScoreRows& score);

}  // namespace residua::index
