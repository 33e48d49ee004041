// SPDX-License-Identifier: Apache-2.0
// Searches of an HNSWIndex with filters: a plan for every query, and its way back to a scan.
#include <algorithm>
#include <bit>
#include <map>
#include <shared_mutex>
#include <utility>

#include "core/parallel.hpp"
#include "index/filtered_walk.hpp"
#include "index/hnsw_planned.hpp"

namespace residua::index {
namespace {

constexpr std::size_t kChunk = 16;        // queries of a task
constexpr std::size_t kShared = 16;       // queries of a filter that are worth all threads
constexpr std::size_t kSampled = 64;      // matches that a filtered walk looks at before it starts
constexpr std::size_t kSampledStarts = 4; // … and of which it starts from the best
constexpr double kMostScarce = 4.0;
constexpr double kPrior = 16.0;           // rows that the share of the index counts for beside those near the query

}  // namespace

SearchResult HNSWIndex::search_planned(ConstMatrix queries, Scorers& scorers, const SearchParams& params) const {
    return PlannedSearch(*this, queries, scorers, params).run();
}

std::vector<FilterGroup> HNSWIndex::PlannedSearch::groups() const {
    std::vector<FilterGroup> out(params_.filters.empty() ? 1 : params_.filters.size());
    for (std::uint32_t q = 0; q < queries_.rows; ++q) {
        out[params_.filters.empty() ? 0 : params_.filter_of[q]].queries.push_back(q);
    }
    parallel_for(out.size(), 1, params_.num_threads, [&](std::size_t i, std::size_t, int) {
        FilterGroup& g = out[i];
        const Filter* filter = params_.filters.empty() ? params_.filter : &params_.filters[i];
        g.allowed = index_.allowed_rows(filter);
        // Rows of a change that is not committed yet may be walked over, not returned.
        if (g.allowed == nullptr && view_->graph.n != n_) g.allowed = {std::shared_ptr<void>(), &index_.live_};
        g.matches = g.allowed ? g.allowed->count() : n_;
    });
    return out;
}

SearchResult HNSWIndex::PlannedSearch::run() {
    std::vector<FilterGroup> all = groups();
    std::vector<FilterGroup*> small;
    for (FilterGroup& g : all) {
        if (g.queries.size() >= kShared || all.size() == 1) {
            answer(g, params_.num_threads);
        } else {
            small.push_back(&g);
        }
    }
    parallel_for(small.size(), 4, params_.num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; ++i) answer(*small[i], 1);
    });
    return result();
}

void HNSWIndex::PlannedSearch::answer(FilterGroup& group, int threads) {
    for (const std::uint32_t q : group.queries) notes_[q].matches = group.matches;
    if (k_of(group) == 0 || group.queries.empty()) return;
    std::vector<std::uint32_t> scans, plain, filtered;
    choose(group, scans, plain, filtered, threads);
    if (!plain.empty()) walk_plain(group, plain, threads);
    if (!filtered.empty()) walk_filtered(group, filtered, threads);
    for (const std::uint32_t q : group.queries) {
        if (notes_[q].fallback) scans.push_back(q);
    }
    if (!scans.empty()) scan(group, scans, keep_of_scan(group), threads);
    if (exact_last_) settle_found(group, threads);
}

void HNSWIndex::PlannedSearch::choose(const FilterGroup& group, std::vector<std::uint32_t>& scans, std::vector<std::uint32_t>& plain,
                                      std::vector<std::uint32_t>& filtered, int threads) {
    const double scan_ns = scan_cost_of(group, group.queries.size(), keep_of_scan(group)).per_query;
    const std::size_t ef = ef_of(group), keep = keep_of_walk(group);
    const bool must_scan = params_.plan == Plan::scan || group.matches <= ef || view_->graph.n == 0;
    const double least = std::min(graph_cost(costs_, ef, keep), filtered_graph_cost(costs_, ef, keep, 1.0));
    for (const std::uint32_t q : group.queries) {
        notes_[q].costs = {static_cast<float>(scan_ns), -1.0f, -1.0f};
    }
    if (must_scan || (params_.plan == Plan::automatic && scan_ns <= least)) {
        scans = group.queries;
        return;
    }
    parallel_for(group.queries.size(), kChunk, threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> scores;
        for (std::size_t i = begin; i < end; ++i) {
            const std::uint32_t q = group.queries[i];
            QueryNote& note = notes_[q];
            note.local_rate = look_around(q, group, scores);
            const std::size_t beam = beam_of(group, note.local_rate);
            note.costs[1] = static_cast<float>(graph_cost(costs_, widened(beam, note.local_rate, n_), keep));
            note.costs[2] = static_cast<float>(filtered_graph_cost(costs_, beam, keep, note.local_rate));
            const float best = std::min({note.costs[0], note.costs[1], note.costs[2]});
            note.plan = params_.plan != Plan::automatic ? params_.plan
                        : best == note.costs[0]         ? Plan::scan
                        : best == note.costs[1]         ? Plan::graph
                                                        : Plan::filtered_graph;
        }
    });
    for (const std::uint32_t q : group.queries) {
        (notes_[q].plan == Plan::scan ? scans : notes_[q].plan == Plan::graph ? plain : filtered).push_back(q);
    }
}

std::size_t HNSWIndex::PlannedSearch::beam_of(const FilterGroup& group, double local_rate) const {
    if (index_.codec_ != nullptr) return ef_of(group);
    const double scarce = std::clamp(share(group) / std::max(local_rate, 1e-9), 1.0, kMostScarce);
    return std::min(n_, static_cast<std::size_t>(static_cast<double>(ef_of(group)) * scarce));
}

void HNSWIndex::PlannedSearch::score_entries(std::size_t query, std::vector<float>& scores) const {
    const std::vector<std::uint32_t>& entries = *view_->graph.entries;
    const codec::EdgeScorer* edges = scorers_.edges();
    if (edges == nullptr) {
        scores.resize(entries.size());
        scorers_.rows().score(view_->codes.data, entries.data(), entries.size(), query, scores.data());
        return;
    }
    const EdgeForm& form = view_->edges.form;
    const std::size_t units = form.units(entries.size());
    scores.resize(units * form.unit_rows);
    for (std::size_t u = 0; u < units; ++u) {
        edges->scores(view_->edges.entries->units.data() + u * form.unit_bytes, query, kWorstScore,
                      scores.data() + u * form.unit_rows);
    }
    scores.resize(entries.size());
}

float HNSWIndex::PlannedSearch::look_around(std::size_t query, const FilterGroup& group, std::vector<float>& scores) const {
    if (group.allowed == nullptr) return 1.0f;
    const Bitset& allowed = *group.allowed;
    const GraphView& graph = view_->graph;
    score_entries(query, scores);
    Beam best;
    best.reset(kWalkSeeds);
    for (std::size_t i = 0; i < scores.size(); ++i) best.push(scores[i], (*graph.entries)[i]);
    double seen = kPrior, passed = kPrior * share(group);
    for (std::size_t s = 0; s < best.size(); ++s) {
        const std::uint32_t* list = graph.list(best[s].row);
        for (std::size_t i = 0; i < graph.degree; ++i) {
            const std::uint32_t r = load_row(list + i);
            if (r == kNoRow) break;
            if (r >= allowed.size()) continue;
            seen += 1;
            passed += allowed.test(r);
        }
    }
    return static_cast<float>(passed / seen);
}

void HNSWIndex::PlannedSearch::walk_plain(const FilterGroup& group, std::span<const std::uint32_t> queries, int threads) {
    const std::size_t k = k_of(group), keep = keep_of_walk(group);
    // Walks of one width go together.
    std::map<std::size_t, std::vector<std::uint32_t>> by_beam;
    for (const std::uint32_t q : queries) {
        const std::size_t beam = widened(beam_of(group, notes_[q].local_rate), notes_[q].local_rate, n_);
        by_beam[std::bit_ceil(beam) == beam ? beam : beam - beam % std::max<std::size_t>(1, std::bit_floor(beam) / 8)].push_back(q);
    }
    for (const auto& [beam, some_queries] : by_beam) {
        index_.walk_plainly(*view_, scorers_, some_queries, beam, keep, group.allowed.get(), threads,
                            [&](std::size_t q, const WalkScratch& s) {
                                const Beam& best = group.allowed == nullptr ? s.beam : s.found;
                                notes_[q].visited += s.visited.count();
                                notes_[q].reranked = exact_last_ ? keep : 0;
                                for (std::size_t i = 0; i < std::min(keep, best.size()); ++i) hits_[q].push_back(best[i]);
                                // What lies beyond the beam was met by chance; few matches in it say that the
                                // rows of the result may lie elsewhere.
                                const std::size_t wanted = std::max(k, ef_of(group) / 2);
                                std::size_t inside = 0;
                                for (std::size_t i = 0; i < s.beam.size() && inside < wanted; ++i) {
                                    const std::uint32_t r = s.beam[i].row;
                                    inside += group.allowed == nullptr || group.allowed->holds(r);
                                }
                                notes_[q].fallback = inside < wanted;
                            });
    }
}

std::vector<ScoredRow> HNSWIndex::PlannedSearch::starts(std::size_t query, const FilterGroup& group,
                                                        std::span<const std::uint32_t> sample) const {
    std::vector<float> scores;
    score_entries(query, scores);
    const std::vector<std::uint32_t>& entries = *view_->graph.entries;
    Beam near, passing;
    near.reset(kWalkSeeds);
    passing.reset(kSampledStarts);
    for (std::size_t i = 0; i < entries.size(); ++i) {
        near.push(scores[i], entries[i]);
        if (group.allowed->holds(entries[i])) passing.push(scores[i], entries[i]);
    }
    scores.resize(sample.size());
    scorers_.rows().score(view_->codes.data, sample.data(), sample.size(), query, scores.data());
    for (std::size_t i = 0; i < sample.size(); ++i) passing.push(scores[i], sample[i]);
    std::vector<ScoredRow> out;
    for (std::size_t i = 0; i < near.size(); ++i) out.push_back(near[i]);
    for (std::size_t i = 0; i < passing.size(); ++i) out.push_back(passing[i]);
    return out;
}

void HNSWIndex::PlannedSearch::walk_filtered(const FilterGroup& group, std::span<const std::uint32_t> queries, int threads) {
    if (group.allowed == nullptr) return walk_plain(group, queries, threads);
    const std::size_t keep = keep_of_walk(group);
    std::vector<std::uint32_t> sample;
    const std::vector<std::uint32_t> rows = matching_rows(group);
    const std::size_t step = std::max<std::size_t>(1, rows.size() / kSampled);
    for (std::size_t i = 0; i < rows.size(); i += step) {
        if (rows[i] < view_->graph.n) sample.push_back(rows[i]);
    }
    const codec::RowScorer& scorer = scorers_.rows();
    const std::uint8_t* codes = view_->codes.data;
    parallel_for(queries.size(), kChunk, threads, [&](std::size_t begin, std::size_t end, int) {
        Scratches scratch(index_, 1);
        WalkScratch& s = *scratch[0];
        for (std::size_t i = begin; i < end; ++i) {
            const std::uint32_t q = queries[i];
            const auto score = [&](const std::uint32_t* r, std::size_t m, float* out) { scorer.score(codes, r, m, q, out); };
            const auto fetch = [&](const std::uint32_t* r, std::size_t m) { scorer.prefetch(codes, r, m); };
            FilteredWalk walk(view_->graph, *group.allowed, score, fetch, s);
            walk.run(beam_of(group, notes_[q].local_rate), starts(q, group, sample));
            notes_[q].visited += s.visited.count();
            notes_[q].reranked = exact_last_ ? keep : 0;
            for (std::size_t j = 0; j < std::min(keep, s.beam.size()); ++j) hits_[q].push_back(s.beam[j]);
            notes_[q].fallback = !s.beam.full();
        }
    });
}

SearchResult HNSWIndex::PlannedSearch::result() {
    SearchResult out;
    const bool one = std::all_of(notes_.begin(), notes_.end(), [&](const QueryNote& n) { return n.plan == notes_[0].plan; });
    out.plan = (one ? to_string(notes_.empty() ? Plan::scan : notes_[0].plan) : "mixed") +
               std::string(exact_last_ && index_.codec_ ? "+rerank" : "");
    for (const QueryNote& n : notes_) {
        out.visited += n.visited;
        out.reranked += n.reranked;
    }
    const std::size_t nq = std::max<std::size_t>(1, notes_.size());
    out.visited /= nq;
    out.reranked /= nq;
    out.matches = notes_.empty() ? 0 : notes_[0].matches;
    out.notes = std::move(notes_);
    if (exact_last_) return index_.finish(std::move(hits_), std::move(out));
    return index_.settle_hits(*view_, std::move(hits_), scorers_, params_, std::move(out));
}

PlanCosts HNSWIndex::costs_of(const View& v) const {
    if (costs_) return *costs_;
    PlanSizes s;
    s.code_bytes = codec_ ? codec_->code_bytes() : 0;
    s.vector_bytes = vectors_.empty_mode() ? 0 : dim_ * store::row_type_bytes(vectors_.row_type());
    s.degree = v.graph.degree;
    s.entries = v.graph.entries->size();
    s.turbo = params_.turbo && codec_ != nullptr;
    s.units = s.turbo && keeps_units();
    return default_costs(s);
}

PlanCosts HNSWIndex::costs() const {
    std::shared_lock lock(mutex_);
    return costs_of(*view());
}

}  // namespace residua::index
