// SPDX-License-Identifier: Apache-2.0
#include "codec/lookup_query.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace residua::codec {
namespace {

struct Range {
    float low, high;
};

// In lanes, so that compilers keep them in vectors.
Range range_of(const float* x, std::size_t n) {
    constexpr std::size_t kLanes = 16;  // every table has a multiple of these
    float low[kLanes], high[kLanes];
    std::copy_n(x, kLanes, low);
    std::copy_n(x, kLanes, high);
    for (std::size_t i = kLanes; i < n; i += kLanes) {
        for (std::size_t j = 0; j < kLanes; ++j) {
            low[j] = x[i + j] < low[j] ? x[i + j] : low[j];
            high[j] = x[i + j] > high[j] ? x[i + j] : high[j];
        }
    }
    return {*std::min_element(low, low + kLanes), *std::max_element(high, high + kLanes)};
}

}  // namespace

int LookupLayout::entry_max() const {
    const int most = bits == 8 ? kernel::kByteEntryMax : kernel::kNibbleEntryMax;
    return std::max(1, std::min(most, kernel::kLookupSumMax / static_cast<int>(numbers)));
}

double lookup_slack(double magnitude, std::size_t terms) {
    // Twice the bound of a float32 sum: of the score, and of the entries that the tables were made from.
    return 2 * (static_cast<double>(terms) + 16) * 0x1p-24 * magnitude;
}

double table_rounding(const LookupLayout& layout, double unit) {
    return 1e-4 * unit * static_cast<double>(layout.numbers);
}

std::int32_t LookupBound::least(float threshold) const {
    const double sum = std::ceil((static_cast<double>(threshold) - slack - base) / unit * (1 - 0x1p-40) - 1e-6);
    if (!(sum > 0)) return 0;  // also for a pool that is not full yet
    return static_cast<std::int32_t>(std::min<double>(sum, kernel::kLookupSumMax + 1));
}

void round_up_entries(const float* values, std::size_t n, float base, double unit, int top, std::uint8_t* out) {
    const float inverse = static_cast<float>(1.0 / unit), most = static_cast<float>(top);
    for (std::size_t i = 0; i < n; ++i) {
        // Truncation after adding just less than 1; table_rounding covers what float32 loses.
        const float entry = std::min((values[i] - base) * inverse + 0.99998f, most);
        out[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(entry));
    }
}

LookupTables::LookupTables(const LookupLayout& layout, const float* entries, double shared, double magnitude,
                           std::size_t terms)
    : tables_(layout.table_bytes(), 0) {
    const std::size_t values = layout.values();
    const int top = layout.entry_max();
    bound_.base = shared;
    std::vector<float> low(layout.numbers);
    float widest = 0;
    for (std::size_t m = 0; m < layout.numbers; ++m) {
        const Range r = range_of(entries + m * values, values);
        low[m] = r.low;
        bound_.base += static_cast<double>(r.low);
        widest = std::max(widest, r.high - r.low);
    }
    bound_.unit = std::max(static_cast<double>(widest) / top, double{std::numeric_limits<float>::min()});
    bound_.slack = lookup_slack(magnitude, terms) + table_rounding(layout, bound_.unit);
    for (std::size_t m = 0; m < layout.numbers; ++m) {
        round_up_entries(entries + m * values, values, low[m], bound_.unit, top,
                         tables_.data() + layout.table_offset(m));
    }
}

}  // namespace residua::codec
