// SPDX-License-Identifier: Apache-2.0
// Scores that are sums of table entries, for scans of another device: it keeps the numbers of a code as they are
// and gets from every query what stands behind each value of each number.
#pragma once

#include <cstddef>
#include <vector>

namespace residua::codec {

// Row codes are numbers of 8 bits, one per byte, or of 4 bits, two per byte.
struct LookupShape {
    std::size_t bytes = 0;  // of a row code
    int bits = 8;

    std::size_t values() const { return std::size_t{1} << bits; }
    std::size_t numbers() const { return bytes * 8 / static_cast<std::size_t>(bits); }
};

// With (a, b, c, d) the sums of the entries of numbers 0, 4, …; 1, 5, …; 2, 6, …; 3, 7, …, in this order, the score is
// ((a + b) + (c + d)) + shared in float32.
struct LookupForm {
    std::vector<float> entries;  // (numbers, values) by byte; of 4 bits a byte's high half comes first
    float shared = 0;
};

}  // namespace residua::codec
