// SPDX-License-Identifier: Apache-2.0
// Searches of an HNSWIndex with filters: a plan for every query, and its way back to a scan.
#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>
#include <shared_mutex>
#include <utility>

#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "index/code_scan.hpp"
#include "index/filtered_walk.hpp"
#include "index/hnsw_index.hpp"
#include "index/hnsw_scorers.hpp"

namespace residua::index {
namespace {

constexpr std::size_t kChunk = 16;        // queries of a task
constexpr std::size_t kShared = 16;       // queries of a filter that are worth all threads
constexpr std::size_t kSampled = 64;      // matches that a filtered walk looks at before it starts
constexpr std::size_t kSampledStarts = 4; // … and of which it starts from the best
constexpr double kPrior = 16.0;           // rows that the share of the index counts for beside those near the query
constexpr double kLikely = 1.5;           // deviations of estimates within which a row may belong to the result
constexpr double kAlmostSure = 2.5;       // … where it was found that candidates were too few
constexpr double kWorthExact = 3.0;       // scans of codes that are worth a scan of vectors, after which all is known
constexpr double kFewRows = 50'000.0;     // among which as many candidates are enough as a walk has
constexpr std::size_t kMaxGathered = std::size_t{32} << 20;  // bytes; more is scanned where it lies
constexpr std::size_t kFilteredEf = 128;   // rows that a walk with a filter keeps by default

// Queries that share a filter.
struct Group {
    std::shared_ptr<const Bitset> allowed;  // null: all rows are live and match
    std::size_t matches = 0;
    std::vector<std::uint32_t> queries;
};

std::vector<std::uint32_t> rows_of_bits(const Bitset* allowed, std::size_t n, std::size_t matches) {
    std::vector<std::uint32_t> rows(allowed == nullptr ? n : matches);
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

// What exact scores say about the estimates that candidates were found by.
struct Errors {
    double mean = 0, deviation = 0;
};

// Of the rows among `candidates` that were settled.
Errors errors_of(std::span<const ScoredRow> candidates, std::span<const ScoredRow> settled) {
    std::vector<ScoredRow> exact(settled.begin(), settled.end());
    std::sort(exact.begin(), exact.end(), [](const ScoredRow& a, const ScoredRow& b) { return a.row < b.row; });
    double sum = 0, squares = 0;
    for (const ScoredRow& c : candidates) {
        const auto at = std::lower_bound(exact.begin(), exact.end(), c.row,
                                         [](const ScoredRow& s, std::uint32_t row) { return s.row < row; });
        if (at == exact.end() || at->row != c.row) continue;
        const double error = static_cast<double>(at->score) - c.score;
        sum += error;
        squares += error * error;
    }
    const double n = static_cast<double>(std::max<std::size_t>(1, settled.size())), mean = sum / n;
    return {mean, std::sqrt(std::max(0.0, squares / n - mean * mean))};
}

float worst_of(std::span<const ScoredRow> rows) {
    float worst = rows[0].score;
    for (const ScoredRow& r : rows) worst = std::min(worst, r.score);
    return worst;
}

}  // namespace

class HNSWIndex::PlannedSearch {
public:
    PlannedSearch(const HNSWIndex& index, ConstMatrix queries, Scorers& scorers, const SearchParams& params)
        : index_(index), view_(index.view()), queries_(queries), scorers_(scorers), params_(params), n_(index.ids_.rows()),
          costs_(index.costs_of(*view_)), exact_last_(scorers.last == nullptr), hits_(queries.rows), done_(queries.rows),
          notes_(queries.rows) {}

    SearchResult run();

private:
    std::vector<Group> groups() const;
    void answer(Group& group, int threads);
    void choose(const Group& group, std::vector<std::uint32_t>& scans, std::vector<std::uint32_t>& plain,
                std::vector<std::uint32_t>& filtered, int threads);
    // Scores of the entries, and the share of matches near the best of them.
    float look_around(std::size_t query, const Group& group, std::vector<float>& scores) const;
    void score_entries(std::size_t query, std::vector<float>& scores) const;
    void scan(const Group& group, std::span<const std::uint32_t> queries, std::size_t keep, int threads);
    void scan_masked(const Group& group, std::span<const std::uint32_t> queries, std::size_t keep, int threads);
    void settle_found(const Group& group, int threads);
    void settle_widely(const Group& group, std::uint32_t query);
    // Matches whose estimates are above the threshold.
    std::vector<ScoredRow> rows_above(const Group& group, std::uint32_t query, float threshold);
    void scan_exactly(const Group& group, std::span<const std::uint32_t> rows, std::span<const std::uint32_t> queries, int threads);
    void scan_packed(std::span<const std::uint32_t> rows, std::span<const std::uint32_t> queries, std::size_t keep, int threads);
    // Appends queries that starve to `scans`.
    void walk_plain(const Group& group, std::span<const std::uint32_t> queries, std::vector<std::uint32_t>& scans, int threads);
    void walk_filtered(const Group& group, std::span<const std::uint32_t> queries, std::vector<std::uint32_t>& scans, int threads);
    std::vector<ScoredRow> starts(std::size_t query, const Group& group, std::span<const std::uint32_t> sample) const;
    SearchResult result();

    std::size_t k_of(const Group& g) const { return std::min(params_.k, g.matches); }
    std::size_t ef_of(const Group& g) const {
        const std::size_t asked = params_.ef != 0 ? params_.ef : kFilteredEf;
        return std::min(std::max({asked, k_of(g), params_.rerank > 0 ? static_cast<std::size_t>(params_.rerank) : 0}), n_);
    }
    std::size_t keep_of_walk(const Group& g) const { return index_.candidates_of_walk(params_, k_of(g), ef_of(g), g.matches); }
    std::size_t keep_of_scan(const Group& g) const {
        if (index_.codec_ == nullptr) return k_of(g);
        if (!exact_last_) return std::max(k_of(g), std::min(ef_of(g), g.matches));
        // A codec asks for what is enough among many rows.
        const double wider = std::sqrt(std::max(1.0, static_cast<double>(g.matches) / kFewRows));
        const auto enough = static_cast<std::size_t>(static_cast<double>(ef_of(g)) * wider);
        const std::size_t wanted = index_.candidates(params_, k_of(g), g.matches);
        return params_.rerank > 0 ? wanted : std::max(k_of(g), std::min(wanted, enough));
    }
    ScanCost scan_cost_of(const Group& g, std::size_t queries, std::size_t keep) const {
        const bool units = index_.codec_ != nullptr && !index_.units_.empty();
        return scan_cost(costs_, {g.matches, queries, keep, n_, units ? index_.codec_->edge_rows() : 0,
                                  index_.codec_ != nullptr, exact_last_});
    }
    double share(const Group& g) const { return n_ == 0 ? 1.0 : static_cast<double>(g.matches) / static_cast<double>(n_); }
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
};

SearchResult HNSWIndex::search_planned(ConstMatrix queries, Scorers& scorers, const SearchParams& params) const {
    return PlannedSearch(*this, queries, scorers, params).run();
}

std::vector<Group> HNSWIndex::PlannedSearch::groups() const {
    std::vector<Group> out(params_.filters.empty() ? 1 : params_.filters.size());
    for (std::uint32_t q = 0; q < queries_.rows; ++q) {
        out[params_.filters.empty() ? 0 : params_.filter_of[q]].queries.push_back(q);
    }
    parallel_for(out.size(), 1, params_.num_threads, [&](std::size_t i, std::size_t, int) {
        Group& g = out[i];
        const Filter* filter = params_.filters.empty() ? params_.filter : &params_.filters[i];
        g.allowed = index_.allowed_rows(filter);
        // Rows of a change that is not committed yet may be walked over, not returned.
        if (g.allowed == nullptr && view_->graph.n != n_) g.allowed = {std::shared_ptr<void>(), &index_.live_};
        g.matches = g.allowed ? g.allowed->count() : n_;
        
    });
    return out;
}

SearchResult HNSWIndex::PlannedSearch::run() {
    std::vector<Group> all = groups();
    std::vector<Group*> small;
    for (Group& g : all) {
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

void HNSWIndex::PlannedSearch::answer(Group& group, int threads) {
    for (const std::uint32_t q : group.queries) notes_[q].matches = group.matches;
    if (k_of(group) == 0 || group.queries.empty()) return;
    std::vector<std::uint32_t> scans, plain, filtered;
    choose(group, scans, plain, filtered, threads);
    if (!plain.empty()) walk_plain(group, plain, scans, threads);
    if (!filtered.empty()) walk_filtered(group, filtered, scans, threads);
    if (!scans.empty()) scan(group, scans, keep_of_scan(group), threads);
    if (exact_last_) settle_found(group, threads);
}

void HNSWIndex::PlannedSearch::choose(const Group& group, std::vector<std::uint32_t>& scans, std::vector<std::uint32_t>& plain,
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
            note.costs[1] = static_cast<float>(graph_cost(costs_, widened(ef, note.local_rate, n_), keep));
            note.costs[2] = static_cast<float>(filtered_graph_cost(costs_, ef, keep, note.local_rate));
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

float HNSWIndex::PlannedSearch::look_around(std::size_t query, const Group& group, std::vector<float>& scores) const {
    const GraphView& graph = view_->graph;
    score_entries(query, scores);
    Beam best;
    best.reset(kWalkSeeds);
    for (std::size_t i = 0; i < scores.size(); ++i) best.push(scores[i], (*graph.entries)[i]);
    if (group.allowed == nullptr) return 1.0f;
    const Bitset& allowed = *group.allowed;
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

void HNSWIndex::PlannedSearch::scan(const Group& group, std::span<const std::uint32_t> queries, std::size_t keep,
                                    int threads) {
    const ScanWay way = scan_cost_of(group, queries.size(), keep).way;
    const std::vector<std::uint32_t> rows = rows_of_bits(group.allowed.get(), n_, group.matches);
    for (const std::uint32_t q : queries) {
        notes_[q].plan = Plan::scan;
        notes_[q].visited += rows.size();
        notes_[q].reranked = exact_last_ ? std::min(rows.size(), way == ScanWay::exact ? rows.size() : keep) : 0;
        hits_[q].clear();
    }
    if (way == ScanWay::exact) return scan_exactly(group, rows, queries, threads);
    if (way == ScanWay::packed) return scan_packed(rows, queries, keep, threads);
    if (way == ScanWay::masked) return scan_masked(group, queries, keep, threads);
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

void HNSWIndex::PlannedSearch::scan_exactly(const Group& group, std::span<const std::uint32_t> rows,
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
    const codec::Codec& codec = *index_.codec_;
    const codec::EdgeScorer& scorer = scorers_.units();
    const auto units = index_.units_.empty() ? pack_rows(codec, view_->codes.data, rows, threads)
                                             : gather_units(codec, index_.units_.data(), rows, threads);
    parallel_for(queries.size(), 4, threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; ++i) {
            std::vector<ScoredRow>& hits = hits_[queries[i]];
            hits = scan_units(scorer, units.data(), codec.edge_rows(), codec.edge_unit_bytes(), rows.size(), nullptr, queries[i],
                              keep);
            for (ScoredRow& r : hits) r.row = rows[r.row];
        }
    });
}

void HNSWIndex::PlannedSearch::scan_masked(const Group& group, std::span<const std::uint32_t> queries, std::size_t keep,
                                           int threads) {
    const codec::Codec& codec = *index_.codec_;
    const codec::EdgeScorer& scorer = scorers_.units();
    parallel_for(queries.size(), 4, threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; ++i) {
            hits_[queries[i]] = scan_units(scorer, index_.units_.data(), codec.edge_rows(), codec.edge_unit_bytes(), n_,
                                           group.allowed.get(), queries[i], keep);
        }
    });
}

// Where the codes' own errors leave it open whether better rows stand behind the last candidate, all that may
// are settled.
void HNSWIndex::PlannedSearch::settle_found(const Group& group, int threads) {
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
    for (std::size_t i = 0; i < open.size(); ++i) {
        std::vector<ScoredRow>& candidates = hits_[open[i]];
        if (may_widen && candidates.size() < group.matches && found[i].size() > 1) {
            const Errors e = errors_of(candidates, found[i]);
            if (worst_of(candidates) + e.mean + kLikely * e.deviation > found[i].back().score) {
                unsure.push_back(open[i]);
                continue;
            }
        }
        candidates = std::move(found[i]);
    }
    if (unsure.empty()) return;
    for (const std::uint32_t q : unsure) notes_[q].fallback = notes_[q].plan != Plan::scan;
    const double exact = static_cast<double>(group.matches) * (costs_.exact + costs_.gather / static_cast<double>(unsure.size()));
    if (exact <= kWorthExact * scan_cost_of(group, unsure.size(), keep_of_scan(group)).per_query) {
        scan_exactly(group, rows_of_bits(group.allowed.get(), n_, group.matches), unsure, threads);
        for (const std::uint32_t q : unsure) notes_[q].reranked = group.matches;
        return;
    }
    parallel_for(unsure.size(), 1, threads, [&](std::size_t i, std::size_t, int) { settle_widely(group, unsure[i]); });
}

void HNSWIndex::PlannedSearch::settle_widely(const Group& group, std::uint32_t query) {
    const std::uint32_t one[] = {query};
    std::vector<float> copy;
    const ConstMatrix asked = some(one, copy);
    const auto settled = [&](std::vector<ScoredRow> rows, std::size_t k) {
        return std::move(index_.settle_exactly(asked, RowLists{std::move(rows)}, k, 1)[0]);
    };
    std::vector<ScoredRow>& hits = hits_[query];
    std::vector<ScoredRow> exact = settled(hits, hits.size());
    const Errors e = errors_of(hits, exact);
    const std::size_t k = k_of(group);
    // Candidates were chosen for their estimates, so these are too high on average; those of others are not.
    const double least = exact[std::min(k, exact.size()) - 1].score - std::max(0.0, e.mean) - kAlmostSure * e.deviation;
    if (exact.size() >= k && worst_of(hits) <= least) {
        exact.resize(k);
        hits = std::move(exact);
        return;
    }
    std::vector<ScoredRow> rows = rows_above(group, query, static_cast<float>(least));
    notes_[query].visited += group.matches;
    notes_[query].reranked += rows.size();
    for (const ScoredRow& r : hits) rows.push_back(r);
    std::sort(rows.begin(), rows.end(), [](const ScoredRow& a, const ScoredRow& b) { return a.row < b.row; });
    rows.erase(std::unique(rows.begin(), rows.end(), [](const ScoredRow& a, const ScoredRow& b) { return a.row == b.row; }),
               rows.end());
    hits = settled(std::move(rows), k);
}

std::vector<ScoredRow> HNSWIndex::PlannedSearch::rows_above(const Group& group, std::uint32_t query, float threshold) {
    std::vector<ScoredRow> out;
    if (!index_.units_.empty()) {
        scan_units(scorers_.units(), index_.units_.data(), index_.codec_->edge_rows(), index_.codec_->edge_unit_bytes(), n_,
                   group.allowed.get(), query, threshold, out);
        return out;
    }
    constexpr std::size_t kBatch = 64;
    float scores[kBatch];
    const std::vector<std::uint32_t> rows = rows_of_bits(group.allowed.get(), n_, group.matches);
    for (std::size_t begin = 0; begin < rows.size(); begin += kBatch) {
        const std::size_t m = std::min(kBatch, rows.size() - begin);
        scorers_.rows().score(view_->codes.data, rows.data() + begin, m, query, scores);
        for (std::size_t i = 0; i < m; ++i) {
            if (scores[i] > threshold) out.push_back({scores[i], rows[begin + i]});
        }
    }
    return out;
}

void HNSWIndex::PlannedSearch::walk_plain(const Group& group, std::span<const std::uint32_t> queries,
                                          std::vector<std::uint32_t>& scans, int threads) {
    const std::size_t k = k_of(group), ef = ef_of(group), keep = keep_of_walk(group);
    // Walks of one width go together.
    std::map<std::size_t, std::vector<std::uint32_t>> by_beam;
    for (const std::uint32_t q : queries) {
        const std::size_t beam = widened(ef, notes_[q].local_rate, n_);
        by_beam[std::bit_ceil(beam) == beam ? beam : beam - beam % std::max<std::size_t>(1, std::bit_floor(beam) / 8)].push_back(q);
    }
    for (const auto& [beam, some_queries] : by_beam) {
        index_.walk_plainly(*view_, scorers_, some_queries, beam, keep, group.allowed.get(), threads,
                            [&](std::size_t q, const WalkScratch& s) {
                                const Beam& best = group.allowed == nullptr ? s.beam : s.found;
                                notes_[q].visited += s.visited.count();
                                notes_[q].reranked = exact_last_ ? keep : 0;
                                for (std::size_t i = 0; i < std::min(keep, best.size()); ++i) hits_[q].push_back(best[i]);
                                // What lies beyond the beam was met by chance.
                                std::size_t inside = 0;
                                for (std::size_t i = 0; i < s.beam.size() && inside < k; ++i) {
                                    const std::uint32_t r = s.beam[i].row;
                                    inside += group.allowed == nullptr || (r < group.allowed->size() && group.allowed->test(r));
                                }
                                notes_[q].fallback = inside < k;
                            });
    }
    for (const std::uint32_t q : queries) {
        if (notes_[q].fallback) scans.push_back(q);
    }
}

std::vector<ScoredRow> HNSWIndex::PlannedSearch::starts(std::size_t query, const Group& group,
                                                        std::span<const std::uint32_t> sample) const {
    std::vector<float> scores;
    score_entries(query, scores);
    const std::vector<std::uint32_t>& entries = *view_->graph.entries;
    Beam near, passing;
    near.reset(kWalkSeeds);
    passing.reset(kSampledStarts);
    for (std::size_t i = 0; i < entries.size(); ++i) {
        near.push(scores[i], entries[i]);
        if (entries[i] < group.allowed->size() && group.allowed->test(entries[i])) passing.push(scores[i], entries[i]);
    }
    scores.resize(sample.size());
    scorers_.rows().score(view_->codes.data, sample.data(), sample.size(), query, scores.data());
    for (std::size_t i = 0; i < sample.size(); ++i) passing.push(scores[i], sample[i]);
    std::vector<ScoredRow> out;
    for (std::size_t i = 0; i < near.size(); ++i) out.push_back(near[i]);
    for (std::size_t i = 0; i < passing.size(); ++i) out.push_back(passing[i]);
    return out;
}

void HNSWIndex::PlannedSearch::walk_filtered(const Group& group, std::span<const std::uint32_t> queries,
                                             std::vector<std::uint32_t>& scans, int threads) {
    if (group.allowed == nullptr) return walk_plain(group, queries, scans, threads);
    const std::size_t ef = ef_of(group), keep = keep_of_walk(group);
    std::vector<std::uint32_t> sample;
    const std::vector<std::uint32_t> rows = rows_of_bits(group.allowed.get(), n_, group.matches);
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
            walk.run(ef, starts(q, group, sample));
            notes_[q].visited += s.visited.count();
            notes_[q].reranked = exact_last_ ? keep : 0;
            for (std::size_t j = 0; j < std::min(keep, s.beam.size()); ++j) hits_[q].push_back(s.beam[j]);
            notes_[q].fallback = !s.beam.full();
        }
    });
    for (const std::uint32_t q : queries) {
        if (notes_[q].fallback) scans.push_back(q);
    }
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
    return index_.settle_hits(*view_, queries_, std::move(hits_), scorers_, params_, std::move(out));
}

PlanCosts HNSWIndex::costs_of(const View& v) const {
    if (costs_) return *costs_;
    PlanSizes s;
    s.code_bytes = codec_ ? codec_->code_bytes() : 0;
    s.vector_bytes = vectors_.empty_mode() ? 0 : dim_ * store::row_type_bytes(vectors_.row_type());
    s.degree = v.graph.degree;
    s.entries = v.graph.entries->size();
    s.turbo = params_.turbo && codec_ != nullptr;
    return default_costs(s);
}

PlanCosts HNSWIndex::costs() const {
    std::shared_lock lock(mutex_);
    return costs_of(*view());
}

}  // namespace residua::index
