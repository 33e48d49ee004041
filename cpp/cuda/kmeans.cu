// SPDX-License-Identifier: Apache-2.0
#if defined(__CUDACC__)
#pragma nv_diag_suppress 554  // the conversion of core/matrix.hpp, of views to which it is closed
#endif
#include "cuda/kmeans.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/dot.hpp"
#include "core/error.hpp"
#include "cuda/launch.hpp"
#include "cuda/products.hpp"

namespace residua::cuda {
namespace {

constexpr const char* kWhat = "k-means";
constexpr std::size_t kProductFloats = std::size_t{1} << 24;  // of rows with centroids at a time: 64 MiB
constexpr std::size_t kMostCentroids = 8192;                  // of these
constexpr std::size_t kSegmentRows = 4096;                    // of a sum
constexpr std::size_t kSumValues = std::size_t{1} << 23;      // of sums at a time: 64 MiB

struct Best {
    float value;
    std::uint32_t label;
};

// The largest value of every row among centroids [begin, begin + n), and among those before; a warp per row.
struct KeepBest {
    static constexpr int kThreads = 256;
    const float* products;  // (rows, n)
    const float* bias;      // of all centroids
    std::uint32_t begin, n;
    std::size_t rows;
    Best* best;

    RZ_DEVICE void operator()() const {
        const std::size_t row = std::size_t{block_index().x} * (kThreads / kWarp) + static_cast<std::size_t>(warp_index());
        if (row >= rows) return;  // the same for the warp, and no barrier follows
        Best mine{-INFINITY, 0xFFFFFFFFu};
        for (std::uint32_t c = static_cast<std::uint32_t>(lane_index()); c < n; c += kWarp) {
            const float value = add(products[row * n + c], bias[begin + c]);
            if (value > mine.value) mine = {value, begin + c};
        }
        for (int mask = kWarp / 2; mask > 0; mask /= 2) {
            const Best other{shuffle_xor(mine.value, mask), shuffle_xor(mine.label, mask)};
            if (other.value > mine.value || (other.value == mine.value && other.label < mine.label)) mine = other;
        }
        if (lane_index() != 0) return;
        const Best before = begin == 0 ? Best{-INFINITY, 0} : best[row];
        best[row] = mine.value > before.value ? mine : before;
    }
};

struct TakeLabels {
    static constexpr int kThreads = 256;
    const Best* best;
    std::size_t n;
    std::uint32_t* labels;

    RZ_DEVICE void operator()() const {
        const std::size_t i = std::size_t{block_index().x} * kThreads + static_cast<std::size_t>(thread_index());
        if (i < n) labels[i] = best[i].label;
    }
};

// |x - centroid|^2, a warp per row.
struct MeasureDistances {
    static constexpr int kThreads = 256;
    const float* x;
    const float* centroids;
    const std::uint32_t* labels;
    std::size_t rows, dim;
    float* out;

    RZ_DEVICE void operator()() const {
        const std::size_t row = std::size_t{block_index().x} * (kThreads / kWarp) + static_cast<std::size_t>(warp_index());
        if (row >= rows) return;  // the same for the warp, and no barrier follows
        const float* a = x + row * dim;
        const float* b = centroids + labels[row] * dim;
        float sum = 0.0f;
        for (std::size_t j = static_cast<std::size_t>(lane_index()); j < dim; j += kWarp) {
            const float d = add(a[j], -b[j]);
            sum = fmaf(d, d, sum);
        }
        for (int mask = kWarp / 2; mask > 0; mask /= 2) sum = add(sum, shuffle_xor(sum, mask));
        if (lane_index() == 0) out[row] = sum;
    }
};

// Rows order[begin … end) have one label.
struct Segment {
    std::uint32_t label, begin, end;
};

// The sum of a segment, one dim per thread: rows are added one after the other.
struct SumSegments {
    static constexpr int kThreads = 128;
    static constexpr std::uint32_t kInFlight = 8;
    const float* x;
    const std::uint32_t* order;
    const Segment* segments;
    std::size_t dim;
    double* sums;  // (segments, dim)

    RZ_DEVICE void operator()() const {
        const std::size_t d = std::size_t{block_index().y} * kThreads + static_cast<std::size_t>(thread_index());
        if (d >= dim) return;
        const Segment segment = segments[block_index().x];
        double sum = 0;
        std::uint32_t i = segment.begin;
        for (; i + kInFlight <= segment.end; i += kInFlight) {
            float values[kInFlight];
            RZ_UNROLL
            for (std::uint32_t j = 0; j < kInFlight; ++j) values[j] = x[std::size_t{order[i + j]} * dim + d];
            RZ_UNROLL
            for (std::uint32_t j = 0; j < kInFlight; ++j) sum += static_cast<double>(values[j]);
        }
        for (; i < segment.end; ++i) sum += static_cast<double>(x[std::size_t{order[i]} * dim + d]);
        sums[std::size_t{block_index().x} * dim + d] = sum;
    }
};

std::size_t blocks_of(std::size_t n, std::size_t per_block) { return (n + per_block - 1) / per_block; }

// Rows one after the other.
std::vector<float> dense(ConstMatrix x) {
    std::vector<float> out(x.rows * x.cols);
    for (std::size_t r = 0; r < x.rows; ++r) std::copy_n(x.row(r), x.cols, out.data() + r * x.cols);
    return out;
}

// Centroids less their mean m, so that data far from the origin lose fewer digits, and what makes the value of
// <x, c - m> a distance: -|c - m|^2 / 2 - <m, c - m>.
void shift(std::vector<float>& centroids, std::size_t dim, std::vector<float>& bias) {
    const std::size_t k = bias.size();
    std::vector<double> sum(dim, 0.0);
    for (std::size_t i = 0; i < centroids.size(); ++i) sum[i % dim] += static_cast<double>(centroids[i]);
    std::vector<float> mean(dim);
    for (std::size_t j = 0; j < dim; ++j) mean[j] = static_cast<float>(sum[j] / static_cast<double>(k));
    for (std::size_t c = 0; c < k; ++c) {
        float* centroid = centroids.data() + c * dim;
        for (std::size_t j = 0; j < dim; ++j) centroid[j] -= mean[j];
        bias[c] = static_cast<float>(-0.5 * dot_f64(centroid, centroid, dim) - dot_f64(mean.data(), centroid, dim));
    }
}

}  // namespace

void DeviceKMeans::hold(ConstMatrix x) {
    rows_ = {};
    n_ = 0;
    if (x.rows > std::numeric_limits<std::uint32_t>::max()) {
        throw Error(ErrorKind::unsupported, "k-means on the GPU takes up to 2^32 - 1 rows; set max_rows");
    }
    DeviceArray<float> rows(context_, x.rows * x.cols, kWhat);
    if (x.stride == x.cols) {
        rows.copy_in(x.data, x.rows * x.cols);
    } else {
        const std::vector<float> values = dense(x);
        rows.copy_in(values.data(), values.size());
    }
    rows_ = std::move(rows);
    n_ = x.rows;
    dim_ = x.cols;
}

void DeviceKMeans::assign(ConstMatrix centroids, train::Nearness nearness, std::uint32_t* labels) {
    const std::size_t k = centroids.rows, together = std::min(k, kMostCentroids);
    std::vector<float> values = dense(centroids), bias(k, 0.0f);
    if (nearness == train::Nearness::distance) shift(values, dim_, bias);
    const DeviceArray<float> on_device(context_, values, kWhat), bias_on_device(context_, bias, kWhat);
    const std::size_t chunk = std::min(n_, std::max<std::size_t>(1, kProductFloats / together));
    DeviceArray<float> products(context_, chunk * together, kWhat);
    DeviceArray<Best> best(context_, n_, kWhat);
    for (std::size_t first = 0; first < n_; first += chunk) {
        const std::size_t rows = std::min(chunk, n_ - first);
        for (std::size_t c = 0; c < k; c += together) {
            const std::size_t n = std::min(together, k - c);
            multiply_rows(context_, {rows_.data() + first * dim_, rows, dim_}, {on_device.data() + c * dim_, n, dim_}, dim_,
                          products.data(), n);
            launch(KeepBest{products.data(), bias_on_device.data(), static_cast<std::uint32_t>(c), static_cast<std::uint32_t>(n), rows,
                            best.data() + first},
                   context_, {blocks_of(rows, KeepBest::kThreads / kWarp)});
        }
    }
    DeviceArray<std::uint32_t> found(context_, n_, kWhat);
    launch(TakeLabels{best.data(), n_, found.data()}, context_, {blocks_of(n_, TakeLabels::kThreads)});
    found.copy_out(labels, n_);
}

void DeviceKMeans::distances(ConstMatrix centroids, const std::uint32_t* labels, float* out) {
    const DeviceArray<float> on_device(context_, dense(centroids), kWhat);
    DeviceArray<std::uint32_t> of(context_, n_, kWhat);
    of.copy_in(labels, n_);
    DeviceArray<float> found(context_, n_, kWhat);
    launch(MeasureDistances{rows_.data(), on_device.data(), of.data(), n_, dim_, found.data()}, context_,
           {blocks_of(n_, MeasureDistances::kThreads / kWarp)});
    found.copy_out(out, n_);
}

train::LabelSums DeviceKMeans::sums(const std::uint32_t* labels, std::size_t k) {
    train::LabelSums out{std::vector<double>(k * dim_, 0.0), std::vector<std::uint32_t>(k, 0)};
    for (std::size_t i = 0; i < n_; ++i) ++out.sizes[labels[i]];
    std::vector<std::uint32_t> next(k, 0), order(n_);
    std::vector<Segment> segments;
    std::uint32_t at = 0;
    for (std::uint32_t c = 0; c < k; at += out.sizes[c++]) {
        next[c] = at;
        for (std::uint32_t i = 0; i < out.sizes[c]; i += kSegmentRows) {
            segments.push_back({c, at + i, at + std::min<std::uint32_t>(out.sizes[c], i + kSegmentRows)});
        }
    }
    for (std::size_t i = 0; i < n_; ++i) order[next[labels[i]]++] = static_cast<std::uint32_t>(i);
    const DeviceArray<std::uint32_t> order_on_device(context_, order, kWhat);
    const DeviceArray<Segment> segments_on_device(context_, segments, kWhat);
    const std::size_t most = std::min(segments.size(), std::max<std::size_t>(1, kSumValues / dim_));
    DeviceArray<double> sums(context_, most * dim_, kWhat);
    std::vector<double> found(most * dim_);
    for (std::size_t first = 0; first < segments.size(); first += most) {
        const std::size_t n = std::min(most, segments.size() - first);
        launch(SumSegments{rows_.data(), order_on_device.data(), segments_on_device.data() + first, dim_, sums.data()}, context_,
               {n, blocks_of(dim_, SumSegments::kThreads)});
        sums.copy_out(found.data(), n * dim_);
        for (std::size_t s = 0; s < n; ++s) {
            double* sum = out.values.data() + segments[first + s].label * dim_;
            for (std::size_t j = 0; j < dim_; ++j) sum[j] += found[s * dim_ + j];
        }
    }
    return out;
}

train::KMeans kmeans(Context& context, ConstMatrix x, train::KMeansOptions options) {
    context.enter();
    DeviceKMeans engine(context);
    options.engine = &engine;
    return train::kmeans(x, options);
}

}  // namespace residua::cuda
