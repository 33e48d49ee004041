// SPDX-License-Identifier: Apache-2.0
// Searches of an HNSWIndex: walks, scans of chosen rows, and how what they find is settled.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <optional>
#include <shared_mutex>
#include <utility>

#include "codec/normalize.hpp"
#include "core/parallel.hpp"
#include "index/edge_walk.hpp"
#include "index/exact_scan.hpp"
#include "index/float_rows.hpp"
#include "index/hnsw_index.hpp"
#include "index/hnsw_scorers.hpp"

namespace residua::index {
namespace {

constexpr std::size_t kChunk = 16;  // queries of a task

// The `keep` best rows of the beam that are allowed.
void keep_allowed(WalkScratch& s, const Bitset& allowed, std::size_t keep) {
    s.found.reset(keep);
    for (std::size_t i = 0; i < s.beam.size() && !s.found.full(); ++i) {
        const ScoredRow r = s.beam[i];
        if (allowed.holds(r.row)) s.found.push(r.score, r.row);
    }
}

}  // namespace

std::unique_ptr<WalkScratch> HNSWIndex::take_scratch() const {
    const std::lock_guard lock(scratch_mutex_);
    if (scratch_.empty()) return std::make_unique<WalkScratch>();
    auto out = std::move(scratch_.back());
    scratch_.pop_back();
    return out;
}

void HNSWIndex::give_scratch(std::unique_ptr<WalkScratch> scratch) const {
    const std::lock_guard lock(scratch_mutex_);
    scratch_.push_back(std::move(scratch));
}

std::unique_ptr<codec::RowScorer> HNSWIndex::float_scorer(ConstMatrix queries) const {
    return std::make_unique<FloatRows>(vectors_.view(), metric_, codec::copies_for_metric(queries, dim_, metric_));
}

void HNSWIndex::prepare_scorers(ConstMatrix queries, const SearchParams& params, Scorers& scorers) const {
    const int threads = params.num_threads;
    if (codec_ == nullptr) {
        scorers.prepare_rows = [this, queries] { return float_scorer(queries); };
        return;
    }
    scorers.prepare_rows = [this, queries, threads] { return codec_->prepare_rows(queries, threads); };
    scorers.prepare_units = [this, queries, threads] { return codec_->prepare_edges(queries, threads); };
    scorers.turbo = params_.turbo;
    if (settles(params) || scorers.last) return;
    scorers.last = codec::gathering_scorer(*codec_, params.scoring == Scoring::symmetric ? prepare_symmetric(queries, threads)
                                                                                       : codec_->prepare(queries, threads));
}

SearchResult HNSWIndex::search(ConstMatrix queries, const SearchParams& params) const {
    check(params);
    std::shared_lock lock(mutex_);
    if (wants_codec_ && codec_ == nullptr) return scan_vectors(queries, params);
    Scorers scorers;
    prepare_scorers(queries, params, scorers);
    return search_with(queries, scorers, params);
}

SearchResult HNSWIndex::search_codes(const std::uint8_t* codes, std::size_t n, const SearchParams& params) const {
    std::shared_lock lock(mutex_);
    SearchParams p = params;
    p.scoring = Scoring::symmetric;
    std::vector<float> decoded(n * dim_);
    codec_->decode(codes, n, decoded.data(), p.num_threads);
    const ConstMatrix queries(decoded.data(), n, dim_);
    Scorers scorers;
    if (!settles(p)) scorers.last = codec::gathering_scorer(*codec_, codec_->prepare_codes(codes, n, p.num_threads));
    prepare_scorers(queries, p, scorers);
    return search_with(queries, scorers, p);
}

SearchResult HNSWIndex::search_with(ConstMatrix queries, Scorers& scorers, const SearchParams& params) const {
    const auto v = view();
    const std::size_t n = ids_.rows(), matches = ids_.size();
    const std::size_t k = std::min(params.k, matches);
    const std::size_t asked = std::max({params.ef != 0 ? params.ef : kDefaultEf, k,
                                        params.rerank > 0 ? static_cast<std::size_t>(params.rerank) : 0});
    const std::size_t ef = std::min(asked, n);
    const bool filtered = !params.filters.empty() ||
                          (params.filter != nullptr && !std::holds_alternative<std::monostate>(*params.filter));
    if (filtered || params.plan == Plan::scan || matches <= ef) return search_planned(queries, scorers, params);
    // Rows of a change that is not committed yet may be walked over, not returned.
    const Bitset* allowed = matches == n && v->graph.n == n ? nullptr : &live_;
    const bool exact_last = scorers.last == nullptr;
    // The whole beam is settled unless the caller says how much of it: beside the walk that costs little.
    const std::size_t keep = candidates_of_walk(params, k, ef, matches);
    // Removed rows that edges still lead to take room.
    const double gone = static_cast<double>(unrepaired_) / static_cast<double>(std::max<std::size_t>(1, ids_.size()));
    const auto beam = std::min(n, static_cast<std::size_t>(std::ceil(static_cast<double>(ef) * (1.0 + std::min(1.0, gone)))));

    SearchResult out;
    out.plan = exact_last && codec_ ? "graph+rerank" : "graph";
    out.matches = matches;
    out.reranked = exact_last ? keep : 0;
    RowLists hits(queries.rows);
    std::vector<std::uint32_t> all(queries.rows);
    std::iota(all.begin(), all.end(), 0u);
    std::atomic<std::uint64_t> visited{0};
    // A beam is settled right after its walk, on vectors that were asked for while it went.
    std::vector<float> exact_queries;
    std::optional<ExactChoice> choice;
    if (exact_last) {
        exact_queries = codec::copies_for_metric(queries, dim_, metric_);
        choice.emplace(vectors().view(), metric_, tie_order());
    }
    const auto take = [&](std::size_t q, const WalkScratch& s) {
        const Beam& best = allowed == nullptr ? s.beam : s.found;
        visited += s.visited.count();
        for (std::size_t i = 0; i < std::min(keep, best.size()); ++i) hits[q].push_back(best[i]);
        if (best.size() < k) {
            hits[q] = scan_rows(*v, scorers.rows(), ids_.live_rows(), q, keep);
            visited += matches;
        }
        if (choice) choice->settle(exact_queries.data() + q * dim_, k, hits[q]);
    };
    walk_plainly(*v, scorers, all, beam, keep, allowed, params.num_threads, take, choice ? &*choice : nullptr);
    out.visited = queries.rows == 0 ? 0 : visited / queries.rows;
    if (exact_last) return finish(std::move(hits), std::move(out));
    return settle_hits(*v, std::move(hits), scorers, params, std::move(out));
}

std::size_t HNSWIndex::candidates_of_walk(const SearchParams& params, std::size_t k, std::size_t ef, std::size_t matches) const {
    const std::size_t wanted = codec_ == nullptr   ? std::min(k + 8, ef)
                               : params.rerank > 0 ? static_cast<std::size_t>(params.rerank)
                                                   : ef;
    return std::min(matches, std::max(k, wanted));
}

void HNSWIndex::walk_plainly(const View& v, Scorers& scorers, std::span<const std::uint32_t> queries, std::size_t beam,
                             std::size_t keep, const Bitset* allowed, int num_threads, const TakeWalk& take,
                             const ExactChoice* choice) const {
    const codec::EdgeScorer* const edges = scorers.edges();
    const codec::RowScorer* const scorer = edges == nullptr ? &scorers.rows() : nullptr;
    const std::uint8_t* codes = v.codes.data;
    const auto score_to = [&](std::size_t q) {
        return [scorer, codes, q](const std::uint32_t* rows, std::size_t m, float* s) { scorer->score(codes, rows, m, q, s); };
    };
    const auto fetch = [&](const std::uint32_t* rows, std::size_t m) { scorer->prefetch(codes, rows, m); };
    const auto fetch_vector = [choice](std::uint32_t row) {
        if (choice != nullptr) choice->fetch(row);
    };
    parallel_for(queries.size(), kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        Scratches scratch(*this, end - begin);
        const auto ended = [&](std::size_t i) {
            WalkScratch& s = *scratch[i - begin];
            if (edges != nullptr && allowed != nullptr) keep_allowed(s, *allowed, keep);
            take(queries[i], s);
        };
        // collector(i): what sees the rows that the walk of a query scores.
        const auto walk_all = [&](auto collector) {
            if (edges != nullptr) {
                for (std::size_t i = begin; i < end; ++i) {
                    walk_edges(v.edges, *edges, queries[i], beam, *scratch[i - begin], collector(i), fetch_vector);
                    ended(i);
                }
                return;
            }
            walk_together(begin, end, [&](std::size_t i) {
                return Walk(RowHop(v.graph, score_to(queries[i]), fetch, kWalkSeeds), v.graph.n, beam, *scratch[i - begin],
                            collector(i));
            }, ended);
        };
        // Records pay as long as rows outside of the beam are not looked at: what passes is taken from a beam wide enough.
        if (allowed == nullptr || edges != nullptr) {
            walk_all([](std::size_t) { return CollectNone(); });
        } else {
            walk_all([&](std::size_t i) {
                Beam& found = scratch[i - begin]->found;
                found.reset(keep);
                return [&found, allowed](float s, std::uint32_t r) {
                    if (allowed->holds(r) && s > found.worst()) found.push(s, r);
                };
            });
        }
    });
}

std::vector<ScoredRow> HNSWIndex::scan_rows(const View& v, const codec::RowScorer& scorer, std::span<const std::uint32_t> rows,
                                            std::size_t query, std::size_t keep) const {
    constexpr std::size_t kBatch = 64, kAhead = 16;
    float scores[kBatch];
    Beam found;
    found.reset(keep);
    for (std::size_t begin = 0; begin < rows.size(); begin += kBatch) {
        const std::size_t m = std::min(kBatch, rows.size() - begin);
        const std::size_t next = std::min(rows.size(), begin + m + kBatch);
        for (std::size_t b = begin + m; b < next; b += kAhead) {
            scorer.prefetch(v.codes.data, rows.data() + b, std::min(kAhead, next - b));
        }
        scorer.score(v.codes.data, rows.data() + begin, m, query, scores);
        for (std::size_t i = 0; i < m; ++i) found.push(scores[i], rows[begin + i]);
    }
    std::vector<ScoredRow> out;
    for (std::size_t i = 0; i < found.size(); ++i) out.push_back(found[i]);
    return out;
}

AlignedVector<std::uint8_t> HNSWIndex::packed_codes(const View& v, std::span<const std::uint32_t> rows, int num_threads) const {
    return v.units.size == 0 ? pack_rows(*codec_, v.codes.data, rows, num_threads)
                             : gather_units(*codec_, v.units.data, rows, num_threads);
}

SearchResult HNSWIndex::settle_hits(const View& v, RowLists hits, const Scorers& scorers, const SearchParams& params,
                                    SearchResult out) const {
    hits = settle(std::move(hits), params.k, tie_order(), params.num_threads,
                  [&](std::size_t q, std::span<const std::uint32_t> rows, float* s) {
                      scorers.last->score(v.codes.data, rows.data(), rows.size(), q, s);
                  });
    out.counts_bits = params.scoring == Scoring::symmetric && codec_->counts_bits();
    return finish(std::move(hits), std::move(out));
}

RowLists HNSWIndex::range_of_codes(ConstMatrix queries, float threshold, const Bitset* allowed,
                                   int num_threads) const {
    RowLists hits(queries.rows);
    const auto scorer = codec::gathering_scorer(*codec_, codec_->prepare(queries, num_threads));
    const auto v = view();
    std::vector<std::uint32_t> rows;
    for (std::uint32_t r = 0; r < ids_.rows(); ++r) {
        if (allowed == nullptr || allowed->test(r)) rows.push_back(r);
    }
    parallel_for(queries.rows, 1, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> scores(rows.size());
        for (std::size_t q = begin; q < end; ++q) {
            scorer->score(v->codes.data, rows.data(), rows.size(), q, scores.data());
            TopK found(rows.size(), tie_order());
            for (std::size_t i = 0; i < rows.size(); ++i) {
                if (scores[i] >= threshold) found.push(scores[i], rows[i]);
            }
            hits[q] = found.take_sorted();
        }
    });
    return hits;
}

}  // namespace residua::index
