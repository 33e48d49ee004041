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

#include "index/byte_rows.hpp"
#include "index/graph.hpp"
#include "index/graph_search.hpp"

namespace residua::index {

struct BuildParams {
    std::size_t links = 32;   // that a new row chooses, at most
    std::size_t ef = 200;     // candidates per new row
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
// it, only a few. Sorts the candidates.
class NeighbourChoice {
public:
    explicit NeighbourChoice(const ByteRows& rows) : rows_(rows) {}
    // Rows as `rows` numbers them; the result holds until the next call.
    std::span<const std::uint32_t> choose(std::uint32_t row, std::vector<Neighbour>& candidates, std::size_t most);

private:
    const ByteRows& rows_;
    std::vector<std::uint32_t> alive_, chosen_;
    std::vector<float> reach_, distance_;
};

class GraphBuilder {
public:
    static constexpr std::size_t kBatch = 1024;

    GraphBuilder(Graph& graph, const ByteRows& rows, const BuildParams& params);
    ~GraphBuilder();

    // Links rows [graph.size(), end). after_batch(n): rows [0, n) are linked.
    void insert(std::size_t end, const std::function<void(std::size_t)>& after_batch);

private:
    struct Worker;
    void insert_batch(std::size_t begin, std::size_t end);
    void choose_links(std::uint32_t row, std::size_t begin, std::size_t end, Worker& w);
    void link_back(std::uint32_t target, std::span<const std::uint64_t> pairs, Worker& w);
    void renew_entries(std::size_t n);

    Graph& graph_;
    const ByteRows& rows_;
    BuildParams p_;
    std::vector<Worker> workers_;
    std::vector<std::uint32_t> links_;  // of a batch, graph_.degree() places per row
};

// Rows that walks of a graph of these rows start from.
std::vector<std::uint32_t> choose_entries(std::span<const std::uint32_t> rows, std::uint64_t seed);

}  // namespace residua::index
