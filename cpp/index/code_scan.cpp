// SPDX-License-Identifier: Apache-2.0
#include "index/code_scan.hpp"

#include <algorithm>
#include <cstring>

#include "core/parallel.hpp"
#include "index/row_codes.hpp"

namespace residua::index {

using codec::kBlockRows;

std::vector<TopK> scan_blocks(const codec::Scorer& scorer, codec::BlockView view, std::size_t block_bytes, std::size_t keep,
                              const Bitset* allowed, const TieOrder* order, int num_threads) {
    const std::size_t nq = scorer.size(), n = view.n;
    std::vector<TopK> pools(nq, TopK(keep, order));
    if (nq == 0 || n == 0 || keep == 0) return pools;

    // Rows in pieces that stay in the second-level cache while the queries pass over them.
    constexpr std::size_t kPieceBytes = 256 * 1024;
    const std::size_t piece = std::max<std::size_t>(1, kPieceBytes / block_bytes) * kBlockRows;
    // Threads share the rows: what a scorer does once per piece is then done once for all queries. Several
    // parts per thread, so that a slow one does not keep the others waiting; but a small part costs more
    // than it saves, and every part ends within a second, for interrupts.
    constexpr std::size_t kMaxQueries = 1024, kMinBytes = 1024 * 1024, kMaxPairs = std::size_t{1} << 28;
    const std::size_t blocks = RowCodes::blocks(n);
    if (num_threads > 1 && blocks * block_bytes < kMinBytes) {
        parallel_for(nq, 64, num_threads, [&](std::size_t begin, std::size_t end, int) {
            scorer.top_k(view, 0, n, allowed, begin, end, pools.data() + begin);
        });
        return pools;
    }
    const std::size_t threads = std::min<std::size_t>(static_cast<std::size_t>(num_threads),
                                                      std::max<std::size_t>(1, blocks * block_bytes / kMinBytes));
    const std::size_t parts = threads == 1 ? 1 : 4 * threads;
    const std::size_t part_rows = std::min(RowCodes::blocks((n + parts - 1) / parts),
                                           kMaxPairs / kMaxQueries / kBlockRows) * kBlockRows;
    for (std::size_t q = 0; q < nq; q += kMaxQueries) {
        const std::size_t q_end = std::min(nq, q + kMaxQueries);
        TopK* const out = pools.data() + q;
        std::vector<std::vector<TopK>> others(threads - 1, std::vector<TopK>(out, out + (q_end - q)));
        parallel_for(n, part_rows, static_cast<int>(threads), [&](std::size_t begin, std::size_t end, int worker) {
            TopK* const own = worker == 0 ? out : others[static_cast<std::size_t>(worker) - 1].data();
            for (std::size_t r = begin; r < end; r += piece) {
                scorer.top_k(view, r, std::min(end, r + piece), allowed, q, q_end, own);
            }
        });
        for (const auto& other : others) {
            for (std::size_t i = 0; i < other.size(); ++i) out[i].merge(other[i]);
        }
    }
    return pools;
}

GatheredRows::GatheredRows(const store::RowSource& from, std::span<const std::uint32_t> rows, int num_threads) {
    const std::size_t bytes = from.dim * store::row_type_bytes(from.type);
    bytes_.resize(rows.size() * bytes);
    parallel_for(rows.size(), 256, num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; ++i) std::memcpy(bytes_.data() + i * bytes, from.row(rows[i]), bytes);
    });
    source = from;
    source.data = bytes_.data();
    source.stride_bytes = bytes;
    source.n = rows.size();
    source.allowed = nullptr;
    const auto take = [&](const float*& scalars, std::vector<float>& own) {
        if (scalars == nullptr) return;
        own.reserve(rows.size());
        for (const std::uint32_t r : rows) own.push_back(scalars[r]);
        scalars = own.data();
    };
    take(source.row_scale, scales_);
    take(source.inv_norm, norms_);
}

}  // namespace residua::index
