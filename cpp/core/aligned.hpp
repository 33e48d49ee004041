// SPDX-License-Identifier: Apache-2.0
// A vector whose storage starts on a cache line, as the kernels' aligned loads need. Large ones ask for huge
// pages: reads here and there of an array that is larger than the caches then miss the TLB less often.
#pragma once

#include <cstddef>
#include <vector>

namespace residua {

inline constexpr std::size_t kCacheLine = 64;

// Throws std::bad_alloc. `bytes` of release are those of acquire.
void* acquire_lines(std::size_t bytes);
void release_lines(void* p, std::size_t bytes) noexcept;

template <class T>
struct AlignedAllocator {
    using value_type = T;
    AlignedAllocator() = default;
    template <class U>
    AlignedAllocator(const AlignedAllocator<U>&) noexcept {}
    T* allocate(std::size_t n) { return static_cast<T*>(acquire_lines(n * sizeof(T))); }
    void deallocate(T* p, std::size_t n) noexcept { release_lines(p, n * sizeof(T)); }
    template <class U>
    bool operator==(const AlignedAllocator<U>&) const noexcept {
        return true;
    }
};

template <class T>
using AlignedVector = std::vector<T, AlignedAllocator<T>>;

}  // namespace residua
