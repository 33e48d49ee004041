// SPDX-License-Identifier: Apache-2.0
// Scores of kept vectors in float32 with bounds of their error, by which a scan passes over rows that cannot
// be among the best (exact_scan.hpp).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include "core/aligned.hpp"
#include "core/error.hpp"
#include "core/matrix.hpp"
#include "core/metric.hpp"
#include "kernel/dispatch.hpp"
#include "store/row_source.hpp"

namespace residua::index {

inline void check_dim(const store::RowSource& source, ConstMatrix queries) {
    if (queries.cols == source.dim) return;
    throw Error(ErrorKind::shape, "queries have " + std::to_string(queries.cols) + " dimensions, the rows have " +
                                      std::to_string(source.dim));
}

template <class T>
const T* row_as(const store::RowSource& source, std::size_t i) {
    return static_cast<const T*>(source.row(i));
}

inline float scale_of(const store::RowSource& source, std::size_t i) {
    return source.row_scale != nullptr ? source.row_scale[i] : 1.0f;
}

// Filter scores and their bounds. For a query q and a row x, with s the float32 sum of products,
//     score = s * weight(x) + bias(x) - offset(q),   |error| <= gain(q) * reach(x) + floor(q).
// The error of s is at most (d + 16) u norm(q) norm(x) (data sheet of the kernels and
// Cauchy-Schwarz); the rest of d + 32 covers the few roundings around it. For l2 the same holds with
// 2 norm(q) norm(x) <= norm(q)^2 + norm(x)^2, and norm(x)^2 is itself such a sum.
struct QueryBounds {
    float offset, gain, floor;
};
struct RowBounds {
    float weight, bias, reach;
};

class BoundedScorer {
    static constexpr float kUnit = 0x1.0p-24f;     // rounding unit of float32
    static constexpr float kHuge = 1e37f;          // squared norms above this may overflow: no bound is given
    static constexpr float kTiny = std::numeric_limits<float>::min();  // the smallest normal one
    static constexpr float kInf = std::numeric_limits<float>::infinity();

public:
    BoundedScorer(const store::RowSource& source, Metric metric)
        : source_(source),
          metric_(metric),
          kernels_(kernel::active().floats),
          relative_((static_cast<float>(source.dim) + 32.0f) * kUnit),
          zero_(source.dim, 0.0f) {}

    QueryBounds query(const float* q) const {
        const float q2 = static_cast<float>(kernels_.exact_dot_f32(q, q, source_.dim));
        const bool l2 = metric_ == Metric::l2;
        const float gain = !(q2 <= kHuge) ? kInf : l2 ? relative_ : relative_ * std::sqrt(std::max(q2, kTiny));
        return {l2 ? q2 : 0.0f, gain, kTiny + (l2 ? relative_ * q2 : 0.0f)};
    }

    RowBounds row(std::size_t i) const {
        const float scale = scale_of(source_, i);
        if (metric_ == Metric::cosine && source_.own_norm) {
            const float x2 = squared_norm(i);
            if (!(x2 >= 1e-30f && x2 <= kHuge)) return {0.0f, 0.0f, kInf};
            return {scale / std::sqrt(x2), 0.0f, 2.0f};  // the norm has half the error of the product
        }
        if (metric_ == Metric::cosine) {
            const float inv = source_.inv_norm != nullptr ? source_.inv_norm[i] : 1.0f;
            return {scale * inv, 0.0f, inv <= 1e30f ? 1.25f : kInf};
        }
        const float x2 = squared_norm(i);
        if (metric_ == Metric::ip) return {scale, 0.0f, x2 <= kHuge ? 1.25f * std::sqrt(std::max(x2, kTiny)) : kInf};
        return {2.0f * scale, -x2, x2 <= kHuge ? 2.0f * x2 + kTiny : kInf};
    }

    // <q, x> for a row as it is stored; a byte row's scale is in its weight.
    float product(const float* q, std::size_t i) const {
        switch (source_.type) {
            case store::RowType::f32: return kernels_.dot_f32(q, row_as<float>(source_, i), source_.dim);
            case store::RowType::f16: return kernels_.dot_f16(q, row_as<std::uint16_t>(source_, i), source_.dim);
            case store::RowType::bf16: return kernels_.dot_bf16(q, row_as<std::uint16_t>(source_, i), source_.dim);
            case store::RowType::i8: break;
        }
        return kernels_.dot_i8(q, row_as<std::int8_t>(source_, i), source_.dim);
    }
    float squared_distance(const float* q, std::size_t i) const {
        switch (source_.type) {
            case store::RowType::f32: return kernels_.l2_f32(q, row_as<float>(source_, i), source_.dim);
            case store::RowType::f16: return kernels_.l2_f16(q, row_as<std::uint16_t>(source_, i), source_.dim);
            case store::RowType::bf16: return kernels_.l2_bf16(q, row_as<std::uint16_t>(source_, i), source_.dim);
            case store::RowType::i8: break;
        }
        return kernels_.l2_i8(q, row_as<std::int8_t>(source_, i), scale_of(source_, i), source_.dim);
    }
    // Error of squared_distance: relative, and for a byte row that of scale * byte, at most
    // 2 u distance (norm(q) + distance).
    float distance_error(float squared, const QueryBounds& q) const {
        const float bytes = source_.type == store::RowType::i8 ? 8.0f * kUnit * (q.offset + squared) : 0.0f;
        return relative_ * squared + bytes + kTiny;
    }

    const store::RowSource& source() const { return source_; }
    Metric metric() const { return metric_; }
    const kernel::FloatKernels& kernels() const { return kernels_; }

private:
    float squared_norm(std::size_t i) const { return squared_distance(zero_.data(), i); }

    const store::RowSource& source_;
    Metric metric_;
    const kernel::FloatKernels& kernels_;
    float relative_;
    AlignedVector<float> zero_;
};

// One row to the pool of one query; l2 needs no bounds of the row.
template <class Pool>
void offer_row(const BoundedScorer& filter, const float* query, const QueryBounds& bounds, const RowBounds& row,
               std::size_t r, Pool& pool) {
    float score, error;
    if (filter.metric() == Metric::l2) {
        const float squared = filter.squared_distance(query, r);
        score = -squared;
        error = filter.distance_error(squared, bounds);
    } else {
        score = filter.product(query, r) * row.weight;
        error = bounds.gain * row.reach + bounds.floor;
    }
    // Written so that NaN, the outcome of an overflow, passes.
    if (!(score + error < pool.threshold())) pool.push(score - error, score + error, static_cast<std::uint32_t>(r));
}

}  // namespace residua::index
