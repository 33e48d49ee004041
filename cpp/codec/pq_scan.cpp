// SPDX-License-Identifier: Apache-2.0
#include "codec/pq_scan.hpp"

#include <algorithm>
#include <bit>

#include "codec/block_scan.hpp"
#include "codec/pq_codec.hpp"
#include "kernel/dispatch.hpp"

namespace residua::codec {
namespace {

// The sum of the entries of one row of a block of strips, which are even in number, in one fixed order.
float sum_entries(const PqQuery& query, const std::uint8_t* block, std::size_t row) {
    const std::uint8_t* strip = block + row % kernel::kStripBytes;
    const int shift = row < kernel::kStripBytes ? 0 : 4;
    const float* entries = query.values.data();
    const std::size_t strips = query.values.size() / 16;
    const auto entry = [&](std::size_t s) {
        return entries[s * 16 + (strip[s * kernel::kStripBytes] >> shift & 15u)];
    };
    float a = 0, b = 0, c = 0, d = 0;  // chains that do not wait for each other
    std::size_t s = 0;
    for (; s + 4 <= strips; s += 4) {
        a += entry(s);
        b += entry(s + 1);
        c += entry(s + 2);
        d += entry(s + 3);
    }
    if (s < strips) {
        a += entry(s);
        b += entry(s + 1);
    }
    return (a + b) + (c + d) + query.shared;
}

// Scores of the rows of one block whose bit is set; `buffers` has room for a code and a row.
struct Buffers {
    explicit Buffers(const PqCodec& codec) : code(codec.code_bytes()), row(codec.dims()) {}
    std::vector<std::uint8_t> code;
    std::vector<float> row;
};

void score_rows_of_block(const PqCodec& codec, const PqQuery& query, const std::uint8_t* block, std::uint32_t rows,
                         Buffers& buffers, float* out) {
    for (; rows != 0; rows &= rows - 1) {
        const auto r = static_cast<std::size_t>(std::countr_zero(rows));
        if (codec.layout().bits == 4) {
            out[r] = sum_entries(query, block, r);
            continue;
        }
        codec.unpack_row(block, r, buffers.code.data());
        codec.gather(buffers.code.data(), buffers.row.data());
        out[r] = codec.score(query.values.data(), buffers.row.data());
    }
}

struct LookupFamily {
    using Query = PqQuery;
    using Scan = kernel::LookupScan;
    static constexpr std::size_t kTile = kernel::kLookupTile;
    std::size_t tile() const { return kTile; }

    const PqCodec& codec;
    const kernel::LookupKernels& kernels;
    Buffers& buffers;

    std::size_t block_bytes() const { return codec.block_bytes(); }
    Scan bound(const PqQuery& query, float threshold) const { return query.tables.with_threshold(threshold); }
    std::size_t scan(const std::uint8_t* blocks, std::size_t n, const Scan* scans, std::size_t nq,
                     std::uint32_t* mask) const {
        const auto kernel = codec.layout().bits == 4 ? kernels.scan_nibbles : kernels.scan_bytes;
        return kernel(blocks, n, codec.code_bytes(), scans, nq, mask);
    }
    void scores(const std::uint8_t* block, const PqQuery& query, std::uint32_t rows, float* out) const {
        score_rows_of_block(codec, query, block, rows, buffers, out);
    }
};

}  // namespace

void PqScorer::top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
                     std::size_t q_begin, std::size_t q_end, TopK* pools) const {
    offer(codes, row_begin, {row_begin, row_end - row_begin, allowed},
          {std::span(queries_).subspan(q_begin, q_end - q_begin), pools});
}

void PqScorer::top_k_of(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
                        std::span<const std::uint32_t> queries, TopK* pools) const {
    offer(codes, row_begin, {row_begin, row_end - row_begin, allowed}, {queries_, pools, queries, true});
}

void PqScorer::offer(BlockView codes, std::size_t row_begin, const BlockRows& rows,
                     const ScanQueries<PqQuery>& queries) const {
    Buffers buffers(codec_);
    const LookupFamily family{codec_, kernel::active().lookups, buffers};
    block_topk(family, codes.data + row_begin / kBlockRows * codec_.block_bytes(), rows, queries);
}

void PqScorer::scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                      float* out) const {
    Buffers buffers(codec_);
    float block[kBlockRows];
    for (std::size_t r = row_begin; r < row_end; r += kBlockRows) {
        const std::size_t n = std::min(kBlockRows, row_end - r);
        const std::uint32_t rows = n < kBlockRows ? (1u << n) - 1u : ~0u;
        score_rows_of_block(codec_, queries_[query], codes.data + r / kBlockRows * codec_.block_bytes(), rows, buffers,
                            block);
        std::copy_n(block, n, out + (r - row_begin));
    }
}

void PqScorer::scores_of(BlockView codes, std::span<const std::uint32_t> rows, std::size_t query, float* out) const {
    Buffers buffers(codec_);
    float block[kBlockRows];
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::size_t j = rows[i] % kBlockRows;
        score_rows_of_block(codec_, queries_[query], codes.data + rows[i] / kBlockRows * codec_.block_bytes(),
                            1u << j, buffers, block);
        out[i] = block[j];
    }
}

std::optional<LookupForm> PqScorer::lookup_query(std::size_t query) const {
    const PqQuery& q = queries_[query];
    if (codec_.layout().bits == 4) return LookupForm{q.values, q.shared};
    return codec_.score_entries(q.values.data());
}

}  // namespace residua::codec
