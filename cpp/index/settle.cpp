// SPDX-License-Identifier: Apache-2.0
#include "index/settle.hpp"

#include <algorithm>

#include "core/parallel.hpp"

namespace residua::index {

RowLists settle(RowLists candidates, std::size_t keep, const TieOrder* order, int num_threads,
                const ScoreRows& score) {
    parallel_for(candidates.size(), 8, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<std::uint32_t> rows;
        std::vector<float> scores;
        for (std::size_t i = begin; i < end; ++i) {
            rows.clear();
            for (const ScoredRow& r : candidates[i]) rows.push_back(r.row);
            std::sort(rows.begin(), rows.end());  // memory order
            scores.resize(rows.size());
            score(i, rows, scores.data());
            TopK best(keep, order);
            for (std::size_t j = 0; j < rows.size(); ++j) best.push(scores[j], rows[j]);
            candidates[i] = best.take_sorted();
        }
    });
    return candidates;
}

}  // namespace residua::index
