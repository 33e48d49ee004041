// SPDX-License-Identifier: Apache-2.0
#include "index/byte_rows.hpp"

#include <algorithm>
#include <cmath>

#include "kernel/dispatch.hpp"

namespace residua::index {
namespace {

constexpr std::size_t kBatch = 64;  // sums on the stack

std::size_t padded(std::size_t dim) { return (dim + kernel::kPieceBytes - 1) / kernel::kPieceBytes * kernel::kPieceBytes; }

}  // namespace

ByteRows::ByteRows(std::size_t dim, float longest)
    : kernels_(kernel::active().rows), dim_(dim), stride_(padded(dim)), longest_(longest) {}

std::size_t ByteRows::bytes_per_row(std::size_t dim) { return padded(dim) + 2 * sizeof(float); }

void ByteRows::resize(std::size_t n) {
    codes_.resize(n * stride_);
    scale_.resize(n);
    norm_.resize(n);
}

void ByteRows::set(std::size_t i, const float* x) {
    float largest = 0.0f;
    for (std::size_t j = 0; j < dim_; ++j) largest = std::max(largest, std::fabs(x[j]));
    const float scale = largest / 127.0f;
    const float inverse = scale > 1e-30f ? 1.0f / scale : 0.0f;
    std::int8_t* code = codes_.data() + i * stride_;
    std::int32_t squares = 0;
    for (std::size_t j = 0; j < dim_; ++j) {
        const float v = x[j] * inverse;
        const auto q = static_cast<std::int32_t>(v + (v < 0 ? -0.5f : 0.5f));
        code[j] = static_cast<std::int8_t>(std::clamp(q, -127, 127));
        squares += static_cast<std::int32_t>(code[j]) * code[j];
    }
    scale_[i] = scale;
    norm_[i] = (scale * scale) * static_cast<float>(squares);
}

template <class Take>
void ByteRows::products(std::uint32_t i, const std::uint32_t* rows, std::size_t n, float* out, Take take) const {
    std::int32_t sums[kBatch];
    for (std::size_t begin = 0; begin < n; begin += kBatch) {
        const std::size_t m = std::min(kBatch, n - begin);
        kernels_.signed_bytes(row(i), codes_.data(), stride_, rows + begin, m, stride_, sums);
        for (std::size_t j = 0; j < m; ++j) {
            const std::uint32_t r = rows[begin + j];
            out[begin + j] = std::max(0.0f, take(r, (scale_[i] * scale_[r]) * static_cast<float>(sums[j])));
        }
    }
}

void ByteRows::distances(std::uint32_t i, const std::uint32_t* rows, std::size_t n, float* out) const {
    if (longest_ > 0) {
        products(i, rows, n, out, [&](std::uint32_t, float product) { return longest_ - product; });
    } else {
        gaps(i, rows, n, out);
    }
}

// Equal rows have equal norms and products, so their distance is exactly 0.
void ByteRows::gaps(std::uint32_t i, const std::uint32_t* rows, std::size_t n, float* out) const {
    products(i, rows, n, out, [&](std::uint32_t r, float product) { return (norm_[i] + norm_[r]) - 2.0f * product; });
}

}  // namespace residua::index
