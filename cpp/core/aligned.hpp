// SPDX-License-Identifier: Apache-2.0
// A vector whose storage starts on a cache line, as the kernels' aligned loads need. Large ones ask for huge
// pages: reads here and there of an array that is larger than the caches then miss the TLB less often.
#pragma once

#include <cstddef>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace residua {

inline constexpr std::size_t kCacheLine = 64;
inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

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

private:
    static std::align_val_t alignment(std::size_t bytes) {
        return std::align_val_t{bytes >= 2 * kHugePage ? kHugePage : kCacheLine};
    }
};

template <class T>
using AlignedVector = std::vector<T, AlignedAllocator<T>>;

}  // namespace residua
