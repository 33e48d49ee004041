// SPDX-License-Identifier: Apache-2.0
// Dense float32 products on the gemm kernel of the active instruction set. Single-threaded unless a
// thread count is taken: callers parallelise over rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/aligned.hpp"
#include "core/matrix.hpp"
#include "kernel/float_kernels.hpp"

namespace residua::kernel {

// Rows of a matrix in the k-major panels that gemm_panel reads: packed once, multiplied many times.
// pack() reuses the memory of an earlier call.
class PackedPanels {
public:
    PackedPanels() = default;
    explicit PackedPanels(ConstMatrix b) { pack(b); }

    void pack(ConstMatrix b);
    std::size_t memory_bytes() const { return panels_.capacity() * sizeof(float); }
    std::size_t rows() const { return rows_; }
    std::size_t cols() const { return cols_; }
    const float* data() const { return panels_.data(); }  // padded_rows() * cols()

    // c[i][j] = <a_i, b_j>, c being a.rows x rows(). A value depends on its two rows only, not on
    // where they stand or how many there are.
    void multiply(ConstMatrix a, MutMatrix c) const;

    // out[i] = the j of largest <a_i, b_j> + bias[j], of equals the smallest. bias has a value for every row
    // that the panels have room for, padded_rows(); -infinity keeps a row out.
    void nearest(ConstMatrix a, const float* bias, std::uint32_t* out) const;
    std::size_t padded_rows() const { return (rows_ + kPanelRows - 1) / kPanelRows * kPanelRows; }

private:
    AlignedVector<float> panels_;
    std::size_t rows_ = 0;
    std::size_t cols_ = 0;
};

// c[i][j] = <a_i, b_j> for one use of b; `scratch` keeps its memory between calls.
void matmul_nt(ConstMatrix a, ConstMatrix b, MutMatrix c, PackedPanels& scratch);

// gram += x^T x, gram being x.cols x x.cols, row-major and symmetric. Products are summed in float32
// over at most 256 rows and those sums in float64; the result is the same for any thread count.
void accumulate_gram(ConstMatrix x, double* gram, int num_threads);

}  // namespace residua::kernel
