// SPDX-License-Identifier: Apache-2.0
// Vectors as signed bytes with a scale per row, for the distances by which a graph is built: integer
// products cost a fifth of float ones, and the same graph comes out on every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/aligned.hpp"
#include "kernel/row_kernels.hpp"

namespace residua::index {

class ByteRows {
public:
    // longest: 0, or the squared length of the longest row; then rows are the nearer the larger their inner
    // product is, at distance longest - product.
    explicit ByteRows(std::size_t dim, float longest = 0.0f);

    void resize(std::size_t n);
    std::size_t size() const { return scale_.size(); }
    std::size_t dim() const { return dim_; }
    // Different threads may set different rows.
    void set(std::size_t i, const float* x);
    // |x|^2 as kept.
    float squared_norm(std::size_t i) const { return norm_[i]; }

    // out[j] = squared distance of row i to rows[j], or as said above; not negative.
    void distances(std::uint32_t i, const std::uint32_t* rows, std::size_t n, float* out) const;
    // Squared distances in any case.
    void gaps(std::uint32_t i, const std::uint32_t* rows, std::size_t n, float* out) const;
    static std::size_t bytes_per_row(std::size_t dim);

private:
    // out[j] = take(rows[j], product).
    template <class Take>
    void products(std::uint32_t i, const std::uint32_t* rows, std::size_t n, float* out, Take take) const;
    const std::int8_t* row(std::size_t i) const { return codes_.data() + i * stride_; }

    const kernel::RowKernels& kernels_;
    std::size_t dim_, stride_;
    AlignedVector<std::int8_t> codes_;
    float longest_;
    std::vector<float> scale_, norm_;
};

}  // namespace residua::index
