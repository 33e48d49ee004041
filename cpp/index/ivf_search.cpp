// SPDX-License-Identifier: Apache-2.0
// Search of an IvfIndex: which lists each query reads, lists read once for all their queries, and the best
// candidates settled exactly.
#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>

#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "index/exact_scan.hpp"
#include "index/ivf_index.hpp"
#include "kernel/dispatch.hpp"

namespace residua::index {
namespace {

constexpr std::size_t kBatch = 2048;        // queries whose lists are chosen and read together
constexpr double kMostScarce = 16.0;
constexpr double kEnoughMatches = 4096.0;     // matches that a search with a filter reads where there are as many

// Ties between places go by the ids of their rows.
class PlaceOrder final : public TieOrder {
public:
    PlaceOrder(const IvfLists& lists, const TieOrder* rows) : lists_(lists), rows_(rows) {}
    bool before(std::uint32_t a, std::uint32_t b) const override {
        const std::uint32_t ra = lists_.rows()[a], rb = lists_.rows()[b];
        return rows_ != nullptr ? rows_->before(ra, rb) : ra < rb;
    }

private:
    const IvfLists& lists_;
    const TieOrder* rows_;
};

}  // namespace

// The places that a search may return, and how many of each list.
struct IvfIndex::Slots {
    bool filtered = false;
    Bitset places;                      // where filtered
    std::vector<std::uint32_t> counts;  // where filtered
    std::size_t matches = 0;

    const Bitset* allowed() const { return filtered ? &places : nullptr; }
};

// Candidates of a query: codes tell rows apart that lie near it, and more of them are settled where few match there.
struct IvfIndex::Keep {
    std::size_t usual = 0, most = 0;

    std::size_t of(double scarcity) const {
        return std::clamp(static_cast<std::size_t>(static_cast<double>(usual) * std::min(scarcity, kMostScarce)), usual, most);
    }
    std::size_t most_of(std::span<const double> scarcities) const {
        std::size_t out = 0;
        for (const double scarcity : scarcities) out = std::max(out, of(scarcity));
        return out;
    }
};

// Query q reads lists[offsets[q] … offsets[q + 1]), nearest first.
struct IvfIndex::Probes {
    std::vector<std::size_t> offsets;
    std::vector<std::uint32_t> lists;
    std::vector<float> terms;      // what the list adds to the scores of residuals
    std::vector<double> scarcity;  // of matches near a query, where lists are chosen automatically; else 1

    std::size_t size() const { return offsets.size() - 1; }
    std::size_t count(std::size_t q) const { return offsets[q + 1] - offsets[q]; }
};

std::size_t IvfIndex::default_nprobe() const {
    std::shared_lock lock(mutex_);
    return nprobe_of({});
}

std::size_t IvfIndex::nprobe_of(const SearchParams& params) const {
    if (params.nprobe > 0) return std::min(params.nprobe, lists_.size());
    // Recall at a fixed share of the lists grows with their number.
    const double wanted = std::ceil(kProbesPerRoot * std::sqrt(static_cast<double>(lists_.size())));
    return std::min(static_cast<std::size_t>(wanted), lists_.size());
}

IvfIndex::Slots IvfIndex::allowed_slots(const Filter* filter) const {
    Slots out;
    out.matches = ids_.size();
    if (filter == nullptr || std::holds_alternative<std::monostate>(*filter)) return out;
    const auto rows = allowed_rows(filter);
    if (rows == nullptr) return out;
    out.filtered = true;
    out.matches = rows->count();
    out.places.resize(lists_.places());
    out.counts.resize(lists_.size());
    for (std::size_t l = 0; l < lists_.size(); ++l) {
        for (std::size_t p = lists_[l].first_place(); p < lists_[l].first_place() + lists_[l].n; ++p) {
            if (!rows->test(lists_.rows()[p])) continue;
            out.places.set(p);
            ++out.counts[l];
        }
    }
    return out;
}

// How many times fewer matches the lists nearest to a query hold than any other lists do; at least 1.
double IvfIndex::scarcity(const Slots& slots, std::span<const std::uint32_t> near) const {
    double found = 1.0, rows = 0.0;
    for (const std::uint32_t l : near) {
        rows += static_cast<double>(lists_[l].n);
        found += static_cast<double>(slots.counts[l]);
    }
    return std::max(1.0, rows * static_cast<double>(slots.matches) / static_cast<double>(ids_.size()) / found);
}

IvfIndex::Probes IvfIndex::choose_lists(ConstMatrix queries, const SearchParams& params, std::size_t k, const Slots& slots) const {
    const std::size_t nprobe = nprobe_of(params);
    // The neighbours that a filter leaves lie further away: lists that are chosen automatically hold as many matches as
    // an index of the matches alone would read, and more where few lie near, as distances say little far from a query.
    const bool widens = slots.filtered && params.nprobe == 0;
    const auto matches = static_cast<double>(slots.matches);
    const double usual = std::max(kEnoughMatches, matches * static_cast<double>(nprobe) / static_cast<double>(lists_.size()));
    const auto rows_of_list = [&](std::uint32_t l) -> std::size_t { return slots.filtered ? slots.counts[l] : lists_[l].n; };
    const train::NearestCentroids& nearest = probing_ ? *probing_ : nearest_;
    Probes out;
    out.offsets.assign(1, 0);
    std::vector<std::uint32_t> order;
    std::vector<float> values;
    const auto take = [&](std::size_t m, std::size_t i, bool last) {
        const double scarce = widens ? scarcity(slots, {order.data() + i * m, nprobe}) : 1.0;
        const auto least = widens ? std::max(k, static_cast<std::size_t>(std::min(matches, usual * scarce))) : k;
        std::size_t found = 0, lists = 0;
        for (std::size_t j = 0; j < m && (lists < nprobe || found < least); ++j) {
            const std::uint32_t l = order[i * m + j];
            if (rows_of_list(l) == 0) continue;  // does not count as a probe
            out.lists.push_back(l);
            out.terms.push_back(values[i * m + j]);
            found += rows_of_list(l);
            ++lists;
        }
        if ((lists < nprobe || found < least) && !last) {
            out.lists.resize(out.offsets.back());
            out.terms.resize(out.offsets.back());
            return false;
        }
        out.offsets.push_back(out.lists.size());
        out.scarcity.push_back(scarce);
        return true;
    };
    // Usually the nearest nprobe lists will do; all are put in order for queries that need more.
    const bool few_match = widens && static_cast<double>(2 * nprobe) * matches < usual * static_cast<double>(lists_.size());
    const std::size_t few = few_match         ? lists_.size()
                            : slots.filtered ? std::min(lists_.size(), 2 * nprobe + 8)
                                              : nprobe;
    order.resize(queries.rows * few);
    values.resize(queries.rows * few);
    nearest.assign_top(queries, few, order.data(), values.data(), params.num_threads);
    for (std::size_t i = 0; i < queries.rows; ++i) {
        if (take(few, i, few == lists_.size())) continue;
        std::vector<std::uint32_t> all(lists_.size());
        std::vector<float> all_values(lists_.size());
        nearest.assign_top(queries.slice(i, i + 1), lists_.size(), all.data(), all_values.data(), 1);
        order.swap(all);
        values.swap(all_values);
        take(lists_.size(), 0, true);
        order.swap(all);
        values.swap(all_values);
    }
    if (!residual_ || scores_by_list()) {
        std::fill(out.terms.begin(), out.terms.end(), 0.0f);
    } else if (!probing_) {
        set_terms(queries, out);
    }
    return out;
}

// From squared distances to what a list adds to its scores.
void IvfIndex::set_terms(ConstMatrix queries, Probes& probes) const {
    for (std::size_t q = 0; q < queries.rows; ++q) {
        const float square =
            metric_ == Metric::l2 ? 0.0f : kernel::active().floats.dot_f32(queries.row(q), queries.row(q), dim_);
        for (std::size_t j = probes.offsets[q]; j < probes.offsets[q + 1]; ++j) {
            const float norm = metric_ == Metric::l2 ? 0.0f : centroid_norms_[probes.lists[j]];
            probes.terms[j] = 0.5f * (square + norm - probes.terms[j]);
        }
    }
}

// Probes of ranks [first_rank, last_rank) of the queries [q_begin, q_end), list by list.
void IvfIndex::scan_lists(const codec::Scorer& scorer, ConstMatrix all, const Probes& probes, std::size_t q_begin, std::size_t q_end,
                          std::size_t first_rank, std::size_t last_rank, const Bitset* allowed, TopK* pools) const {
    const auto each = [&](auto fn) {
        for (std::size_t q = q_begin; q < q_end; ++q) {
            const std::size_t end = std::min(probes.offsets[q] + last_rank, probes.offsets[q + 1]);
            for (std::size_t j = probes.offsets[q] + first_rank; j < end; ++j) fn(static_cast<std::uint32_t>(q), j);
        }
    };
    std::vector<std::uint32_t> first(lists_.size() + 1);
    each([&](std::uint32_t, std::size_t j) { ++first[probes.lists[j] + 1]; });
    std::partial_sum(first.begin(), first.end(), first.begin());
    std::vector<std::uint32_t> next(first.begin(), first.end() - 1), queries(first.back());
    std::vector<float> terms(first.back());
    each([&](std::uint32_t q, std::size_t j) {
        const std::uint32_t at = next[probes.lists[j]]++;
        queries[at] = q;
        terms[at] = probes.terms[j];
    });
    const codec::BlockView view{lists_.codes(), lists_.places()};
    for (std::size_t l = 0; l < lists_.size(); ++l) {
        const std::size_t n = first[l + 1] - first[l];
        if (n == 0 || lists_[l].n == 0) continue;
        const std::span<const std::uint32_t> members(queries.data() + first[l], n);
        for (std::size_t i = 0; i < n; ++i) pools[members[i]].set_offset(terms[first[l] + i]);
        const std::size_t place = lists_[l].first_place();
        if (!scores_by_list()) {
            scorer.top_k_of(view, place, place + lists_[l].n, allowed, members, pools);
            continue;
        }
        const auto own = prepare_for_list(all, members, l);
        for (std::size_t i = 0; i < n; ++i) {
            own->top_k(view, place, place + lists_[l].n, allowed, i, i + 1, pools + members[i]);
        }
    }
    for (std::size_t q = q_begin; q < q_end; ++q) pools[q].set_offset(0.0f);
}

std::unique_ptr<codec::Scorer> IvfIndex::prepare_for_list(ConstMatrix queries, std::span<const std::uint32_t> members,
                                                          std::size_t list) const {
    std::vector<float> rest(members.size() * dim_);
    const float* c = centroids_.data() + list * dim_;
    for (std::size_t i = 0; i < members.size(); ++i) {
        for (std::size_t j = 0; j < dim_; ++j) rest[i * dim_ + j] = queries.row(members[i])[j] - c[j];
    }
    return codec_->prepare({rest.data(), members.size(), dim_}, 1);
}

// The best places of every query.
std::vector<TopK> IvfIndex::scan_probes(const codec::Scorer& scorer, ConstMatrix queries, const Probes& probes, Keep keep,
                                        const Bitset* allowed, const TieOrder* order, int num_threads) const {
    const std::size_t nq = probes.size();
    std::vector<TopK> pools;
    for (std::size_t q = 0; q < nq; ++q) pools.emplace_back(keep.of(probes.scarcity[q]), order);
    if (keep.usual == 0) return pools;
    const auto threads = static_cast<std::size_t>(num_threads);
    constexpr std::size_t kAll = ~std::size_t{0} / 2, kOrderedLists = 4;
    if (nq >= threads || threads == 1) {
        // A task ends within a second, for interrupts.
        constexpr std::size_t kMaxPairs = std::size_t{1} << 28;
        std::size_t pairs = 0;
        for (std::uint32_t l : probes.lists) pairs += lists_[l].n;
        const std::size_t tasks = std::max(threads, pairs / kMaxPairs + 1);
        parallel_for(nq, std::max<std::size_t>(1, (nq + tasks - 1) / tasks), num_threads, [&](std::size_t begin, std::size_t end, int) {
            // The nearest lists first: their scores keep most rows of the others out.
            for (std::size_t from = 0, to = 1; from < kAll; from = to, to = to < kOrderedLists ? 4 * to : kAll) {
                scan_lists(scorer, queries, probes, begin, end, from, to, allowed, pools.data());
            }
        });
        return pools;
    }
    // Few queries: threads share the lists.
    std::size_t most = 0;
    for (std::size_t q = 0; q < nq; ++q) most = std::max(most, probes.count(q));
    constexpr std::size_t kMinLists = 8;
    const std::size_t parts = std::clamp<std::size_t>(most / kMinLists, 1, threads);
    const std::size_t ranks = (most + parts - 1) / parts;
    std::vector<std::vector<TopK>> partial(parts, pools);
    parallel_for(parts, 1, num_threads, [&](std::size_t p, std::size_t, int) {
        scan_lists(scorer, queries, probes, 0, nq, p * ranks, (p + 1) * ranks, allowed, partial[p].data());
    });
    for (const auto& part : partial) {
        for (std::size_t q = 0; q < nq; ++q) pools[q].merge(part[q]);
    }
    return pools;
}

// The same, best first.
RowLists IvfIndex::scan_on_device(CodeDevice& device, const codec::Scorer& scorer, const Probes& probes, Keep keep,
                                  const Bitset* allowed, int num_threads) const {
    const std::size_t nq = probes.size();
    RowLists out(nq);
    if (keep.usual == 0 || nq == 0) return out;
    const std::size_t most = keep.most_of(probes.scarcity);
    check_kept(device, most);
    std::vector<RowRange> ranges;
    ranges.reserve(probes.lists.size());
    for (std::uint32_t q = 0; q < nq; ++q) {
        for (std::size_t j = probes.offsets[q]; j < probes.offsets[q + 1]; ++j) {
            const IvfLists::List& list = lists_[probes.lists[j]];
            const auto first = static_cast<std::uint32_t>(list.first_place());
            if (list.n > 0) ranges.push_back({q, first, first + list.n, probes.terms[j]});
        }
    }
    out = device.best_of(codes_now(), scorer, ranges, most, allowed, num_threads);
    for (std::size_t q = 0; q < nq; ++q) out[q].resize(std::min(out[q].size(), keep.of(probes.scarcity[q])));
    return out;
}

// All rows that the queries [begin, end) may find.
RowLists IvfIndex::rows_in(const Probes& probes, const Slots& slots, std::size_t begin, std::size_t end) const {
    RowLists out(end - begin);
    for (std::size_t q = begin; q < end; ++q) {
        for (std::size_t j = probes.offsets[q]; j < probes.offsets[q + 1]; ++j) {
            const IvfLists::List& list = lists_[probes.lists[j]];
            for (std::size_t p = list.first_place(); p < list.first_place() + list.n; ++p) {
                if (!slots.filtered || slots.places.test(p)) out[q - begin].push_back({0.0f, lists_.rows()[p]});
            }
        }
    }
    return out;
}

RowLists IvfIndex::best_of_lists(const codec::Scorer* scorer, ConstMatrix queries, const Probes& probes,
                                 const Slots& slots, std::size_t k, Keep keep, bool exact_last,
                                 const SearchParams& params) const {
    if (scorer == nullptr) {
        constexpr std::size_t kChunk = 64;  // queries; bounds the memory of their rows
        RowLists hits;
        for (std::size_t q = 0; q < queries.rows; q += kChunk) {
            const std::size_t end = std::min(queries.rows, q + kChunk);
            for (auto& rows : settle_seen(queries.slice(q, end), rows_in(probes, slots, q, end), k, params.num_threads)) {
                hits.push_back(std::move(rows));
            }
        }
        return hits;
    }
    RowLists hits;
    // Where few rows match near a query, it may settle more of them than a device keeps.
    const bool widened = params.device != nullptr && keep.usual <= params.device->most_kept() &&
                         keep.most_of(probes.scarcity) > params.device->most_kept();
    if (params.device != nullptr && !widened) {
        hits = scan_on_device(*params.device, *scorer, probes, keep, slots.allowed(), params.num_threads);
    } else {
        const PlaceOrder order(lists_, tie_order());
        for (TopK& pool : scan_probes(*scorer, queries, probes, keep, slots.allowed(), &order, params.num_threads)) {
            hits.push_back(exact_last ? pool.take() : pool.take_sorted());
        }
    }
    // Residuals under l2 are scored by half the negative distance.
    const float factor = residual_ && metric_ == Metric::l2 && !scores_by_list() ? 2.0f : 1.0f;
    for (auto& rows : hits) {
        for (ScoredRow& r : rows) r = {r.score * factor, lists_.rows()[r.row]};
    }
    return exact_last ? settle_seen(queries, std::move(hits), k, params.num_threads) : hits;
}

template <class Prepare>
SearchResult IvfIndex::search_lists(ConstMatrix queries, const SearchParams& params, Prepare prepare) const {
    const Slots slots = allowed_slots(params.filter);
    const std::size_t k = std::min(params.k, slots.matches);
    const std::size_t nprobe = nprobe_of(params);
    const bool exact_last = codec_ == nullptr || settles(params);
    const std::size_t keep = codec_ == nullptr ? k : candidates(params, k, slots.matches);
    const Keep pool{keep, exact_last && params.rerank < 0 ? slots.matches : keep};
    SearchResult out;
    out.plan = codec_ == nullptr ? "cells" : exact_last ? "cells+rerank" : "cells+codes";
    out.matches = slots.matches;
    out.nprobe = nprobe;
    out.counts_bits = !exact_last && params.scoring == Scoring::symmetric && codec_->counts_bits();
    out.reranked = codec_ != nullptr && exact_last ? keep : 0;
    RowLists hits;
    std::size_t visited = 0;
    for (std::size_t q = 0; q < queries.rows; q += kBatch) {
        const ConstMatrix part = queries.slice(q, std::min(queries.rows, q + kBatch));
        const Probes probes = choose_lists(part, params, k, slots);
        for (std::uint32_t l : probes.lists) visited += slots.filtered ? slots.counts[l] : lists_[l].n;
        const std::unique_ptr<codec::Scorer> scorer = prepare(q, part);
        for (auto& rows : best_of_lists(scorer.get(), part, probes, slots, k, pool, exact_last, params)) {
            hits.push_back(std::move(rows));
        }
    }
    out.visited = queries.rows > 0 ? visited / queries.rows : 0;
    return finish(std::move(hits), std::move(out));
}

SearchResult IvfIndex::search(ConstMatrix queries, const SearchParams& params) const {
    check(params);
    std::shared_lock lock(mutex_);
    if (params.device != nullptr) device_codes(*params.device);
    if (lists_.size() == 0) return scan_vectors(queries, params);
    const std::vector<float> q = codec::copies_for_metric(queries, dim_, metric_);
    return search_lists({q.data(), queries.rows, dim_}, params,
                        [&](std::size_t, ConstMatrix part) -> std::unique_ptr<codec::Scorer> {
                            if (codec_ == nullptr) return nullptr;
                            if (params.scoring == Scoring::asymmetric) return codec_->prepare(part, params.num_threads);
                            if (!residual_) return prepare_symmetric(part, params.num_threads);
                            const std::vector<float> rounded = through_codec(part, params.num_threads);
                            return codec_->prepare({rounded.data(), part.rows, dim_}, params.num_threads);
                        });
}

// Queries as the codec gives them back.
std::vector<float> IvfIndex::through_codec(ConstMatrix queries, int num_threads) const {
    std::vector<std::uint8_t> codes(queries.rows * codec_->code_bytes());
    codec_->encode(queries, codes.data(), num_threads, codec::Effort::scaled);
    std::vector<float> out(queries.rows * dim_);
    codec_->decode(codes.data(), queries.rows, out.data(), num_threads);
    return out;
}

SearchResult IvfIndex::search_codes(const std::uint8_t* codes, std::size_t n, const SearchParams& params) const {
    std::shared_lock lock(mutex_);
    SearchParams p = params;
    p.scoring = Scoring::symmetric;
    std::vector<float> q(n * dim_);
    codec_->decode(codes, n, q.data(), p.num_threads);
    q = codec::copies_for_metric({q.data(), n, dim_}, dim_, metric_);
    return search_lists({q.data(), n, dim_}, p, [&](std::size_t first, ConstMatrix part) {
        return residual_ ? codec_->prepare(part, p.num_threads)
                         : codec_->prepare_codes(codes + first * codec_->code_bytes(), part.rows, p.num_threads);
    });
}

RowLists IvfIndex::range_of_codes(ConstMatrix queries, float threshold, const Bitset* allowed, int num_threads) const {
    const std::vector<float> z = codec::copies_for_metric(queries, dim_, metric_);
    queries = {z.data(), queries.rows, dim_};
    Slots slots;
    SearchParams all;
    all.nprobe = lists_.size();
    all.num_threads = num_threads;
    const Probes probes = choose_lists(queries, all, 0, slots);
    const auto scorer = scores_by_list() ? nullptr : codec_->prepare(queries, num_threads);
    const codec::BlockView view{lists_.codes(), lists_.places()};
    const float factor = residual_ && metric_ == Metric::l2 && !scores_by_list() ? 2.0f : 1.0f;
    RowLists hits(queries.rows);
    parallel_for(queries.rows, 1, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> scores;
        for (std::size_t q = begin; q < end; ++q) {
            TopK found(ids_.rows(), tie_order());
            for (std::size_t j = probes.offsets[q]; j < probes.offsets[q + 1]; ++j) {
                const IvfLists::List& list = lists_[probes.lists[j]];
                const std::size_t place = list.first_place();
                scores.resize(list.n);
                if (scores_by_list()) {
                    const auto query = static_cast<std::uint32_t>(q);
                    prepare_for_list(queries, {&query, 1}, probes.lists[j])
                        ->scores(view, place, place + list.n, 0, scores.data());
                } else {
                    scorer->scores(view, place, place + list.n, q, scores.data());
                }
                for (std::uint32_t i = 0; i < list.n; ++i) {
                    const std::uint32_t row = lists_.rows()[place + i];
                    const float score = factor * (scores[i] + probes.terms[j]);
                    if (score >= threshold && (allowed == nullptr || allowed->test(row))) found.push(score, row);
                }
            }
            hits[q] = found.take_sorted();
        }
    });
    return hits;
}

}  // namespace residua::index
