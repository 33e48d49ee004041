// SPDX-License-Identifier: Apache-2.0
// Top-k over blocks by any kernel that filters: the scan drops whole blocks against each query's
// current k-th score, and the rows that are left are scored exactly.
//
// A Family gives the kernels their form:
//   Query, Scan                        a prepared query, and what the kernel needs of it
//   kTile, tile()                      queries per pass over the codes: at most, and here
//   block_bytes()
//   scan(blocks, n, scans, nq, mask)   first block with a surviving row, or n
//   bound(query, threshold)            the Scan that drops rows below the threshold
//   scores(block, query, rows, out)    exact scores of the rows whose bit is set
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "codec/block_rows.hpp"
#include "core/top_k.hpp"

namespace residua::codec {

// Offers the rows of one block whose bit in `mask` is set.
template <class Family>
void offer_rows(const Family& family, const std::uint8_t* block, std::size_t number, std::uint32_t mask,
                const BlockRows& rows, const typename Family::Query& query, TopK& pool) {
    float scores[kernel::kBlockRows];
    family.scores(block, query, mask, scores);
    for (; mask != 0; mask &= mask - 1) {
        const auto j = static_cast<std::size_t>(std::countr_zero(mask));
        if (scores[j] >= pool.threshold()) pool.push(scores[j], rows.row(number, j));
    }
}

// Queries of one scan and the pool of each: all of a batch, or some of it.
template <class Query>
struct ScanQueries {
    std::span<const Query> all;
    TopK* pools;                           // of `all`
    std::span<const std::uint32_t> chosen = {};  // numbers in `all`, where only some are meant
    bool some_only = false;

    std::size_t size() const { return some_only ? chosen.size() : all.size(); }
    std::size_t number(std::size_t i) const { return some_only ? chosen[i] : i; }
};

// One tile of queries over all blocks.
template <class Family>
void scan_tile(const Family& family, const std::uint8_t* blocks, const BlockRows& rows,
               const ScanQueries<typename Family::Query>& queries, std::size_t first, std::size_t n) {
    const std::size_t block_bytes = family.block_bytes();
    const typename Family::Query* tile[Family::kTile];
    TopK* pools[Family::kTile];
    typename Family::Scan scans[Family::kTile];
    for (std::size_t i = 0; i < n; ++i) {
        tile[i] = &queries.all[queries.number(first + i)];
        pools[i] = queries.pools + queries.number(first + i);
        scans[i] = family.bound(*tile[i], pools[i]->threshold());
    }
    for (std::size_t b = 0; b < rows.blocks();) {
        const std::size_t stop = rows.run(b, rows.blocks());
        while (b < stop) {
            std::uint32_t mask[Family::kTile] = {};
            b += family.scan(blocks + b * block_bytes, stop - b, scans, n, mask);
            if (b == stop) break;
            const std::uint32_t live = rows.mask(b);
            for (std::size_t i = 0; i < n; ++i) {
                if ((mask[i] & live) == 0) continue;
                offer_rows(family, blocks + b * block_bytes, b, mask[i] & live, rows, *tile[i], *pools[i]);
                scans[i] = family.bound(*tile[i], pools[i]->threshold());
            }
            ++b;
        }
    }
}

// Offers all `rows`, stored in `blocks`, to the pools of the queries.
template <class Family>
void block_topk(const Family& family, const std::uint8_t* blocks, const BlockRows& rows,
                const ScanQueries<typename Family::Query>& queries) {
    const std::size_t tile = family.tile();
    for (std::size_t i = 0; i < queries.size(); i += tile) {
        scan_tile(family, blocks, rows, queries, i, std::min(tile, queries.size() - i));
    }
}

}  // namespace residua::codec
