// SPDX-License-Identifier: Apache-2.0
#include "core/aligned.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <new>

namespace residua {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Below this the pages at both ends would be most of it.
std::align_val_t alignment(std::size_t bytes) {
    return std::align_val_t{bytes >= 4 * kHugePage ? kHugePage : kCacheLine};
}

}  // namespace

void* acquire_lines(std::size_t bytes) {
    void* const p = ::operator new(bytes, alignment(bytes));
#if defined(MADV_HUGEPAGE)
    // A wish: where it is refused, small pages do.
    if (alignment(bytes) == std::align_val_t{kHugePage}) madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

void release_lines(void* p, std::size_t bytes) noexcept { ::operator delete(p, alignment(bytes)); }

}  // namespace residua
