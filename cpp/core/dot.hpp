// SPDX-License-Identifier: Apache-2.0
// Inner products in double, in one order wherever they are compiled: eight sums side by side, as one alone
// would wait for every addition. Products of floats are exact in double, so fusing them changes nothing.
#pragma once

#include <cstddef>

namespace residua {

inline double dot_f64(const float* a, const float* b, std::size_t n) {
    constexpr std::size_t kLanes = 8;
    double s[kLanes] = {};
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        for (std::size_t j = 0; j < kLanes; ++j) s[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
    }
    for (; i < n; ++i) s[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

}  // namespace residua
