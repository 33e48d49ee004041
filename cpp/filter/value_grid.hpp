// SPDX-License-Identifier: Apache-2.0
// A first look at rows whose bin only partly matches many intervals: every such bin is cut into cells of
// equal width, with a bit for those that an interval meets. Few rows pass that do not match.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "filter/condition.hpp"
#include "filter/lane.hpp"

namespace residua::filter {

// Integers in the order of the values.
inline std::int64_t order_key(std::int64_t x) { return x; }
inline std::int64_t order_key(double x) {
    const auto bits = std::bit_cast<std::int64_t>(x + 0.0);  // 0.0 and -0.0 are one value
    return bits ^ static_cast<std::int64_t>(static_cast<std::uint64_t>(bits >> 63) >> 1);
}

class ValueGrid {
public:
    // Cells of a bin with values low … high that meets `intervals`, and no others, in order.
    template <class T>
    void add_bin(std::size_t bin, T low, T high, std::span<const Interval<T>> intervals) {
        Place& place = places_[bin];
        place.low = order_key(low);
        const std::uint64_t width = offset(place, order_key(high));
        const bool exact = width <= kExactCells * intervals.size();
        const int bits = static_cast<int>(std::bit_width(width)), enough = static_cast<int>(std::bit_width(kCells * intervals.size()));
        place.shift = static_cast<std::uint32_t>(exact ? 0 : std::max(bits - enough, 0));
        exact_ = exact_ && place.shift == 0;
        place.begin = static_cast<std::uint32_t>(n_cells_);
        n_cells_ += static_cast<std::size_t>(width >> place.shift) + 1;
        bits_.resize(n_cells_ / 8 + 1);
        for (const Interval<T>& i : intervals) {
            const std::size_t first = cell(place, order_key(i.low < low ? low : i.low));
            const std::size_t last = cell(place, order_key(high < i.high ? high : i.high));
            for (std::size_t c = first; c <= last; ++c) bits_[c >> 3] |= kBit[c & 7];
        }
    }

    // Whether an interval meets the cell of a value of a bin that was added.
    template <class T>
    bool may_match(std::size_t bin, T value) const {
        const std::size_t c = cell(places_[bin], order_key(value));
        return (bits_[c >> 3] & kBit[c & 7]) != 0;
    }

    // Whether every cell is one value, so that nothing passes that does not match.
    bool is_exact() const { return exact_; }

private:
    static constexpr std::size_t kCells = 32, kExactCells = 256;  // per interval
    static constexpr std::array<std::uint8_t, 8> kBit{1, 2, 4, 8, 16, 32, 64, 128};

    struct Place {
        std::int64_t low = 0;
        std::uint32_t begin = 0;
        std::uint32_t shift = 0;
    };
    static std::uint64_t offset(const Place& place, std::int64_t key) {
        return static_cast<std::uint64_t>(key) - static_cast<std::uint64_t>(place.low);
    }
    static std::size_t cell(const Place& place, std::int64_t key) {
        return place.begin + static_cast<std::size_t>(offset(place, key) >> place.shift);
    }

    std::array<Place, kMaxBins> places_{};
    std::size_t n_cells_ = 0;
    bool exact_ = true;
    std::vector<std::uint8_t> bits_;
};

}  // namespace residua::filter
