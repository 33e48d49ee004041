// SPDX-License-Identifier: Apache-2.0
// k-means (Lloyd), seeded as k-means++ (Arthur and Vassilvitskii, SODA 2007) seeds. Centroids depend on the rows,
// the options and the instruction set, not on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/matrix.hpp"
#include "train/nearest.hpp"

namespace residua::train {

// Sums of rows by label.
struct LabelSums {
    std::vector<double> values;        // k x cols
    std::vector<std::uint32_t> sizes;  // k
};

// What of k-means grows with the rows: another device may do it.
class KMeansEngine {
public:
    virtual ~KMeansEngine() = default;
    // The rows that all other calls are about; they stay as they are until the next ones, or the end.
    virtual void hold(ConstMatrix x) = 0;
    virtual void assign(ConstMatrix centroids, Nearness nearness, std::uint32_t* labels) = 0;
    // As label_distances().
    virtual void distances(ConstMatrix centroids, const std::uint32_t* labels, float* out) = 0;
    // The same bits in every run.
    virtual LabelSums sums(const std::uint32_t* labels, std::size_t k) = 0;
};

struct KMeansOptions {
    std::size_t k = 0;              // 1 … 2^24 - 1
    int iterations = 25;            // at most; fewer when no row changes its centroid; 0: seeds only
    bool spherical = false;         // rows are brought to length 1 (zeros stay), and so are centroids
    std::size_t max_rows = 0;       // rows to learn from, drawn at random; 0: all
    std::uint64_t seed = 0;
    int num_threads = 1;
    ConstMatrix start;              // k centroids to go on from, instead of seeds
    std::function<void(int done, int total)> progress;  // on the calling thread; what it throws ends the call
    KMeansEngine* engine = nullptr;                      // nullptr: the CPU
};

struct KMeans {
    std::vector<float> centroids;      // k x cols
    std::vector<std::uint32_t> sizes;  // rows of every centroid in the last iteration
    double error = 0;                  // squared distance of those rows to their centroids, on average
    int iterations = 0;                // as many as it took
};

// x has at least one row. With fewer distinct rows than centroids, every distinct row is a centroid and the
// others repeat these; nothing is assigned to repeated ones. Polls for interrupts: throws Interrupted.
KMeans kmeans(ConstMatrix x, const KMeansOptions& options);

}  // namespace residua::train
