// SPDX-License-Identifier: Apache-2.0
#include "cuda/products.hpp"

#include <algorithm>
#include <cmath>

#include "cuda/launch.hpp"

namespace residua::cuda {
namespace {

// A tile of kSide x kSide sums, 4 x 4 of them in a thread.
struct MultiplyTile {
    static constexpr int kThreads = 256;
    static constexpr std::uint32_t kSide = 64, kDepth = 16, kPad = 4, kStride = kSide + kPad;
    static constexpr std::size_t kSharedBytes = 2 * kDepth * kStride * sizeof(float);

    DeviceRows a, b;
    std::size_t depth;
    float* out;
    std::size_t out_stride;

    RZ_DEVICE void operator()() const {
        auto* tile_a = reinterpret_cast<float*>(shared_memory());  // (kDepth, kStride)
        float* tile_b = tile_a + kDepth * kStride;
        const auto thread = static_cast<std::uint32_t>(thread_index());
        const std::size_t first_a = std::size_t{block_index().y} * kSide, first_b = std::size_t{block_index().x} * kSide;
        const std::uint32_t mine_a = thread / 16 * 4, mine_b = thread % 16 * 4;
        float sums[4][4] = {};
        for (std::size_t k = 0; k < depth; k += kDepth) {
            load(tile_a, a, first_a, k);
            load(tile_b, b, first_b, k);
            sync_block();
            for (std::uint32_t d = 0; d < kDepth; ++d) {
                RZ_UNROLL
                for (std::uint32_t i = 0; i < 4; ++i) {
                    RZ_UNROLL
                    for (std::uint32_t j = 0; j < 4; ++j) {
                        sums[i][j] = fmaf(tile_a[d * kStride + mine_a + i], tile_b[d * kStride + mine_b + j], sums[i][j]);
                    }
                }
            }
            sync_block();
        }
        RZ_UNROLL
        for (std::uint32_t i = 0; i < 4; ++i) {
            RZ_UNROLL
            for (std::uint32_t j = 0; j < 4; ++j) {
                if (first_a + mine_a + i >= a.rows || first_b + mine_b + j >= b.rows) continue;
                out[(first_a + mine_a + i) * out_stride + first_b + mine_b + j] = sums[i][j];
            }
        }
    }

    RZ_DEVICE void load(float* tile, const DeviceRows& rows, std::size_t first, std::size_t k) const {
        for (std::uint32_t i = static_cast<std::uint32_t>(thread_index()); i < kSide * kDepth; i += kThreads) {
            const std::uint32_t row = i / kDepth, d = i % kDepth;
            const bool there = first + row < rows.rows && k + d < depth;
            tile[d * kStride + row] = there ? rows.data[(first + row) * rows.stride + k + d] : 0.0f;
        }
    }
};

}  // namespace

void multiply_rows_plainly(Context& context, DeviceRows a, DeviceRows b, std::size_t depth, float* out, std::size_t out_stride) {
    constexpr std::size_t kSide = MultiplyTile::kSide, kMostBlocks = 65535;
    // Blocks in y are few: more rows of `a` take several launches.
    for (std::size_t first = 0; first < a.rows; first += kMostBlocks * kSide) {
        const std::size_t n = std::min(a.rows - first, kMostBlocks * kSide);
        const MultiplyTile kernel{{a.data + first * a.stride, n, a.stride}, b, depth, out + first * out_stride, out_stride};
        launch(kernel, context, {(b.rows + kSide - 1) / kSide, (n + kSide - 1) / kSide}, MultiplyTile::kSharedBytes);
    }
}

void multiply_rows(Context& context, DeviceRows a, DeviceRows b, std::size_t depth, float* out, std::size_t out_stride) {
    if (a.rows == 0 || b.rows == 0) return;
    if (blas::is_there()) return blas::multiply(context, a, b, depth, out, out_stride);
    multiply_rows_plainly(context, a, b, depth, out, out_stride);
}

}  // namespace residua::cuda
