// SPDX-License-Identifier: Apache-2.0
// A query prepared for the plane kernels (kernel/plane_kernels.hpp): integer weights, exact and
// coarse tables, and the bound by which the coarse scan drops rows.
//
// Score. The value of a dim with b bits and code u is u - (2^b - 1) / 2, so that with weights
// unit * Q the estimate of a row is
//     add + scale * ((unit / 2) * N),   N = 2 S - sum of Q (2^b - 1),   S = sum of Q u.
// N is an exact integer: nothing cancels in floating point.
//
// Bound. A coarse table misses its strip's true subset sum by an error e, and after plane t the bits
// of the planes below are unknown. If the bits of a row are taken as independent and fair, the missing
// part is a sum of independent terms of known mean: 2^p e for each strip of each plane p >= t, and
// +-2^p Q / 2 for each unseen bit of a plane p < t. The latter are symmetric two-point variables,
// whose moment generating function is below the Gaussian one of the same variance; for the former
// Bernstein's condition holds with M = max 2^p |e - mean|. With V the sum of all variances,
//     P(missing part > mean + s) <= exp(-s^2 / (2 (V + M s / 3))),
// and s is taken so that this is kMissProbability, but never above the worst case, which is certain.
// Real bits are neither fair nor independent. Codes of centred, rotated data come close; where they
// deviate it is mostly on the safe side, because a row far in the tail in its coarse planes has, on
// average, finer bits that pull it back. bench/kernels counts violations on real embeddings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/aligned.hpp"
#include "kernel/plane_kernels.hpp"

namespace residua::codec {

// Bits per group of 32 dims, each 0 … kMaxPlanes and not increasing; groups without bits are left out.
kernel::PlaneLayout plane_layout(std::span<const std::uint8_t> bits);

class PlaneQuery {
public:
    static constexpr double kMissProbability = 1e-12;  // per row

    // weights: one per dim of the groups that have bits, already multiplied by the dim's step; dims
    // past weights.size() count as zero.
    // constant: added to every score, so that pools compare and keep finished scores.
    PlaneQuery(const kernel::PlaneLayout& layout, std::span<const float> weights, float constant = 0.0f);
    PlaneQuery() = default;

    // What the scan needs to drop rows whose estimate is below the threshold.
    kernel::PlaneScan with_threshold(float threshold) const;

    // Estimates out[r] of the given rows of a block (bit r set) from the output of the exact kernel.
    void rescore(const kernel::PlaneLayout& layout, const std::uint8_t* block, const std::int64_t* exact,
                 std::uint32_t rows, float* out) const;

    const std::uint8_t* exact_tables() const { return exact_.data(); }
    float unit() const { return unit_; }                          // weight of a dim = unit * Q
    std::span<const std::int16_t> weights() const { return q_; }  // Q
    std::int64_t offset() const { return offset_; }               // N = 2 * (exact kernel's sum) - offset

private:
    struct Strips;  // sums over strips that the bound needs

    void quantize(std::span<const float> weights);
    void fill_tables(const kernel::PlaneLayout& layout, Strips& strips);
    void set_bounds(const kernel::PlaneLayout& layout, const Strips& strips);
    void choose_checks(const kernel::PlaneLayout& layout, const double* slack, double deviation);

    AlignedVector<std::uint8_t> coarse_;
    AlignedVector<std::uint8_t> exact_;
    AlignedVector<std::int16_t> q_;
    float unit_ = 0.0f;
    float constant_ = 0.0f;
    std::int64_t offset_ = 0;
    kernel::PlaneScan scan_{};
};

}  // namespace residua::codec
