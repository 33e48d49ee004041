// SPDX-License-Identifier: Apache-2.0
// Top-k over blocks of PQ codes: the look-up scan drops rows by a bound that always holds, and the rows that are
// left are scored between the query and their codewords in float32, so the scan costs no recall.
#pragma once

#include <vector>

#include "codec/codec.hpp"
#include "codec/lookup_query.hpp"

namespace residua::codec {

class PqCodec;

struct PqQuery {
    LookupTables tables;
    std::vector<float> y;  // the query, turned
};

// The codec outlives the scorer.
class PqScorer final : public Scorer {
public:
    PqScorer(const PqCodec& codec, std::vector<PqQuery> queries) : codec_(codec), queries_(std::move(queries)) {}

    std::size_t size() const override { return queries_.size(); }
    void top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
               std::size_t q_begin, std::size_t q_end, TopK* pools) const override;
    void scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                float* out) const override;
    void scores_of(BlockView codes, std::span<const std::uint32_t> rows, std::size_t query,
                   float* out) const override;

private:
    const PqCodec& codec_;
    std::vector<PqQuery> queries_;
};

}  // namespace residua::codec
