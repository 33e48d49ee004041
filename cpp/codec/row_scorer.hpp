// SPDX-License-Identifier: Apache-2.0
// Scores of single rows, wherever they lie: what a walk over a graph asks for, hop by hop. Codes stand in
// the codec's row form (Codec::to_rows), row_bytes() each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/aligned.hpp"
#include "kernel/row_kernels.hpp"

namespace residua::codec {

class Codec;
class Scorer;

// A batch of queries, prepared once. Thread-safe to share. Larger is better.
class RowScorer {
public:
    virtual ~RowScorer() = default;
    // out[i] = the score of the row at codes + rows[i] * row_bytes().
    virtual void score(const std::uint8_t* codes, const std::uint32_t* rows, std::size_t n, std::size_t query,
                       float* out) const = 0;
    // Asks for what score() of these rows will read.
    virtual void prefetch(const std::uint8_t*, const std::uint32_t*, std::size_t) const {}
};

// Any codec: rows are gathered into blocks, whose scores are those of a scan bit for bit.
std::unique_ptr<RowScorer> gathering_scorer(const Codec& codec, std::unique_ptr<Scorer> scorer);

// Where a row form keeps what; the fields come first (kernel/row_kernels.hpp).
struct FieldForm {
    kernel::FieldLayout fields;
    std::size_t add_at = 0;     // float32
    std::size_t scale_at = 0;   // float32, or float16
    bool half_scale = false;
    std::size_t row_bytes = 0;
};

// A query as integer weights. With S the sum of weight * level,
//     score = scale * (unit * S + offset) + add + constant.
struct FieldQuery {
    AlignedVector<std::int8_t> weights;
    float unit = 0.0f;
    float offset = 0.0f;
    float constant = 0.0f;
};

// weights[i], of a level between 0 and tops[i], goes to all places[i]; the value of a level u is
// u - tops[i] / 2. Rounding to the kernels' int8 costs at most half a percent of the largest weight: an
// estimate to walk by.
FieldQuery make_field_query(const FieldForm& form, std::span<const float> weights, std::span<const float> tops,
                            std::span<const std::vector<std::uint32_t>> places, float constant);

std::unique_ptr<RowScorer> field_scorer(const FieldForm& form, std::vector<FieldQuery> queries);

}  // namespace residua::codec
