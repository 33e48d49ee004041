// SPDX-License-Identifier: Apache-2.0
// Top-k over plane blocks: the coarse scan drops whole blocks against each query's current k-th
// score, and the blocks that are left are scored in exact integers. A row that belongs to the top-k is
// dropped with a probability below PlaneQuery::kMissProbability (1e-12) under the assumption stated in
// plane_query.hpp, and certainly not where the bound taken was the worst case.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "codec/block_rows.hpp"
#include "codec/block_scan.hpp"
#include "codec/plane_query.hpp"
#include "core/top_k.hpp"
#include "kernel/table.hpp"

namespace residua::codec {

// Whether a call with so many queries is scanned in cells (docs/adr/0005-batches-in-cells.md).
bool scans_cells(const kernel::KernelTable& kernels, const kernel::PlaneLayout& layout, std::size_t n_queries);

// Offers all `rows`, stored in `blocks`, to the pools of the queries.
void plane_topk(const kernel::KernelTable& kernels, const kernel::PlaneLayout& layout, const std::uint8_t* blocks,
                const BlockRows& rows, const ScanQueries<PlaneQuery>& queries);

// Exact scores of the kBlockRows rows of one block.
void score_block(const kernel::PlaneKernels& kernels, const kernel::PlaneLayout& layout, const PlaneQuery& query,
                 const std::uint8_t* block, float* out);

}  // namespace residua::codec
