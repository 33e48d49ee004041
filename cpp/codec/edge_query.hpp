// SPDX-License-Identifier: Apache-2.0
// A query prepared for the edge kernels (kernel/edge_kernels.hpp): one table per strip, rounded to bytes,
// without the exact tables and bounds that a scan needs (codec/plane_query.hpp).
//
// The value of a dim with b bits and code u is u - (2^b - 1) / 2. Half a step of rounding per strip is small
// beside the error of codes of few bits, and walks settle what they find on vectors.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "codec/codec.hpp"
#include "core/aligned.hpp"
#include "kernel/edge_kernels.hpp"

namespace residua::codec {

class EdgeQuery {
public:
    EdgeQuery() = default;
    // weights: one per dim of the groups that have bits, multiplied by the dim's step; dims past the end
    // count as zero. constant: what the finished score has besides.
    EdgeQuery(const kernel::PlaneLayout& layout, std::span<const float> weights, float constant);

    kernel::EdgeScan scan() const { return {tables_.data(), unit_, offset_, constant_}; }

private:
    AlignedVector<std::uint8_t> tables_;
    float unit_ = 0.0f;
    float offset_ = 0.0f;
    float constant_ = 0.0f;
};

std::unique_ptr<EdgeScorer> edge_scorer(const kernel::PlaneLayout& layout, std::vector<EdgeQuery> queries);

}  // namespace residua::codec
