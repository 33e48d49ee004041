// SPDX-License-Identifier: Apache-2.0
// A lane is one byte per row that says roughly what a column holds there: the number of a bin of
// values, or kNullBin. A condition becomes the bins that surely match, found by one pass of a byte
// kernel, and those whose rows have to be looked at (docs/adr/0006-byte-lanes.md).
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "core/bitset.hpp"
#include "kernel/dispatch.hpp"
#include "kernel/set_kernels.hpp"
#include "store/shared_array.hpp"

namespace residua::filter {

inline constexpr std::size_t kMaxBins = 255;
inline constexpr std::uint8_t kNullBin = 255;

// A bin with many rows of different values is worth being split, once it holds this many of n.
inline std::size_t crowded(std::size_t n) { return std::max<std::size_t>(n / 16, 2048); }

// Makes room for n elements; an eighth in reserve, as columns have many rows.
template <class T>
void reserve(store::SharedArray<T>& array, std::size_t n) {
    auto& own = array.edit();
    if (n > own.capacity()) own.reserve(std::max(n, own.capacity() + own.capacity() / 8));
}

class ByteSet {
public:
    void add(std::size_t byte) {
        table_[byte / 128 * 16 + byte % 16] |= static_cast<std::uint8_t>(1u << (byte / 16 % 8));
        empty_ = false;
    }
    bool empty() const { return empty_; }
    const std::uint8_t* table() const { return table_.data(); }

private:
    std::array<std::uint8_t, kernel::kByteSetBytes> table_{};
    bool empty_ = true;
};

struct LookAtNone {
    bool operator()(std::size_t) const { return true; }
};

// Sets the bits of the rows whose bin is in `sure`, and of those in `maybe` that pass(row). look(row),
// which is true for all that pass and for few others, spares the branches of the rest.
template <class Pass, class Look = LookAtNone>
void select_rows(std::span<const std::uint8_t> lane, const ByteSet& sure, const ByteSet& maybe, Pass pass, Bitset& out,
                 Look look = {}) {
    constexpr std::size_t kPiece = 4096;
    const auto members = kernel::active().sets.members;
    const std::span<std::uint64_t> words = out.words();
    members(lane.data(), lane.size(), sure.table(), words.data());
    if (maybe.empty()) return;
    std::uint64_t candidates[kPiece / 64];
    for (std::size_t begin = 0; begin < lane.size(); begin += kPiece) {
        const std::size_t n = std::min(kPiece, lane.size() - begin);
        members(lane.data() + begin, n, maybe.table(), candidates);
        for (std::size_t w = 0; w < (n + 63) / 64; ++w) {
            const std::size_t first = begin + 64 * w;
            std::uint64_t left = candidates[w], found = 0;
            if (!std::is_same_v<Look, LookAtNone> && left == ~std::uint64_t{0}) {
                left = 0;
                for (std::size_t i = 0; i < 64; ++i) left = left >> 1 | static_cast<std::uint64_t>(look(first + i)) << 63;
            }
            for (; left != 0; left &= left - 1) {
                const std::size_t row = first + static_cast<std::size_t>(std::countr_zero(left));
                found |= pass(row) ? left & (~left + 1) : 0;
            }
            words[begin / 64 + w] |= found;
        }
    }
}

}  // namespace residua::filter
