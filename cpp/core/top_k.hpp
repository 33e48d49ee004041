// SPDX-License-Identifier: Apache-2.0
// The k best (score, row) pairs seen so far: larger scores first, ties by smaller id.
// A binary heap with the worst kept pair on top; threshold() is what a newcomer must reach.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/metric.hpp"

namespace residua {

// Order of two rows by their ids; asked on ties only.
class TieOrder {
public:
    virtual ~TieOrder() = default;
    virtual bool before(std::uint32_t row_a, std::uint32_t row_b) const = 0;
};

struct ScoredRow {
    float score;
    std::uint32_t row;
};

class TopK {
public:
    // order == nullptr: ids ascend with rows.
    explicit TopK(std::size_t k, const TieOrder* order = nullptr) : k_(k), order_(order) {}

    std::size_t size() const { return heap_.size(); }
    std::size_t capacity() const { return k_; }
    bool full() const { return heap_.size() >= k_; }
    // Whether, of rows offered in ascending order, only better scores enter a full pool.
    bool ties_ascend() const { return order_ == nullptr; }

    // What is added to every score that comes from now on: a term that the rows of a list share.
    void set_offset(float offset) { offset_ = offset; }

    // A score below this cannot enter; an equal one may, by its id.
    float threshold() const {
        if (!full() || k_ == 0) return kWorstScore;
        const float score = heap_.front().score;
        if (offset_ == 0.0f) return score;
        // Below what the sum with the offset may round to.
        constexpr float kMargin = 4 * std::numeric_limits<float>::epsilon();
        return score - offset_ - kMargin * (std::fabs(score) + std::fabs(offset_));
    }

    void push(float score, std::uint32_t row) {
        const ScoredRow item{score + offset_, row};
        if (!full()) {
            heap_.push_back(item);
            std::push_heap(heap_.begin(), heap_.end(), cmp());
        } else if (k_ > 0 && better(item, heap_.front())) {
            replace_worst(item);
        }
    }
    void merge(const TopK& other) {
        for (const ScoredRow& r : other.heap_) push(r.score, r.row);  // both without an offset
    }
    // Best first; leaves the pool empty.
    std::vector<ScoredRow> take_sorted() {
        std::sort(heap_.begin(), heap_.end(), cmp());
        return std::move(heap_);
    }
    // In no order; leaves the pool empty.
    std::vector<ScoredRow> take() { return std::move(heap_); }
    const std::vector<ScoredRow>& items() const { return heap_; }

    bool better(const ScoredRow& a, const ScoredRow& b) const {
        if (a.score != b.score) return a.score > b.score;
        return order_ != nullptr ? order_->before(a.row, b.row) : a.row < b.row;
    }

private:
    struct Better {
        const TopK* pool;
        bool operator()(const ScoredRow& a, const ScoredRow& b) const { return pool->better(a, b); }
    };
    Better cmp() const { return {this}; }

    // One walk down the heap, where taking the worst off and adding the item would be two.
    void replace_worst(const ScoredRow& item) {
        const std::size_t n = heap_.size();
        std::size_t at = 0;
        for (std::size_t child = 1; child < n; child = 2 * at + 1) {
            if (child + 1 < n && better(heap_[child], heap_[child + 1])) ++child;
            if (!better(item, heap_[child])) break;
            heap_[at] = heap_[child];
            at = child;
        }
        heap_[at] = item;
    }

    std::size_t k_;
    const TieOrder* order_;
    float offset_ = 0.0f;
    std::vector<ScoredRow> heap_;
};

}  // namespace residua
