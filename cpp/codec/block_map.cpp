// SPDX-License-Identifier: Apache-2.0
#include "codec/block_map.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "core/error.hpp"
#include "kernel/dispatch.hpp"

namespace residua::codec {

using kernel::kPanelRows;
using kernel::kTileQueries;

namespace {

constexpr std::size_t kPanels = BlockMap::kGroup / kPanelRows;  // per group
static_assert(BlockMap::kGroup % kPanelRows == 0);

// Rows of x whose block stays in the second-level cache while the block's groups pass by.
std::size_t row_block(std::size_t width) {
    constexpr std::size_t kBytes = 192 * 1024;
    return std::max<std::size_t>(1, kBytes / (sizeof(float) * width) / kTileQueries) * kTileQueries;
}

void require(bool ok, const std::string& what) {
    if (!ok) throw Error(ErrorKind::value, "block map: " + what);
}

}  // namespace

BlockMap::BlockMap(std::span<const float> values, std::size_t dim, std::size_t block_dims,
                   std::span<const std::uint16_t> block, std::size_t groups)
    : dim_(dim), block_dims_(block_dims), block_(block.begin(), block.end()), offset_(groups), order_(groups) {
    require(block_dims >= 1 && block_dims <= dim, "blocks of 1 to dim dims expected");
    if (block.empty()) block_.assign(groups, 0);
    require(block_.size() == groups, "one block per group expected");
    blocks_ = dim + block_dims <= kGroup ? 1 : std::max<std::size_t>(1, (dim + block_dims - kGroup) / block_dims);
    std::size_t total = 0;
    for (std::size_t g = 0; g < groups; ++g) {
        require(block_[g] < blocks_, "group " + std::to_string(g) + " reads a block that does not exist");
        offset_[g] = total;
        total += kGroup * block_width(g);
    }
    require(values.size() == total, "32 rows per group, as long as its block, expected");
    std::iota(order_.begin(), order_.end(), 0u);
    std::stable_sort(order_.begin(), order_.end(), [this](auto a, auto b) { return block_[a] < block_[b]; });

    panels_.resize(total);
    for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t width = block_width(g);
        for (std::size_t p = 0; p < kPanels; ++p) {
            const std::size_t at = offset_[g] + p * kPanelRows * width;
            kernel::active().floats.pack_panel_f32(values.data() + at, width, kPanelRows, width, panels_.data() + at);
        }
    }
}

std::size_t BlockMap::block_width(std::size_t group) const {
    return block_[group] + 1u == blocks_ ? dim_ - block_begin(group) : block_dims_;
}

bool BlockMap::is_finite() const {
    return std::all_of(panels_.begin(), panels_.end(), [](float v) { return std::isfinite(v); });
}

void BlockMap::multiply(ConstMatrix x, MutMatrix y) const {
    const kernel::FloatKernels& kernels = kernel::active().floats;
    const std::size_t step = row_block(block_dims_);
    for (std::size_t i0 = 0; i0 < x.rows; i0 += step) {
        const std::size_t i1 = std::min(x.rows, i0 + step);
        for (const std::uint32_t g : order_) {
            const std::size_t width = block_width(g);
            for (std::size_t p = 0; p < kPanels; ++p) {
                const float* panel = panels_.data() + offset_[g] + p * kPanelRows * width;
                for (std::size_t i = i0; i < i1; i += kTileQueries) {
                    kernels.gemm_panel(x.row(i) + block_begin(g), x.stride, std::min(kTileQueries, i1 - i), panel, width,
                                       y.row(i) + g * kGroup + p * kPanelRows, y.stride);
                }
            }
        }
    }
}

void BlockMap::multiply_transposed(ConstMatrix y, MutMatrix x) const {
    for (std::size_t i = 0; i < x.rows; ++i) std::fill_n(x.row(i), dim_, 0.0f);
    for (auto first = order_.begin(); first != order_.end();) {
        const auto last = std::find_if(first, order_.end(), [&](auto g) { return block_[g] != block_[*first]; });
        spread(y, {first, last}, x);
        first = last;
    }
}

// Writes the dims of one block from the rows of all its groups.
void BlockMap::spread(ConstMatrix y, std::span<const std::uint32_t> groups, MutMatrix x) const {
    const kernel::FloatKernels& kernels = kernel::active().floats;
    const std::size_t width = block_width(groups.front()), begin = block_begin(groups.front());
    const std::size_t depth = groups.size() * kGroup;
    AlignedVector<float> gathered(y.rows * depth), columns(depth * kPanelRows);
    for (std::size_t i = 0; i < y.rows; ++i) {
        for (std::size_t k = 0; k < groups.size(); ++k) {
            std::copy_n(y.row(i) + groups[k] * kGroup, kGroup, gathered.data() + i * depth + k * kGroup);
        }
    }
    float tile[kTileQueries * kPanelRows];
    for (std::size_t j = 0; j < width; j += kPanelRows) {
        const std::size_t n = std::min(kPanelRows, width - j);
        // A packed panel read as a matrix of dims x 16 rows; its transpose is what this product reads.
        for (std::size_t k = 0; k < groups.size() * kPanels; ++k) {
            const float* panel = panels_.data() + offset_[groups[k / kPanels]] + k % kPanels * kPanelRows * width;
            kernels.pack_panel_f32(panel + j * kPanelRows, kPanelRows, n, kPanelRows,
                                   columns.data() + k * kPanelRows * kPanelRows);
        }
        for (std::size_t i = 0; i < y.rows; i += kTileQueries) {
            const std::size_t m = std::min(kTileQueries, y.rows - i);
            kernels.gemm_panel(gathered.data() + i * depth, depth, m, columns.data(), depth, tile, kPanelRows);
            for (std::size_t t = 0; t < m; ++t) std::copy_n(tile + t * kPanelRows, n, x.row(i + t) + begin + j);
        }
    }
}

std::vector<float> BlockMap::values() const {
    std::vector<float> out(panels_.size());
    for (std::size_t g = 0; g < offset_.size(); ++g) {
        const std::size_t width = block_width(g);
        for (std::size_t r = 0; r < kGroup; ++r) {
            const float* panel = panels_.data() + offset_[g] + r / kPanelRows * kPanelRows * width;
            float* row = out.data() + offset_[g] + r * width;
            for (std::size_t k = 0; k < width; ++k) row[k] = panel[k * kPanelRows + r % kPanelRows];
        }
    }
    return out;
}

}  // namespace residua::codec
