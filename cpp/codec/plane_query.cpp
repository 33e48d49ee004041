// SPDX-License-Identifier: Apache-2.0
#include "codec/plane_query.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "kernel/dispatch.hpp"

namespace residua::codec {

using namespace kernel;

namespace {

constexpr std::size_t kEntries = kStripBytes;

// The step that brings the largest weight into the range of the scan of cells.
constexpr int kCellStep = (kWeightMax + 1) / byte_coarse_max(8);

// Share of a normal distribution above z.
double normal_tail(double z) { return 0.5 * std::erfc(z * 0.70710678118654752); }

}  // namespace

PlaneLayout plane_layout(std::span<const std::uint8_t> bits) {
    PlaneLayout layout;
    for (std::size_t j = 0; j < bits.size(); ++j) {
        if (bits[j] > kMaxPlanes || (j > 0 && bits[j] > bits[j - 1])) {
            throw Error(ErrorKind::value, "bits per group must be 0 … 8 and must not increase; group " +
                                              std::to_string(j) + " has " + std::to_string(bits[j]));
        }
        layout.planes = std::max<std::uint32_t>(layout.planes, bits[j]);
        for (std::uint32_t t = 0; t < bits[j]; ++t) ++layout.groups[t];
    }
    if (layout.planes == 0) throw Error(ErrorKind::value, "at least one group needs one bit per dim");
    return layout;
}

// Per plane t, over the strips of its groups, in units of Q.
struct PlaneQuery::Strips {
    double step = 0;                       // of the coarse tables
    double low[kMaxPlanes] = {};           // sum of the strips' minima
    double mean[kMaxPlanes] = {};          // of the table errors
    double worst[kMaxPlanes] = {};         // largest error above the mean
    double variance[kMaxPlanes] = {};      // of the errors
    double largest[kMaxPlanes] = {};       // |error - mean| of any strip
    double sum[kMaxPlanes] = {};           // of Q
    double sum_squares[kMaxPlanes] = {};   // of Q^2

    double sum_absolute(std::uint32_t t) const { return sum[t] - 2 * low[t]; }  // of |Q|
};

PlaneQuery::PlaneQuery(const PlaneLayout& layout, std::span<const float> weights, float constant,
                       WeightBits weight_bits, bool for_cells)
    : constant_(constant) {
    const std::size_t dims = layout.groups[0] * kGroupDims;
    if (weights.size() > dims) {
        throw Error(ErrorKind::shape, "a layout of " + std::to_string(dims) + " dims got " +
                                          std::to_string(weights.size()) + " weights");
    }
    q_.assign(dims, 0);
    quantize(weights, weight_bits);
    Strips strips;
    fill_tables(layout, strips);
    set_bounds(layout, strips);
    if (for_cells) set_cells(layout);
}

void PlaneQuery::quantize(std::span<const float> weights, WeightBits weight_bits) {
    float largest = 0.0f;
    for (float w : weights) {
        if (!std::isfinite(w)) throw Error(ErrorKind::non_finite, "a query weight is infinite or NaN");
        largest = std::max(largest, std::fabs(w));
    }
    // Coarse weights are multiples of the step in which the scan of cells takes them, so it misses nothing.
    const int multiple = weight_bits == WeightBits::twelve ? 1 : kCellStep;
    const float limit = static_cast<float>(kWeightMax / multiple);
    unit_ = largest / (limit * static_cast<float>(multiple));
    // Weights so small that the unit underflows cannot be told from zero.
    if (unit_ < std::numeric_limits<float>::min()) {
        unit_ = 0.0f;
        return;
    }
    const float inverse = limit / largest;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const float q = std::clamp(std::nearbyint(weights[i] * inverse), -limit, limit);
        q_[i] = static_cast<std::int16_t>(static_cast<int>(q) * multiple);
    }
}

void PlaneQuery::fill_tables(const PlaneLayout& layout, Strips& strips) {
    const std::size_t n = layout.groups[0] * kGroupStrips;
    coarse_.resize(n * kEntries);
    exact_.resize(n * 2 * kEntries);
    std::int32_t range = 0;
    for (std::size_t s = 0; s < n; ++s) {
        std::int32_t r = 0;
        for (std::size_t i = 0; i < 4; ++i) r += std::abs(q_[4 * s + i]);
        range = std::max(range, r);
    }
    strips.step = static_cast<double>(range) / kCoarseMax;
    std::vector<StripTable> tables(n);
    active().planes.tables(q_.data(), n, range, coarse_.data(), exact_.data(), tables.data());
    sum_strips(layout, tables, strips);
}

// Running sums over strips; a plane takes them where its groups end.
void PlaneQuery::sum_strips(const PlaneLayout& layout, std::span<const StripTable> tables, Strips& strips) {
    constexpr double kErrorUnit = 1.0 / kCoarseMax;
    double mean = 0, worst = 0, variance = 0, largest = 0, squares = 0;
    std::int64_t low = 0, sum = 0;
    std::uint32_t t = layout.planes;
    for (std::size_t s = 0; s < tables.size(); ++s) {
        const StripTable& strip = tables[s];
        const double error_mean = strip.error_sum * kErrorUnit / kEntries;
        const double above = strip.error_high * kErrorUnit - error_mean;
        const double below = error_mean - strip.error_low * kErrorUnit;
        mean += error_mean;
        worst += above;
        variance += std::max(0.0, strip.error_squares * kErrorUnit * kErrorUnit / kEntries - error_mean * error_mean);
        largest = std::max(largest, std::max(above, below));
        squares += strip.squares;
        low += strip.low;
        sum += strip.total;
        while (t > 0 && s + 1 == layout.groups[t - 1] * kGroupStrips) {
            --t;
            strips.low[t] = static_cast<double>(low);
            strips.mean[t] = mean;
            strips.worst[t] = worst;
            strips.variance[t] = variance;
            strips.largest[t] = largest;
            strips.sum[t] = static_cast<double>(sum);
            strips.sum_squares[t] = squares;
            // N = 2 S - sum of Q (2^b - 1), and S = (kernel's sum) + sum over planes of 2^t * minima.
            sum_offset_ += sum << t;
            table_offset_ += (sum - 2 * low) * (std::int64_t{1} << t);
        }
    }
}

void PlaneQuery::set_bounds(const PlaneLayout& layout, const Strips& s) {
    const double log_miss = -std::log(kMissProbability);
    double slack[kMaxPlanes] = {};
    double score_variance = 0, centre = 0, magnitude = 0;
    for (std::uint32_t p = 0; p < layout.planes; ++p) {
        const double w = std::ldexp(1.0, static_cast<int>(p));
        score_variance += w * w * s.sum_squares[p] / 4;
        centre += w * s.sum[p] / 2;
        magnitude += w * s.sum_absolute(p);
    }
    for (std::uint32_t t = 0; t < layout.planes; ++t) {
        double fixed = 0, worst = 0, variance = 0, largest = 0;
        for (std::uint32_t p = 0; p < layout.planes; ++p) {
            const double w = std::ldexp(1.0, static_cast<int>(p));
            if (p >= t) {
                fixed += w * (s.low[p] + s.mean[p]);
                worst += w * s.worst[p];
                variance += w * w * s.variance[p];
                largest = std::max(largest, w * s.largest[p]);
            } else {
                fixed += w * s.sum[p] / 2;
                worst += w * s.sum_absolute(p) / 2;
                variance += w * w * s.sum_squares[p] / 4;
            }
        }
        const double m = largest * log_miss / 3;
        slack[t] = std::min(worst, m + std::sqrt(m * m + 2 * log_miss * variance));
        // The last term covers the rounding of unit * A + upper and of the estimate itself; the steps
        // after it (times scale, plus add) are monotone and the same on both sides.
        const double rounding = 1e-6 * magnitude;
        scan_.unit[t] = static_cast<float>(unit_ * s.step * std::ldexp(1.0, static_cast<int>(t)));
        scan_.upper[t] = static_cast<float>(unit_ * (fixed - centre + slack[t] + rounding));
    }
    choose_checks(layout, slack, std::sqrt(score_variance));
}

// Takes the set of checks of least expected cost per block. A block passes the check after plane t
// when one of its 32 rows comes within slack[t] of the threshold, which a top-k search keeps at about
// kThreshold standard deviations of the scores.
void PlaneQuery::choose_checks(const PlaneLayout& layout, const double* slack, double deviation) {
    constexpr double kThreshold = 3.6;
    constexpr double kCheckCost = 2.5;  // in groups
    constexpr double kTailRows = 64;    // rows of a block, for a tile of two queries
    double pass[kMaxPlanes] = {};
    for (std::uint32_t t = 0; t < layout.planes; ++t) {
        pass[t] = deviation > 0 ? std::min(1.0, kTailRows * normal_tail(kThreshold - slack[t] / deviation)) : 1.0;
    }
    // best[t]: cost from just after a check at plane t (reached with certainty) to the end; next[t]:
    // the following check. Plane 0 ends the block.
    double best[kMaxPlanes + 1] = {};
    std::uint32_t next[kMaxPlanes + 1] = {};
    for (std::uint32_t from = 1; from <= layout.planes; ++from) {
        best[from] = 1e300;
        double groups = 0;
        for (std::uint32_t t = from; t-- > 0;) {
            groups += layout.groups[t];
            const double before = from == layout.planes ? 1.0 : pass[from];
            const double cost = before * (groups + kCheckCost) + (t == 0 ? 0.0 : best[t]);
            if (cost < best[from]) {
                best[from] = cost;
                next[from] = t;
            }
        }
    }
    scan_.check_planes = 1;
    for (std::uint32_t t = next[layout.planes]; t > 0; t = next[t]) scan_.check_planes |= 1u << t;
}

void PlaneQuery::set_cells(const PlaneLayout& layout) {
    constexpr float kLimit = byte_coarse_max(8);
    const auto coarse = [&](std::int16_t q, float inverse) {
        return std::clamp(std::nearbyint(static_cast<float>(q) * inverse), -kLimit, kLimit);
    };
    std::vector<float> top(q_.size());
    std::uint32_t bits = layout.planes;
    for (std::size_t i = 0; i < q_.size(); ++i) {
        while (i >= layout.groups[bits - 1] * kGroupDims) --bits;
        top[i] = static_cast<float>((1u << bits) - 1);
    }
    // Smaller steps cut off the largest weights and round all the others less.
    float step = 0, best = std::numeric_limits<float>::infinity();
    for (float range : {1.0f, 0.75f, 0.55f, 0.4f, 0.3f}) {
        const float trial = range * static_cast<float>(kCellStep), inverse = 1.0f / trial;
        float variance = 0;
        for (std::size_t i = 0; i < q_.size(); ++i) {
            const float e = static_cast<float>(q_[i]) - trial * coarse(q_[i], inverse);
            variance += e * e * (top[i] * (top[i] + 2));
        }
        if (variance >= best) break;
        best = variance;
        step = trial;
    }
    cells_.resize(q_.size());
    double fixed = 0, worst = 0, variance = 0, magnitude = 0;
    for (std::size_t i = 0; i < q_.size(); ++i) {
        const float c = coarse(q_[i], 1.0f / step);
        cells_[i] = static_cast<std::int8_t>(c);
        const double t = static_cast<double>(top[i]), taken = static_cast<double>(step) * static_cast<double>(c);
        const double e = static_cast<double>(q_[i]) - taken;
        fixed += taken * t / 2;
        worst += std::fabs(e) * t / 2;
        variance += e * e * (t * (t + 2)) / 12;
        magnitude += std::fabs(taken) * t;
    }
    const double slack = std::min(worst, std::sqrt(-2 * std::log(kMissProbability) * variance));
    // The last term covers the rounding of unit * S + upper and of the estimate itself.
    cell_scan_.unit = unit_ * step;
    cell_scan_.upper = static_cast<float>(static_cast<double>(unit_) * (slack - fixed + 1e-6 * magnitude));
}

// The bounds take the offset in, and more than what its sums round off.
void PlaneQuery::set_offset(float offset) {
    const float change = offset - offset_;
    const float margin = 8 * std::numeric_limits<float>::epsilon() * (std::fabs(offset) + std::fabs(offset_));
    for (float& upper : scan_.upper) upper += change + margin;
    cell_scan_.upper += change + margin;
    offset_ = offset;
}

// The kernels bound scores without the constant. Its sum with the constant was rounded, by less than
// the margin, so no row that reaches the threshold is dropped.
float PlaneQuery::lowered(float threshold) const {
    if (constant_ == 0.0f || std::isinf(threshold)) return threshold;
    const float margin = 4 * std::numeric_limits<float>::epsilon() * (std::fabs(threshold) + std::fabs(constant_));
    return threshold - constant_ - margin;
}

LinearQuery PlaneQuery::linear() const {
    return {{q_.begin(), q_.end()}, {}, unit_, offset_, constant_, sum_offset_, 0, 0};
}

PlaneScan PlaneQuery::with_threshold(float threshold) const {
    PlaneScan scan = scan_;
    scan.coarse = coarse_.data();
    scan.threshold = lowered(threshold);
    return scan;
}

ByteScan PlaneQuery::cells_with_threshold(float threshold) const {
    ByteScan scan = cell_scan_;
    scan.coarse = cells_.data();
    scan.threshold = lowered(threshold);
    return scan;
}

}  // namespace residua::codec
