// SPDX-License-Identifier: Apache-2.0
#include "codec/byte_query.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "codec/block_scan.hpp"
#include "core/error.hpp"

namespace residua::codec {

using namespace kernel;

namespace {

// Where the weight of a dim stands.
std::size_t place(const ByteLayout& layout, std::size_t dim) {
    if (layout.bits == 8) return dim;
    return dim / 8 * 8 + dim % 2 * 4 + dim % 8 / 2;
}

struct ByteFamily {
    using Query = ByteQuery;
    using Scan = ByteScan;
    static constexpr std::size_t kTile = kByteTile;
    std::size_t tile() const { return kernels.tile; }

    const ByteKernels& kernels;
    const ByteLayout& layout;

    std::size_t block_bytes() const { return layout.block_bytes(); }
    ByteScan bound(const ByteQuery& query, float threshold) const { return query.with_threshold(threshold); }
    std::size_t scan(const std::uint8_t* blocks, std::size_t n, const ByteScan* scans, std::size_t nq,
                     std::uint32_t* mask) const {
        return kernels.scan(layout, blocks, n, scans, nq, mask);
    }
    void scores(const std::uint8_t* block, const ByteQuery& query, std::uint32_t rows, float* out) const {
        query.scores(kernels, layout, block, rows, out);
    }
};

}  // namespace

ByteQuery::ByteQuery(const ByteLayout& layout, std::span<const float> weights, float constant, bool precise)
    : constant_(constant) {
    if (weights.size() > layout.dims()) {
        throw Error(ErrorKind::shape, "a layout of " + std::to_string(layout.dims()) + " dims got " +
                                          std::to_string(weights.size()) + " weights");
    }
    set_fine(layout, weights);
    if (precise) set_rest(layout, weights);
    set_coarse(layout);
}

void ByteQuery::set_fine(const ByteLayout& layout, std::span<const float> weights) {
    fine_.assign(layout.dims(), 0);
    float largest = 0.0f;
    for (float w : weights) {
        if (!std::isfinite(w)) throw Error(ErrorKind::non_finite, "a query weight is infinite or NaN");
        largest = std::max(largest, std::fabs(w));
    }
    unit_ = largest / static_cast<float>(kFineMax);
    // Weights so small that the unit underflows cannot be told from zero.
    if (unit_ < std::numeric_limits<float>::min()) {
        unit_ = 0.0f;
        return;
    }
    const double inverse = static_cast<double>(kFineMax) / static_cast<double>(largest);
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const auto q = static_cast<std::int16_t>(std::nearbyint(static_cast<double>(weights[i]) * inverse));
        fine_[place(layout, i)] = q;
        sum += q;
    }
    offset_ = static_cast<std::int64_t>(layout.top()) * sum;
}

void ByteQuery::set_rest(const ByteLayout& layout, std::span<const float> weights) {
    rest_.assign(layout.dims(), 0);
    rest_unit_ = 0.5 * static_cast<double>(unit_) / kFineMax;
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const double rest = static_cast<double>(weights[i]) - static_cast<double>(unit_) * fine_[place(layout, i)];
        rest_sum_ += std::fabs(rest);
        if (rest_unit_ == 0) continue;
        // The unit is rounded, so that the largest weight may miss by a little more than half of it.
        const double q = std::clamp(std::nearbyint(rest / rest_unit_), -double{kFineMax}, double{kFineMax});
        rest_[place(layout, i)] = static_cast<std::int16_t>(q);
        sum += static_cast<std::int64_t>(q);
    }
    rest_offset_ = static_cast<std::int64_t>(layout.top()) * sum;
}

void ByteQuery::set_coarse(const ByteLayout& layout) {
    const std::int32_t limit = byte_coarse_max(layout.bits);
    coarse_.assign(fine_.size(), 0);
    // Steps in fine units. Small ones cut off the largest weights, large ones round all the others more.
    constexpr float kRanges[] = {1.0f, 0.8f, 0.6f, 0.45f, 0.33f, 0.25f};
    const auto coarse = [limit](std::int16_t q, float inverse) {
        const auto c = static_cast<std::int32_t>(std::nearbyint(static_cast<float>(q) * inverse));
        return std::clamp(c, -limit, limit);
    };
    double best = std::numeric_limits<double>::infinity();
    float step = 1.0f;
    for (float range : kRanges) {
        const float s = range * static_cast<float>(kFineMax) / static_cast<float>(limit);
        const float inverse = 1.0f / s;
        float missed = 0;
        for (std::int16_t q : fine_) {
            missed += std::fabs(static_cast<float>(q) - s * static_cast<float>(coarse(q, inverse)));
        }
        if (static_cast<double>(missed) < best) {
            best = static_cast<double>(missed);
            step = s;
        }
    }
    const float inverse = 1.0f / step;
    std::int64_t sum = 0, magnitude = 0;
    double missed = 0;
    for (std::size_t i = 0; i < fine_.size(); ++i) {
        const std::int32_t c = coarse(fine_[i], inverse);
        coarse_[i] = static_cast<std::int8_t>(c);
        sum += c;
        magnitude += std::abs(c) + 1;
        missed += std::fabs(static_cast<double>(fine_[i]) - static_cast<double>(step) * c);
    }
    const double half = 0.5 * static_cast<double>(layout.top());
    const double unit = static_cast<double>(unit_) * static_cast<double>(step);
    // The last term covers the rounding of unit * S + upper and of the score itself; the steps after it
    // (times scale, plus add) are monotone and the same on both sides.
    const double rounding = 1e-6 * 2 * half * unit * static_cast<double>(magnitude);
    scan_.unit = static_cast<float>(unit);
    scan_.upper = static_cast<float>(
        half * (static_cast<double>(unit_) * missed - unit * static_cast<double>(sum) + rest_sum_) + rounding);
}

ByteScan ByteQuery::with_threshold(float threshold) const {
    ByteScan scan = scan_;
    scan.coarse = coarse_.data();
    // The kernel bounds scores without the constant. Its sum with the constant was rounded, by less
    // than the margin, so no row that reaches the threshold is dropped.
    const float margin = 4 * std::numeric_limits<float>::epsilon() * (std::fabs(threshold) + std::fabs(constant_));
    scan.threshold = constant_ == 0.0f || std::isinf(threshold) ? threshold : threshold - constant_ - margin;
    return scan;
}

void ByteQuery::scores(const ByteKernels& kernels, const ByteLayout& layout, const std::uint8_t* block,
                       std::uint32_t rows, float* out) const {
    std::int64_t sums[kBlockRows];
    kernels.exact(layout, block, fine_.data(), rows, sums);
    const std::uint8_t* add = block + layout.add_offset();
    const std::uint8_t* scale = block + layout.scale_offset();
    std::int64_t rests[kBlockRows];
    if (!rest_.empty()) kernels.exact(layout, block, rest_.data(), rows, rests);
    const float half_unit = 0.5f * unit_;
    for (; rows != 0; rows &= rows - 1) {
        const auto r = static_cast<std::size_t>(std::countr_zero(rows));
        float a, f;
        std::memcpy(&a, add + r * sizeof a, sizeof a);
        std::memcpy(&f, scale + r * sizeof f, sizeof f);
        if (rest_.empty()) {
            out[r] = f * (half_unit * static_cast<float>(2 * sums[r] - offset_)) + a + constant_;
            continue;
        }
        const double product = 0.5 * (static_cast<double>(unit_) * static_cast<double>(2 * sums[r] - offset_) +
                                      rest_unit_ * static_cast<double>(2 * rests[r] - rest_offset_));
        out[r] = static_cast<float>(static_cast<double>(f) * product + a + constant_);
    }
}

LinearQuery ByteQuery::linear(const ByteLayout& layout, std::size_t dims) const {
    LinearQuery out;
    out.weights.resize(dims);
    if (!rest_.empty()) out.rests.resize(dims);
    for (std::size_t i = 0; i < std::min(dims, layout.dims()); ++i) {
        out.weights[i] = fine_[place(layout, i)];
        if (!rest_.empty()) out.rests[i] = rest_[place(layout, i)];
    }
    out.unit = unit_;
    out.constant = constant_;
    out.sum_offset = offset_;
    out.rest_unit = rest_unit_;
    out.rest_offset = rest_offset_;
    return out;
}

void byte_topk(const ByteKernels& kernels, const ByteLayout& layout, const std::uint8_t* blocks,
               const BlockRows& rows, const ScanQueries<ByteQuery>& queries) {
    block_topk(ByteFamily{kernels, layout}, blocks, rows, queries);
}

}  // namespace residua::codec
