// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/aligned.hpp"
#include "core/bitset.hpp"
#include "core/error.hpp"
#include "core/matrix.hpp"
#include "core/metric.hpp"
#include "core/parallel.hpp"
#include "core/random.hpp"
#include "core/top_k.hpp"

using namespace residua;

namespace {

using Chunk = std::pair<std::size_t, std::size_t>;

std::vector<Chunk> chunks_of(std::size_t n, std::size_t grain, int num_threads) {
    std::mutex mutex;
    std::vector<Chunk> chunks;
    parallel_for(n, grain, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::lock_guard lock(mutex);
        chunks.emplace_back(begin, end);
    });
    std::sort(chunks.begin(), chunks.end());
    return chunks;
}

// Sets an environment variable for one scope.
class Environment {
public:
    Environment(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
    ~Environment() { unsetenv(name_); }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;

private:
    const char* name_;
};

class InterruptHook {
public:
    explicit InterruptHook(bool (*hook)()) { set_interrupt_hook(hook); }
    ~InterruptHook() { set_interrupt_hook(nullptr); }
    InterruptHook(const InterruptHook&) = delete;
    InterruptHook& operator=(const InterruptHook&) = delete;
};

std::vector<std::uint32_t> rows_of(TopK pool) {
    std::vector<std::uint32_t> rows;
    for (const ScoredRow& r : pool.take_sorted()) rows.push_back(r.row);
    return rows;
}

// Ids descend as rows ascend.
class Descending final : public TieOrder {
public:
    bool before(std::uint32_t a, std::uint32_t b) const override { return a > b; }
};

}  // namespace

TEST_CASE("parallel_for: chunks cover the range once, whatever the number of threads") {
    for (const std::size_t n : {1u, 2u, 7u, 8u, 9u, 1000u}) {
        for (const std::size_t grain : {1u, 3u, 8u, 5000u}) {
            const auto one = chunks_of(n, grain, 1);
            CHECK(one.front().first == 0);
            CHECK(one.back().second == n);
            for (std::size_t i = 1; i < one.size(); ++i) CHECK(one[i].first == one[i - 1].second);
            for (const int threads : {2, 3, 16}) CHECK(chunks_of(n, grain, threads) == one);
        }
    }
}

TEST_CASE("parallel_for: an empty range calls nothing; a zero grain or thread count counts as one") {
    CHECK(chunks_of(0, 8, 4).empty());
    CHECK(chunks_of(3, 0, 0).size() == 3);
}

TEST_CASE("parallel_for: worker numbers stay below the number of threads") {
    std::atomic<bool> inside{true};
    parallel_for(500, 1, 3, [&](std::size_t, std::size_t, int worker) {
        if (worker < 0 || worker >= 3) inside = false;
    });
    CHECK(inside);
}

TEST_CASE("parallel_for: the first exception reaches the caller, and the work stops") {
    for (const int threads : {1, 4}) {
        std::atomic<std::size_t> calls{0};
        const auto failing = [&](std::size_t begin, std::size_t, int) {
            ++calls;
            if (begin == 3) throw Error(ErrorKind::value, "chunk 3");
        };
        CHECK_THROWS_WITH_AS(parallel_for(1'000'000, 1, threads, failing), "chunk 3", Error);
        CHECK(calls < 1'000'000);
    }
}

TEST_CASE("parallel_for: an exception of a worker thread is carried too") {
    const auto failing = [](std::size_t, std::size_t, int worker) {
        if (worker != 0) throw std::runtime_error("worker");
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    };
    CHECK_THROWS_WITH_AS(parallel_for(10'000, 1, 2, failing), "worker", std::runtime_error);
}

TEST_CASE("parallel_for: calls may nest") {
    std::atomic<int> total{0};
    parallel_for(8, 1, 2, [&](std::size_t, std::size_t, int) {
        parallel_for(8, 1, 2, [&](std::size_t, std::size_t, int) { ++total; });
    });
    CHECK(total == 64);
}

TEST_CASE("parallel_for: the interrupt hook stops the work") {
    const InterruptHook hook([] { return true; });
    std::atomic<int> calls{0};
    const auto slow = [&](std::size_t, std::size_t, int) {
        ++calls;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    };
    CHECK_THROWS_AS(parallel_for(100'000, 1, 2, slow), Interrupted);
    CHECK(calls < 100'000);
}

TEST_CASE("number of threads: the environment caps the default, an explicit value wins") {
    CHECK(default_num_threads() >= 1);
    {
        const Environment cap("RESIDUA_NUM_THREADS", "1");
        CHECK(default_num_threads() == 1);
        CHECK(resolve_num_threads(0) == 1);
        CHECK(resolve_num_threads(7) == 7);
    }
    for (const char* bad : {"0", "-2", "two", "2x", "1.5"}) {
        const Environment cap("RESIDUA_NUM_THREADS", bad);
        CHECK_THROWS_AS(default_num_threads(), Error);
    }
}

TEST_CASE("TopK: best first, ties to the smaller row, in any order of arrival") {
    const std::vector<ScoredRow> items{{1.f, 5}, {3.f, 9}, {3.f, 2}, {2.f, 1}, {3.f, 4}, {2.f, 0}, {-1.f, 3}};
    std::vector<std::size_t> order(items.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    const std::vector<std::uint32_t> expected{2, 4, 9, 0, 1, 5, 3};
    Random rng(1);
    for (int repeat = 0; repeat < 50; ++repeat) {
        for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
        for (std::size_t k = 1; k <= items.size() + 1; ++k) {
            TopK pool(k);
            for (const std::size_t i : order) pool.push(items[i].score, items[i].row);
            const std::size_t kept = std::min(k, items.size());
            CHECK(rows_of(std::move(pool)) ==
                  std::vector<std::uint32_t>(expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(kept)));
        }
    }
}

TEST_CASE("TopK: the threshold is the worst kept score once full") {
    TopK pool(2);
    CHECK(pool.threshold() == kWorstScore);
    pool.push(1.f, 0);
    CHECK(pool.threshold() == kWorstScore);
    pool.push(2.f, 1);
    CHECK(pool.threshold() == 1.f);
    pool.push(3.f, 2);
    CHECK(pool.threshold() == 2.f);
    CHECK(pool.full());
}

TEST_CASE("TopK: a tie order over ids replaces the row order") {
    const Descending order;
    TopK pool(2, &order);
    for (std::uint32_t row = 0; row < 5; ++row) pool.push(1.f, row);
    CHECK(rows_of(std::move(pool)) == std::vector<std::uint32_t>{4, 3});
}

TEST_CASE("TopK: merging pools equals one pool; k = 0 keeps nothing") {
    TopK all(4), left(4), right(4), none(0);
    for (std::uint32_t row = 0; row < 40; ++row) {
        const float score = static_cast<float>((row * 7) % 11);
        all.push(score, row);
        (row % 2 == 0 ? left : right).push(score, row);
        none.push(score, row);
    }
    left.merge(right);
    CHECK(rows_of(std::move(left)) == rows_of(std::move(all)));
    CHECK(none.size() == 0);
}

TEST_CASE("Bitset: set, reset, count and 32-bit blocks across word borders") {
    Bitset bits(130);
    for (const std::size_t i : {0u, 31u, 32u, 63u, 64u, 127u, 128u, 129u}) bits.set(i);
    CHECK(bits.count() == 8);
    CHECK(bits.test(63));
    CHECK_FALSE(bits.test(62));
    CHECK(bits.block32(0) == 0x80000001u);
    CHECK(bits.block32(1) == 0x80000001u);
    CHECK(bits.block32(2) == 0x1u);
    CHECK(bits.block32(3) == 0x80000000u);
    CHECK(bits.block32(4) == 0x3u);
    CHECK(bits.block32(5) == 0u);
    CHECK(bits.block32(100) == 0u);
    bits.reset(63);
    CHECK_FALSE(bits.test(63));
    CHECK(bits.count() == 7);
}

TEST_CASE("Bitset: growing fills with the value, shrinking forgets what lay past the end") {
    Bitset bits(70, true);
    CHECK(bits.count() == 70);
    bits.resize(3);
    CHECK(bits.count() == 3);
    bits.resize(200);
    CHECK(bits.count() == 3);
    bits.resize(260, true);
    CHECK(bits.count() == 63);
    bits.resize(0);
    CHECK(bits.count() == 0);
    CHECK(bits.size() == 0);
}

TEST_CASE("Bitset: intersection with a shorter set clears the rest") {
    Bitset a(200, true);
    Bitset b(70, true);
    b.reset(5);
    a.intersect(b);
    CHECK(a.count() == 69);
    CHECK_FALSE(a.test(5));
    CHECK_FALSE(a.test(150));
}

TEST_CASE("Random: the published splitmix64 stream, on every platform") {
    Random zero(0);
    CHECK(zero.next() == 0xE220A8397B1DCDAFull);
    CHECK(zero.next() == 0x6E789E6AA1B965F4ull);
    CHECK(zero.next() == 0x06C45D188009454Full);
    Random other(1234567);
    CHECK(other.next() == 6457827717110365317ull);
    CHECK(other.next() == 3203168211198807973ull);
}

TEST_CASE("Random: below and uniform stay in range and reach its parts") {
    Random rng(3);
    std::set<std::uint64_t> seen;
    for (int i = 0; i < 1000; ++i) {
        const std::uint64_t value = rng.below(7);
        CHECK(value < 7);
        seen.insert(value);
        const double u = rng.uniform();
        CHECK(u >= 0.0);
        CHECK(u < 1.0);
    }
    CHECK(seen.size() == 7);
}

TEST_CASE("sample_rows: distinct, ascending, reproducible, everything when asked for more") {
    const auto rows = sample_rows(1000, 100, 5);
    CHECK(rows.size() == 100);
    CHECK(std::is_sorted(rows.begin(), rows.end()));
    CHECK(std::adjacent_find(rows.begin(), rows.end()) == rows.end());
    CHECK(rows.back() < 1000);
    CHECK(rows == sample_rows(1000, 100, 5));
    CHECK(rows != sample_rows(1000, 100, 6));
    CHECK(sample_rows(4, 9, 0) == std::vector<std::size_t>{0, 1, 2, 3});
    CHECK(sample_rows(0, 3, 0).empty());
}

TEST_CASE("metric names round-trip; an unknown one says what works") {
    for (const Metric m : {Metric::cosine, Metric::ip, Metric::l2}) CHECK(parse_metric(to_string(m)) == m);
    CHECK_THROWS_WITH_AS(parse_metric("dot"), "metric must be 'cosine', 'ip' or 'l2', got 'dot'", Error);
}

TEST_CASE("aligned storage that a thread gave back comes again, and goes with the thread") {
    constexpr std::size_t kBytes = 1536;
    void* const first = acquire_lines(kBytes);
    void* const second = acquire_lines(kBytes);
    CHECK(first != second);
    CHECK(reinterpret_cast<std::uintptr_t>(first) % kCacheLine == 0);
    release_lines(first, kBytes);
    release_lines(second, kBytes);
    void* const again = acquire_lines(kBytes);
    CHECK(again == second);
    std::thread([again] { release_lines(again, kBytes); }).join();
    // More sizes than are kept: pieces of the oldest go back to the system.
    for (std::size_t n = 1; n <= 40; ++n) release_lines(acquire_lines(64 * n), 64 * n);
    for (std::size_t n = 1; n <= 40; ++n) {
        AlignedVector<std::uint8_t> bytes(64 * n, std::uint8_t{7});
        CHECK(reinterpret_cast<std::uintptr_t>(bytes.data()) % kCacheLine == 0);
    }
}

TEST_CASE("matrix views and aligned storage") {
    AlignedVector<float> values(12);
    CHECK(reinterpret_cast<std::uintptr_t>(values.data()) % kCacheLine == 0);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    const MutMatrix wide(values.data(), 3, 2, 4);
    CHECK(wide.row(2)[1] == 9.f);
    const ConstMatrix tail = ConstMatrix(wide).slice(1, 3);
    CHECK(tail.rows == 2);
    CHECK(tail.row(0)[0] == 4.f);
}
