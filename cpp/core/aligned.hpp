// SPDX-License-Identifier: Apache-2.0
// A vector whose storage starts on a cache line, as the kernels' aligned loads need. Large storage asks
// for huge pages: reads all over it would otherwise wait for page tables.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace residua {

inline constexpr std::size_t kCacheLine = 64;
inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

template <class T>
struct AlignedAllocator {
    using value_type = T;
    AlignedAllocator() = default;
    template <class U>
    AlignedAllocator(const AlignedAllocator<U>&) noexcept {}
    T* allocate(std::size_t n) {
        const std::size_t bytes = n * sizeof(T);
        void* p = ::operator new(bytes, alignment(bytes));
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        // Whole huge pages only, so that no memory is touched beyond what was asked for. A refusal costs speed.
        if (bytes >= 2 * kHugePage) static_cast<void>(::madvise(p, bytes / kHugePage * kHugePage, MADV_HUGEPAGE));
#endif
        return static_cast<T*>(p);
    }
    void deallocate(T* p, std::size_t n) noexcept { ::operator delete(p, alignment(n * sizeof(T))); }
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
