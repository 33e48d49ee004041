// SPDX-License-Identifier: Apache-2.0
#include "index/graph_build.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/parallel.hpp"
#include "core/random.hpp"

namespace residua::index {
namespace {

constexpr std::size_t kSeeds = 8;  // entries that a walk starts from

// Spreads equal distances over their rows, so that equal vectors do not all link to the first few.
std::uint32_t mixed(std::uint32_t a, std::uint32_t b) {
    std::uint64_t z = (std::uint64_t{a} << 32 | b) * 0x9E3779B97F4A7C15ull;
    return static_cast<std::uint32_t>((z ^ (z >> 29)) * 0xBF58476D1CE4E5B9ull >> 32);
}

}  // namespace

std::span<const std::uint32_t> NeighbourChoice::choose(std::uint32_t row, std::vector<Neighbour>& candidates,
                                                       std::size_t most) {
    std::sort(candidates.begin(), candidates.end(), [row](const Neighbour& a, const Neighbour& b) {
        if (a.distance != b.distance) return a.distance < b.distance;
        const std::uint32_t x = mixed(row, a.row), y = mixed(row, b.row);
        return x != y ? x < y : a.row < b.row;
    });
    std::size_t equal = 0;  // rows at distance 0 that may still be kept
    alive_.clear();
    reach_.clear();
    chosen_.clear();
    for (const Neighbour& c : candidates) {
        if (c.distance == 0.0f && ++equal > most / 4) continue;
        alive_.push_back(c.row);
        reach_.push_back(c.distance);
    }
    while (!alive_.empty() && chosen_.size() < most) {
        const std::uint32_t next = alive_.front();
        chosen_.push_back(next);
        distance_.resize(alive_.size());
        rows_.distances(next, alive_.data() + 1, alive_.size() - 1, distance_.data());
        std::size_t kept = 0;
        for (std::size_t i = 1; i < alive_.size(); ++i) {
            if (distance_[i - 1] < reach_[i]) continue;
            alive_[kept] = alive_[i];
            reach_[kept++] = reach_[i];
        }
        alive_.resize(kept);
        reach_.resize(kept);
    }
    return chosen_;
}

std::vector<std::uint32_t> choose_entries(std::span<const std::uint32_t> rows, std::uint64_t seed) {
    const auto wanted = static_cast<std::size_t>(std::ceil(std::sqrt(static_cast<double>(rows.size()))));
    std::vector<std::uint32_t> out;
    for (const std::size_t i : sample_rows(rows.size(), wanted, seed)) out.push_back(rows[i]);
    return out;
}

struct GraphBuilder::Worker {
    explicit Worker(const ByteRows& rows) : choice(rows) {}
    WalkScratch walk;
    NeighbourChoice choice;
    std::vector<Neighbour> candidates;
    std::vector<std::uint32_t> batch;
    std::vector<float> distances;
};

GraphBuilder::GraphBuilder(Graph& graph, const ByteRows& rows, const BuildParams& params)
    : graph_(graph), rows_(rows), p_(params) {
    for (int t = 0; t < std::max(1, p_.num_threads); ++t) workers_.emplace_back(rows);
}

GraphBuilder::~GraphBuilder() = default;

void GraphBuilder::insert(std::size_t end, const std::function<void(std::size_t)>& after_batch) {
    graph_.edit();
    for (std::size_t begin = graph_.size(); begin < end;) {
        const std::size_t stop = std::min(end, begin + kBatch);
        insert_batch(begin, stop);
        renew_entries(stop);
        begin = stop;
        after_batch(begin);
    }
}

void GraphBuilder::renew_entries(std::size_t n) {
    // With the square root of n as their number, a doubling adds two fifths to it.
    if (!graph_.entries().empty() && n < 2 * graph_.entries().size() * graph_.entries().size()) return;
    std::vector<std::uint32_t> rows(n);
    std::iota(rows.begin(), rows.end(), 0u);
    graph_.set_entries(choose_entries(rows, p_.seed));
}

void GraphBuilder::choose_links(std::uint32_t row, std::size_t begin, std::size_t end, Worker& w) {
    const GraphView view = graph_.view();
    const auto score = [&](const std::uint32_t* rows, std::size_t n, float* out) {
        rows_.distances(row, rows, n, out);
        for (std::size_t i = 0; i < n; ++i) out[i] = -out[i];
    };
    RowHop hop(view, score, kSeeds);
    walk(hop, view.n, p_.ef, w.walk, [](float, std::uint32_t) {});
    // Distances to the rest of the batch, which no walk can meet yet.
    w.batch.clear();
    for (std::size_t r = begin; r < end; ++r) {
        if (r != row) w.batch.push_back(static_cast<std::uint32_t>(r));
    }
    w.distances.resize(w.batch.size());
    rows_.distances(row, w.batch.data(), w.batch.size(), w.distances.data());
    Beam& beam = w.walk.beam;
    for (std::size_t i = 0; i < w.batch.size(); ++i) {
        if (-w.distances[i] > beam.worst()) beam.push(-w.distances[i], w.batch[i]);
    }
    w.candidates.clear();
    for (std::size_t i = 0; i < beam.size(); ++i) w.candidates.push_back({-beam[i].score, beam[i].row});
    const auto chosen = w.choice.choose(row, w.candidates, p_.links);
    std::uint32_t* out = links_.data() + (row - begin) * p_.links;
    std::fill_n(std::copy(chosen.begin(), chosen.end(), out), p_.links - chosen.size(), kNoRow);
}

void GraphBuilder::insert_batch(std::size_t begin, std::size_t end) {
    const std::size_t n = end - begin;
    links_.resize(n * p_.links);
    parallel_for(n, 8, p_.num_threads, [&](std::size_t b, std::size_t e, int worker) {
        for (std::size_t i = b; i < e; ++i) {
            choose_links(static_cast<std::uint32_t>(begin + i), begin, end, workers_[static_cast<std::size_t>(worker)]);
        }
    });
    graph_.grow(end);
    std::vector<std::uint64_t> pairs;  // target, source
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint32_t* list = links_.data() + i * p_.links;
        std::size_t count = 0;
        while (count < p_.links && list[count] != kNoRow) pairs.push_back(std::uint64_t{list[count++]} << 32 | (begin + i));
        graph_.set_list(static_cast<std::uint32_t>(begin + i), {list, count});
    }
    std::sort(pairs.begin(), pairs.end());
    std::vector<std::size_t> starts;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        if (i == 0 || pairs[i] >> 32 != pairs[i - 1] >> 32) starts.push_back(i);
    }
    starts.push_back(pairs.size());
    parallel_for(starts.size() - 1, 64, p_.num_threads, [&](std::size_t b, std::size_t e, int worker) {
        for (std::size_t i = b; i < e; ++i) {
            link_back(static_cast<std::uint32_t>(pairs[starts[i]] >> 32),
                      std::span(pairs).subspan(starts[i], starts[i + 1] - starts[i]),
                      workers_[static_cast<std::size_t>(worker)]);
        }
    });
}

void GraphBuilder::link_back(std::uint32_t target, std::span<const std::uint64_t> pairs, Worker& w) {
    const auto list = graph_.neighbours(target);
    w.batch.assign(list.begin(), list.end());
    for (const std::uint64_t pair : pairs) {
        const auto source = static_cast<std::uint32_t>(pair);
        if (std::find(list.begin(), list.end(), source) == list.end()) w.batch.push_back(source);
    }
    if (w.batch.size() <= graph_.degree()) {
        graph_.set_list(target, w.batch);
        return;
    }
    w.distances.resize(w.batch.size());
    rows_.distances(target, w.batch.data(), w.batch.size(), w.distances.data());
    w.candidates.clear();
    for (std::size_t i = 0; i < w.batch.size(); ++i) w.candidates.push_back({w.distances[i], w.batch[i]});
    graph_.set_list(target, w.choice.choose(target, w.candidates, graph_.degree()));
}

}  // namespace residua::index
