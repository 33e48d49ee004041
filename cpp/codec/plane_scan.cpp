// SPDX-License-Identifier: Apache-2.0
#include "codec/plane_scan.hpp"

#include <algorithm>
#include <bit>

namespace residua::codec {

using namespace kernel;

namespace {

// Codes that all queries pass over before the next ones are read: they stay in a 512 KiB L2 cache.
constexpr std::size_t kChunkBytes = std::size_t{192} << 10;

class Scanner {
public:
    Scanner(const PlaneKernels& kernels, const PlaneLayout& layout, const std::uint8_t* blocks, std::size_t first_row,
            std::size_t n_rows, const Bitset* allowed)
        : kernels_(kernels),
          layout_(layout),
          blocks_(blocks),
          block_bytes_(layout.block_bytes()),
          first_row_(first_row),
          n_rows_(n_rows),
          allowed_(allowed) {}

    // Blocks [begin, end), for one tile of queries.
    void scan(std::size_t begin, std::size_t end, std::span<const PlaneQuery> tile, TopK* pools) const {
        PlaneScan scans[kPlaneTile];
        for (std::size_t i = 0; i < tile.size(); ++i) scans[i] = tile[i].with_threshold(pools[i].threshold());
        while (begin < end) {
            const std::size_t stop = allowed_ == nullptr ? end : allowed_run(begin, end);
            while (begin < stop) {
                std::uint32_t mask[kPlaneTile] = {};
                begin += kernels_.scan(layout_, blocks_ + begin * block_bytes_, stop - begin, scans, tile.size(), mask);
                if (begin == stop) break;
                const std::uint32_t rows = candidates(begin);
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
            pool.push(scores[j], static_cast<std::uint32_t>(first_row_ + b * kBlockRows + j));
        }
    }

    // Rows of a block that exist and are allowed.
    std::uint32_t candidates(std::size_t b) const {
        const std::size_t row = b * kBlockRows;
        std::uint32_t mask = n_rows_ - row < kBlockRows ? (1u << (n_rows_ - row)) - 1u : ~0u;
        if (allowed_ != nullptr) {
            const std::size_t word = (first_row_ + row) / kBlockRows, shift = (first_row_ + row) % kBlockRows;
            const std::uint64_t bits = allowed_->block32(word) | std::uint64_t{allowed_->block32(word + 1)} << 32;
            mask &= static_cast<std::uint32_t>(bits >> shift);
        }
        return mask;
    }

    // Moves `begin` to the first block with an allowed row and returns the end of the run that it starts.
    std::size_t allowed_run(std::size_t& begin, std::size_t end) const {
        while (begin < end && candidates(begin) == 0) ++begin;
        std::size_t stop = begin;
        while (stop < end && candidates(stop) != 0) ++stop;
        return stop;
    }

    const PlaneKernels& kernels_;
    const PlaneLayout& layout_;
    const std::uint8_t* blocks_;
    std::size_t block_bytes_;
    std::size_t first_row_;
    std::size_t n_rows_;
    const Bitset* allowed_;
};

}  // namespace

void score_block(const PlaneKernels& kernels, const PlaneLayout& layout, const PlaneQuery& query,
                 const std::uint8_t* block, float* out) {
    std::int64_t sums[kBlockRows];
    kernels.exact(layout, block, query.exact_tables(), sums);
    query.rescore(layout, block, sums, ~0u, out);
}

void plane_topk(const PlaneKernels& kernels, const PlaneLayout& layout, const std::uint8_t* blocks,
                std::size_t first_row, std::size_t n_rows, const Bitset* allowed, std::span<const PlaneQuery> queries,
                TopK* pools) {
    const Scanner scanner(kernels, layout, blocks, first_row, n_rows, allowed);
    const std::size_t n_blocks = (n_rows + kBlockRows - 1) / kBlockRows;
    // One tile never returns to a chunk, so it takes all blocks in one go.
    const std::size_t chunk =
        queries.size() <= kPlaneTile ? n_blocks : std::max<std::size_t>(1, kChunkBytes / layout.block_bytes());
    for (std::size_t begin = 0; begin < n_blocks; begin += chunk) {
        const std::size_t end = std::min(n_blocks, begin + chunk);
        for (std::size_t i = 0; i < queries.size(); i += kPlaneTile) {
            scanner.scan(begin, end, queries.subspan(i, std::min(kPlaneTile, queries.size() - i)), pools + i);
        }
    }
}

}  // namespace residua::codec
