// SPDX-License-Identifier: Apache-2.0
// Vectors as a metric sees them: under cosine every vector has length 1.
#pragma once

#include <cmath>
#include <cstddef>

#include "core/metric.hpp"

namespace residua::codec {

// 1 / |x|, computed in double; 0 for a zero vector.
inline float inverse_norm(const float* x, std::size_t dim) {
    double s = 0;
    for (std::size_t i = 0; i < dim; ++i) s += static_cast<double>(x[i]) * x[i];
    return s > 0 ? static_cast<float>(1.0 / std::sqrt(s)) : 0.0f;
}

inline void copy_for_metric(const float* x, std::size_t dim, Metric metric, float* out) {
    const float factor = metric == Metric::cosine ? inverse_norm(x, dim) : 1.0f;
    for (std::size_t i = 0; i < dim; ++i) out[i] = x[i] * factor;
}

}  // namespace residua::codec
