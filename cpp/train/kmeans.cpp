// SPDX-License-Identifier: Apache-2.0
#include "train/kmeans.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/parallel.hpp"
#include "core/random.hpp"
#include "kernel/dispatch.hpp"
#include "train/nearest.hpp"

namespace residua::train {
namespace {

constexpr std::size_t kCopyRows = 1024;
constexpr std::size_t kSumRows = 4096;         // rows of a partial sum, at least
constexpr std::size_t kSumValues = 1u << 22;   // all partial sums together, at most
constexpr std::size_t kSeedRows = 4096;        // rows to draw seeds from, at least
constexpr std::size_t kSeedRowsPerCentroid = 16;
constexpr std::size_t kSeedRounds = 16;

// Rows that k-means works on: a sample, dense, around its mean or of length 1.
struct Sample {
    std::vector<float> values;
    std::vector<float> mean;  // zero when spherical
    std::size_t n = 0, dim = 0;

    ConstMatrix rows() const { return {values.data(), n, dim}; }
};

void to_unit_length(float* x, std::size_t dim) {
    double square = 0;
    for (std::size_t j = 0; j < dim; ++j) square += static_cast<double>(x[j]) * x[j];
    if (square <= 0) return;
    const auto factor = static_cast<float>(1.0 / std::sqrt(square));
    for (std::size_t j = 0; j < dim; ++j) x[j] *= factor;
}

Sample take_sample(ConstMatrix x, const KMeansOptions& o) {
    Sample s;
    s.dim = x.cols;
    std::vector<std::size_t> chosen;
    if (o.max_rows != 0 && o.max_rows < x.rows) chosen = sample_rows(x.rows, o.max_rows, o.seed);
    s.n = chosen.empty() ? x.rows : chosen.size();
    const auto row = [&](std::size_t i) { return x.row(chosen.empty() ? i : chosen[i]); };
    s.mean.assign(s.dim, 0.0f);
    if (!o.spherical) {
        std::vector<double> sum(s.dim, 0.0);
        for (std::size_t i = 0; i < s.n; ++i) {
            const float* r = row(i);
            for (std::size_t j = 0; j < s.dim; ++j) sum[j] += static_cast<double>(r[j]);
        }
        for (std::size_t j = 0; j < s.dim; ++j) s.mean[j] = static_cast<float>(sum[j] / static_cast<double>(s.n));
    }
    s.values.resize(s.n * s.dim);
    parallel_for(s.n, kCopyRows, o.num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; ++i) {
            const float* r = row(i);
            float* out = s.values.data() + i * s.dim;
            for (std::size_t j = 0; j < s.dim; ++j) out[j] = r[j] - s.mean[j];
            if (o.spherical) to_unit_length(out, s.dim);
        }
    });
    return s;
}

// Up to `count` rows, drawn one after the other with probability proportional to the squared distance to the
// nearest centroid, those drawn before included: a row drawn by its distance from before the call is accepted
// with the probability by which the distance has shrunk since (rejection). Fewer when too many are refused.
std::vector<std::size_t> draw_rows(ConstMatrix x, const std::vector<float>& distance, std::size_t count,
                                   Random& random) {
    std::vector<double> sums(x.rows);
    double total = 0;
    for (std::size_t i = 0; i < x.rows; ++i) sums[i] = total += static_cast<double>(distance[i]);
    std::vector<std::size_t> drawn;
    if (!(total > 0)) return drawn;
    const kernel::FloatKernels& kernels = kernel::active().floats;
    for (std::size_t trial = 0; trial < 2 * count && drawn.size() < count; ++trial) {
        const double at = random.uniform() * total, accept = random.uniform();
        const auto found = std::upper_bound(sums.begin(), sums.end(), at) - sums.begin();
        const std::size_t row = std::min(static_cast<std::size_t>(found), x.rows - 1);
        float now = distance[row];
        for (const std::size_t other : drawn) now = std::min(now, kernels.l2_f32(x.row(row), x.row(other), x.cols));
        if (now > 0 && accept * static_cast<double>(distance[row]) < static_cast<double>(now)) drawn.push_back(row);
    }
    return drawn;
}

std::vector<float> seed_centroids(ConstMatrix all, const KMeansOptions& o, KMeansEngine& engine, InterruptPoll& poll) {
    const std::size_t dim = all.cols, k = o.k;
    // Distances to seeds are brought up to date once per round.
    const std::size_t per_round = std::max<std::size_t>(1, k / kSeedRounds);
    std::vector<float> picked;
    ConstMatrix x = all;
    if (const std::size_t limit = std::max(kSeedRows, kSeedRowsPerCentroid * k); limit < all.rows) {
        for (const std::size_t r : sample_rows(all.rows, limit, o.seed + 1)) {
            picked.insert(picked.end(), all.row(r), all.row(r) + dim);
        }
        x = {picked.data(), limit, dim};
    }
    engine.hold(x);
    Random random(o.seed + 2);
    std::vector<float> seeds, distance(x.rows, std::numeric_limits<float>::infinity()), to_new(x.rows);
    std::vector<std::uint32_t> labels(x.rows);
    std::vector<std::size_t> drawn{random.below(x.rows)};
    while (!drawn.empty()) {
        const std::size_t first = seeds.size();
        for (const std::size_t r : drawn) seeds.insert(seeds.end(), x.row(r), x.row(r) + dim);
        if (seeds.size() == k * dim) return seeds;
        const ConstMatrix fresh(seeds.data() + first, drawn.size(), dim);
        engine.assign(fresh, Nearness::distance, labels.data());
        engine.distances(fresh, labels.data(), to_new.data());
        for (std::size_t i = 0; i < x.rows; ++i) distance[i] = std::min(distance[i], to_new[i]);
        drawn = draw_rows(x, distance, std::min(per_round, k - seeds.size() / dim), random);
        poll.check();
    }
    // No row is away from all seeds: the others repeat them.
    const std::size_t distinct = seeds.size();
    seeds.resize(k * dim);
    for (std::size_t i = distinct; i < seeds.size(); ++i) seeds[i] = seeds[i - distinct];
    return seeds;
}

// In an order that does not depend on threads.
LabelSums sum_by_label(ConstMatrix x, const std::uint32_t* labels, std::size_t k, int num_threads) {
    const std::size_t dim = x.cols;
    const std::size_t most = std::clamp<std::size_t>(kSumValues / (k * dim), 1, 16);
    const std::size_t grain = std::max(kSumRows, (x.rows + most - 1) / most);
    const std::size_t parts = (x.rows + grain - 1) / grain;
    std::vector<LabelSums> part(parts);
    parallel_for(x.rows, grain, num_threads, [&](std::size_t begin, std::size_t end, int) {
        LabelSums& p = part[begin / grain];
        p.values.assign(k * dim, 0.0);
        p.sizes.assign(k, 0);
        for (std::size_t i = begin; i < end; ++i) {
            double* sum = p.values.data() + labels[i] * dim;
            const float* row = x.row(i);
            for (std::size_t j = 0; j < dim; ++j) sum[j] += static_cast<double>(row[j]);
            ++p.sizes[labels[i]];
        }
    });
    for (std::size_t p = 1; p < parts; ++p) {
        for (std::size_t i = 0; i < k * dim; ++i) part[0].values[i] += part[p].values[i];
        for (std::size_t i = 0; i < k; ++i) part[0].sizes[i] += part[p].sizes[i];
    }
    return std::move(part[0]);
}

class CpuEngine final : public KMeansEngine {
public:
    explicit CpuEngine(int num_threads) : num_threads_(num_threads) {}

    void hold(ConstMatrix x) override { x_ = x; }
    void assign(ConstMatrix centroids, Nearness nearness, std::uint32_t* labels) override {
        NearestCentroids(centroids, nearness).assign(x_, labels, num_threads_);
    }
    void distances(ConstMatrix centroids, const std::uint32_t* labels, float* out) override {
        label_distances(x_, centroids, labels, out, num_threads_);
    }
    LabelSums sums(const std::uint32_t* labels, std::size_t k) override { return sum_by_label(x_, labels, k, num_threads_); }

private:
    ConstMatrix x_;
    int num_threads_;
};

// Centroids move to the means of their rows; those without rows stay. Returns the squared error of all rows,
// less their squared lengths.
double move_centroids(const LabelSums& sums, bool spherical, std::size_t dim, std::vector<float>& centroids) {
    double error = 0;
    for (std::size_t c = 0; c < sums.sizes.size(); ++c) {
        if (sums.sizes[c] == 0) continue;
        const double* sum = sums.values.data() + c * dim;
        float* centroid = centroids.data() + c * dim;
        double length = static_cast<double>(sums.sizes[c]), square = 0, product = 0;
        if (spherical) {
            length = 0;
            for (std::size_t j = 0; j < dim; ++j) length += sum[j] * sum[j];
            length = std::sqrt(length);
        }
        for (std::size_t j = 0; j < dim; ++j) {
            if (length > 0) centroid[j] = static_cast<float>(sum[j] / length);
            square += static_cast<double>(centroid[j]) * centroid[j];
            product += sum[j] * static_cast<double>(centroid[j]);
        }
        error += static_cast<double>(sums.sizes[c]) * square - 2 * product;
    }
    return error;
}

// Centroids without rows move to rows far from theirs, where there are any.
void repair_empty(ConstMatrix x, const std::vector<std::uint32_t>& labels, const std::vector<std::uint32_t>& sizes,
                  KMeansEngine& engine, Random& random, std::vector<float>& centroids) {
    std::vector<std::size_t> empty;
    for (std::size_t c = 0; c < sizes.size(); ++c) {
        if (sizes[c] == 0) empty.push_back(c);
    }
    if (empty.empty()) return;
    std::vector<float> distance(x.rows);
    engine.distances({centroids.data(), sizes.size(), x.cols}, labels.data(), distance.data());
    const std::vector<std::size_t> drawn = draw_rows(x, distance, empty.size(), random);
    for (std::size_t i = 0; i < drawn.size(); ++i) {
        std::copy_n(x.row(drawn[i]), x.cols, centroids.data() + empty[i] * x.cols);
    }
}

}  // namespace

KMeans kmeans(ConstMatrix x, const KMeansOptions& o) {
    InterruptPoll poll;
    const Sample sample = take_sample(x, o);
    const ConstMatrix rows = sample.rows();
    CpuEngine cpu(o.num_threads);
    KMeansEngine& engine = o.engine != nullptr ? *o.engine : cpu;
    KMeans out;
    if (o.start.rows == 0) {
        out.centroids = seed_centroids(rows, o, engine, poll);
    } else {
        out.centroids.resize(o.k * sample.dim);
        for (std::size_t c = 0; c < o.k; ++c) {
            for (std::size_t j = 0; j < sample.dim; ++j) {
                out.centroids[c * sample.dim + j] = o.start.row(c)[j] - sample.mean[j];
            }
        }
    }
    double squares = 0;
    for (const float v : sample.values) squares += static_cast<double>(v) * static_cast<double>(v);
    engine.hold(rows);
    Random random(o.seed + 3);
    std::vector<std::uint32_t> labels(rows.rows), before;
    out.sizes.assign(o.k, 0);
    for (int i = 0; i < o.iterations; ++i) {
        const ConstMatrix centroids(out.centroids.data(), o.k, sample.dim);
        engine.assign(centroids, o.spherical ? Nearness::product : Nearness::distance, labels.data());
        if (labels == before) break;
        before = labels;
        LabelSums sums = engine.sums(labels.data(), o.k);
        out.error = (squares + move_centroids(sums, o.spherical, sample.dim, out.centroids)) /
                    static_cast<double>(rows.rows);
        out.error = std::max(0.0, out.error);
        repair_empty(rows, labels, sums.sizes, engine, random, out.centroids);
        out.sizes = std::move(sums.sizes);
        out.iterations = i + 1;
        if (o.progress) o.progress(i + 1, o.iterations);
        poll.check();
    }
    if (o.progress && out.iterations < o.iterations) o.progress(o.iterations, o.iterations);
    for (std::size_t i = 0; i < out.centroids.size(); ++i) out.centroids[i] += sample.mean[i % sample.dim];
    return out;
}

}  // namespace residua::train
