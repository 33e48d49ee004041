// SPDX-License-Identifier: Apache-2.0
#include "train/residual.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/parallel.hpp"
#include "train/kmeans.hpp"

namespace residua::train {
namespace {

constexpr int kStages = 6;           // of a codebook: k-means in more and more dims
constexpr int kStageIterations = 4;
constexpr int kLastIterations = 8;   // in all dims
constexpr int kSweeps = 3;           // of a re-estimation
constexpr std::size_t kChunk = BeamSearch::kChunkRows;

// Dims by decreasing sum of squares.
std::vector<std::size_t> order_dims(ConstMatrix x) {
    std::vector<double> square(x.cols, 0.0);
    for (std::size_t i = 0; i < x.rows; ++i) {
        for (std::size_t j = 0; j < x.cols; ++j) square[j] += static_cast<double>(x.row(i)[j]) * x.row(i)[j];
    }
    std::vector<std::size_t> order(x.cols);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return square[a] > square[b]; });
    return order;
}

// k-means that starts in the dims of most variance and takes in more of them stage by stage, which ends in better
// optima in many dims (as FAISS' ProgressiveDimClustering does).
std::vector<float> progressive_kmeans(ConstMatrix x, std::uint64_t seed, int num_threads) {
    const std::vector<std::size_t> order = order_dims(x);
    std::vector<float> part, start;
    std::size_t had = 0;
    KMeansOptions o;
    o.k = kCodewords;
    o.seed = seed;
    o.num_threads = num_threads;
    for (int stage = 1; stage <= kStages; ++stage) {
        const bool last = stage == kStages;
        const double share = std::pow(static_cast<double>(x.cols), static_cast<double>(stage) / kStages);
        const std::size_t dims = last ? x.cols : std::min(x.cols, static_cast<std::size_t>(std::ceil(share)));
        if (dims == had) continue;
        part.resize(x.rows * dims);
        for (std::size_t i = 0; i < x.rows; ++i) {
            for (std::size_t j = 0; j < dims; ++j) part[i * dims + j] = x.row(i)[order[j]];
        }
        std::vector<float> wider(kCodewords * dims, 0.0f);
        for (std::size_t k = 0; k < kCodewords && had > 0; ++k) {
            std::copy_n(start.data() + k * had, had, wider.data() + k * dims);
        }
        if (had > 0) o.start = {wider.data(), kCodewords, dims};
        o.iterations = dims == x.cols ? kLastIterations : kStageIterations;
        start = kmeans({part.data(), x.rows, dims}, o).centroids;
        had = dims;
    }
    std::vector<float> out(start.size());
    for (std::size_t i = 0; i < out.size(); ++i) out[i / had * had + order[i % had]] = start[i];
    return out;
}

class Trainer {
public:
    Trainer(ConstMatrix x, const ResidualOptions& o) : x_(x), o_(o), codes_(x.rows * o.n_codebooks) {}

    std::vector<float> run();

private:
    ConstMatrix book(std::size_t m) const { return {books_.data() + m * book_size(), kCodewords, x_.cols}; }
    std::size_t book_size() const { return kCodewords * x_.cols; }
    void grow();
    void update_residual(std::size_t depth);
    void move_codebook(std::size_t m);
    void re_estimate();

    ConstMatrix x_;
    const ResidualOptions& o_;
    std::vector<float> books_;
    std::vector<float> residual_;      // x less the sums of the best choices
    std::vector<std::uint8_t> codes_;  // rows x n_codebooks
};

void Trainer::update_residual(std::size_t depth) {
    parallel_for(x_.rows, 256, o_.num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; ++i) {
            float* r = residual_.data() + i * x_.cols;
            std::copy_n(x_.row(i), x_.cols, r);
            for (std::size_t m = 0; m < depth; ++m) {
                const float* c = book(m).row(codes_[i * o_.n_codebooks + m]);
                for (std::size_t j = 0; j < x_.cols; ++j) r[j] -= c[j];
            }
        }
    });
}

// Codebook by codebook; beams go on from one to the next.
void Trainer::grow() {
    BeamSearch search(x_.cols);
    std::vector<Beams> beams;
    for (std::size_t i = 0; i < x_.rows; i += kChunk) beams.emplace_back(std::min(kChunk, x_.rows - i), o_.beam);
    for (std::size_t m = 0; m < o_.n_codebooks; ++m) {
        const auto codewords = progressive_kmeans({residual_.data(), x_.rows, x_.cols}, o_.seed + m, o_.num_threads);
        books_.insert(books_.end(), codewords.begin(), codewords.end());
        search.append(book(m), o_.num_threads);
        parallel_for(x_.rows, kChunk, o_.num_threads, [&](std::size_t begin, std::size_t end, int) {
            Beams& b = beams[begin / kChunk];
            search.extend(x_.slice(begin, end), b);
            for (std::size_t i = begin; i < end; ++i) {
                std::copy_n(b.best(i - begin), m + 1, codes_.data() + i * o_.n_codebooks);
            }
        });
        update_residual(m + 1);
        if (o_.progress) o_.progress(static_cast<int>(m + 1), static_cast<int>(o_.n_codebooks + 1));
    }
}

// Codewords of one codebook move to the means of what the others leave to them.
void Trainer::move_codebook(std::size_t m) {
    const std::size_t dim = x_.cols;
    std::vector<double> sum(book_size(), 0.0);
    std::vector<double> count(kCodewords, 0.0);
    for (std::size_t i = 0; i < x_.rows; ++i) {
        const std::size_t k = codes_[i * o_.n_codebooks + m];
        const float* r = residual_.data() + i * dim;
        for (std::size_t j = 0; j < dim; ++j) sum[k * dim + j] += static_cast<double>(r[j]);
        count[k] += 1;
    }
    // One more row without an error holds codewords of few rows where they are.
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] /= count[i / dim] + 1;
    for (std::size_t i = 0; i < sum.size(); ++i) books_[m * book_size() + i] += static_cast<float>(sum[i]);
    for (std::size_t i = 0; i < x_.rows; ++i) {
        const double* moved = sum.data() + codes_[i * o_.n_codebooks + m] * dim;
        float* r = residual_.data() + i * dim;
        for (std::size_t j = 0; j < dim; ++j) r[j] -= static_cast<float>(moved[j]);
    }
}

// Least squares of all codewords given the codes (Martinez et al., "Revisiting additive quantization", ECCV 2016),
// one codebook at a time.
void Trainer::re_estimate() {
    InterruptPoll poll;
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
        for (std::size_t m = 0; m < o_.n_codebooks; ++m) {
            move_codebook(m);
            poll.check();
        }
    }
}

std::vector<float> Trainer::run() {
    residual_.resize(x_.rows * x_.cols);
    update_residual(0);
    grow();
    re_estimate();
    BeamSearch search(x_.cols);
    for (std::size_t m = 0; m < o_.n_codebooks; ++m) search.append(book(m), o_.num_threads);
    search.encode(x_, o_.beam, codes_.data(), o_.n_codebooks, o_.num_threads);
    update_residual(o_.n_codebooks);
    re_estimate();
    if (o_.progress) o_.progress(static_cast<int>(o_.n_codebooks + 1), static_cast<int>(o_.n_codebooks + 1));
    return std::move(books_);
}

}  // namespace

std::vector<float> train_residual(ConstMatrix x, const ResidualOptions& options) { return Trainer(x, options).run(); }

}  // namespace residua::train
