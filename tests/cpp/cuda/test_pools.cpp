// SPDX-License-Identifier: Apache-2.0
// The best rows of many queries against sorting all of them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "core/error.hpp"
#include "core/random.hpp"
#include "cuda/launch.hpp"
#include "cuda/pools.hpp"

namespace {

using namespace residua;
using namespace residua::cuda;

struct OfferScores {
    static constexpr int kThreads = 64;
    PoolView pools;
    const float* scores;  // (queries, n)
    std::size_t n, begin, end;
    RZ_DEVICE void operator()() const {
        const std::uint32_t query = block_index().x;
        for (std::size_t r = begin + static_cast<std::size_t>(thread_index()); r < end; r += kThreads) {
            pools.offer(query, key_of(scores[query * n + r], static_cast<std::uint32_t>(r)));
        }
    }
};

void check_against_sorting(const std::vector<float>& scores, std::size_t n, std::size_t keep) {
    const std::size_t nq = scores.size() / n;
    Context context(0);
    const DeviceArray<float> device_scores(context, scores, "the test");
    Pools pools(context, nq, keep);
    pools.scan(n, 32, 8, [&](std::size_t begin, std::size_t end) {
        launch(OfferScores{pools.view(), device_scores.data(), n, begin, end}, context, {nq});
    });
    const std::vector<Key> found = pools.take();
    for (std::size_t q = 0; q < nq; ++q) {
        std::vector<Key> all;
        for (std::size_t r = 0; r < n; ++r) all.push_back(key_of(scores[q * n + r], static_cast<std::uint32_t>(r)));
        std::sort(all.begin(), all.end(), std::greater<>());
        all.resize(std::max(n, keep));
        for (std::size_t i = 0; i < keep; ++i) REQUIRE(found[q * keep + i] == all[i]);
    }
}

std::vector<float> random_scores(std::size_t n, int distinct, std::uint64_t seed) {
    Random random(seed);
    std::vector<float> out(n);
    for (float& v : out) v = static_cast<float>(random.below(static_cast<std::uint64_t>(distinct))) - static_cast<float>(distinct / 2);
    return out;
}

}  // namespace

TEST_CASE("keys order by score, then by the smaller row") {
    const float inf = std::numeric_limits<float>::infinity();
    const float scores[] = {-inf, -3e38f, -1.0f, -1e-42f, 0.0f, 1e-42f, 1.0f, 3e38f, inf};
    Key last = 0;
    for (float score : scores) {
        CHECK(key_of(score, 4'294'967'295u) > last);
        CHECK(key_of(score, 7) > key_of(score, 8));
        CHECK(score_of(key_of(score, 12)) == score);
        CHECK(row_of(key_of(score, 12)) == 12);
        last = key_of(score, 0);
    }
    CHECK(key_of(-0.0f, 5) == key_of(0.0f, 5));
}

TEST_CASE("pools keep the best rows, ties by row") {
    check_against_sorting(random_scores(3 * 20'000, 1'000'000, 1), 20'000, 10);
    check_against_sorting(random_scores(2 * 20'000, 7, 2), 20'000, 300);   // thousands of ties
    check_against_sorting(random_scores(2 * 9'001, 5'000, 3), 9'001, 2048);
    check_against_sorting(random_scores(40'000, 5'000, 4), 40'000, 8192);
    check_against_sorting(random_scores(3 * 50, 100, 5), 50, 64);          // fewer rows than are kept
    check_against_sorting(random_scores(2 * 7'000, 100, 6), 7'000, 1);
}

TEST_CASE("rows that get better and better are offered again until none is lost") {
    std::vector<float> rising(60'000);
    for (std::size_t i = 0; i < rising.size(); ++i) rising[i] = std::floor(static_cast<float>(i) / 3);
    check_against_sorting(rising, rising.size(), 10);
    check_against_sorting(rising, rising.size(), 2000);
    std::reverse(rising.begin(), rising.end());
    check_against_sorting(rising, rising.size(), 100);
}

TEST_CASE("a pool has limits") {
    Context context(0, std::size_t{1} << 20);
    CHECK_THROWS_AS(Pools(context, 1, 0), Error);
    CHECK_THROWS_AS(Pools(context, 1, Pools::kMostKept + 1), Error);
    try {
        Pools(context, 1000, 10);
        FAIL("the limit was ignored");
    } catch (const Error& e) {
        CHECK(e.kind() == ErrorKind::out_of_memory);
        CHECK(std::string(e.what()).find("limit of 1024 KiB") != std::string::npos);
    }
    CHECK(context.used() == 0);
    Pools small(context, 10, 10);  // the context is as good as before
    CHECK(context.used() > 0);
}
