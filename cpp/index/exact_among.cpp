// SPDX-License-Identifier: Apache-2.0
// Exact scores of lists of rows: re-ranking.
#include <algorithm>

#include "core/parallel.hpp"
#include "core/prefetch.hpp"
#include "index/bounded_scorer.hpp"
#include "index/candidate_pool.hpp"
#include "index/exact_scan.hpp"

namespace residua::index {
namespace {

using store::RowSource;
using Results = std::vector<std::vector<ScoredRow>>;

// Rows of a list lie far apart: each is on its way from memory while others are scored.
constexpr std::size_t kRowsAhead = 4;
constexpr std::size_t kFetchedBytes = 2048;  // what lies behind is fetched while a row is read

template <class Fetch>
void fetch_row(const RowSource& source, std::size_t row, Fetch fetch) {
    const auto* bytes = static_cast<const unsigned char*>(source.row(row));
    const std::size_t n = std::min(source.dim * store::row_type_bytes(source.type), kFetchedBytes);
    for (std::size_t i = 0; i < n; i += kCacheLine) fetch(bytes + i);
    if (source.inv_norm != nullptr) fetch(source.inv_norm + row);
}

// The best of the rows of one query.
template <class Pool>
void settle_list(const BoundedScorer& filter, const ExactScorer& scorer, const float* query, std::size_t k,
                 const TieOrder* order, std::vector<ScoredRow>& list) {
    if (k == 0 || list.empty()) {
        list.clear();
        return;
    }
    const RowSource& source = filter.source();
    const bool l2 = filter.metric() == Metric::l2;
    const QueryBounds bounds = filter.query(query);
    Pool pool(std::min(k, list.size()), order, scorer, query);
    const auto ask = [&](std::size_t j) { fetch_row(source, list[j].row, prefetch_line); };
    for (std::size_t j = 0; j < std::min(kRowsAhead, list.size()); ++j) ask(j);
    for (std::size_t j = 0; j < list.size(); ++j) {
        if (j + kRowsAhead < list.size()) ask(j + kRowsAhead);
        const std::uint32_t row = list[j].row;
        offer_row(filter, query, bounds, l2 ? RowBounds{} : filter.row(row), row, pool);
    }
    list = pool.finish();
}

// Per query the best of its own rows.
template <class Pool>
Results among(const RowSource& source, Metric metric, ConstMatrix queries, Results rows, std::size_t k,
              const TieOrder* order, int num_threads) {
    check_dim(source, queries);
    const BoundedScorer filter(source, metric);
    const ExactScorer scorer(source, metric);
    parallel_for(rows.size(), 8, num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; ++i) {
            // Memory order.
            std::sort(rows[i].begin(), rows[i].end(),
                      [](const ScoredRow& a, const ScoredRow& b) { return a.row < b.row; });
            settle_list<Pool>(filter, scorer, queries.row(i), k, order, rows[i]);
        }
    });
    return rows;
}

}  // namespace

std::vector<std::vector<ScoredRow>> exact_top_k_among(const RowSource& source, Metric metric, ConstMatrix queries,
                                                      std::vector<std::vector<ScoredRow>> rows, std::size_t k,
                                                      const TieOrder* order, int num_threads) {
    return among<TopKPool>(source, metric, queries, std::move(rows), k, order, num_threads);
}

std::vector<std::vector<ScoredRow>> exact_choice_among(const RowSource& source, Metric metric, ConstMatrix queries,
                                                       std::vector<std::vector<ScoredRow>> rows, std::size_t k,
                                                       const TieOrder* order, int num_threads) {
    return among<ChoicePool>(source, metric, queries, std::move(rows), k, order, num_threads);
}

struct ExactChoice::Parts {
    Parts(const RowSource& rows, Metric metric) : source(rows), filter(source, metric), scorer(source, metric) {}
    RowSource source;
    BoundedScorer filter;
    ExactScorer scorer;
};

ExactChoice::ExactChoice(const RowSource& source, Metric metric, const TieOrder* order)
    : parts_(std::make_unique<const Parts>(source, metric)), order_(order) {}

ExactChoice::~ExactChoice() = default;

void ExactChoice::fetch(std::uint32_t row) const {
    if (row < parts_->source.n) fetch_row(parts_->source, row, prefetch_line_later);
}

void ExactChoice::settle(const float* query, std::size_t k, std::vector<ScoredRow>& rows) const {
    settle_list<TopKPool>(parts_->filter, parts_->scorer, query, k, order_, rows);
}

}  // namespace residua::index
