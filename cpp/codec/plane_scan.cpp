// SPDX-License-Identifier: Apache-2.0
#include "codec/plane_scan.hpp"

#include "codec/block_scan.hpp"

namespace residua::codec {

using namespace kernel;

namespace {

struct PlaneFamily {
    using Query = PlaneQuery;
    using Scan = PlaneScan;
    static constexpr std::size_t kTile = kPlaneTile;

    const PlaneKernels& kernels;
    const PlaneLayout& layout;

    std::size_t block_bytes() const { return layout.block_bytes(); }
    std::size_t scan(const std::uint8_t* blocks, std::size_t n, const PlaneScan* scans, std::size_t nq,
                     std::uint32_t* mask) const {
        return kernels.scan(layout, blocks, n, scans, nq, mask);
    }
    void scores(const std::uint8_t* block, const PlaneQuery& query, std::uint32_t rows, float* out) const {
        std::int64_t sums[kBlockRows];
        kernels.exact(layout, block, query.exact_tables(), sums);
        query.rescore(layout, block, sums, rows, out);
    }
};

}  // namespace

void score_block(const PlaneKernels& kernels, const PlaneLayout& layout, const PlaneQuery& query,
                 const std::uint8_t* block, float* out) {
    PlaneFamily{kernels, layout}.scores(block, query, ~0u, out);
}

void plane_topk(const PlaneKernels& kernels, const PlaneLayout& layout, const std::uint8_t* blocks,
                const BlockRows& rows, std::span<const PlaneQuery> queries, TopK* pools) {
    block_topk(PlaneFamily{kernels, layout}, blocks, rows, queries, pools);
}

}  // namespace residua::codec
