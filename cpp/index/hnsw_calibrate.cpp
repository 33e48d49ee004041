// SPDX-License-Identifier: Apache-2.0
// What the units of work behind a plan take on this machine, with the rows and codes of an index.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>
#include <shared_mutex>

#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "index/code_scan.hpp"
#include "index/code_units.hpp"
#include "index/hnsw_index.hpp"
#include "index/hnsw_scorers.hpp"

namespace residua::index {
namespace {

constexpr std::size_t kLeastRows = 1000;
constexpr std::size_t kQueries = 32;
constexpr std::size_t kRows = 8192;
constexpr std::size_t kCandidates = 128;
constexpr int kRepeats = 5;
constexpr std::size_t kNarrow = 64, kWide = 192;  // beams of two walks, whose difference is what a step takes
constexpr std::size_t kEvery = 8;                 // rows of which one passes

// Nanoseconds of the fastest run.
template <class Work>
float fastest(const Work& work) {
    double best = 1e30;
    for (int i = 0; i < kRepeats; ++i) {
        const auto begin = std::chrono::steady_clock::now();
        work();
        best = std::min(best, std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count());
    }
    return static_cast<float>(best);
}

}  // namespace

PlanCosts HNSWIndex::measure() const {
    const auto v = view();
    const std::vector<std::uint32_t> live = ids_.live_rows();
    std::vector<std::uint32_t> rows, asked;
    for (std::size_t i = 0; i < std::min(kRows, live.size()); ++i) rows.push_back(live[i * live.size() / std::min(kRows, live.size())]);
    for (std::size_t i = 0; i < kQueries; ++i) asked.push_back(live[i * live.size() / kQueries]);
    std::vector<float> x(kQueries * dim_);
    for (std::size_t i = 0; i < kQueries; ++i) old_vector(asked[i], x.data() + i * dim_);
    const ConstMatrix queries(x.data(), kQueries, dim_);

    PlanCosts c = costs_of(*v);
    SearchParams params;
    params.ef = kNarrow;
    Scorers scorers;
    prepare_scorers(queries, params, scorers);
    const auto n_rows = static_cast<float>(rows.size());
    const auto n_queries = static_cast<float>(kQueries);
    const codec::RowScorer& row_scorer = scorers.rows();
    c.row = fastest([&] {
        for (std::size_t q = 0; q < kQueries; ++q) scan_rows(*v, row_scorer, rows, q, kCandidates);
    }) / (n_rows * n_queries);
    if (codec_ != nullptr) {
        AlignedVector<std::uint8_t> units;
        c.pack = fastest([&] {
            units = packed_codes(*v, rows, 1);
        }) / n_rows;
        const codec::EdgeScorer& scorer = scorers.units();
        const auto scan_ns = [&](std::size_t keep) {
            return fastest([&] {
                for (std::size_t q = 0; q < kQueries; ++q) {
                    scan_units(scorer, edge_form(*codec_), units.data(), rows.size(), nullptr, q, keep);
                }
            }) / n_queries;
        };
        const float few = scan_ns(1), many = scan_ns(kCandidates);
        const auto kept = static_cast<float>(std::min(kCandidates, rows.size()));
        c.unit = few / n_rows;
        c.enter = std::max(1.0f, (many - few) / (kept * (1.0f + std::log(n_rows / kept))));
    }
    float settled = 0.0f;  // of the walks below
    if (!vectors_.empty_mode()) {
        const std::vector<float> q = codec::copies_for_metric(queries, dim_, metric_);
        const std::size_t few = std::min<std::size_t>(rows.size(), 1024);
        const std::span<const std::uint32_t> some(rows.data(), few);
        c.gather = fastest([&] { const GatheredRows gathered(vectors_.view(), some, 1); }) / static_cast<float>(few);
        const GatheredRows gathered(vectors_.view(), some, 1);
        c.exact = fastest([&] { exact_top_k(gathered.source, metric_, {q.data(), kQueries, dim_}, 10, nullptr, 1); }) /
                  (static_cast<float>(few) * n_queries);
        const std::size_t candidates = std::min(kCandidates, rows.size());
        RowLists lists(kQueries);
        for (std::size_t i = 0; i < kQueries; ++i) {
            for (std::size_t j = 0; j < candidates; ++j) lists[i].push_back({0.0f, rows[(i * 131 + j * 977) % rows.size()]});
        }
        c.settle = fastest([&] { settle_exactly(queries, lists, 10, 1); }) / (static_cast<float>(candidates) * n_queries);
        settled = static_cast<float>(kWide - kNarrow) * (codec_ != nullptr ? c.settle : 0.0f);
    }
    const auto search_ns = [&](std::size_t ef, const Filter* filter, Plan plan) {
        params.ef = ef;
        params.filter = filter;
        params.plan = plan;
        return fastest([&] {
            Scorers own;
            prepare_scorers(queries, params, own);
            search_with(queries, own, params);
        }) / n_queries;
    };
    const auto step = [&](const Filter* filter, Plan plan, float least) {
        const float wide = search_ns(kWide, filter, plan), narrow = search_ns(kNarrow, filter, plan);
        return std::max(least, (wide - narrow - settled) / static_cast<float>(kWide - kNarrow));
    };
    c.hop = step(nullptr, Plan::graph, 1.0f);
    if (live.size() < 2 * kWide * kEvery) return c;  // they would be scanned
    std::vector<std::uint8_t> mask(live.size());
    for (std::size_t i = 0; i < mask.size(); i += kEvery) mask[i] = 1;
    const Filter eighth = mask;
    c.two_hops = step(&eighth, Plan::filtered_graph, 1.0f);
    return c;
}

PlanCosts HNSWIndex::calibrate() {
    const std::lock_guard writing(writing_);
    PlanCosts measured;
    {
        std::shared_lock lock(mutex_);
        if ((wants_codec_ && codec_ == nullptr) || ids_.size() < kLeastRows) {
            throw Error(ErrorKind::value, "calibrate() measures on the index's own codes and rows: it needs a fitted codec and at least " +
                                              std::to_string(kLeastRows) + " rows, there are " + std::to_string(ids_.size()));
        }
        measured = measure();
    }
    const std::unique_lock lock(mutex_);
    costs_ = measured;
    return measured;
}

}  // namespace residua::index
