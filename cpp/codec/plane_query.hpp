// SPDX-License-Identifier: Apache-2.0
// A query prepared for the plane kernels (kernel/plane_kernels.hpp): integer weights, exact and
// coarse tables, and the bound by which the coarse scan drops rows.
//
// Score. The value of a dim with b bits and code u is u - (2^b - 1) / 2, so that with weights
// unit * Q the estimate of a row is
//     add + scale * ((unit / 2) * N + offset),   N = 2 S - sum of Q (2^b - 1),   S = sum of Q u.
// N is an exact integer: nothing cancels in floating point. The offset is 0 unless the query sets one.
//
// Bound. A coarse table misses its strip's true subset sum by an error e, and after plane t the bits
// of the planes below are unknown. If the bits of a row are taken as independent and fair, the missing
// part is a sum of independent terms of known mean: 2^p e for each strip of each plane p >= t, and
// +-2^p Q / 2 for each unseen bit of a plane p < t. The latter are symmetric two-point variables,
// whose moment generating function is below the Gaussian one of the same variance; for the former
// Bernstein's condition holds with M = max 2^p |e - mean|. With V the sum of all variances,
//     P(missing part > mean + s) <= exp(-s^2 / (2 (V + M s / 3))),
// and s is taken so that this is kMissProbability, but never above the worst case, which is certain.
// The scan of cells (codec/plane_scan.cpp) takes weights C in steps of `step`, which miss Q by e; the
// missing part is the sum of e (u - (2^b - 1) / 2), of two-point variables again, and is bounded likewise.
// Real bits are neither fair nor independent. Codes of centred, rotated data come close; where they
// deviate it is mostly on the safe side, because a row far in the tail in its coarse planes has, on
// average, finer bits that pull it back. bench/kernels counts violations on real embeddings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "codec/linear_form.hpp"
#include "core/aligned.hpp"
#include "kernel/byte_kernels.hpp"
#include "kernel/plane_kernels.hpp"

namespace residua::codec {

// Bits per group of 32 dims, each 0 … kMaxPlanes and not increasing; groups without bits are left out.
kernel::PlaneLayout plane_layout(std::span<const std::uint8_t> bits);

// Of the integer weights, sign included. Seven bits are for queries that are codes themselves, which
// hold no more, and make the scan of cells exact.
enum class WeightBits : std::uint8_t { twelve, seven };

class PlaneQuery {
public:
    static constexpr double kMissProbability = 1e-12;  // per row

    // weights: one per dim of the groups that have bits, already multiplied by the dim's step; dims
    // past weights.size() count as zero.
    // constant: added to every score, so that pools compare and keep finished scores.
    // for_cells: whether a scan of cells may follow.
    PlaneQuery(const kernel::PlaneLayout& layout, std::span<const float> weights, float constant = 0.0f,
               WeightBits weight_bits = WeightBits::twelve, bool for_cells = true);
    PlaneQuery() = default;

    // Adds a constant to what a row's scale multiplies.
    void set_offset(float offset);

    // What the scan needs to drop rows whose estimate is below the threshold.
    kernel::PlaneScan with_threshold(float threshold) const;

    // The same for the scan of cells, of a query that was prepared for it.
    bool for_cells() const { return !cells_.empty(); }
    kernel::ByteScan cells_with_threshold(float threshold) const;

    // The estimate of a row from N.
    float score(std::int64_t n, float add, float scale) const {
        return scale * (0.5f * unit_ * static_cast<float>(n) + offset_) + add + constant_;
    }

    // The terms of score(), for devices that add up by themselves.
    LinearQuery linear() const;

    const std::uint8_t* exact_tables() const { return exact_.data(); }
    float unit() const { return unit_; }                          // weight of a dim = unit * Q
    std::span<const std::int16_t> weights() const { return q_; }  // Q
    std::int64_t table_offset() const { return table_offset_; }   // N = 2 * (exact plane kernel's sum) - this
    std::int64_t sum_offset() const { return sum_offset_; }       // N = 2 * S - this

private:
    struct Strips;  // sums over strips that the bound needs

    void quantize(std::span<const float> weights, WeightBits weight_bits);
    void fill_tables(const kernel::PlaneLayout& layout, Strips& strips);
    void sum_strips(const kernel::PlaneLayout& layout, std::span<const kernel::StripTable> tables, Strips& strips);
    void set_bounds(const kernel::PlaneLayout& layout, const Strips& strips);
    void set_cells(const kernel::PlaneLayout& layout);
    float lowered(float threshold) const;
    void choose_checks(const kernel::PlaneLayout& layout, const double* slack, double deviation);

    AlignedVector<std::uint8_t> coarse_;
    AlignedVector<std::uint8_t> exact_;
    AlignedVector<std::int16_t> q_;
    AlignedVector<std::int8_t> cells_;  // coarse weights of the scan of cells
    float unit_ = 0.0f;
    float constant_ = 0.0f;
    float offset_ = 0.0f;
    std::int64_t table_offset_ = 0;
    std::int64_t sum_offset_ = 0;
    kernel::PlaneScan scan_{};
    kernel::ByteScan cell_scan_{};
};

}  // namespace residua::codec
