// SPDX-License-Identifier: Apache-2.0
#include "index/float_rows.hpp"

#include <algorithm>
#include <utility>

#include "core/aligned.hpp"
#include "core/prefetch.hpp"
#include "kernel/dispatch.hpp"

namespace residua::index {
namespace {

constexpr std::size_t kMaxBytes = 1024;  // of a row; the hardware fetches the rest

}  // namespace

FloatRows::FloatRows(const store::RowSource& rows, Metric metric, std::vector<float> queries)
    : rows_(rows), metric_(metric), queries_(std::move(queries)), kernels_(kernel::active().floats) {}

float FloatRows::score_of(const float* query, std::uint32_t row) const {
    const std::size_t d = rows_.dim;
    const float scale = rows_.row_scale != nullptr ? rows_.row_scale[row] : 1.0f;
    const bool l2 = metric_ == Metric::l2;
    float s = 0.0f;
    switch (rows_.type) {
        case store::RowType::f32: {
            const auto* x = static_cast<const float*>(rows_.row(row));
            s = l2 ? -kernels_.l2_f32(query, x, d) : kernels_.dot_f32(query, x, d);
            break;
        }
        case store::RowType::f16: {
            const auto* x = static_cast<const std::uint16_t*>(rows_.row(row));
            s = l2 ? -kernels_.l2_f16(query, x, d) : kernels_.dot_f16(query, x, d);
            break;
        }
        case store::RowType::bf16: {
            const auto* x = static_cast<const std::uint16_t*>(rows_.row(row));
            s = l2 ? -kernels_.l2_bf16(query, x, d) : kernels_.dot_bf16(query, x, d);
            break;
        }
        case store::RowType::i8: {
            const auto* x = static_cast<const std::int8_t*>(rows_.row(row));
            s = l2 ? -kernels_.l2_i8(query, x, scale, d) : scale * kernels_.dot_i8(query, x, d);
            break;
        }
    }
    return rows_.inv_norm != nullptr ? s * rows_.inv_norm[row] : s;
}

void FloatRows::score(const std::uint8_t*, const std::uint32_t* rows, std::size_t n, std::size_t query,
                      float* out) const {
    for (std::size_t i = 0; i < n; ++i) out[i] = score_of(queries_.data() + query * rows_.dim, rows[i]);
}

void FloatRows::prefetch(const std::uint8_t*, const std::uint32_t* rows, std::size_t n) const {
    const std::size_t bytes = std::min(kMaxBytes, rows_.stride_bytes);
    for (std::size_t i = 0; i < n; ++i) {
        const auto* p = static_cast<const std::uint8_t*>(rows_.row(rows[i]));
        for (std::size_t b = 0; b < bytes; b += kCacheLine) prefetch_line(p + b);
        if (rows_.inv_norm != nullptr) prefetch_line(rows_.inv_norm + rows[i]);
    }
}

}  // namespace residua::index
