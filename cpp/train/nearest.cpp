// SPDX-License-Identifier: Apache-2.0
#include "train/nearest.hpp"

#include <algorithm>
#include <functional>
#include <limits>

#include "core/parallel.hpp"
#include "core/top_k.hpp"
#include "kernel/dispatch.hpp"

namespace residua::train {
namespace {

constexpr std::size_t kShiftRows = 96;  // copied at a time; a multiple of the register tile
constexpr std::size_t kAssignRows = 1536;
constexpr std::size_t kTopRows = 48;

}  // namespace

NearestCentroids::NearestCentroids(ConstMatrix centroids, Nearness nearness) : nearness_(nearness) {
    if (nearness == Nearness::product) {
        panels_.pack(centroids);
        bias_.assign(panels_.padded_rows(), 0.0f);
    } else {
        std::vector<double> mean(centroids.cols, 0.0);
        for (std::size_t r = 0; r < centroids.rows; ++r) {
            for (std::size_t j = 0; j < centroids.cols; ++j) mean[j] += static_cast<double>(centroids.row(r)[j]);
        }
        shift_.resize(centroids.cols);
        for (std::size_t j = 0; j < centroids.cols; ++j) {
            shift_[j] = static_cast<float>(mean[j] / static_cast<double>(centroids.rows));
        }
        std::vector<float> moved;
        shifted(centroids, moved);
        const ConstMatrix rows(moved.data(), centroids.rows, centroids.cols);
        panels_.pack(rows);
        bias_.resize(panels_.padded_rows());
        for (std::size_t r = 0; r < rows.rows; ++r) {
            double norm = 0;
            for (std::size_t j = 0; j < rows.cols; ++j) norm += static_cast<double>(rows.row(r)[j]) * rows.row(r)[j];
            bias_[r] = static_cast<float>(-0.5 * norm);
        }
    }
    std::fill(bias_.begin() + static_cast<std::ptrdiff_t>(centroids.rows), bias_.end(),
              -std::numeric_limits<float>::infinity());
}

std::size_t NearestCentroids::memory_bytes() const {
    return panels_.memory_bytes() + (bias_.size() + shift_.size()) * sizeof(float);
}

void NearestCentroids::shifted(ConstMatrix x, std::vector<float>& out) const {
    out.resize(x.rows * x.cols);
    for (std::size_t r = 0; r < x.rows; ++r) {
        const float* in = x.row(r);
        for (std::size_t j = 0; j < x.cols; ++j) out[r * x.cols + j] = in[j] - shift_[j];
    }
}

void NearestCentroids::assign(ConstMatrix x, std::uint32_t* out) const {
    if (shift_.empty()) return panels_.nearest(x, bias_.data(), out);
    // Many wide centroids are read once per block of rows: then a block is longer.
    const std::size_t block = size() * dim() > 8192 ? 4 * kShiftRows : kShiftRows;
    std::vector<float> moved;
    for (std::size_t r = 0; r < x.rows; r += block) {
        const std::size_t end = std::min(x.rows, r + block);
        shifted(x.slice(r, end), moved);
        panels_.nearest({moved.data(), end - r, x.cols}, bias_.data(), out + r);
    }
}

void NearestCentroids::assign(ConstMatrix x, std::uint32_t* out, int num_threads) const {
    parallel_for(x.rows, kAssignRows, num_threads, [&](std::size_t begin, std::size_t end, int) {
        assign(x.slice(begin, end), out + begin);
    });
}

namespace {

// Finds the m largest of value[j] + bias[j], best first, equal ones by smaller number. Piece i is every value whose
// number is i modulo the pieces; the m-th largest of their maxima bounds the m-th largest value from below, and
// leaves few pieces to look into and few values to put in order.
class BestOf {
public:
    explicit BestOf(std::size_t n) : n_(n), pieces_((n + kPiece - 1) / kPiece), maxima_(pieces_) {}

    const std::vector<ScoredRow>& operator()(const float* value, const float* bias, std::size_t m) {
        float bound = kLowest;
        std::fill(maxima_.begin(), maxima_.end(), kLowest);
        for (std::size_t first = 0; first < n_; first += pieces_) {
            const std::size_t n = std::min(n_ - first, pieces_);
            for (std::size_t i = 0; i < n; ++i) {
                const float v = value[first + i] + bias[first + i];
                maxima_[i] = maxima_[i] < v ? v : maxima_[i];
            }
        }
        if (m <= pieces_) {
            ordered_ = maxima_;
            const auto mth = ordered_.begin() + static_cast<std::ptrdiff_t>(m - 1);
            std::nth_element(ordered_.begin(), mth, ordered_.end(), std::greater<>());
            bound = *mth;
        }
        found_.clear();
        for (std::size_t i = 0; i < pieces_; ++i) {
            if (maxima_[i] < bound) continue;
            for (std::size_t j = i; j < n_; j += pieces_) {
                const float sum = value[j] + bias[j];
                const float v = sum == sum ? sum : kLowest;
                if (v >= bound) found_.push_back({v, static_cast<std::uint32_t>(j)});
            }
        }
        const auto better = [](const ScoredRow& a, const ScoredRow& b) {
            return a.score != b.score ? a.score > b.score : a.row < b.row;
        };
        const auto end = found_.begin() + static_cast<std::ptrdiff_t>(m);
        if (found_.size() > 2 * m) std::nth_element(found_.begin(), end, found_.end(), better);
        std::sort(found_.begin(), found_.size() > 2 * m ? end : found_.end(), better);
        return found_;
    }

private:
    static constexpr std::size_t kPiece = 8;
    static constexpr float kLowest = -std::numeric_limits<float>::infinity();  // also of NaN, which an overflow gives

    std::size_t n_, pieces_;
    std::vector<float> maxima_, ordered_;
    std::vector<ScoredRow> found_;
};

}  // namespace

void NearestCentroids::assign_top(ConstMatrix x, std::size_t m, std::uint32_t* out, float* values,
                                  int num_threads) const {
    parallel_for(x.rows, kTopRows, num_threads, [&](std::size_t begin, std::size_t end, int) {
        const std::size_t n = end - begin;
        ConstMatrix rows = x.slice(begin, end);
        std::vector<float> moved, products(n * size());
        if (!shift_.empty()) {
            shifted(rows, moved);
            rows = {moved.data(), n, x.cols};
        }
        panels_.multiply(rows, {products.data(), n, size()});
        BestOf best_of(size());
        for (std::size_t i = 0; i < n; ++i) {
            const float* p = products.data() + i * size();
            const std::vector<ScoredRow>& best = best_of(p, bias_.data(), m);
            const float* row = rows.row(i);
            const float square = nearness_ == Nearness::product
                                     ? 0.0f
                                     : kernel::active().floats.dot_f32(row, row, rows.cols);
            for (std::size_t j = 0; j < m; ++j) {
                out[(begin + i) * m + j] = best[j].row;
                if (values == nullptr) continue;
                values[(begin + i) * m + j] =
                    nearness_ == Nearness::product ? best[j].score : std::max(0.0f, square - 2.0f * best[j].score);
            }
        }
    });
}

void label_distances(ConstMatrix x, ConstMatrix centroids, const std::uint32_t* labels, float* out, int num_threads) {
    const kernel::FloatKernels& kernels = kernel::active().floats;
    parallel_for(x.rows, kAssignRows, num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t r = begin; r < end; ++r) out[r] = kernels.l2_f32(x.row(r), centroids.row(labels[r]), x.cols);
    });
}

}  // namespace residua::train
