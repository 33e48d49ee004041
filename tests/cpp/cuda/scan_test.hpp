// SPDX-License-Identifier: Apache-2.0
// What scans on the device find against scores of the CPU.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "codec/codec.hpp"
#include "core/aligned.hpp"
#include "core/random.hpp"
#include "cuda/code_scan.hpp"

namespace residua::cuda::scan_test {

inline std::vector<float> normal_values(std::size_t n, std::uint64_t seed) {
    Random random(seed);
    std::vector<float> out(n);
    for (float& v : out) {
        double sum = -6;
        for (int i = 0; i < 12; ++i) sum += random.uniform();
        v = static_cast<float>(sum);
    }
    return out;
}

inline AlignedVector<std::uint8_t> pack(const codec::Codec& codec, const std::vector<std::uint8_t>& codes) {
    const std::size_t bytes = codec.code_bytes(), n = codes.size() / bytes, blocks = (n + codec::kBlockRows - 1) / codec::kBlockRows;
    AlignedVector<std::uint8_t> out(blocks * codec.block_bytes());
    for (std::size_t b = 0; b < blocks; ++b) {
        const std::size_t first = b * codec::kBlockRows;
        codec.pack_block(codes.data() + first * bytes, std::min(codec::kBlockRows, n - first), out.data() + b * codec.block_bytes());
    }
    return out;
}

// Every `step`-th row, from row `from` on.
inline Bitset every(std::size_t n, std::size_t step, std::size_t from = 0) {
    Bitset out(n);
    for (std::size_t i = from; i < n; i += step) out.set(i);
    return out;
}

// Rows in some other order.
inline std::vector<std::uint32_t> shuffled_ranks(std::size_t n) {
    std::vector<std::uint32_t> out;
    for (const std::size_t r : permutation(n, 3)) out.push_back(static_cast<std::uint32_t>(r));
    return out;
}

struct Case {
    const codec::Codec& codec;
    codec::BlockView codes;
    const codec::Scorer& queries;
    bool same_bits = false;  // as the CPU, of every score
};

// Scores may differ by what float32 loses where the parts of a score are as large as `size`.
inline bool near(float a, float b, float size) { return std::fabs(a - b) <= 1e-5f * std::max(std::fabs(b), size); }

inline void check_found(const Case& c, const std::vector<ScoredRow>& found, std::vector<ScoredRow> expected,
                        const std::vector<float>& scores, std::size_t keep, const RowChoice& choice) {
    const auto rank = [&](std::uint32_t row) { return choice.ranks.empty() ? row : choice.ranks[row]; };
    const auto better = [&](const ScoredRow& a, const ScoredRow& b) {
        return a.score != b.score ? a.score > b.score : rank(a.row) < rank(b.row);
    };
    std::sort(expected.begin(), expected.end(), better);
    REQUIRE(found.size() == std::min(keep, expected.size()));
    float size = 0;
    for (const ScoredRow& r : expected) size = std::max(size, std::fabs(r.score));
    std::vector<std::uint32_t> rows;
    for (std::size_t i = 0; i < found.size(); ++i) {
        rows.push_back(found[i].row);
        if (c.same_bits) {
            REQUIRE(found[i].row == expected[i].row);
            REQUIRE(found[i].score == expected[i].score);
        }
        REQUIRE(near(found[i].score, expected[i].score, 0.1f * size));
        REQUIRE(found[i].row < scores.size());
        REQUIRE(near(found[i].score, scores[found[i].row], 0.1f * size));
        if (i > 0) REQUIRE(better(found[i - 1], found[i]));
        if (choice.allowed != nullptr) REQUIRE(choice.allowed->test(found[i].row));
    }
    std::sort(rows.begin(), rows.end());
    REQUIRE(std::adjacent_find(rows.begin(), rows.end()) == rows.end());
}

inline void check_best(CodeScan& scan, const Case& c, std::size_t keep, const RowChoice& choice) {
    const auto found = scan.best(c.queries, keep, choice);
    REQUIRE(found.size() == c.queries.size());
    for (std::size_t q = 0; q < found.size(); ++q) {
        std::vector<float> scores(c.codes.n);
        c.queries.scores(c.codes, 0, c.codes.n, q, scores.data());
        std::vector<ScoredRow> expected;
        for (std::uint32_t r = 0; r < c.codes.n; ++r) {
            if (choice.allowed == nullptr || choice.allowed->test(r)) expected.push_back({scores[r], r});
        }
        check_found(c, found[q], expected, scores, keep, choice);
    }
}

inline void check_best_of(CodeScan& scan, const Case& c, const std::vector<RowRange>& ranges, std::size_t keep, const RowChoice& choice) {
    const auto found = scan.best_of(c.queries, ranges, keep, choice);
    REQUIRE(found.size() == c.queries.size());
    for (std::size_t q = 0; q < found.size(); ++q) {
        std::vector<float> scores(c.codes.n);
        c.queries.scores(c.codes, 0, c.codes.n, q, scores.data());
        std::vector<ScoredRow> expected;
        for (const RowRange& range : ranges) {
            if (range.query != q) continue;
            for (std::uint32_t r = range.begin; r < range.end; ++r) {
                scores[r] += range.term;
                if (choice.allowed == nullptr || choice.allowed->test(r)) expected.push_back({scores[r], r});
            }
        }
        check_found(c, found[q], expected, scores, keep, choice);
    }
}

// All that a scan is asked for: few and many kept, filters, ranks, ranges of some queries in any order.
inline void check_scan(CodeScan& scan, const Case& c) {
    const std::size_t n = c.codes.n;
    REQUIRE(scan.rows() == n);
    check_best(scan, c, 10, {});
    check_best(scan, c, 2048, {});
    const Bitset some = every(n, 7, 3), none(n);
    const std::vector<std::uint32_t> ranks = shuffled_ranks(n);
    check_best(scan, c, 20, {&some, ranks});
    check_best(scan, c, 3, {&none, {}});
    std::vector<RowRange> ranges;
    for (std::uint32_t q = static_cast<std::uint32_t>(c.queries.size()); q-- > 0;) {
        if (q % 3 == 1) continue;  // without rows
        for (std::uint32_t begin = q % 2 * 32; begin < n; begin += 128) {
            const std::uint32_t end = std::min(begin + 40 + begin / 32 % 3 * 10, static_cast<std::uint32_t>(n));
            ranges.push_back({q, begin, end, -0.25f * static_cast<float>(begin / 128 % 3)});
        }
        ranges.push_back({q, 64, 64, 1.0f});
    }
    check_best_of(scan, c, ranges, 15, {});
    check_best_of(scan, c, ranges, 15, {&some, ranks});
}

}  // namespace residua::cuda::scan_test
