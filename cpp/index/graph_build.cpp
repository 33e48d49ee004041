// SPDX-License-Identifier: Apache-2.0
#include "index/graph_build.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/parallel.hpp"
#include "core/random.hpp"

namespace residua::index {
namespace {

// Spreads equal distances over their rows, so that equal vectors do not all link to the first few.
std::uint32_t mixed(std::uint32_t a, std::uint32_t b) {
    std::uint64_t z = (std::uint64_t{a} << 32 | b) * 0x9E3779B97F4A7C15ull;
    return static_cast<std::uint32_t>((z ^ (z >> 29)) * 0xBF58476D1CE4E5B9ull >> 32);
}

}  // namespace

std::span<const std::uint32_t> NeighbourChoice::choose(std::uint32_t row, std::vector<Neighbour>& candidates,
                                                       std::size_t most, float slack) {
    std::sort(candidates.begin(), candidates.end(), [row](const Neighbour& a, const Neighbour& b) {
        if (a.distance != b.distance) return a.distance < b.distance;
        const std::uint32_t x = mixed(row, a.row), y = mixed(row, b.row);
        return x != y ? x < y : a.row < b.row;
    });
    alive_.clear();
    chosen_.clear();
    for (const Neighbour& c : candidates) alive_.push_back(c.row);
    reach_.resize(alive_.size());
    space_.gaps(row, alive_.data(), alive_.size(), reach_.data());
    std::size_t equal = 0, count = 0;
    for (std::size_t i = 0; i < alive_.size(); ++i) {
        if (reach_[i] == 0.0f && ++equal > most / 4) continue;
        alive_[count] = alive_[i];
        reach_[count++] = reach_[i];
    }
    alive_.resize(count);
    reach_.resize(count);
    while (!alive_.empty() && chosen_.size() < most) {
        const std::uint32_t next = alive_.front();
        chosen_.push_back(next);
        distance_.resize(alive_.size());
        space_.gaps(next, alive_.data() + 1, alive_.size() - 1, distance_.data());
        std::size_t kept = 0;
        for (std::size_t i = 1; i < alive_.size(); ++i) {
            if (slack * distance_[i - 1] < reach_[i]) continue;
            alive_[kept] = alive_[i];
            reach_[kept++] = reach_[i];
        }
        alive_.resize(kept);
        reach_.resize(kept);
    }
    return chosen_;
}

std::vector<std::uint32_t> choose_entries(std::span<const std::uint32_t> rows, std::uint64_t seed,
                                          const std::function<float(std::uint32_t)>& squared_norm) {
    const auto wanted = static_cast<std::size_t>(std::ceil(std::sqrt(static_cast<double>(rows.size()))));
    std::vector<std::uint32_t> out;
    for (const std::size_t i : sample_rows(rows.size(), wanted, seed)) out.push_back(rows[i]);
    if (squared_norm) {
        std::vector<Neighbour> longest;
        for (const std::uint32_t r : rows) longest.push_back({-squared_norm(r), r});
        const auto end = longest.begin() + static_cast<std::ptrdiff_t>(wanted);
        std::partial_sort(longest.begin(), end, longest.end(), [](const Neighbour& a, const Neighbour& b) {
            return a.distance != b.distance ? a.distance < b.distance : a.row < b.row;
        });
        for (auto it = longest.begin(); it != end; ++it) out.push_back(it->row);
        std::sort(out.begin(), out.end());
        out.erase(std::unique(out.begin(), out.end()), out.end());
    }
    return out;
}

GraphBuilder::GraphBuilder(Graph& graph, BuildSpace& space, const BuildParams& params)
    : graph_(graph), space_(space), p_(params) {
    if (!space.is_dense()) p_.num_threads = 1;
    for (int t = 0; t < std::max(1, p_.num_threads); ++t) workers_.emplace_back(space);
}

void GraphBuilder::renew_entries(std::span<const std::uint32_t> rows) {
    std::function<float(std::uint32_t)> norm;
    if (space_.seeks_long_rows()) norm = [this](std::uint32_t r) { return space_.squared_norm(r); };
    graph_.set_entries(choose_entries(rows, p_.seed, norm));
}

// A row longer than all entries becomes one.
void GraphBuilder::take_entries(std::span<const std::uint32_t> batch) {
    float longest = 0.0f;
    for (const std::uint32_t r : graph_.entries()) longest = std::max(longest, space_.squared_norm(r));
    std::vector<std::uint32_t> entries(graph_.entries().begin(), graph_.entries().end());
    for (const std::uint32_t r : batch) {
        const float norm = space_.squared_norm(r);
        if (norm <= longest) continue;
        longest = norm;
        if (std::find(entries.begin(), entries.end(), r) == entries.end()) entries.push_back(r);
    }
    if (entries.size() > graph_.entries().size()) graph_.set_entries(std::move(entries));
}

// Of the rows in w.rows.
void GraphBuilder::collect(std::uint32_t row, Worker& w) {
    space_.load({&row, 1});
    space_.load(w.rows);
    w.distances.resize(w.rows.size());
    space_.distances(row, w.rows.data(), w.rows.size(), w.distances.data());
    w.candidates.clear();
    for (std::size_t i = 0; i < w.rows.size(); ++i) w.candidates.push_back({w.distances[i], w.rows[i]});
}

void GraphBuilder::insert(std::span<const std::uint32_t> rows, const std::function<void()>& after_batch) {
    graph_.edit();
    if (!rows.empty()) graph_.reserve(rows.back() + std::size_t{1});
    std::vector<std::uint32_t> linked;
    std::size_t entries = graph_.entries().size();
    for (std::size_t begin = 0; begin < rows.size(); begin += kBatch) {
        insert_batch(rows.subspan(begin, std::min(kBatch, rows.size() - begin)));
        // Entries are as many as the square root of the rows: twice the rows, two fifths more of them.
        if (entries == 0 || graph_.size() >= 2 * entries * entries) {
            linked.clear();
            for (std::uint32_t r = 0; r < graph_.size(); ++r) {
                if (graph_.edges()[r * graph_.degree()] != kNoRow) linked.push_back(r);
            }
            if (linked.empty()) linked.assign(1, rows[0]);
            renew_entries(linked);
            entries = std::max<std::size_t>(graph_.entries().size(), 16);
        } else if (space_.seeks_long_rows()) {
            take_entries(rows.subspan(begin, std::min(kBatch, rows.size() - begin)));
        }
        after_batch();
    }
}

void GraphBuilder::choose_links(std::span<const std::uint32_t> batch, std::size_t i, Worker& w) {
    const std::uint32_t row = batch[i];
    space_.walk_near(row, graph_.view(), p_.ef, w.walk);
    w.rows.clear();
    const Beam& beam = w.walk.beam;
    for (std::size_t j = 0; j < beam.size(); ++j) {
        if (beam[j].row != row) w.rows.push_back(beam[j].row);
    }
    // And the rest of the batch, which no walk can meet yet.
    if (row < graph_.size()) {
        for (const std::uint32_t r : batch) std::erase(w.rows, r);
    }
    for (const std::uint32_t r : batch) {
        if (r != row) w.rows.push_back(r);
    }
    collect(row, w);
    if (w.candidates.size() > p_.ef) {
        std::nth_element(w.candidates.begin(), w.candidates.begin() + static_cast<std::ptrdiff_t>(p_.ef),
                         w.candidates.end(), [](const Neighbour& a, const Neighbour& b) {
                             return a.distance != b.distance ? a.distance < b.distance : a.row < b.row;
                         });
        w.candidates.resize(p_.ef);
    }
    const auto chosen = w.choice.choose(row, w.candidates, p_.links);
    std::uint32_t* out = links_.data() + i * p_.links;
    std::fill_n(std::copy(chosen.begin(), chosen.end(), out), p_.links - chosen.size(), kNoRow);
}

void GraphBuilder::insert_batch(std::span<const std::uint32_t> batch) {
    links_.resize(batch.size() * p_.links);
    space_.load(batch);
    parallel_for(batch.size(), 8, p_.num_threads, [&](std::size_t b, std::size_t e, int t) {
        for (std::size_t i = b; i < e; ++i) choose_links(batch, i, worker(t));
    });
    graph_.grow(std::max<std::size_t>(graph_.size(), batch.back() + std::size_t{1}));
    std::vector<std::uint64_t> pairs;  // target, source
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const std::uint32_t* list = links_.data() + i * p_.links;
        std::size_t count = 0;
        while (count < p_.links && list[count] != kNoRow) pairs.push_back(std::uint64_t{list[count++]} << 32 | batch[i]);
        graph_.set_list(batch[i], {list, count});
    }
    std::sort(pairs.begin(), pairs.end());
    std::vector<std::size_t> starts;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        if (i == 0 || pairs[i] >> 32 != pairs[i - 1] >> 32) starts.push_back(i);
    }
    starts.push_back(pairs.size());
    parallel_for(starts.size() - 1, 64, p_.num_threads, [&](std::size_t b, std::size_t e, int t) {
        for (std::size_t i = b; i < e; ++i) {
            link_back(static_cast<std::uint32_t>(pairs[starts[i]] >> 32),
                      std::span(pairs).subspan(starts[i], starts[i + 1] - starts[i]), worker(t));
        }
    });
}

void GraphBuilder::link_back(std::uint32_t target, std::span<const std::uint64_t> pairs, Worker& w) {
    const auto list = graph_.neighbours(target);
    w.rows.assign(list.begin(), list.end());
    for (const std::uint64_t pair : pairs) {
        const auto source = static_cast<std::uint32_t>(pair);
        if (std::find(list.begin(), list.end(), source) == list.end()) w.rows.push_back(source);
    }
    if (w.rows.size() <= graph_.degree()) {
        graph_.set_list(target, w.rows);
        return;
    }
    collect(target, w);
    graph_.set_list(target, w.choice.choose(target, w.candidates, graph_.degree()));
}

}  // namespace residua::index
