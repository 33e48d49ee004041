// SPDX-License-Identifier: Apache-2.0
// The best rows of many queries, without a matrix of scores: kernels offer rows that beat a query's threshold, and
// between launches the best `keep` of what was offered become the new threshold. Exact, in bounded memory, whatever the
// order of rows: where more rows are offered than fit, those that did fit raise the threshold, and half of the same rows
// are offered again.
//
// Rows are told apart by keys, which order as results do: larger scores first, then smaller rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "cuda/runtime.hpp"
#include "cuda/simt.hpp"

namespace residua::cuda {

using Key = unsigned long long;

// No score that is not NaN has key 0.
RZ_HD inline Key key_of(float score, std::uint32_t row) {
    score = add(score, 0.0f);  // -0 and 0 tie
    std::uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    const std::uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return static_cast<Key>(ordered) << 32 | static_cast<std::uint32_t>(~row);
}
RZ_HD inline std::uint32_t row_of(Key key) { return ~static_cast<std::uint32_t>(key); }
RZ_HD inline float score_of(Key key) {
    const auto ordered = static_cast<std::uint32_t>(key >> 32);
    const std::uint32_t bits = (ordered & 0x80000000u) != 0 ? ordered & 0x7FFFFFFFu : ~ordered;
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

// What kernels see. Pool q has `capacity` places at keys + q * capacity: first `kept[q]` of earlier launches.
struct PoolView {
    Key* keys;
    std::uint32_t* counts;     // offered so far, which may exceed the capacity; those beyond it are lost
    const Key* thresholds;     // what a key must exceed; 0 at first
    std::uint32_t capacity;
    const std::uint32_t* kept;  // places that hold keys of earlier parts; those after them are new

    RZ_DEVICE bool wants(std::uint32_t query, Key key) const { return key > thresholds[query]; }
    RZ_DEVICE void offer(std::uint32_t query, Key key) const {
        if (wants(query, key)) append(query, key);
    }
    // Whatever the threshold: of a row that is scored later.
    RZ_DEVICE void append(std::uint32_t query, Key entry) const {
        const std::uint32_t at = atomic_add(counts + query, 1u);
        if (at < capacity) keys[std::size_t{query} * capacity + at] = entry;
    }
};

class Pools {
public:
    static constexpr std::size_t kMostKept = 8192;

    // keep: at most kMostKept, else ErrorKind::unsupported. 33 KiB per query up to a keep of 2,048, 131 KiB above.
    Pools(Context& context, std::size_t n_queries, std::size_t keep);
    static std::size_t bytes_per_query(std::size_t keep);

    std::size_t keep() const { return keep_; }
    std::size_t size() const { return n_; }
    PoolView view() { return {keys_.data(), counts_.data(), thresholds_.data(), capacity_, kept_.data()}; }

    // Calls offer_rows(begin, end), which launches kernels that offer each row of [begin, end) once, for consecutive parts
    // of [0, n), so that few rows are lost. rescore, if given, is called after each part, before keys are compared:
    // where kernels appended rows by an upper bound it puts their keys in the place of new entries, or 0.
    // `step`: parts begin at its multiples. A part has at most `growth` times the rows before it: few parts cost few
    // launches, short ones offer few rows.
    using Offer = std::function<void(std::size_t begin, std::size_t end)>;
    void scan(std::size_t n, std::size_t step, std::size_t growth, const Offer& offer_rows,
              const std::function<void()>& rescore = {});

    // After offers: keeps the best `keep` of every pool, each once. Whether any offer was lost.
    bool select();

    // Per query the kept keys, best first: row q of (n_queries, keep), 0 where there are none.
    std::vector<Key> take() const;
    const Key* keys() const { return keys_.data(); }
    std::size_t capacity() const { return capacity_; }

private:
    Context& context_;
    std::size_t n_, keep_;
    std::uint32_t capacity_;
    DeviceArray<Key> keys_;
    DeviceArray<std::uint32_t> counts_;
    DeviceArray<Key> thresholds_;
    DeviceArray<std::uint32_t> kept_;
    DeviceArray<std::uint32_t> most_;  // of all counts
};

}  // namespace residua::cuda
