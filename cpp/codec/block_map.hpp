// SPDX-License-Identifier: Apache-2.0
// A linear map whose rows come in groups of 32, each of which reads one block of consecutive dims. Block b begins
// at dim b * block_dims; a rest of fewer than 32 dims belongs to the block before it. One block of all dims makes
// a dense matrix. The map is kept once, packed for the product; its transpose is packed on the way.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/aligned.hpp"
#include "core/matrix.hpp"
#include "kernel/plane_kernels.hpp"

namespace residua::codec {

class BlockMap {
public:
    static constexpr std::size_t kGroup = kernel::kGroupDims;

    BlockMap() = default;
    // values: group by group, 32 rows as long as the group's block. block[g] is the block that group g reads;
    // empty stands for block 0 throughout. Throws ErrorKind::value when counts do not fit together.
    BlockMap(std::span<const float> values, std::size_t dim, std::size_t block_dims,
             std::span<const std::uint16_t> block, std::size_t groups);

    std::size_t rows() const { return offset_.size() * kGroup; }
    std::size_t dim() const { return dim_; }
    std::size_t value_count() const { return panels_.size(); }
    std::size_t memory_bytes() const { return panels_.size() * sizeof(float) + order_.size() * 16; }
    bool empty() const { return panels_.empty(); }
    bool is_finite() const;

    // y[i] = M x_i; y is x.rows x rows(). A row's result does not depend on the rows beside it.
    void multiply(ConstMatrix x, MutMatrix y) const;
    // x[i] = M^T y_i; x is y.rows x dim().
    void multiply_transposed(ConstMatrix y, MutMatrix x) const;

    // The values as the constructor took them.
    std::vector<float> values() const;

    // The dims that a group reads.
    std::size_t block_begin(std::size_t group) const { return block_[group] * block_dims_; }
    std::size_t block_width(std::size_t group) const;

private:
    void spread(ConstMatrix y, std::span<const std::uint32_t> groups, MutMatrix x) const;

    std::size_t dim_ = 0;
    std::size_t block_dims_ = 0;
    std::size_t blocks_ = 0;
    std::vector<std::uint16_t> block_;   // per group
    std::vector<std::size_t> offset_;    // per group, into panels_
    std::vector<std::uint32_t> order_;   // groups by block, so that a block's dims stay in the cache
    AlignedVector<float> panels_;        // two panels per group
};

}  // namespace residua::codec
