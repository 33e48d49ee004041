// SPDX-License-Identifier: Apache-2.0
#include "kernel/matmul.hpp"

#include <algorithm>
#include <vector>

#include "core/parallel.hpp"
#include "kernel/dispatch.hpp"

namespace residua::kernel {
namespace {

std::size_t panel_count(std::size_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }

// Rows of `a` that stay in the second-level cache while all panels pass by.
std::size_t row_block(std::size_t cols) {
    constexpr std::size_t kBytes = 192 * 1024;
    const std::size_t rows = kBytes / (sizeof(float) * std::max<std::size_t>(1, cols));
    return std::max<std::size_t>(1, rows / kTileQueries) * kTileQueries;
}

// Panels that stay in the first-level cache while rows pass by.
std::size_t panel_group(std::size_t cols) {
    constexpr std::size_t kBytes = 24 * 1024;
    return std::max<std::size_t>(1, kBytes / (sizeof(float) * kPanelRows * std::max<std::size_t>(1, cols)));
}

// Output tiles of the Gram matrix: a multiple of both sides of the register tile.
constexpr std::size_t kGramTile = 96;
constexpr std::size_t kGramRows = 256;
static_assert(kGramTile % kTileQueries == 0 && kGramTile % kPanelRows == 0);

struct GramScratch {
    AlignedVector<float> left = AlignedVector<float>(kGramTile * kGramRows);    // columns i, transposed
    AlignedVector<float> right = AlignedVector<float>(kGramTile * kGramRows);   // columns j, as panels
    AlignedVector<float> strip = AlignedVector<float>(kGramTile * kPanelRows);  // 16 rows on their way to left
    AlignedVector<float> product = AlignedVector<float>(kGramTile * kGramTile);
};

// One tile of gram: columns [i0, i0 + ni) by [j0, j0 + nj) of x, all rows.
void gram_tile(ConstMatrix x, std::size_t i0, std::size_t ni, std::size_t j0, std::size_t nj, double* gram,
               GramScratch& s) {
    const FloatKernels& kernels = active().floats;
    for (std::size_t r0 = 0; r0 < x.rows; r0 += kGramRows) {
        const std::size_t nr = std::min(kGramRows, x.rows - r0);
        for (std::size_t r = 0; r < nr; r += kPanelRows) {
            const std::size_t n = std::min(kPanelRows, nr - r);
            kernels.pack_panel_f32(x.row(r0 + r) + i0, x.stride, n, ni, s.strip.data());
            for (std::size_t i = 0; i < ni; ++i) {
                std::copy_n(s.strip.data() + i * kPanelRows, n, s.left.data() + i * nr + r);
            }
        }
        for (std::size_t r = 0; r < nr; ++r) {
            const float* row = x.row(r0 + r) + j0;
            for (std::size_t j = 0; j < nj; j += kPanelRows) {
                float* out = s.right.data() + j * nr + r * kPanelRows;
                const std::size_t width = std::min(kPanelRows, nj - j);
                std::copy_n(row + j, width, out);
                std::fill(out + width, out + kPanelRows, 0.0f);
            }
        }
        for (std::size_t j = 0; j < nj; j += kPanelRows) {
            for (std::size_t i = 0; i < ni; i += kTileQueries) {
                kernels.gemm_panel(s.left.data() + i * nr, nr, std::min(kTileQueries, ni - i), s.right.data() + j * nr,
                                   nr, s.product.data() + i * kGramTile + j, kGramTile);
            }
        }
        for (std::size_t i = 0; i < ni; ++i) {
            double* out = gram + (i0 + i) * x.cols + j0;
            for (std::size_t j = 0; j < nj; ++j) out[j] += static_cast<double>(s.product[i * kGramTile + j]);
        }
    }
}

}  // namespace

void PackedPanels::pack(ConstMatrix b) {
    rows_ = b.rows;
    cols_ = b.cols;
    panels_.resize(panel_count(b.rows) * kPanelRows * b.cols);
    const FloatKernels& kernels = active().floats;
    for (std::size_t r = 0; r < b.rows; r += kPanelRows) {
        kernels.pack_panel_f32(b.row(r), b.stride, std::min(kPanelRows, b.rows - r), b.cols, panels_.data() + r * cols_);
    }
}

void PackedPanels::multiply(ConstMatrix a, MutMatrix c) const {
    const FloatKernels& kernels = active().floats;
    const std::size_t block = row_block(cols_);
    float edge[kTileQueries * kPanelRows];
    for (std::size_t i0 = 0; i0 < a.rows; i0 += block) {
        const std::size_t i1 = std::min(a.rows, i0 + block);
        for (std::size_t j = 0; j < rows_; j += kPanelRows) {
            const float* panel = panels_.data() + j * cols_;
            const std::size_t width = std::min(kPanelRows, rows_ - j);
            for (std::size_t i = i0; i < i1; i += kTileQueries) {
                const std::size_t n = std::min(kTileQueries, i1 - i);
                if (width == kPanelRows) {
                    kernels.gemm_panel(a.row(i), a.stride, n, panel, cols_, c.row(i) + j, c.stride);
                    continue;
                }
                kernels.gemm_panel(a.row(i), a.stride, n, panel, cols_, edge, kPanelRows);
                for (std::size_t t = 0; t < n; ++t) std::copy_n(edge + t * kPanelRows, width, c.row(i + t) + j);
            }
        }
    }
}

void PackedPanels::nearest(ConstMatrix a, const float* bias, std::uint32_t* out) const {
    constexpr std::size_t kBlock = 64 * kTileQueries;
    const FloatKernels& kernels = active().floats;
    const std::size_t panels = panel_count(rows_), group = panel_group(cols_);
    // All panels in the cache: a tile's state stays in registers. Else rows that stay in the cache, too.
    const std::size_t block = panels <= group ? kTileQueries : std::min(kBlock, row_block(cols_));
    float best[kBlock * kPanelRows], at[kBlock * kPanelRows];
    for (std::size_t i0 = 0; i0 < a.rows; i0 += block) {
        const std::size_t i1 = std::min(a.rows, i0 + block);
        for (std::size_t p = 0; p < panels; p += group) {
            const bool last = panels - p <= group;
            for (std::size_t i = i0; i < i1; i += kTileQueries) {
                const std::size_t state = (i - i0) * kPanelRows;
                kernels.nearest_panels(a.row(i), a.stride, std::min(kTileQueries, i1 - i),
                                       panels_.data() + p * kPanelRows * cols_, last ? panels - p : group, cols_,
                                       bias + p * kPanelRows, p, best + state, at + state, last ? out + i : nullptr);
            }
        }
    }
}

void matmul_nt(ConstMatrix a, ConstMatrix b, MutMatrix c, PackedPanels& scratch) {
    scratch.pack(b);
    scratch.multiply(a, c);
}

void accumulate_gram(ConstMatrix x, double* gram, int num_threads) {
    // gram is symmetric before and after: tiles on and above the diagonal are computed, the others are
    // their mirror images.
    const std::size_t d = x.cols;
    const std::size_t blocks = (d + kGramTile - 1) / kGramTile;
    const std::size_t tiles = blocks * (blocks + 1) / 2;
    const int threads = std::max(1, num_threads);
    std::vector<GramScratch> scratch(std::min(static_cast<std::size_t>(threads), tiles));
    parallel_for(tiles, 1, threads, [&](std::size_t begin, std::size_t end, int worker) {
        for (std::size_t t = begin; t < end; ++t) {
            std::size_t bi = 0, rest = t;
            while (rest >= blocks - bi) rest -= blocks - bi++;
            const std::size_t i0 = bi * kGramTile, j0 = (bi + rest) * kGramTile;
            const std::size_t ni = std::min(kGramTile, d - i0), nj = std::min(kGramTile, d - j0);
            gram_tile(x, i0, ni, j0, nj, gram, scratch[static_cast<std::size_t>(worker)]);
            if (rest == 0) continue;
            for (std::size_t i = i0; i < i0 + ni; ++i) {
                for (std::size_t j = j0; j < j0 + nj; ++j) gram[j * d + i] = gram[i * d + j];
            }
        }
    });
}

}  // namespace residua::kernel
