// SPDX-License-Identifier: Apache-2.0
// Queries of linear codes, prepared for the device's scans (cuda/linear_scan.hpp).
//
// A scan multiplies coarse weights C of 8 bits and keeps a row by an upper bound that always holds. With true weights w
// of dims with b bits and u - (2^b - 1) / 2 the value of a dim,
//     sum of w value  =  step (sum of C u) - step (sum of C (2^b - 1) / 2) + (sum of (w - step C) value),
// and the last sum is at most that of |w - step C| (2^b - 1) / 2. Rows that are kept get their exact score
// from the codec's own weights, the same numbers added up on the CPU, so no row is lost and no bit of a score differs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/codec.hpp"
#include "cuda/linear_layout.hpp"

namespace residua::cuda {

// The bound of a query: a row's score without the constant is at most  add + scale * (step * S + upper).
struct LinearBound {
    float step;
    float upper;
    float constant;
};

// What makes an exact score of the sums.
struct LinearTerms {
    std::int64_t sum_offset;
    std::int64_t rest_offset;
    double rest_unit;
    float unit;
    float offset;
    float constant;
    std::uint32_t has_rests;
};

RZ_HD inline float exact_score(const LinearTerms& q, std::int64_t sum, std::int64_t rests, float scale, float add_) {
    const auto n = static_cast<double>(2 * rests - q.rest_offset);
    if (q.has_rests != 0) {
        // In double, as codec/byte_query.cpp does it; nothing of it is contracted (-fmad=false).
        const double product = 0.5 * (static_cast<double>(q.unit) * static_cast<double>(2 * sum - q.sum_offset) + q.rest_unit * n);
        return static_cast<float>(static_cast<double>(scale) * product + static_cast<double>(add_) + static_cast<double>(q.constant));
    }
    const float inner = add(multiply(multiply(0.5f, q.unit), static_cast<float>(2 * sum - q.sum_offset)), q.offset);
    return add(add(multiply(scale, inner), add_), q.constant);
}

// The score below which a row cannot reach `threshold` by its bound, whatever was rounded on the way; `term` is what
// the row's list adds.
RZ_HD inline float lowered(float threshold, float constant, float term) {
    constexpr float kMargin = 1e-6f;
    const float sizes = (threshold < 0 ? -threshold : threshold) + (constant < 0 ? -constant : constant) + (term < 0 ? -term : term);
    return threshold - constant - term - kMargin * sizes;
}

struct LinearQueries {
    std::size_t n = 0;
    std::size_t dims = 0;                 // of all groups
    std::vector<std::int8_t> coarse;      // (n, dims), by dim
    std::vector<std::int16_t> weights;    // (n, dims)
    std::vector<std::int16_t> rests;      // (n, dims), or empty
    std::vector<LinearBound> bounds;
    std::vector<LinearTerms> terms;
};

LinearLayout linear_layout(const codec::LinearForm& form);
// Queries [begin, end) of the scorer.
LinearQueries linear_queries(const codec::Scorer& scorer, std::size_t begin, std::size_t end, const LinearLayout& layout,
                             int num_threads);

// Queries as the rows of a product of tiles of bits: 16 rows per tile, of one query (wide) or of two. Every row is one
// bit of the weights C << plane of all bits of a code, in two's complement, and has a weight itself.
struct BitTiles {
    int planes = 0;                        // bits of a weight, at most 16
    std::size_t slots = 1;                 // queries per tile
    std::vector<std::uint32_t> fragments;  // per tile, unit (a half one counts), lane: 4 words
    std::size_t tile_words = 0;
};
// pair: two queries per tile where their weights have at most 8 bits.
BitTiles bit_tiles(const LinearQueries& queries, const LinearLayout& layout, bool pair);
RZ_HD inline std::int32_t bit_weight(int planes, int bit) {
    return bit >= planes ? 0 : bit == planes - 1 ? -(1 << bit) : 1 << bit;
}

// Queries as fragments of a product of tiles of bytes, 16 queries a tile, as the kernel reads them: per 16 queries, per 64
// dims, per 32 of those, per lane 16 bytes. Filled up with zeros to whole `tile` queries, a multiple of 16, and 64 dims.
struct ByteTiles {
    std::vector<std::int8_t> fragments;
    std::size_t steps = 0;  // of 64 dims
};
ByteTiles byte_tiles(const LinearQueries& queries, std::size_t tile, int num_threads);

}  // namespace residua::cuda
