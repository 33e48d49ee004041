// SPDX-License-Identifier: Apache-2.0
#include "codec/plane_scan.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "codec/block_scan.hpp"
#include "core/aligned.hpp"
#include "core/half.hpp"

namespace residua::codec {

using namespace kernel;

namespace {

template <class T>
T value_at(const std::uint8_t* p, std::size_t i) {
    T value;
    std::memcpy(&value, p + i * sizeof value, sizeof value);
    return value;
}

struct PlaneFamily {
    using Query = PlaneQuery;
    using Scan = PlaneScan;
    static constexpr std::size_t kTile = kPlaneTile;
    std::size_t tile() const { return kPlaneTile; }

    const PlaneKernels& kernels;
    const PlaneLayout& layout;

    std::size_t block_bytes() const { return layout.block_bytes(); }
    PlaneScan bound(const PlaneQuery& query, float threshold) const { return query.with_threshold(threshold); }
    std::size_t scan(const std::uint8_t* blocks, std::size_t n, const PlaneScan* scans, std::size_t nq,
                     std::uint32_t* mask) const {
        return kernels.scan(layout, blocks, n, scans, nq, mask);
    }
    void scores(const std::uint8_t* block, const PlaneQuery& query, std::uint32_t rows, float* out) const {
        std::int64_t sums[kBlockRows];
        kernels.exact(layout, block, query.exact_tables(), sums);
        for (; rows != 0; rows &= rows - 1) {
            const auto r = static_cast<std::size_t>(std::countr_zero(rows));
            out[r] = query.score(2 * sums[r] - query.table_offset(), value_at<float>(block + layout.add_offset(), r),
                                 float_from_half(value_at<std::uint16_t>(block + layout.scale_offset(), r)));
        }
    }
};

// Blocks whose values are spread out to a byte per dim.
struct CellFamily {
    using Query = PlaneQuery;
    using Scan = ByteScan;
    static constexpr std::size_t kTile = kByteTile;
    std::size_t tile() const { return kernels.tile; }

    const ByteKernels& kernels;
    ByteLayout layout;

    std::size_t block_bytes() const { return layout.block_bytes(); }
    ByteScan bound(const PlaneQuery& query, float threshold) const { return query.cells_with_threshold(threshold); }
    std::size_t scan(const std::uint8_t* blocks, std::size_t n, const ByteScan* scans, std::size_t nq,
                     std::uint32_t* mask) const {
        return kernels.scan(layout, blocks, n, scans, nq, mask);
    }
    void scores(const std::uint8_t* block, const PlaneQuery& query, std::uint32_t rows, float* out) const {
        std::int64_t sums[kBlockRows];
        kernels.exact(layout, block, query.weights().data(), rows, sums);
        for (; rows != 0; rows &= rows - 1) {
            const auto r = static_cast<std::size_t>(std::countr_zero(rows));
            out[r] = query.score(2 * sums[r] - query.sum_offset(), value_at<float>(block + layout.add_offset(), r),
                                 value_at<float>(block + layout.scale_offset(), r));
        }
    }
};

void expand_block(const PlaneKernels& kernels, const PlaneLayout& layout, const std::uint8_t* block,
                  const ByteLayout& cells, std::uint8_t* out) {
    kernels.expand(layout, block, out);
    std::memcpy(out + cells.add_offset(), block + layout.add_offset(), kBlockRows * sizeof(float));
    for (std::size_t r = 0; r < kBlockRows; ++r) {
        const float scale = float_from_half(value_at<std::uint16_t>(block + layout.scale_offset(), r));
        std::memcpy(out + cells.scale_offset() + r * sizeof scale, &scale, sizeof scale);
    }
}

// Many queries: blocks are spread out once, a cache-sized chunk at a time, and scanned by integer
// products, which cost the same at any width of code and bound a score more tightly than tables do.
void cells_topk(const KernelTable& kernels, const PlaneLayout& layout, const std::uint8_t* blocks,
                const BlockRows& rows, const ScanQueries<PlaneQuery>& queries) {
    constexpr std::size_t kChunkBytes = std::size_t{192} << 10;
    const CellFamily family{kernels.bytes, {layout.groups[0] * kGroupStrips, 8}};
    const std::size_t block_bytes = family.block_bytes();
    const std::size_t chunk = std::max<std::size_t>(1, kChunkBytes / block_bytes);
    // Kept by the thread: a fresh one for every chunk of an index would cost page faults.
    thread_local AlignedVector<std::uint8_t> cells;
    cells.resize(std::max(cells.size(), chunk * block_bytes));
    for (std::size_t begin = 0; begin < rows.blocks(); begin += chunk) {
        const BlockRows part = rows.slice(begin, std::min(rows.blocks(), begin + chunk));
        for (std::size_t b = 0; b < part.blocks(); ++b) {
            if (part.mask(b) == 0) continue;
            expand_block(kernels.planes, layout, blocks + (begin + b) * layout.block_bytes(), family.layout,
                         cells.data() + b * block_bytes);
        }
        block_topk(family, cells.data(), part, queries);
    }
}

}  // namespace

void score_block(const PlaneKernels& kernels, const PlaneLayout& layout, const PlaneQuery& query,
                 const std::uint8_t* block, float* out) {
    PlaneFamily{kernels, layout}.scores(block, query, ~0u, out);
}

bool scans_cells(const KernelTable& kernels, const PlaneLayout& layout, std::size_t n_queries) {
    constexpr std::size_t kCellQueries = 16;
    const float planes = static_cast<float>(layout.total_groups()) / static_cast<float>(layout.groups[0]);
    return n_queries >= kCellQueries && planes >= kernels.planes.cells_from;
}

void plane_topk(const KernelTable& kernels, const PlaneLayout& layout, const std::uint8_t* blocks,
                const BlockRows& rows, const ScanQueries<PlaneQuery>& queries) {
    if (scans_cells(kernels, layout, queries.size()) && queries.all[queries.number(0)].for_cells()) {
        cells_topk(kernels, layout, blocks, rows, queries);
    } else {
        block_topk(PlaneFamily{kernels.planes, layout}, blocks, rows, queries);
    }
}

}  // namespace residua::codec
