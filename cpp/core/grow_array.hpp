// SPDX-License-Identifier: Apache-2.0
// An array that one writer extends while readers use what they were shown: growth moves the elements to
// a new block, and the old one lives for as long as a View of it does. Elements below the size at which
// a View was taken are changed by atomic stores only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "core/aligned.hpp"

namespace residua {

template <class T>
class GrowArray {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    struct View {
        const T* data = nullptr;
        std::size_t size = 0;
        std::shared_ptr<const void> owner;
    };

    GrowArray() = default;
    // Shows elements that `owner` keeps alive; copied at the first change.
    GrowArray(std::span<const T> shown, std::shared_ptr<const void> owner)
        : shown_(shown.data()), owner_(std::move(owner)), size_(shown.size()) {}

    std::size_t size() const { return size_; }
    const T* data() const { return shown_ != nullptr ? shown_ : block_.get(); }
    std::span<const T> span() const { return {data(), size_}; }
    bool is_shown() const { return shown_ != nullptr; }
    std::size_t memory_bytes() const { return (shown_ != nullptr ? size_ : capacity_) * sizeof(T); }
    View view() const { return {data(), size_, shown_ != nullptr ? owner_ : block_}; }

    // Room for n elements in a block of its own; the only step that can fail.
    void reserve(std::size_t n) {
        if (shown_ == nullptr && n <= capacity_) return;
        const bool grows = shown_ == nullptr && capacity_ > 0;
        move_to(std::max(n, grows ? capacity_ + capacity_ / 2 : size_));
    }
    void resize(std::size_t n, T value) {
        reserve(n);
        if (n > size_) std::fill(block_.get() + size_, block_.get() + n, value);
        size_ = n;
    }
    // For writing; reserve() or resize() came before.
    T* edit() { return block_.get(); }
    // A block that no View knows, of the first n elements.
    void renew(std::size_t n) {
        size_ = std::min(size_, n);
        move_to(size_);
    }

private:
    void move_to(std::size_t capacity) {
        const std::size_t room = std::max<std::size_t>(1, capacity);
        std::shared_ptr<T[]> block(AlignedAllocator<T>().allocate(room),
                                   [room](T* p) { AlignedAllocator<T>().deallocate(p, room); });
        if (size_ > 0) std::memcpy(block.get(), data(), size_ * sizeof(T));
        block_ = std::move(block);
        shown_ = nullptr;
        owner_.reset();
        capacity_ = capacity;
    }

    std::shared_ptr<T[]> block_;
    const T* shown_ = nullptr;
    std::shared_ptr<const void> owner_;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
};

}  // namespace residua
