// SPDX-License-Identifier: Apache-2.0
// One search of an HNSWIndex with filters. Choosing and walking are in hnsw_plan.cpp, scanning and settling in
// hnsw_plan_scan.cpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "index/hnsw_index.hpp"
#include "index/hnsw_scorers.hpp"

namespace residua::index {

inline constexpr double kFewRows = 50'000.0;     // among which as many candidates are enough as a walk has
inline constexpr std::size_t kFilteredEf = 96;    // rows that a walk with a filter keeps by default
inline constexpr std::size_t kCandidates = 128;   // … and that a scan does

// Queries that share a filter.
struct FilterGroup {
    std::shared_ptr<const Bitset> allowed;  // null: all rows are live and match
    std::size_t matches = 0;
    std::vector<std::uint32_t> queries;
};

// The matches, ascending.
std::vector<std::uint32_t> matching_rows(const FilterGroup& group);

class HNSWIndex::PlannedSearch {
public:
    PlannedSearch(const HNSWIndex& index, ConstMatrix queries, Scorers& scorers, const SearchParams& params)
        : index_(index), view_(index.view()), queries_(queries), scorers_(scorers), params_(params), n_(index.ids_.rows()),
          costs_(index.costs_of(*view_)), exact_last_(scorers.last == nullptr), hits_(queries.rows), done_(queries.rows),
          notes_(queries.rows) {}

    SearchResult run();

private:
    std::vector<FilterGroup> groups() const;
    void answer(FilterGroup& group, int threads);
    void choose(const FilterGroup& group, std::vector<std::uint32_t>& scans, std::vector<std::uint32_t>& plain,
                std::vector<std::uint32_t>& filtered, int threads);
    // Scores of the entries, and the share of matches near the best of them.
    float look_around(std::size_t query, const FilterGroup& group, std::vector<float>& scores) const;
    // Matches that a walk keeps. Scores of floats have no errors that tell of matches missed far from the query, so there
    // more are kept where few lie near it.
    std::size_t beam_of(const FilterGroup& group, double local_rate) const;
    void score_entries(std::size_t query, std::vector<float>& scores) const;
    void scan(const FilterGroup& group, std::span<const std::uint32_t> queries, std::size_t keep, int threads);
    void scan_masked(const FilterGroup& group, std::span<const std::uint32_t> queries, std::size_t keep, int threads);
    void settle_found(const FilterGroup& group, int threads);
    void settle_widely(const FilterGroup& group, std::uint32_t query, float least);
    struct Errors {
        double mean = 0, deviation = 0;
    };
    Errors errors_of(std::span<const ScoredRow> candidates, std::uint32_t query);
    // Matches whose estimates are above the threshold.
    std::vector<ScoredRow> rows_above(const FilterGroup& group, std::uint32_t query, float threshold);
    void scan_exactly(const FilterGroup& group, std::span<const std::uint32_t> rows, std::span<const std::uint32_t> queries, int threads);
    void scan_packed(std::span<const std::uint32_t> rows, std::span<const std::uint32_t> queries, std::size_t keep, int threads);
    // Queries that starve note a fallback.
    void walk_plain(const FilterGroup& group, std::span<const std::uint32_t> queries, int threads);
    void walk_filtered(const FilterGroup& group, std::span<const std::uint32_t> queries, int threads);
    std::vector<ScoredRow> starts(std::size_t query, const FilterGroup& group, std::span<const std::uint32_t> sample) const;
    SearchResult result();

    std::size_t k_of(const FilterGroup& g) const { return std::min(params_.k, g.matches); }
    std::size_t ef_of(const FilterGroup& g) const {
        const std::size_t asked = params_.ef != 0 ? params_.ef : kFilteredEf;
        return std::min(std::max({asked, k_of(g), params_.rerank > 0 ? static_cast<std::size_t>(params_.rerank) : 0}), n_);
    }
    std::size_t keep_of_walk(const FilterGroup& g) const { return index_.candidates_of_walk(params_, k_of(g), ef_of(g), g.matches); }
    std::size_t keep_of_scan(const FilterGroup& g) const {
        if (index_.codec_ == nullptr) return k_of(g);
        if (!exact_last_) return std::max(k_of(g), std::min(ef_of(g), g.matches));
        // A codec asks for what is enough among many rows.
        const double wider = std::sqrt(std::max(0.25, static_cast<double>(g.matches) / kFewRows));
        const auto least = static_cast<double>(params_.ef != 0 ? ef_of(g) : kCandidates);
        const auto enough = static_cast<std::size_t>(least * wider);
        const std::size_t wanted = index_.candidates(params_, k_of(g), g.matches);
        return params_.rerank > 0 ? wanted : std::max(k_of(g), std::min(wanted, enough));
    }
    ScanCost scan_cost_of(const FilterGroup& g, std::size_t queries, std::size_t keep) const {
        const bool units = index_.codec_ != nullptr && view_->units.size != 0;
        return scan_cost(costs_, {g.matches, queries, keep, n_, units ? index_.codec_->edge_rows() : 0,
                                  index_.codec_ != nullptr, exact_last_});
    }
    double share(const FilterGroup& g) const { return n_ == 0 ? 1.0 : static_cast<double>(g.matches) / static_cast<double>(n_); }
    ConstMatrix some(std::span<const std::uint32_t> queries, std::vector<float>& copy) const;

    const HNSWIndex& index_;
    const std::shared_ptr<const View> view_;
    const ConstMatrix queries_;
    Scorers& scorers_;
    const SearchParams& params_;
    const std::size_t n_;
    const PlanCosts costs_;
    const bool exact_last_;
    RowLists hits_;
    std::vector<std::uint8_t> done_;  // hits are final
    std::vector<QueryNote> notes_;
    std::once_flag floats_once_;
    std::unique_ptr<codec::RowScorer> floats_;  // of the kept vectors
};

}  // namespace residua::index
