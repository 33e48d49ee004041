// SPDX-License-Identifier: Apache-2.0
#include "store/vector_store.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "core/parallel.hpp"
#include "store/row_encoding.hpp"
#include "store/temp_file.hpp"

namespace residua::store {
namespace {

constexpr std::size_t kGrain = 256;  // rows per chunk of parallel work
constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

RowType first_type(VectorMode mode) {
    switch (mode) {
        case VectorMode::automatic:
        case VectorMode::float16: return RowType::f16;
        case VectorMode::int8: return RowType::i8;
        case VectorMode::none:
        case VectorMode::float32:
        case VectorMode::disk: break;
    }
    return RowType::f32;
}

// The first row for which `bad` holds, or kNone; the same for any number of threads.
template <class Predicate>
std::size_t first_row(ConstMatrix rows, int num_threads, Predicate bad) {
    std::atomic<std::size_t> first{kNone};
    parallel_for(rows.rows, kGrain, num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end && i < first.load(std::memory_order_relaxed); ++i) {
            if (!bad(half_fit(rows.row(i), rows.cols))) continue;
            std::size_t seen = first.load();
            while (i < seen && !first.compare_exchange_weak(seen, i)) {
            }
        }
    });
    return first.load();
}

}  // namespace

VectorStore::VectorStore(VectorMode mode, std::size_t dim, Metric metric)
    : mode_(mode), metric_(metric), type_(first_type(mode)), dim_(dim) {}

VectorStore::~VectorStore() = default;
VectorStore::VectorStore(VectorStore&&) noexcept = default;
VectorStore& VectorStore::operator=(VectorStore&&) noexcept = default;

const std::uint8_t* VectorStore::data() const { return file_ ? file_->data() : bytes_.data(); }

void VectorStore::check_half(ConstMatrix rows, int num_threads) const {
    const bool cosine = metric_ == Metric::cosine;
    const std::size_t bad = first_row(rows, num_threads, [cosine](HalfFit fit) {
        return fit == HalfFit::overflows || (cosine && fit == HalfFit::vanishes);
    });
    if (bad == kNone) return;
    const bool overflows = half_fit(rows.row(bad), rows.cols) == HalfFit::overflows;
    throw Error(ErrorKind::value, "row " + std::to_string(bad) +
                                      (overflows ? " has a value beyond 65504, the largest"
                                                 : " is so small that it becomes zero as") +
                                      " float16; use vectors='auto' or 'float32', or scale the vectors");
}

void VectorStore::check(ConstMatrix rows, int num_threads) const {
    if (rows.cols != dim_) {
        throw Error(ErrorKind::shape, "vectors have " + std::to_string(rows.cols) + " dims, expected " + std::to_string(dim_));
    }
    if (mode_ == VectorMode::float16) check_half(rows, num_threads);
}

bool VectorStore::must_widen(ConstMatrix rows, int num_threads) const {
    return mode_ == VectorMode::automatic && type_ == RowType::f16 &&
           first_row(rows, num_threads, [](HalfFit fit) { return fit != HalfFit::good; }) != kNone;
}

bool VectorStore::has_room(ConstMatrix rows, std::size_t n_new, int num_threads) const {
    if (mode_ == VectorMode::none || rows.rows == 0) return true;
    const std::size_t n = n_ + n_new;
    return n_ > 0 && bytes_.has_room(n * row_bytes()) && (metric_ != Metric::cosine || inv_norm_.has_room(n)) &&
           (type_ != RowType::i8 || scale_.has_room(n)) && !must_widen(rows, num_threads);
}

VectorStore VectorStore::with_room(ConstMatrix rows, std::size_t n_new, int num_threads) const {
    VectorStore out(mode_, dim_, metric_);
    out.type_ = type_;
    out.n_ = n_;
    // A store that grows once is likely to grow again.
    const std::size_t n = std::max(n_ + n_new, n_ + n_ / 2);
    const auto copy = [](const auto& from, auto& to, std::size_t room) {
        auto& values = to.edit(room);
        values.assign(from.span().begin(), from.span().end());
    };
    if (n_ > 0) {
        copy(bytes_, out.bytes_, n * row_bytes());
        if (type_ == RowType::i8) copy(scale_, out.scale_, n);
        if (metric_ == Metric::cosine) copy(inv_norm_, out.inv_norm_, n);
    }
    out.prepare(rows, n_new, num_threads);
    return out;
}

void VectorStore::prepare(ConstMatrix rows, std::size_t n_new, int num_threads) {
    check(rows, num_threads);
    if (mode_ == VectorMode::none || rows.rows == 0) return;
    if (mode_ == VectorMode::automatic && n_ == 0) type_ = RowType::f16;
    if (must_widen(rows, num_threads)) widen();
    const std::size_t n = n_ + n_new;
    if (metric_ == Metric::cosine) inv_norm_.edit(n);
    if (type_ == RowType::i8) scale_.edit(n);
    if (mode_ == VectorMode::disk) {
        own_file();
    } else {
        bytes_.edit(n * row_bytes());
    }
}

// float16 rows become float32 rows of the same values, so their norms stay.
void VectorStore::widen() {
    AlignedVector<std::uint8_t> wide(n_ * dim_ * sizeof(float));
    auto* out = reinterpret_cast<float*>(wide.data());
    for (std::size_t i = 0; i < n_; ++i) {
        decode_row(RowType::f16, data() + i * row_bytes(), 1.0f, dim_, out + i * dim_);
    }
    bytes_ = SharedArray<std::uint8_t>(std::move(wide));
    type_ = RowType::f32;
}

void VectorStore::own_file() {
    if (file_ && file_->belongs_to_this_process()) return;
    auto file = std::make_unique<TempFile>();
    if (n_ > 0) file->write(data(), n_ * row_bytes(), 0);
    file->map();
    file_ = std::move(file);
    bytes_ = {};
}

void VectorStore::encode_row_at(std::size_t row, const float* x) {
    float scale = 1.0f;
    const void* kept = x;
    if (mode_ != VectorMode::disk) {
        std::uint8_t* out = bytes_.edit().data() + row * row_bytes();
        encode_row(type_, x, dim_, out, scale);
        kept = out;
    }
    if (type_ == RowType::i8) scale_.edit()[row] = scale;
    if (metric_ == Metric::cosine) inv_norm_.edit()[row] = inverse_norm(type_, kept, scale, dim_);
}

void VectorStore::stage(ConstMatrix rows, int num_threads) {
    if (mode_ == VectorMode::none || rows.rows == 0) return;
    const std::size_t n = n_ + rows.rows;
    if (type_ == RowType::i8) scale_.edit().resize(n);
    if (metric_ == Metric::cosine) inv_norm_.edit().resize(n);
    if (mode_ != VectorMode::disk) bytes_.edit().resize(n * row_bytes());
    parallel_for(rows.rows, kGrain, num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; ++i) encode_row_at(n_ + i, rows.row(i));
    });
}

void VectorStore::append(ConstMatrix rows, int num_threads) {
    prepare(rows, rows.rows, num_threads);
    try {
        stage(rows, num_threads);
        if (mode_ == VectorMode::disk && rows.rows > 0) {
            const bool dense = rows.stride == dim_;
            const std::size_t step = dense ? rows.rows : 1;
            for (std::size_t i = 0; i < rows.rows; i += step) {
                file_->write(rows.row(i), step * row_bytes(), (n_ + i) * row_bytes());
            }
            file_->map();
        }
    } catch (...) {
        truncate(n_);
        throw;
    }
    publish(rows.rows);
}

void VectorStore::assign(std::size_t row, const float* x) {
    check_row(row);
    prepare({x, 1, dim_}, 0);
    if (mode_ == VectorMode::none) return;
    if (mode_ == VectorMode::disk) file_->write(x, row_bytes(), row * row_bytes());
    encode_row_at(row, x);
}

void VectorStore::truncate(std::size_t n) noexcept {
    if (n > n_) return;
    n_ = n;
    if (mode_ == VectorMode::none) return;
    if (type_ == RowType::i8) scale_.truncate(n);
    if (metric_ == Metric::cosine) inv_norm_.truncate(n);
    bytes_.truncate(n * row_bytes());
    // Not the file of a parent process; own_file() leaves the surplus behind.
    if (file_ && file_->belongs_to_this_process()) file_->truncate(n * row_bytes());
}

void VectorStore::compact(std::span<const std::uint32_t> keep) {
    for (const std::uint32_t row : keep) check_row(row);
    if (mode_ == VectorMode::none) {
        n_ = keep.size();
        return;
    }
    const std::size_t width = row_bytes();
    VectorStore kept(mode_, dim_, metric_);
    kept.type_ = type_;
    kept.n_ = keep.size();
    const auto pick = [&](const SharedArray<float>& values) {
        AlignedVector<float> out(keep.size());
        for (std::size_t i = 0; i < keep.size(); ++i) out[i] = values[keep[i]];
        return SharedArray<float>(std::move(out));
    };
    if (type_ == RowType::i8) kept.scale_ = pick(scale_);
    if (metric_ == Metric::cosine) kept.inv_norm_ = pick(inv_norm_);
    if (mode_ == VectorMode::disk) {
        kept.file_ = std::make_unique<TempFile>();
        for (std::size_t i = 0; i < keep.size(); ++i) kept.file_->write(data() + keep[i] * width, width, i * width);
        kept.file_->map();
    } else {
        AlignedVector<std::uint8_t> out(keep.size() * width);
        for (std::size_t i = 0; i < keep.size(); ++i) {
            if (width > 0) std::memcpy(out.data() + i * width, data() + keep[i] * width, width);
        }
        kept.bytes_ = SharedArray<std::uint8_t>(std::move(out));
    }
    *this = std::move(kept);
}

void VectorStore::check_row(std::size_t row) const {
    if (row >= n_) {
        throw Error(ErrorKind::value, "row " + std::to_string(row) + " is not among the " + std::to_string(n_) + " kept vectors");
    }
}

void VectorStore::get(std::size_t row, float* out) const {
    if (mode_ == VectorMode::none) throw Error(ErrorKind::unsupported, "no vectors are kept (vectors='none')");
    check_row(row);
    decode_row(type_, data() + row * row_bytes(), type_ == RowType::i8 ? scale_[row] : 1.0f, dim_, out);
}

RowSource VectorStore::view() const {
    RowSource source;
    source.type = type_;
    source.n = n_;
    source.dim = dim_;
    source.stride_bytes = row_bytes();
    if (mode_ == VectorMode::none) return source;
    source.data = data();
    if (type_ == RowType::i8) source.row_scale = scale_.data();
    if (metric_ == Metric::cosine) source.inv_norm = inv_norm_.data();
    return source;
}

VectorStore::Memory VectorStore::memory() const {
    Memory memory;
    const auto add = [&](const auto& array, std::size_t& heap) {
        (array.is_shown() && mapped_ ? memory.file : heap) += array.memory_bytes();
    };
    add(bytes_, memory.rows);
    add(scale_, memory.scalars);
    add(inv_norm_, memory.scalars);
    if (file_) memory.file += file_->size();
    return memory;
}

}  // namespace residua::store
