// SPDX-License-Identifier: Apache-2.0
// What a walk over a graph carries: the best rows seen so far, and which rows were seen.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "core/top_k.hpp"

namespace residua::index {

// The `capacity` best rows, best first, each marked once its neighbours were looked at. A linear array:
// with a few hundred rows, moving its tail costs less than the branches of a heap.
class Beam {
public:
    static constexpr std::uint32_t kExpanded = 0x80000000u;  // rows are below 2^31

    void reset(std::size_t capacity) {
        capacity_ = capacity;
        if (items_.size() < capacity + 1) items_.resize(capacity + 1);
        size_ = next_ = 0;
    }
    std::size_t size() const { return size_; }
    bool full() const { return size_ == capacity_; }
    float worst() const { return full() ? items_[size_ - 1].score : kWorstScore; }

    // Equal scores stand in the order in which they came.
    void push(float score, std::uint32_t row) {
        if (full() && !(score > items_[size_ - 1].score)) return;
        // Most newcomers belong near the end: steps back, by a cache line where it moves as a whole, cost less
        // than a mispredicted bisection.
        constexpr std::ptrdiff_t kStep = 8;
        ScoredRow* const first = items_.data();
        ScoredRow* at = first + (full() ? size_ - 1 : size_);
        for (; at - first >= kStep && score > at[-kStep].score; at -= kStep) {
            ScoredRow moved[kStep];
            std::memcpy(moved, at - kStep, sizeof moved);
            std::memcpy(at - kStep + 1, moved, sizeof moved);
        }
        for (; at != first && score > at[-1].score; --at) *at = at[-1];
        const std::size_t place = static_cast<std::size_t>(at - first);
        *at = {score, row};
        if (size_ < capacity_) ++size_;
        next_ = std::min(next_, place);
    }
    // The best row that was not expanded yet, which it now is; false when there is none.
    bool pop(std::uint32_t& row) {
        while (next_ < size_ && (items_[next_].row & kExpanded) != 0) ++next_;
        if (next_ == size_) return false;
        row = items_[next_].row;
        items_[next_++].row |= kExpanded;
        return true;
    }
    // The row that pop() would give, as far as it is known at no cost.
    bool peek(std::uint32_t& row) const {
        for (std::size_t i = next_; i < size_; ++i) {
            if ((items_[i].row & kExpanded) == 0) {
                row = items_[i].row;
                return true;
            }
        }
        return false;
    }
    ScoredRow operator[](std::size_t i) const { return {items_[i].score, items_[i].row & ~kExpanded}; }

private:
    std::vector<ScoredRow> items_;
    std::size_t capacity_ = 0;
    std::size_t size_ = 0;
    std::size_t next_ = 0;  // all before are expanded
};

// A set of rows that is emptied in the time that filling it took.
class VisitedRows {
public:
    void reset(std::size_t n) {
        for (const std::uint32_t r : seen_) words_[r >> 6] = 0;
        seen_.clear();
        if (words_.size() < (n + 63) / 64) words_.resize((n + 63) / 64, 0);
    }
    bool test(std::uint32_t row) const { return (words_[row >> 6] >> (row & 63) & 1) != 0; }
    // Whether the row is new.
    bool insert(std::uint32_t row) {
        std::uint64_t& word = words_[row >> 6];
        const std::uint64_t bit = std::uint64_t{1} << (row & 63);
        if ((word & bit) != 0) return false;
        word |= bit;
        seen_.push_back(row);
        return true;
    }
    std::size_t count() const { return seen_.size(); }

private:
    std::vector<std::uint64_t> words_;
    std::vector<std::uint32_t> seen_;
};

}  // namespace residua::index
