// SPDX-License-Identifier: Apache-2.0
// A growable bitset over rows, 64 per word; bits past size() are zero.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace residua {

class Bitset {
public:
    Bitset() = default;
    explicit Bitset(std::size_t n, bool value = false) { resize(n, value); }

    std::size_t size() const { return size_; }
    bool test(std::size_t i) const { return (words_[i >> 6] >> (i & 63)) & 1u; }
    bool holds(std::size_t i) const { return i < size_ && test(i); }  // any i
    void set(std::size_t i) { words_[i >> 6] |= std::uint64_t{1} << (i & 63); }
    void reset(std::size_t i) { words_[i >> 6] &= ~(std::uint64_t{1} << (i & 63)); }

    void resize(std::size_t n, bool value = false) {
        const std::size_t old = size_;
        words_.resize((n + 63) / 64, 0);
        size_ = n;
        if (n < old) {
            trim();
        } else if (value) {
            for (std::size_t i = old; i < n; ++i) set(i);
        }
    }
    std::size_t count() const {
        std::size_t c = 0;
        for (auto w : words_) c += static_cast<std::size_t>(std::popcount(w));
        return c;
    }
    void intersect(const Bitset& other) {
        for (std::size_t i = 0; i < words_.size(); ++i) words_[i] &= i < other.words_.size() ? other.words_[i] : 0;
    }
    // The 32 bits of rows 32b … 32b+31.
    std::uint32_t block32(std::size_t b) const {
        const std::size_t w = b >> 1;
        return w < words_.size() ? static_cast<std::uint32_t>(words_[w] >> ((b & 1) * 32)) : 0u;
    }
    std::span<const std::uint64_t> words() const { return words_; }
    std::span<std::uint64_t> words() { return words_; }

private:
    void trim() {
        if (size_ & 63) words_.back() &= (std::uint64_t{1} << (size_ & 63)) - 1;
    }
    std::vector<std::uint64_t> words_;
    std::size_t size_ = 0;
};

}  // namespace residua
