// SPDX-License-Identifier: Apache-2.0
// Metrics and the one sign convention: inside the library a larger score is always better.
// l2 is carried as minus the squared distance and turned round at the edge (bindings, C ABI).
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "core/error.hpp"

namespace residua {

enum class Metric : std::uint8_t { cosine = 0, ip = 1, l2 = 2 };

inline constexpr float kWorstScore = -std::numeric_limits<float>::infinity();

inline const char* to_string(Metric m) {
    switch (m) {
        case Metric::cosine: return "cosine";
        case Metric::ip: return "ip";
        case Metric::l2: return "l2";
    }
    return "?";
}

// A score as users see it: l2 as a squared distance.
inline float public_score(Metric metric, float score) {
    return metric != Metric::l2 ? score : score < 0 ? -score : 0.0f;
}

inline Metric parse_metric(std::string_view s) {
    if (s == "cosine") return Metric::cosine;
    if (s == "ip") return Metric::ip;
    if (s == "l2") return Metric::l2;
    throw Error(ErrorKind::value, "metric must be 'cosine', 'ip' or 'l2', got '" + std::string(s) + "'");
}

}  // namespace residua
