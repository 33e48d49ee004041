// SPDX-License-Identifier: Apache-2.0
// A query prepared for the byte kernels (kernel/byte_kernels.hpp), and the top-k over their blocks.
//
// Score. The value of a dim with code u is u - top / 2, so that with fine weights unit * Q the score of a
// row is
//     add + scale * ((unit / 2) * N),   N = 2 S - top * (sum of Q),   S = sum of Q u.
// N is an exact integer: nothing cancels in floating point, and scores agree on all instruction sets.
//
// Bound. The coarse weights C in steps of `coarse_unit` miss the fine ones by e = unit * Q - coarse_unit * C,
// and a value lies within top / 2 of zero, so with no assumption about the codes
//     score <= add + scale * (coarse_unit * (sum of C u) - coarse_unit * (top / 2) * (sum of C)
//                             + (top / 2) * (sum of |e|)).
// No row that belongs to the top-k is dropped. Weights above the coarse range saturate; the step is the
// one of several that keeps the sum of |e| smallest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "codec/block_rows.hpp"
#include "codec/block_scan.hpp"
#include "codec/linear_form.hpp"
#include "core/aligned.hpp"
#include "core/top_k.hpp"
#include "kernel/byte_kernels.hpp"
#include "kernel/plane_kernels.hpp"

namespace residua::codec {

class ByteQuery {
public:
    // weights: one per dim, already multiplied by the dim's step; filled-up dims count as zero.
    // constant: added to every score, so that pools compare and keep finished scores.
    // precise: what the fine weights miss is scored too, so that scores are as exact as float32 can say.
    ByteQuery(const kernel::ByteLayout& layout, std::span<const float> weights, float constant = 0.0f,
              bool precise = false);
    ByteQuery() = default;

    // What the scan needs to drop rows whose score is below the threshold.
    kernel::ByteScan with_threshold(float threshold) const;

    // Scores out[r] of the given rows of a block (bit r set).
    void scores(const kernel::ByteKernels& kernels, const kernel::ByteLayout& layout, const std::uint8_t* block,
                std::uint32_t rows, float* out) const;

    // The terms of scores(), for devices that add up by themselves; weights of `dims` dims.
    LinearQuery linear(const kernel::ByteLayout& layout, std::size_t dims) const;

    std::span<const std::int16_t> fine() const { return fine_; }
    std::span<const std::int8_t> coarse() const { return coarse_; }
    float unit() const { return unit_; }

private:
    void set_fine(const kernel::ByteLayout& layout, std::span<const float> weights);
    void set_rest(const kernel::ByteLayout& layout, std::span<const float> weights);
    void set_coarse(const kernel::ByteLayout& layout);

    AlignedVector<std::int16_t> fine_;   // in the order of the kernels
    AlignedVector<std::int16_t> rest_;   // likewise, in steps of rest_unit_; empty unless precise
    AlignedVector<std::int8_t> coarse_;  // likewise
    float unit_ = 0.0f;
    float constant_ = 0.0f;
    std::int64_t offset_ = 0;  // top * (sum of Q)
    double rest_unit_ = 0;
    double rest_sum_ = 0;      // of |weight - unit * Q|
    std::int64_t rest_offset_ = 0;
    kernel::ByteScan scan_{};
};

// Dims of the bit planes that levels of a layout go into (codec/linear_form.hpp): whole groups.
inline std::size_t plane_dims(const kernel::ByteLayout& layout) {
    return (layout.dims() + kernel::kGroupDims - 1) / kernel::kGroupDims * kernel::kGroupDims;
}

// Offers all `rows`, stored in `blocks`, to the pools of the queries.
void byte_topk(const kernel::ByteKernels& kernels, const kernel::ByteLayout& layout, const std::uint8_t* blocks,
               const BlockRows& rows, const ScanQueries<ByteQuery>& queries);

}  // namespace residua::codec
