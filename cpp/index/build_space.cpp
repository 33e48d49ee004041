// SPDX-License-Identifier: Apache-2.0
#include "index/build_space.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "codec/normalize.hpp"
#include "core/parallel.hpp"

namespace residua::index {
namespace {

constexpr std::size_t kCenterRows = 4096;  // rows that a center is taken of

double length_squared(const float* x, std::size_t n) {
    double s = 0;
    for (std::size_t i = 0; i < n; ++i) s += static_cast<double>(x[i]) * x[i];
    return s;
}

}  // namespace

void Placement::place(const float* x, float* out) const {
    codec::copy_for_metric(x, center.size(), metric, out);
    for (std::size_t i = 0; i < center.size(); ++i) out[i] -= center[i];
}

// With room for what rounding to bytes adds to a product.
ByteRows Placement::no_rows() const {
    const double longest = metric == Metric::ip ? 1.05 * largest_squared : 0.0;
    return ByteRows(center.size(), static_cast<float>(longest));
}

Placement make_placement(Metric metric, ConstMatrix x, const Placement& before) {
    Placement out;
    out.metric = metric;
    out.largest_squared = before.largest_squared;
    out.center.assign(x.cols, 0.0f);
    std::vector<double> sum(x.cols);
    std::vector<float> row(x.cols);
    const std::size_t step = std::max<std::size_t>(1, x.rows / kCenterRows);
    std::size_t n = 0;
    for (std::size_t r = 0; r < x.rows; r += step, ++n) {
        codec::copy_for_metric(x.row(r), x.cols, metric, row.data());
        for (std::size_t i = 0; i < x.cols; ++i) sum[i] += static_cast<double>(row[i]);
    }
    for (std::size_t i = 0; i < x.cols && n > 0; ++i) out.center[i] = static_cast<float>(sum[i] / static_cast<double>(n));
    if (!before.center.empty()) out.center = before.center;
    // Lengths count under the inner product.
    if (metric == Metric::ip) std::fill(out.center.begin(), out.center.end(), 0.0f);
    if (metric == Metric::ip) {
        for (std::size_t r = 0; r < x.rows; ++r) {
            out.largest_squared = std::max(out.largest_squared, length_squared(x.row(r), x.cols));
        }
    }
    return out;
}

DenseSpace::DenseSpace(const Placement& placement, std::size_t n,
                       const std::function<void(std::uint32_t, float*)>& vector, int num_threads)
    : long_rows_(placement.metric == Metric::ip), rows_(placement.no_rows()) {
    rows_.resize(n);
    const std::size_t dim = placement.center.size();
    parallel_for(n, 256, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> x(dim), z(dim);
        for (std::size_t r = begin; r < end; ++r) {
            vector(static_cast<std::uint32_t>(r), x.data());
            placement.place(x.data(), z.data());
            rows_.set(r, z.data());
        }
    });
}

void DenseSpace::walk_near(std::uint32_t row, const GraphView& graph, std::size_t ef, WalkScratch& scratch) const {
    const auto score = [&](const std::uint32_t* rows, std::size_t n, float* out) {
        rows_.distances(row, rows, n, out);
        for (std::size_t i = 0; i < n; ++i) out[i] = -out[i];
    };
    walk(RowHop(graph, score, FetchNothing{}, kWalkSeeds), graph.n, ef, scratch, [](float, std::uint32_t) {});
}

void DenseSpace::distances(std::uint32_t row, const std::uint32_t* rows, std::size_t n, float* out) const {
    rows_.distances(row, rows, n, out);
}

SparseSpace::SparseSpace(const Placement& placement, Vector vector, Walk walk)
    : placement_(placement),
      vector_(std::move(vector)),
      walk_(std::move(walk)),
      rows_(placement.no_rows()),
      x_(placement.center.size()),
      z_(placement.center.size()) {}

void SparseSpace::load(std::span<const std::uint32_t> rows) {
    for (const std::uint32_t row : rows) {
        const auto slot = static_cast<std::uint32_t>(slots_.size());
        if (!slots_.try_emplace(row, slot).second) continue;
        vector_(row, x_.data());
        rows_.resize(slot + 1);
        placement_.place(x_.data(), z_.data());
        rows_.set(slot, z_.data());
    }
}

float SparseSpace::squared_norm(std::uint32_t row) const {
    std::vector<float> x(placement_.center.size());
    vector_(row, x.data());
    return static_cast<float>(length_squared(x.data(), x.size()));
}

void SparseSpace::find_slots(const std::uint32_t* rows, std::size_t n) const {
    slots_of_.resize(n);
    for (std::size_t i = 0; i < n; ++i) slots_of_[i] = slots_.at(rows[i]);
}

void SparseSpace::distances(std::uint32_t row, const std::uint32_t* rows, std::size_t n, float* out) const {
    find_slots(rows, n);
    rows_.distances(slots_.at(row), slots_of_.data(), n, out);
}

void SparseSpace::gaps(std::uint32_t row, const std::uint32_t* rows, std::size_t n, float* out) const {
    find_slots(rows, n);
    rows_.gaps(slots_.at(row), slots_of_.data(), n, out);
}

}  // namespace residua::index
