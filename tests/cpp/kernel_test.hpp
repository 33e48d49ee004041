// SPDX-License-Identifier: Apache-2.0
// What the tests of kernels share: random values, and rows that end where memory does.
#pragma once

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

namespace residua::testing {

// Memory whose last byte is the last readable one.
class Guarded {
public:
    Guarded() : page_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))), size_((std::size_t{1} << 18) / page_ * page_) {
        base_ = static_cast<unsigned char*>(
            mmap(nullptr, size_ + page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        REQUIRE(base_ != MAP_FAILED);
        REQUIRE(mprotect(base_ + size_, page_, PROT_NONE) == 0);
    }
    ~Guarded() { munmap(base_, size_ + page_); }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;

    template <class T>
    T* place(const std::vector<T>& x) {
        REQUIRE(x.size() * sizeof(T) <= size_);
        auto* p = reinterpret_cast<T*>(base_ + size_ - x.size() * sizeof(T));
        std::memcpy(p, x.data(), x.size() * sizeof(T));
        return p;
    }

private:
    std::size_t page_, size_;
    unsigned char* base_;
};

inline std::mt19937& rng() {
    static std::mt19937 r(7);
    return r;
}

inline std::vector<float> normals(std::size_t n) {
    std::normal_distribution<float> normal;
    std::vector<float> x(n);
    for (float& v : x) v = normal(rng());
    return x;
}

template <class T>
std::vector<T> bytes(std::size_t n) {
    std::uniform_int_distribution<int> any(0, 255);
    std::vector<T> x(n);
    for (T& v : x) v = static_cast<T>(any(rng()));
    return x;
}

template <class T>
bool same_bits(const T& a, const T& b) {
    return std::memcmp(&a, &b, sizeof(T)) == 0;
}

}  // namespace residua::testing
