// SPDX-License-Identifier: Apache-2.0
// Scans of the rows that a filter lets through, and how candidates are settled: by as many of them as the errors
// of the codes ask for.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

#include "codec/normalize.hpp"
#include "core/parallel.hpp"
#include "index/code_scan.hpp"
#include "index/code_units.hpp"
#include "index/hnsw_planned.hpp"

namespace residua::index {
namespace {

constexpr double kLikely = 1.6;           // deviations of estimates within which a row may belong to the result
constexpr double kAlmostSure = 4.0;       // … where it was found that candidates were too few
constexpr std::size_t kSampledErrors = 32; // candidates that tell of the errors of all
constexpr std::size_t kMaxGathered = std::size_t{32} << 20;  // bytes; more is scanned where it lies

float worst_of(std::span<const ScoredRow> rows) {
    float worst = rows[0].score;
    for (const ScoredRow& r : rows) worst = std::min(worst, r.score);
    return worst;
}

}  // namespace

std::vector<std::uint32_t> matching_rows(const FilterGroup& group) {
    const Bitset* const allowed = group.allowed.get();
    std::vector<std::uint32_t> rows(group.matches);
    if (allowed == nullptr) {
        std::iota(rows.begin(), rows.end(), 0u);
        return rows;
    }
    std::uint32_t* out = rows.data();
    const auto words = allowed->words();
    for (std::size_t w = 0; w < words.size(); ++w) {
        for (std::uint64_t bits = words[w]; bits != 0; bits &= bits - 1) {
            *out++ = static_cast<std::uint32_t>(64 * w + static_cast<std::size_t>(std::countr_zero(bits)));
        }
    }
    return rows;
}

void HNSWIndex::PlannedSearch::scan(const FilterGroup& group, std::span<const std::uint32_t> queries, std::size_t keep,
                                    int threads) {
    const ScanWay way = scan_cost_of(group, queries.size(), keep).way;
    for (const std::uint32_t q : queries) {
        notes_[q].plan = Plan::scan;
        notes_[q].visited += group.matches;
        notes_[q].reranked = !exact_last_ ? 0 : way == ScanWay::exact ? group.matches : std::min(group.matches, keep);
        hits_[q].clear();
    }
    if (way == ScanWay::masked) return scan_masked(group, queries, keep, threads);
    const std::vector<std::uint32_t> rows = matching_rows(group);
    if (way == ScanWay::exact) return scan_exactly(group, rows, queries, threads);
    if (way == ScanWay::packed) return scan_packed(rows, queries, keep, threads);
    const codec::RowScorer* scorer = way == ScanWay::rows ? &scorers_.rows() : nullptr;
    parallel_for(queries.size(), 1, threads, [&](std::size_t i, std::size_t, int) {
        std::vector<ScoredRow>& hits = hits_[queries[i]];
        if (way == ScanWay::rows) {
            hits = index_.scan_rows(*view_, *scorer, rows, queries[i], keep);
        } else {
            for (const std::uint32_t r : rows) hits.push_back({0.0f, r});
        }
    });
}

ConstMatrix HNSWIndex::PlannedSearch::some(std::span<const std::uint32_t> queries, std::vector<float>& copy) const {
    if (queries.size() == queries_.rows) return queries_;
    copy.resize(queries.size() * queries_.cols);
    for (std::size_t i = 0; i < queries.size(); ++i) {
        std::copy_n(queries_.row(queries[i]), queries_.cols, copy.data() + i * queries_.cols);
    }
    return {copy.data(), queries.size(), queries_.cols};
}

void HNSWIndex::PlannedSearch::scan_exactly(const FilterGroup& group, std::span<const std::uint32_t> rows,
                                            std::span<const std::uint32_t> queries, int threads) {
    std::vector<float> copy;
    const std::vector<float> q = codec::copies_for_metric(some(queries, copy), index_.dim_, index_.metric_);
    const ConstMatrix asked(q.data(), queries.size(), index_.dim_);
    store::RowSource kept = index_.vectors().view();
    RowLists found;
    if (rows.size() * kept.stride_bytes > kMaxGathered) {
        kept.allowed = group.allowed.get();
        found = exact_top_k(kept, index_.metric_, asked, params_.k, index_.tie_order(), threads);
    } else {
        const GatheredRows gathered(kept, rows, threads);
        const GatheredOrder order(rows, index_.tie_order());
        found = exact_top_k(gathered.source, index_.metric_, asked, params_.k, index_.tie_order() == nullptr ? nullptr : &order,
                            threads);
        order.rename(found);
    }
    for (std::size_t i = 0; i < queries.size(); ++i) {
        hits_[queries[i]] = std::move(found[i]);
        done_[queries[i]] = 1;
    }
}

void HNSWIndex::PlannedSearch::scan_packed(std::span<const std::uint32_t> rows, std::span<const std::uint32_t> queries,
                                           std::size_t keep, int threads) {
    const EdgeForm form = edge_form(*index_.codec_);
    const codec::EdgeScorer& scorer = scorers_.units();
    const auto units = index_.packed_codes(*view_, rows, threads);
    parallel_for(queries.size(), 4, threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; ++i) {
            std::vector<ScoredRow>& hits = hits_[queries[i]];
            hits = scan_units(scorer, form, units.data(), rows.size(), nullptr, queries[i], keep);
            for (ScoredRow& r : hits) r.row = rows[r.row];
        }
    });
}

void HNSWIndex::PlannedSearch::scan_masked(const FilterGroup& group, std::span<const std::uint32_t> queries, std::size_t keep,
                                           int threads) {
    const EdgeForm form = edge_form(*index_.codec_);
    const codec::EdgeScorer& scorer = scorers_.units();
    parallel_for(queries.size(), 4, threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; ++i) {
            hits_[queries[i]] = scan_units(scorer, form, view_->units.data, n_, group.allowed.get(), queries[i], keep);
        }
    });
}

// How far the scores by which candidates were found are from exact ones, whose rows are at hand.
HNSWIndex::PlannedSearch::Errors HNSWIndex::PlannedSearch::errors_of(std::span<const ScoredRow> candidates,
                                                                    std::uint32_t query) {
    std::call_once(floats_once_, [this] { floats_ = index_.float_scorer(queries_); });
    const std::size_t step = std::max<std::size_t>(1, candidates.size() / kSampledErrors);
    std::vector<std::uint32_t> rows;
    for (std::size_t i = 0; i < candidates.size(); i += step) rows.push_back(candidates[i].row);
    std::vector<float> exact(rows.size());
    floats_->score(nullptr, rows.data(), rows.size(), query, exact.data());
    double sum = 0, squares = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const double error = static_cast<double>(exact[i]) - candidates[i * step].score;
        sum += error;
        squares += error * error;
    }
    const double n = static_cast<double>(std::max<std::size_t>(1, rows.size())), mean = sum / n;
    // Candidates were chosen for their estimates, so these are too high on average; those of others are not.
    return {std::max(0.0, mean), std::sqrt(std::max(0.0, squares / n - mean * mean))};
}

// Where the codes' own errors leave it open whether better rows stand behind the last candidate, all that may
// are settled.
void HNSWIndex::PlannedSearch::settle_found(const FilterGroup& group, int threads) {
    std::vector<std::uint32_t> open, unsure;
    RowLists found;
    for (const std::uint32_t q : group.queries) {
        if (done_[q] != 0) continue;
        open.push_back(q);
        found.push_back(hits_[q]);
    }
    if (open.empty()) return;
    std::vector<float> copy;
    found = index_.settle_exactly(some(open, copy), std::move(found), params_.k, threads);
    const bool may_widen = params_.rerank == kAutoRerank && index_.codec_ != nullptr;
    std::vector<float> least(open.size(), kWorstScore);  // what a match that is better may be estimated at; for unsure ones
    parallel_for(open.size(), 16, threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; ++i) {
            std::vector<ScoredRow>& candidates = hits_[open[i]];
            if (may_widen && candidates.size() < group.matches && !found[i].empty()) {
                const Errors e = errors_of(candidates, open[i]);
                const double last = found[i].back().score - e.mean;
                if (worst_of(candidates) + kLikely * e.deviation > last) {
                    least[i] = static_cast<float>(last - kAlmostSure * e.deviation);
                    continue;
                }
            }
            candidates = std::move(found[i]);
        }
    });
    std::vector<float> least_unsure;
    for (std::size_t i = 0; i < open.size(); ++i) {
        if (least[i] == kWorstScore) continue;
        unsure.push_back(open[i]);
        least_unsure.push_back(least[i]);
        notes_[open[i]].fallback |= notes_[open[i]].plan != Plan::scan;
    }
    if (unsure.empty()) return;
    const double exact = static_cast<double>(group.matches) * (costs_.exact + costs_.gather / static_cast<double>(unsure.size()));
    if (exact <= scan_cost_of(group, unsure.size(), keep_of_scan(group)).per_query) {
        scan_exactly(group, matching_rows(group), unsure, threads);
        for (const std::uint32_t q : unsure) notes_[q].reranked = group.matches;
        return;
    }
    parallel_for(unsure.size(), 1, threads, [&](std::size_t i, std::size_t, int) {
        settle_widely(group, unsure[i], least_unsure[i]);
    });
}

void HNSWIndex::PlannedSearch::settle_widely(const FilterGroup& group, std::uint32_t query, float least) {
    const std::uint32_t one[] = {query};
    std::vector<float> copy;
    std::vector<ScoredRow>& hits = hits_[query];
    std::vector<ScoredRow> rows = rows_above(group, query, least);
    notes_[query].visited += group.matches;
    notes_[query].reranked += rows.size();
    rows.insert(rows.end(), hits.begin(), hits.end());
    std::sort(rows.begin(), rows.end(), [](const ScoredRow& a, const ScoredRow& b) { return a.row < b.row; });
    rows.erase(std::unique(rows.begin(), rows.end(), [](const ScoredRow& a, const ScoredRow& b) { return a.row == b.row; }),
               rows.end());
    hits = std::move(index_.settle_exactly(some(one, copy), RowLists{std::move(rows)}, params_.k, 1)[0]);
}

std::vector<ScoredRow> HNSWIndex::PlannedSearch::rows_above(const FilterGroup& group, std::uint32_t query, float threshold) {
    std::vector<ScoredRow> out;
    if (view_->units.size != 0) {
        scan_units(scorers_.units(), edge_form(*index_.codec_), view_->units.data, n_, group.allowed.get(), query, threshold, out);
        return out;
    }
    constexpr std::size_t kBatch = 64;
    float scores[kBatch];
    const std::vector<std::uint32_t> rows = matching_rows(group);
    for (std::size_t begin = 0; begin < rows.size(); begin += kBatch) {
        const std::size_t m = std::min(kBatch, rows.size() - begin);
        scorers_.rows().score(view_->codes.data, rows.data() + begin, m, query, scores);
        for (std::size_t i = 0; i < m; ++i) {
            if (scores[i] > threshold) out.push_back({scores[i], rows[begin + i]});
        }
    }
    return out;
}

}  // namespace residua::index
