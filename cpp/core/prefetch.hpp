// SPDX-License-Identifier: Apache-2.0
// Asks for a cache line that will be read soon, or, from the second-level cache, somewhat later.
#pragma once

namespace residua {

inline void prefetch_line(const void* p) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(p);
#else
    (void)p;
#endif
}

inline void prefetch_line_later(const void* p) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(p, 0, 2);
#else
    (void)p;
#endif
}

}  // namespace residua
