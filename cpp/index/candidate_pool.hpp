// SPDX-License-Identifier: Apache-2.0
// Candidates of one query whose scores are known to an interval, until they are settled exactly.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "core/top_k.hpp"
#include "index/exact_scan.hpp"

namespace residua::index {

struct Candidate {
    float low, high;  // the exact score lies in [low, high]
    std::uint32_t row;
};

// An overflow in the bounds leaves NaN, which says nothing about the score.
inline Candidate make_candidate(float low, float high, std::uint32_t row) {
    constexpr float kInf = std::numeric_limits<float>::infinity();
    return {low == low ? low : -kInf, high == high ? high : kInf, row};
}

// The k best. When the buffer is full, the k-th best lower bound rules out all rows whose upper bound
// is below it; if too many remain (ties, or bounds wider than the spread of scores) they are settled
// at once. No row that belongs to the result is ever dropped.
class TopKPool {
public:
    TopKPool(std::size_t k, const TieOrder* order, const ExactScorer& scorer, const float* query)
        : k_(k), scorer_(&scorer), query_(query), settled_(k, order) {}

    static std::size_t capacity(std::size_t k) { return 2 * k + 128; }

    // A row whose upper bound is below this is out.
    float threshold() const { return threshold_; }

    void push(float low, float high, std::uint32_t row) {
        buffer_.push_back(make_candidate(low, high, row));
        if (buffer_.size() >= capacity(k_)) shrink();
    }
    void merge(const TopKPool& other) {
        threshold_ = std::max(threshold_, other.threshold_);
        settled_.merge(other.settled_);
        for (const Candidate& c : other.buffer_) {
            if (c.high >= threshold_) push(c.low, c.high, c.row);
        }
    }
    std::vector<ScoredRow> finish() {
        prune();
        settle();
        return settled_.take_sorted();
    }

private:
    void prune() {
        if (buffer_.size() < k_) return;
        const auto kth = buffer_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
        std::nth_element(buffer_.begin(), kth, buffer_.end(),
                         [](const Candidate& a, const Candidate& b) { return a.low > b.low; });
        threshold_ = std::max(threshold_, kth->low);
        std::erase_if(buffer_, [this](const Candidate& c) { return c.high < threshold_; });
    }
    void settle() {
        for (const Candidate& c : buffer_) settled_.push((*scorer_)(query_, c.row), c.row);
        buffer_.clear();
        threshold_ = std::max(threshold_, settled_.threshold());
    }
    void shrink() {
        prune();
        if (buffer_.size() >= k_ + 96) settle();
    }

    std::size_t k_;
    const ExactScorer* scorer_;
    const float* query_;
    TopK settled_;
    std::vector<Candidate> buffer_;
    float threshold_ = kWorstScore;
};

// Which rows are the k best, in no order and without their scores: only those are settled that the
// bounds leave in doubt.
class ChoicePool {
public:
    ChoicePool(std::size_t k, const TieOrder* order, const ExactScorer& scorer, const float* query)
        : k_(k), order_(order), scorer_(&scorer), query_(query) {}

    float threshold() const { return threshold_; }

    void push(float low, float high, std::uint32_t row) {
        buffer_.push_back(make_candidate(low, high, row));
        if (buffer_.size() >= limit_) shrink();
    }
    void merge(const ChoicePool& other) {
        threshold_ = std::max(threshold_, other.threshold_);
        for (const Candidate& c : other.buffer_) {
            if (c.high >= threshold_) push(c.low, c.high, c.row);
        }
    }
    std::vector<ScoredRow> finish() {
        prune();
        std::vector<ScoredRow> out;
        if (buffer_.size() > k_) choose(out);
        for (const Candidate& c : buffer_) out.push_back({c.low, c.row});
        return out;
    }

private:
    void prune() {
        if (buffer_.size() < k_) return;
        const auto kth = buffer_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
        std::nth_element(buffer_.begin(), kth, buffer_.end(),
                         [](const Candidate& a, const Candidate& b) { return a.low > b.low; });
        threshold_ = std::max(threshold_, kth->low);
        std::erase_if(buffer_, [this](const Candidate& c) { return c.high < threshold_; });
    }
    void shrink() {
        prune();
        if (2 * buffer_.size() > TopKPool::capacity(k_) + k_) settle_all();
        limit_ = std::max(TopKPool::capacity(k_), buffer_.size() + 64);
    }
    // Bounds too wide for the spread of the scores: exact scores take their place. A bound has a width
    // (an error is above the spacing of floats around its score), so equal ones were settled before.
    void settle_all() {
        TopK best(k_, order_);
        for (const Candidate& c : buffer_) best.push(c.low == c.high ? c.low : (*scorer_)(query_, c.row), c.row);
        buffer_.clear();
        for (const ScoredRow& r : best.items()) buffer_.push_back({r.score, r.score, r.row});
        threshold_ = std::max(threshold_, best.threshold());
    }
    // A row is certain when fewer than k others can score as much; leaves the certain ones in the
    // buffer and puts the best of the others into `out`.
    void choose(std::vector<ScoredRow>& out) {
        std::vector<float> highs;
        for (const Candidate& c : buffer_) highs.push_back(c.high);
        std::nth_element(highs.begin(), highs.begin() + static_cast<std::ptrdiff_t>(k_), highs.end(), std::greater<>());
        const float next = highs[k_];
        const auto doubt = std::partition(buffer_.begin(), buffer_.end(), [&](const Candidate& c) { return c.low > next; });
        TopK best(k_ - static_cast<std::size_t>(doubt - buffer_.begin()), order_);
        for (auto c = doubt; c != buffer_.end(); ++c) best.push((*scorer_)(query_, c->row), c->row);
        buffer_.erase(doubt, buffer_.end());
        out = best.take();
    }

    std::size_t k_;
    const TieOrder* order_;
    const ExactScorer* scorer_;
    const float* query_;
    std::size_t limit_ = TopKPool::capacity(k_);
    std::vector<Candidate> buffer_;
    float threshold_ = kWorstScore;
};

// All rows that reach a fixed score.
class RangePool {
public:
    RangePool(float threshold, const TieOrder* order, const ExactScorer& scorer, const float* query)
        : threshold_(threshold), order_(0, order), scorer_(&scorer), query_(query) {}

    float threshold() const { return threshold_; }

    void push(float, float, std::uint32_t row) {
        const float score = (*scorer_)(query_, row);
        if (score >= threshold_) found_.push_back({score, row});
    }
    void merge(const RangePool& other) { found_.insert(found_.end(), other.found_.begin(), other.found_.end()); }
    std::vector<ScoredRow> finish() {
        std::sort(found_.begin(), found_.end(),
                  [this](const ScoredRow& a, const ScoredRow& b) { return order_.better(a, b); });
        return std::move(found_);
    }

private:
    float threshold_;
    TopK order_;  // for its comparison only
    const ExactScorer* scorer_;
    const float* query_;
    std::vector<ScoredRow> found_;
};

}  // namespace residua::index
