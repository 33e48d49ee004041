// SPDX-License-Identifier: Apache-2.0
#include "codec/hamming_scan.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace residua::codec {

using namespace kernel;

namespace {

float score_of(std::size_t dim, std::int32_t distance) {
    return static_cast<float>(static_cast<std::int64_t>(dim) - 2 * std::int64_t{distance});
}

// The largest distance that can still enter the pool. Rows are offered in order, so where ids ascend
// with them an equal distance comes too late.
std::int32_t limit(const TopK& pool, std::size_t dim) {
    const float t = pool.threshold();
    if (t == kWorstScore) return static_cast<std::int32_t>(dim);
    const double distance = std::floor((static_cast<double>(dim) - static_cast<double>(t)) / 2);
    return static_cast<std::int32_t>(distance) - (pool.ties_ascend() ? 1 : 0);
}

}  // namespace

HammingQueries::HammingQueries(const std::uint8_t* codes, std::size_t n, std::size_t bytes)
    : n_(n), bytes_(bytes), tables_(n * kBlockRows * bytes) {
    std::uint8_t* out = tables_.data();
    for (std::size_t i = 0; i < n * bytes; ++i) {
        for (const unsigned nibble : {codes[i] >> 4, codes[i] & 15}) {
            for (unsigned x = 0; x < kStripBytes; ++x) *out++ = static_cast<std::uint8_t>(std::popcount(x ^ nibble));
        }
    }
}

// A table has the distances of its nibble from all others; from 0, the bits that are set, and one less from a bit of them.
bool HammingQueries::bit(std::size_t query, std::size_t i) const {
    const std::uint8_t* table = tables(query) + i / 4 * kStripBytes;
    return table[8u >> i % 4] < table[0];
}

void hamming_topk(const BitKernels& kernels, const HammingQueries& queries, std::size_t q_begin, std::size_t q_end,
                  const std::uint8_t* blocks, const BlockRows& rows, std::size_t dim, TopK* pools) {
    const std::size_t block_bytes = kBlockRows * queries.bytes();
    for (std::size_t q = q_begin; q < q_end; q += kHammingTile, pools += kHammingTile) {
        const std::size_t tile = std::min(kHammingTile, q_end - q);
        std::int32_t limits[kHammingTile], distance[kHammingTile * kBlockRows];
        std::uint32_t mask[kHammingTile];
        for (std::size_t i = 0; i < tile; ++i) limits[i] = limit(pools[i], dim);
        for (std::size_t b = 0; b < rows.blocks();) {
            const std::size_t stop = rows.run(b, rows.blocks());
            while (b < stop) {
                b += kernels.hamming_scan(blocks + b * block_bytes, stop - b, queries.bytes(), queries.tables(q), tile,
                                          limits, mask, distance);
                if (b == stop) break;
                const std::uint32_t live = rows.mask(b);
                for (std::size_t i = 0; i < tile; ++i) {
                    for (std::uint32_t m = mask[i] & live; m != 0; m &= m - 1) {
                        const auto j = static_cast<std::size_t>(std::countr_zero(m));
                        pools[i].push(score_of(dim, distance[i * kBlockRows + j]), rows.row(b, j));
                    }
                    limits[i] = limit(pools[i], dim);
                }
                ++b;
            }
        }
    }
}

void hamming_scores(const BitKernels& kernels, const HammingQueries& queries, std::size_t query,
                    const std::uint8_t* block, std::size_t dim, float* out) {
    constexpr std::int32_t kAll = std::numeric_limits<std::int32_t>::max();
    std::int32_t distance[kBlockRows];
    std::uint32_t mask;
    kernels.hamming_scan(block, 1, queries.bytes(), queries.tables(query), 1, &kAll, &mask, distance);
    std::transform(distance, distance + kBlockRows, out, [dim](std::int32_t d) { return score_of(dim, d); });
}

}  // namespace residua::codec
