// SPDX-License-Identifier: Apache-2.0
// A query whose score is a sum of table entries, prepared for the look-up scans (kernel/lookup_kernels.hpp).
//
// Of number m of a code with value c the query's entry is the float T[m][c]; the score is their sum. The scan
// has whole numbers instead,
//     E[m][c] = ceil((T[m][c] - base_m) / unit)  >=  (T[m][c] - base_m) / unit,   base_m = min over c of T[m][c],
// with the one unit that fits all ranges, so that
//     score <= (sum of base_m) + unit * (sum of E).
// A row is dropped when that bound, and `slack` for the rounding of floats on both sides, stay below the
// threshold: no row that belongs to the top-k is dropped, whatever the codes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/aligned.hpp"
#include "kernel/lookup_kernels.hpp"

namespace residua::codec {

// How the tables of a code of `numbers` values of 4 or 8 bits lie in memory.
struct LookupLayout {
    std::size_t numbers = 0;
    int bits = 8;

    std::size_t values() const { return std::size_t{1} << bits; }
    std::size_t code_bytes() const { return bits == 8 ? numbers : (numbers + 1) / 2; }
    std::size_t table_bytes() const {
        return bits == 8 ? kernel::byte_table_bytes(code_bytes()) : kernel::nibble_table_bytes(code_bytes());
    }
    // Number 2i is in the low half of byte i, which is strip 2i + 1 of a block.
    std::size_t table_offset(std::size_t number) const { return (bits == 8 ? number : number ^ 1) * values(); }
    // The largest entry for which no sum exceeds what the kernels count to.
    int entry_max() const;
};

// What of a query does not depend on the threshold.
struct LookupBound {
    double base = 0;   // sum of base_m, and what all rows share
    double unit = 1;   // positive
    double slack = 0;  // of all roundings

    // The smallest sum of entries with which a row can have a score of `threshold`.
    std::int32_t least(float threshold) const;
};

class LookupTables {
public:
    LookupTables() = default;
    // entries: (numbers, values), whose sum, and `shared`, make the score. magnitude: at least the sum of the sizes of what a score adds up, and `terms`
    // how many those are: they say how far a float32 score may lie from the sum of the entries.
    LookupTables(const LookupLayout& layout, const float* entries, double shared, double magnitude,
                 std::size_t terms);
    // Tables that were made before.
    LookupTables(AlignedVector<std::uint8_t> tables, const LookupBound& bound)
        : tables_(std::move(tables)), bound_(bound) {}

    kernel::LookupScan with_threshold(float threshold) const { return {tables_.data(), bound_.least(threshold)}; }

private:
    AlignedVector<std::uint8_t> tables_;
    LookupBound bound_;
};

// The slack of LookupBound for scores of `terms` additions.
double lookup_slack(double magnitude, std::size_t terms);

// What float32 loses in round_up_entries, over all numbers of a code.
double table_rounding(const LookupLayout& layout, double unit);

// out[c] = the whole number of (values[c] - base) / unit from above, at most `top`.
void round_up_entries(const float* values, std::size_t n, float base, double unit, int top, std::uint8_t* out);

}  // namespace residua::codec
