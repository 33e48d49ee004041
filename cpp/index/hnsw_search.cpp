// SPDX-License-Identifier: Apache-2.0
// Searches of an HNSWIndex: a walk per query, or a scan of the few rows that may be returned.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <functional>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <utility>

#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "index/edge_walk.hpp"
#include "index/exact_scan.hpp"
#include "index/float_rows.hpp"
#include "index/hnsw_index.hpp"

namespace residua::index {
namespace {

constexpr std::size_t kChunk = 16;         // queries of a task
constexpr std::size_t kTogether = 4;       // walks that take turns
constexpr std::size_t kScanBatch = 64;     // rows that a scan scores at a time
constexpr double kScoredPerKept = 16.0;    // rows that a walk scores for each row of its beam
constexpr double kMaxWiden = 16.0;

// Offers the rows of `allowed` to `found`.
void scan_allowed(const codec::RowScorer& scorer, const std::uint8_t* codes, std::size_t n, const Bitset* allowed,
                  std::size_t query, Beam& found) {
    std::uint32_t rows[kScanBatch] = {};
    float scores[kScanBatch];
    std::size_t count = 0;
    const auto flush = [&] {
        scorer.score(codes, rows, count, query, scores);
        for (std::size_t i = 0; i < count; ++i) found.push(scores[i], rows[i]);
        count = 0;
    };
    for (std::size_t r = 0; r < n; ++r) {
        if (allowed != nullptr && !allowed->test(r)) continue;
        rows[count++] = static_cast<std::uint32_t>(r);
        if (count == kScanBatch) flush();
    }
    flush();
}

// Takes the walks of queries [begin, end) in turns, a step each, so that memory works for all at once;
// ended(query) is called at the end of its walk.
template <class MakeWalk, class Ended>
void walk_together(std::size_t begin, std::size_t end, const MakeWalk& make, const Ended& ended) {
    using W = decltype(make(begin));
    struct Place {
        std::optional<W> walk;
        std::size_t query = 0;
    };
    std::array<Place, kTogether> places;
    std::size_t next = begin, running = 0;
    const auto start = [&](Place& p) {
        p.query = next;
        p.walk.emplace(make(next++));
    };
    for (Place& p : places) {
        if (next == end) break;
        start(p);
        ++running;
    }
    while (running > 0) {
        for (Place& p : places) {
            if (!p.walk) continue;
            if (!p.walk->done()) {
                p.walk->step();
                continue;
            }
            ended(p.query);
            if (next < end) {
                start(p);
            } else {
                p.walk.reset();
                --running;
            }
        }
    }
}

}  // namespace

// Scratches for a number of walks, which go back to the index.
class HNSWIndex::Scratches {
public:
    Scratches(const HNSWIndex& index, std::size_t n) : index_(index) {
        for (std::size_t i = 0; i < n; ++i) scratch_.push_back(index.take_scratch());
    }
    ~Scratches() {
        for (auto& s : scratch_) index_.give_scratch(std::move(s));
    }
    Scratches(const Scratches&) = delete;
    Scratches& operator=(const Scratches&) = delete;
    std::unique_ptr<WalkScratch>& operator[](std::size_t i) { return scratch_[i]; }

private:
    const HNSWIndex& index_;
    std::vector<std::unique_ptr<WalkScratch>> scratch_;
};

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

// `edges`, where there are any, say where a walk goes; rows one by one, what is scanned. `last` scores the
// rows that were found when they are not settled by their vectors.
struct HNSWIndex::Scorers {
    std::function<std::unique_ptr<codec::RowScorer>()> prepare_rows;
    std::unique_ptr<codec::EdgeScorer> edges;
    std::unique_ptr<codec::RowScorer> last;

    // Many searches end without.
    const codec::RowScorer& rows() {
        std::call_once(once, [this] { prepared = prepare_rows(); });
        return *prepared;
    }

private:
    std::once_flag once;
    std::unique_ptr<codec::RowScorer> prepared;
};

SearchResult HNSWIndex::search(ConstMatrix queries, const SearchParams& params) const {
    check(params);
    std::shared_lock lock(mutex_);
    if (wants_codec_ && codec_ == nullptr) return scan_vectors(queries, params);
    Scorers scorers;
    if (codec_ == nullptr) {
        scorers.prepare_rows = [&] { return float_scorer(queries); };
        return search_with(queries, scorers, params);
    }
    scorers.prepare_rows = [&] { return codec_->prepare_rows(queries, params.num_threads); };
    if (params_.turbo) scorers.edges = codec_->prepare_edges(queries, params.num_threads);
    if (!settles(params)) {
        scorers.last = codec::gathering_scorer(*codec_, params.scoring == Scoring::symmetric
                                                            ? prepare_symmetric(queries, params.num_threads)
                                                            : codec_->prepare(queries, params.num_threads));
    }
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
    scorers.prepare_rows = [&] { return codec_->prepare_rows(queries, p.num_threads); };
    if (params_.turbo) scorers.edges = codec_->prepare_edges(queries, p.num_threads);
    if (!settles(p)) scorers.last = codec::gathering_scorer(*codec_, codec_->prepare_codes(codes, n, p.num_threads));
    return search_with(queries, scorers, p);
}

SearchResult HNSWIndex::search_with(ConstMatrix queries, Scorers& scorers, const SearchParams& params) const {
    const auto v = view();
    const bool filtered = params.filter != nullptr && !std::holds_alternative<std::monostate>(*params.filter);
    const auto chosen = filtered ? allowed_rows(params.filter) : nullptr;
    const std::size_t n = ids_.rows();
    const std::size_t matches = chosen ? chosen->count() : ids_.size();
    // Rows of a change that is not committed yet may be walked over, not returned.
    const Bitset* allowed = chosen ? chosen.get() : ids_.size() == n && v->graph.n == n ? nullptr : &live_;
    const std::size_t k = std::min(params.k, matches);
    const codec::RowScorer* const last = scorers.last.get();
    const bool exact_last = last == nullptr;

    const std::size_t asked = std::max({params.ef != 0 ? params.ef : kDefaultEf, k,
                                        params.rerank > 0 ? static_cast<std::size_t>(params.rerank) : 0});
    const std::size_t ef = std::min(asked, n);
    // The whole beam is settled unless the caller says how much of it: beside the walk that costs little.
    const std::size_t keep = std::min(matches, codec_ == nullptr ? std::max(k, std::min(k + 8, ef)) : params.rerank > 0 ? std::max(k, static_cast<std::size_t>(params.rerank)) : std::max(k, ef));
    // A walk finds one row to return among 1 / share that it keeps.
    const double share = n == 0 ? 1.0 : static_cast<double>(matches) / static_cast<double>(n);
    // Removed rows that edges still lead to take room as well.
    const double gone = static_cast<double>(unrepaired_) / static_cast<double>(std::max<std::size_t>(1, ids_.size()));
    const double widen = chosen ? std::min(kMaxWiden, 1.0 / std::max(share, 1e-9)) : 1.0 + std::min(1.0, gone);
    const auto beam = std::min(n, static_cast<std::size_t>(std::ceil(static_cast<double>(ef) * widen)));
    const bool scans = matches <= ef || (chosen != nullptr && static_cast<double>(matches) < kScoredPerKept * static_cast<double>(beam));

    SearchResult out;
    out.plan = std::string(scans ? "scan" : "graph") + (exact_last && codec_ ? "+rerank" : "");
    out.matches = matches;
    out.reranked = exact_last ? keep : 0;
    RowLists hits(queries.rows);
    if (k == 0) return finish(std::move(hits), std::move(out));
    std::atomic<std::uint64_t> visited{0};
    const std::uint8_t* codes = v->codes.data;
    const codec::RowScorer* const scorer = scans || !scorers.edges ? &scorers.rows() : nullptr;
    const auto score_to = [&](std::size_t q) {
        return [scorer, codes, q](const std::uint32_t* rows, std::size_t m, float* s) { scorer->score(codes, rows, m, q, s); };
    };
    const auto fetch = [&](const std::uint32_t* rows, std::size_t m) { scorer->prefetch(codes, rows, m); };
    // A beam is settled right after its walk, on vectors that were asked for while it went.
    std::vector<float> exact_queries;
    std::optional<ExactChoice> choice;
    if (exact_last) {
        exact_queries = codec::copies_for_metric(queries, dim_, metric_);
        choice.emplace(vectors().view(), metric_, tie_order());
    }
    const auto fetch_vector = [&](std::uint32_t row) {
        if (choice) choice->fetch(row);
    };
    parallel_for(queries.rows, kChunk, params.num_threads, [&](std::size_t begin, std::size_t end, int) {
        Scratches scratch(*this, end - begin);
        std::uint64_t scored = 0;
        const auto ended = [&](std::size_t q) {
            WalkScratch& s = *scratch[q - begin];
            if (!scans) scored += s.visited.count();
            const Beam* best = allowed == nullptr ? &s.beam : &s.found;
            if (scans || best->size() < k) {
                s.found.reset(keep);
                scan_allowed(scorers.rows(), codes, n, allowed, q, s.found);
                scored += matches;
                best = &s.found;
            }
            for (std::size_t i = 0; i < std::min(keep, best->size()); ++i) hits[q].push_back((*best)[i]);
            if (choice) choice->settle(exact_queries.data() + q * dim_, k, hits[q]);
        };
        // collector(q): what sees the rows that the walk of a query scores.
        const auto walk_all = [&](auto collector) {
            if (scorers.edges) {
                for (std::size_t q = begin; q < end; ++q) {
                    walk_edges(v->edges, *scorers.edges, q, beam, *scratch[q - begin], collector(q), fetch_vector);
                    ended(q);
                }
                return;
            }
            walk_together(begin, end, [&](std::size_t q) {
                return Walk(RowHop(v->graph, score_to(q), fetch, kWalkSeeds), v->graph.n, beam, *scratch[q - begin],
                            collector(q));
            }, ended);
        };
        if (scans) {
            for (std::size_t q = begin; q < end; ++q) ended(q);
        } else if (allowed == nullptr) {
            walk_all([](std::size_t) { return CollectNone(); });
        } else {
            walk_all([&](std::size_t q) {
                Beam& found = scratch[q - begin]->found;
                found.reset(keep);
                return [&found, allowed](float s, std::uint32_t r) {
                    if (r < allowed->size() && allowed->test(r) && s > found.worst()) found.push(s, r);
                };
            });
        }
        visited += scored;
    });
    out.visited = queries.rows == 0 ? 0 : visited / queries.rows;
    if (!exact_last) {
        hits = settle(std::move(hits), k, tie_order(), params.num_threads,
                      [&](std::size_t q, std::span<const std::uint32_t> rows, float* s) {
                          last->score(codes, rows.data(), rows.size(), q, s);
                      });
        out.counts_bits = params.scoring == Scoring::symmetric && codec_->counts_bits();
    }
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
