// SPDX-License-Identifier: Apache-2.0
// Vectors as a metric sees them: under cosine every vector has length 1.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "core/dot.hpp"
#include "core/matrix.hpp"
#include "core/metric.hpp"

namespace residua::codec {

// 1 / |x|, computed in double; 0 for a zero vector.
inline float inverse_norm(const float* x, std::size_t dim) {
    const double s = dot_f64(x, x, dim);
    return s > 0 ? static_cast<float>(1.0 / std::sqrt(s)) : 0.0f;
}

inline void copy_for_metric(const float* x, std::size_t dim, Metric metric, float* out) {
    const float factor = metric == Metric::cosine ? inverse_norm(x, dim) : 1.0f;
    for (std::size_t i = 0; i < dim; ++i) out[i] = x[i] * factor;
}

// The first `dims` dims of rows, each by itself as the metric sees it.
inline std::vector<float> copies_for_metric(ConstMatrix x, std::size_t dims, Metric metric) {
    std::vector<float> out(x.rows * dims);
    for (std::size_t i = 0; i < x.rows; ++i) copy_for_metric(x.row(i), dims, metric, out.data() + i * dims);
    return out;
}

}  // namespace residua::codec
