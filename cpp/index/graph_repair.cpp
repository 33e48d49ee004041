// SPDX-License-Identifier: Apache-2.0
// What keeps a graph whole: edges around rows that went (FreshDiskANN, 2021, algorithm 4), and a way
// from the entries to every live row.
#include <algorithm>

#include "core/parallel.hpp"
#include "index/graph_build.hpp"

namespace residua::index {
namespace {

// Strict choices, repeated, would thin the graph out.
constexpr float kRepairSlack = 1.2f;

}  // namespace

void GraphBuilder::repair_list(std::uint32_t row, const Bitset& live, Worker& w) {
    const auto list = graph_.neighbours(row);
    if (std::all_of(list.begin(), list.end(), [&](std::uint32_t r) { return live.test(r); })) return;
    w.rows.clear();
    for (const std::uint32_t r : list) {
        if (live.test(r)) {
            w.rows.push_back(r);
            continue;
        }
        for (const std::uint32_t next : graph_.neighbours(r)) {
            if (next != row && live.test(next)) w.rows.push_back(next);
        }
    }
    std::sort(w.rows.begin(), w.rows.end());
    w.rows.erase(std::unique(w.rows.begin(), w.rows.end()), w.rows.end());
    collect(row, w);
    graph_.set_list(row, w.choice.choose(row, w.candidates, graph_.degree(), kRepairSlack));
}

void GraphBuilder::repair(const Bitset& live) {
    graph_.edit();
    parallel_for(graph_.size(), 256, p_.num_threads, [&](std::size_t begin, std::size_t end, int t) {
        for (std::size_t r = begin; r < end; ++r) {
            if (live.test(r)) repair_list(static_cast<std::uint32_t>(r), live, worker(t));
        }
    });
    for (std::uint32_t r = 0; r < graph_.size(); ++r) {
        if (!live.test(r) && graph_.count(r) > 0) graph_.set_list(r, {});
    }
    std::vector<std::uint32_t> rows;
    for (const std::uint32_t r : graph_.entries()) {
        if (live.test(r)) rows.push_back(r);
    }
    // A few rows that went leave enough entries.
    if (rows.size() * 4 < graph_.entries().size() * 3 || rows.empty()) {
        rows.clear();
        for (std::uint32_t r = 0; r < graph_.size(); ++r) {
            if (live.test(r)) rows.push_back(r);
        }
        renew_entries(rows);
    } else {
        graph_.set_entries(std::move(rows));
    }
}

namespace {

// Extends `parent` to all that can be reached from the rows at the end of `queue`.
void reach(const Graph& graph, std::vector<std::uint32_t>& queue, std::vector<std::uint32_t>& parent) {
    while (!queue.empty()) {
        const std::uint32_t row = queue.back();
        queue.pop_back();
        for (const std::uint32_t next : graph.neighbours(row)) {
            if (parent[next] != kNoRow) continue;
            parent[next] = row;
            queue.push_back(next);
        }
    }
}

}  // namespace

std::size_t GraphBuilder::connect(const Bitset& live) {
    graph_.edit();
    // parent[r]: the row by which r was reached first; an entry is its own.
    std::vector<std::uint32_t> parent(graph_.size(), kNoRow);
    std::vector<std::uint32_t> queue(graph_.entries().begin(), graph_.entries().end());
    for (const std::uint32_t r : queue) parent[r] = r;
    reach(graph_, queue, parent);
    std::size_t attached = 0;
    for (std::uint32_t r = 0; r < graph_.size(); ++r) {
        if (parent[r] != kNoRow || !live.test(r)) continue;
        if (!attach(r, parent, workers_[0])) {
            std::vector<std::uint32_t> entries(graph_.entries().begin(), graph_.entries().end());
            entries.push_back(r);
            graph_.set_entries(std::move(entries));
            parent[r] = r;
        }
        ++attached;
        queue.push_back(r);
        reach(graph_, queue, parent);
    }
    return attached;
}

// Edges by which nothing was reached first may go: the way to every other row stays.
bool GraphBuilder::attach(std::uint32_t row, std::vector<std::uint32_t>& parent, Worker& w) {
    space_.load({&row, 1});
    space_.walk_near(row, graph_.view(), p_.ef, w.walk);
    const Beam& beam = w.walk.beam;
    for (std::size_t i = 0; i < beam.size(); ++i) {
        const std::uint32_t from = beam[i].row;
        if (parent[from] == kNoRow || from == row) continue;
        const auto list = graph_.neighbours(from);
        w.rows.assign(list.begin(), list.end());
        if (w.rows.size() < graph_.degree()) {
            w.rows.push_back(row);
        } else {
            const auto spare = std::find_if(w.rows.rbegin(), w.rows.rend(), [&](std::uint32_t r) { return parent[r] != from; });
            if (spare == w.rows.rend()) continue;
            *spare = row;
        }
        graph_.set_list(from, w.rows);
        parent[row] = from;
        return true;
    }
    return false;
}

}  // namespace residua::index
