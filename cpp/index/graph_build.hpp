// SPDX-License-Identifier: Apache-2.0
// Inserts rows into a graph in batches, each of which sees the graph as the batches before it left it:
// the outcome depends on the rows and their order, never on the number of threads (ParlayANN, PPoPP
// 2024, section 3). Rows of one batch compare themselves with each other directly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/bitset.hpp"
#include "index/build_space.hpp"
#include "index/graph.hpp"
#include "index/graph_search.hpp"

namespace residua::index {

struct BuildParams {
    std::size_t links = 32;   // that a new row chooses, at most
    std::size_t ef = 100;     // candidates per new row
    std::uint64_t seed = 0;
    int num_threads = 1;
};

// A candidate neighbour of some row, by squared distance.
struct Neighbour {
    float distance;
    std::uint32_t row;
};

// Keeps of the candidates, nearest first, those that no kept one is nearer to than the row itself: edges
// in all directions rather than many in one (Arya and Mount 1993; HNSW, algorithm 4). Of rows equal to
// it, only a few.
class NeighbourChoice {
public:
    explicit NeighbourChoice(const BuildSpace& space) : space_(space) {}
    // Candidates are loaded, and other rows than `row`; they get sorted. A kept one rules out another that is
    // `slack` times nearer to it. The result holds until the next call.
    std::span<const std::uint32_t> choose(std::uint32_t row, std::vector<Neighbour>& candidates, std::size_t most,
                                          float slack = 1.0f);

private:
    const BuildSpace& space_;
    std::vector<std::uint32_t> alive_, chosen_;
    std::vector<float> reach_, distance_;
};

class GraphBuilder {
public:
    static constexpr std::size_t kBatch = 1024;

    GraphBuilder(Graph& graph, BuildSpace& space, const BuildParams& params);

    // Links rows, which ascend: new ones, from graph.size() on, or ones whose lists are empty. after_batch() is
    // called when the graph is whole.
    void insert(std::span<const std::uint32_t> rows, const std::function<void()>& after_batch);
    // No live row keeps an edge to a row that is not; it may choose among the live neighbours of those instead.
    // Then lists of the other rows are empty.
    void repair(const Bitset& live);
    // Gives every live row that no walk can meet an edge from a row that walks do meet, and takes none away
    // that a walk needs. Their number.
    std::size_t connect(const Bitset& live);
    // Entries for these rows, chosen anew.
    void renew_entries(std::span<const std::uint32_t> rows);

private:
    struct Worker {
        explicit Worker(const BuildSpace& space) : choice(space) {}
        WalkScratch walk;
        NeighbourChoice choice;
        std::vector<Neighbour> candidates;
        std::vector<std::uint32_t> rows;
        std::vector<float> distances;
    };
    Worker& worker(int i) { return workers_[static_cast<std::size_t>(i)]; }
    void insert_batch(std::span<const std::uint32_t> rows);
    void choose_links(std::span<const std::uint32_t> batch, std::size_t i, Worker& w);
    void take_entries(std::span<const std::uint32_t> batch);
    void link_back(std::uint32_t target, std::span<const std::uint64_t> pairs, Worker& w);
    void repair_list(std::uint32_t row, const Bitset& live, Worker& w);
    // w.candidates: the rows of w.rows, loaded.
    void collect(std::uint32_t row, Worker& w);
    bool attach(std::uint32_t row, std::vector<std::uint32_t>& parent, Worker& w);

    Graph& graph_;
    BuildSpace& space_;
    BuildParams p_;
    std::vector<Worker> workers_;
    std::vector<std::uint32_t> links_;  // of a batch, p_.links places per row
};

// Rows that walks of a graph of these rows start from.
// squared_norm, unless empty: long rows come first, which are what inner products look for.
std::vector<std::uint32_t> choose_entries(std::span<const std::uint32_t> rows, std::uint64_t seed,
                                          const std::function<float(std::uint32_t)>& squared_norm);

}  // namespace residua::index
