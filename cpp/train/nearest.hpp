// SPDX-License-Identifier: Apache-2.0
// Nearest centroids of rows, by products: the last bits of a distance may decide between centroids that lie
// equally near. Of equal values the smaller number wins. A row's result does not depend on other rows or threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/matrix.hpp"
#include "kernel/matmul.hpp"

namespace residua::train {

enum class Nearness : std::uint8_t {
    distance,  // smallest |x - c|^2
    product,   // largest <x, c>
};

class NearestCentroids {
public:
    NearestCentroids() = default;
    // Copies at least one centroid, packed; fewer than 2^24.
    explicit NearestCentroids(ConstMatrix centroids, Nearness nearness = Nearness::distance);

    std::size_t size() const { return panels_.rows(); }
    std::size_t dim() const { return panels_.cols(); }
    std::size_t memory_bytes() const;

    // out[i] = the nearest centroid of row i. The first form starts no threads.
    void assign(ConstMatrix x, std::uint32_t* out) const;
    void assign(ConstMatrix x, std::uint32_t* out, int num_threads) const;

    // The m nearest of every row, nearest first, 1 <= m <= size(): out is (x.rows, m), row-major. `values`, where
    // given, gets their squared distances, or products.
    void assign_top(ConstMatrix x, std::size_t m, std::uint32_t* out, float* values, int num_threads) const;

private:
    void shifted(ConstMatrix x, std::vector<float>& out) const;

    kernel::PackedPanels panels_;  // of centroids less shift_
    std::vector<float> bias_;      // -|c|^2 / 2 for distances, 0 for products; -infinity past the last
    // Mean of the centroids, so that data far from the origin lose no digits; empty for products.
    std::vector<float> shift_;
    Nearness nearness_ = Nearness::distance;
};

// out[i] = |x_i - centroids[labels[i]]|^2, without cancellation: exactly 0 for equal rows.
void label_distances(ConstMatrix x, ConstMatrix centroids, const std::uint32_t* labels, float* out, int num_threads);

}  // namespace residua::train
