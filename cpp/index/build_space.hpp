// SPDX-License-Identifier: Apache-2.0
// The distances by which a graph is built, between rows that are kept as signed bytes: squared ones of
// centred rows, which under cosine have unit length first; under the inner product, the smaller the larger
// the product is, so that edges lead to long rows (ip-NSW, Morozov and Babenko, 2018).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include "codec/row_scorer.hpp"
#include "core/matrix.hpp"
#include "core/metric.hpp"
#include "index/byte_rows.hpp"
#include "index/graph_search.hpp"

namespace residua::index {

// How vectors become rows of the space.
struct Placement {
    Metric metric = Metric::l2;
    std::vector<float> center;     // dim; after normalisation under cosine
    double largest_squared = 0.0;  // inner product: the squared length of the longest row

    // out: dim values.
    void place(const float* x, float* out) const;
    ByteRows no_rows() const;
};
// Of vectors like these; the center of some thousands of them.
Placement make_placement(Metric metric, ConstMatrix x, const Placement& before);

class BuildSpace {
public:
    virtual ~BuildSpace() = default;
    // Leaves rows of the graph near `row` in scratch.beam, best first, by scores of its own.
    virtual void walk_near(std::uint32_t row, const GraphView& graph, std::size_t ef, WalkScratch& scratch) const = 0;
    // Before distances between these rows are asked for; not from several threads unless is_dense().
    virtual void load(std::span<const std::uint32_t> rows) = 0;
    virtual void distances(std::uint32_t row, const std::uint32_t* rows, std::size_t n, float* out) const = 0;
    // Squared distances, whatever makes rows near: by which neighbours are told apart.
    virtual void gaps(std::uint32_t row, const std::uint32_t* rows, std::size_t n, float* out) const = 0;
    virtual bool is_dense() const = 0;
    // Whether walks are after long rows: the inner product. Their lengths, of any rows.
    virtual bool seeks_long_rows() const = 0;
    virtual float squared_norm(std::uint32_t row) const = 0;
};

// All rows, held for the time of a large change.
class DenseSpace final : public BuildSpace {
public:
    // vector(row, out) is called from many threads.
    DenseSpace(const Placement& placement, std::size_t n, const std::function<void(std::uint32_t, float*)>& vector,
               int num_threads);
    void walk_near(std::uint32_t row, const GraphView& graph, std::size_t ef, WalkScratch& scratch) const override;
    void load(std::span<const std::uint32_t>) override {}
    void distances(std::uint32_t row, const std::uint32_t* rows, std::size_t n, float* out) const override;
    void gaps(std::uint32_t row, const std::uint32_t* rows, std::size_t n, float* out) const override {
        rows_.gaps(row, rows, n, out);
    }
    bool is_dense() const override { return true; }
    bool seeks_long_rows() const override { return long_rows_; }
    float squared_norm(std::uint32_t row) const override { return rows_.squared_norm(row); }

private:
    bool long_rows_;
    ByteRows rows_;
};

// The few rows that a small change comes across. Walks take the scores that searches take.
class SparseSpace final : public BuildSpace {
public:
    using Vector = std::function<void(std::uint32_t, float*)>;
    // walk(row, graph, ef, scratch) as walk_near().
    using Walk = std::function<void(std::uint32_t, const GraphView&, std::size_t, WalkScratch&)>;

    SparseSpace(const Placement& placement, Vector vector, Walk walk);
    void walk_near(std::uint32_t row, const GraphView& graph, std::size_t ef, WalkScratch& scratch) const override {
        walk_(row, graph, ef, scratch);
    }
    void load(std::span<const std::uint32_t> rows) override;
    void distances(std::uint32_t row, const std::uint32_t* rows, std::size_t n, float* out) const override;
    void gaps(std::uint32_t row, const std::uint32_t* rows, std::size_t n, float* out) const override;
    bool is_dense() const override { return false; }
    bool seeks_long_rows() const override { return placement_.metric == Metric::ip; }
    float squared_norm(std::uint32_t row) const override;

private:
    void find_slots(const std::uint32_t* rows, std::size_t n) const;

    const Placement& placement_;
    Vector vector_;
    Walk walk_;
    ByteRows rows_;
    std::unordered_map<std::uint32_t, std::uint32_t> slots_;
    std::vector<float> x_, z_;
    mutable std::vector<std::uint32_t> slots_of_;
};

}  // namespace residua::index
