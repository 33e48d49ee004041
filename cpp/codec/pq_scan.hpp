// SPDX-License-Identifier: Apache-2.0
// Top-k over blocks of PQ codes: the look-up scan drops rows by a bound that always holds, and the rows that are
// left are scored in float32, so the scan costs no recall: by their codewords where codes have 8 bits, by the sum of
// the query's entries where they have 4.
#pragma once

#include <vector>

#include "codec/block_scan.hpp"
#include "codec/codec.hpp"
#include "codec/lookup_query.hpp"

namespace residua::codec {

class PqCodec;

struct PqQuery {
    LookupTables tables;
    // 8 bits: the query, turned. 4 bits: the entries before rounding, 16 per strip of a block, which take no more
    // room than it, and what all scores have beside them.
    std::vector<float> values;
    float shared = 0;
};

// The codec outlives the scorer.
class PqScorer final : public Scorer {
public:
    PqScorer(const PqCodec& codec, std::vector<PqQuery> queries) : codec_(codec), queries_(std::move(queries)) {}

    std::size_t size() const override { return queries_.size(); }
    void top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
               std::size_t q_begin, std::size_t q_end, TopK* pools) const override;
    void top_k_of(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
                  std::span<const std::uint32_t> queries, TopK* pools) const override;
    void scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                float* out) const override;
    void scores_of(BlockView codes, std::span<const std::uint32_t> rows, std::size_t query,
                   float* out) const override;
    std::optional<LookupForm> lookup_query(std::size_t query) const override;

private:
    void offer(BlockView codes, std::size_t row_begin, const BlockRows& rows,
               const ScanQueries<PqQuery>& queries) const;

    const PqCodec& codec_;
    std::vector<PqQuery> queries_;
};

}  // namespace residua::codec
