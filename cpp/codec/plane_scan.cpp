// SPDX-License-Identifier: Apache-2.0
#include "codec/plane_scan.hpp"

#include <algorithm>
#include <bit>

namespace residua::codec {

using namespace kernel;

namespace {

class Scanner {
public:
    Scanner(const PlaneKernels& kernels, const PlaneLayout& layout, const std::uint8_t* blocks, const BlockRows& rows)
        : kernels_(kernels), layout_(layout), blocks_(blocks), block_bytes_(layout.block_bytes()), rows_(rows) {}

    // Blocks [begin, end), for one tile of queries.
    void scan(std::size_t begin, std::size_t end, std::span<const PlaneQuery> tile, TopK* pools) const {
        PlaneScan scans[kPlaneTile];
        for (std::size_t i = 0; i < tile.size(); ++i) scans[i] = tile[i].with_threshold(pools[i].threshold());
        while (begin < end) {
            const std::size_t stop = rows_.run(begin, end);
            while (begin < stop) {
                std::uint32_t mask[kPlaneTile] = {};
                begin += kernels_.scan(layout_, blocks_ + begin * block_bytes_, stop - begin, scans, tile.size(), mask);
                if (begin == stop) break;
                const std::uint32_t rows = rows_.mask(begin);
                for (std::size_t i = 0; i < tile.size(); ++i) {
                    if ((mask[i] & rows) == 0) continue;
                    offer(begin, mask[i] & rows, tile[i], pools[i]);
                    scans[i] = tile[i].with_threshold(pools[i].threshold());
                }
                ++begin;
            }
        }
    }

private:
    void offer(std::size_t b, std::uint32_t mask, const PlaneQuery& query, TopK& pool) const {
        const std::uint8_t* block = blocks_ + b * block_bytes_;
        std::int64_t sums[kBlockRows];
        float scores[kBlockRows];
        kernels_.exact(layout_, block, query.exact_tables(), sums);
        query.rescore(layout_, block, sums, mask, scores);
        for (; mask != 0; mask &= mask - 1) {
            const auto j = static_cast<std::size_t>(std::countr_zero(mask));
            if (scores[j] < pool.threshold()) continue;
            pool.push(scores[j], rows_.row(b, j));
        }
    }

    const PlaneKernels& kernels_;
    const PlaneLayout& layout_;
    const std::uint8_t* blocks_;
    std::size_t block_bytes_;
    const BlockRows& rows_;
};

}  // namespace

void score_block(const PlaneKernels& kernels, const PlaneLayout& layout, const PlaneQuery& query,
                 const std::uint8_t* block, float* out) {
    std::int64_t sums[kBlockRows];
    kernels.exact(layout, block, query.exact_tables(), sums);
    query.rescore(layout, block, sums, ~0u, out);
}

void plane_topk(const PlaneKernels& kernels, const PlaneLayout& layout, const std::uint8_t* blocks,
                const BlockRows& rows, std::span<const PlaneQuery> queries, TopK* pools) {
    const Scanner scanner(kernels, layout, blocks, rows);
    for (std::size_t i = 0; i < queries.size(); i += kPlaneTile) {
        scanner.scan(0, rows.blocks(), queries.subspan(i, std::min(kPlaneTile, queries.size() - i)), pools + i);
    }
}

}  // namespace residua::codec
