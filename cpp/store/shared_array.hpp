// SPDX-License-Identifier: Apache-2.0
// An array that either owns its elements or shows those of a loaded file. A shown array is copied
// at its first change, so opening a mapped file costs no memory until something is written.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>

#include "core/aligned.hpp"

namespace residua::store {

template <class T>
class SharedArray {
public:
    SharedArray() = default;
    explicit SharedArray(AlignedVector<T> own) : own_(std::move(own)) {}
    // `owner` keeps the memory of `shown` alive.
    SharedArray(std::span<const T> shown, std::shared_ptr<const void> owner)
        : shown_(shown), owner_(std::move(owner)) {}

    const T* data() const { return owner_ ? shown_.data() : own_.data(); }
    std::size_t size() const { return owner_ ? shown_.size() : own_.size(); }
    std::span<const T> span() const { return {data(), size()}; }
    const T& operator[](std::size_t i) const { return data()[i]; }

    bool is_shown() const { return owner_ != nullptr; }
    std::size_t memory_bytes() const { return (owner_ ? shown_.size() : own_.capacity()) * sizeof(T); }

    // Whether n elements fit without a copy.
    bool has_room(std::size_t n) const { return !owner_ && n <= own_.capacity(); }

    // The elements for changing. Strong guarantee: an allocation failure leaves the array as it was.
    AlignedVector<T>& edit(std::size_t reserve = 0) {
        if (owner_) {
            AlignedVector<T> copy;
            copy.reserve(std::max(reserve, shown_.size()));
            copy.assign(shown_.begin(), shown_.end());
            own_ = std::move(copy);
            shown_ = {};
            owner_.reset();
        } else if (reserve > own_.capacity()) {
            own_.reserve(std::max(reserve, own_.capacity() + own_.capacity() / 2));
        }
        return own_;
    }

    // Forgets the elements from n on.
    void truncate(std::size_t n) noexcept {
        if (owner_) {
            if (n < shown_.size()) shown_ = shown_.first(n);
        } else if (n < own_.size()) {
            own_.erase(own_.begin() + static_cast<std::ptrdiff_t>(n), own_.end());
        }
    }

private:
    AlignedVector<T> own_;
    std::span<const T> shown_;
    std::shared_ptr<const void> owner_;
};

}  // namespace residua::store
