// SPDX-License-Identifier: Apache-2.0
// The graph of an HNSWIndex: its invariants, and searches beside changes (under -DRESIDUA_SANITIZE=thread).
#if __has_include(<doctest/doctest.h>)
#include <doctest/doctest.h>
#else
#include <doctest.h>
#endif

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "codec/float_codec.hpp"
#include "index/beam.hpp"
#include "index/hnsw_index.hpp"

using namespace residua;
using namespace residua::index;

namespace {

constexpr std::size_t kDim = 12;

std::vector<float> random_rows(std::size_t n, unsigned seed) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    std::vector<float> x(n * kDim);
    for (float& v : x) v = normal(rng);
    return x;
}

enum class Walks { floats, codes, records };

std::unique_ptr<HNSWIndex> make(Walks walks) {
    const bool codes = walks != Walks::floats;
    auto index = std::make_unique<HNSWIndex>(kDim, Metric::l2, store::VectorMode::float32, codes, "",
                                             GraphParams{8, 60, 1, walks == Walks::records});
    if (codes) {
        index->set_codec(std::make_shared<codec::FloatCodec>(kDim, codec::FloatCodec::Type::f16, Metric::l2), 1);
    }
    return index;
}

IdList ids_from(std::int64_t first, std::size_t n) {
    IdList out;
    for (std::size_t i = 0; i < n; ++i) out.ints.push_back(first + static_cast<std::int64_t>(i));
    return out;
}

void check_shape(const HNSWIndex& index) {
    const HNSWIndex::Shape shape = index.shape();
    CHECK(shape.unreachable == 0);
    CHECK((index.size() == 0 || shape.entries > 0));
}

}  // namespace

TEST_CASE("graph: a beam keeps the best rows, best first, equal ones as they came") {
    for (const std::size_t capacity : {1u, 7u, 8u, 9u, 40u}) {
        std::mt19937 rng(static_cast<unsigned>(capacity));
        Beam beam;
        beam.reset(capacity);
        std::vector<ScoredRow> all;
        for (std::uint32_t row = 0; row < 300; ++row) {
            const auto score = static_cast<float>(rng() % 50);
            beam.push(score, row);
            all.push_back({score, row});
            std::uint32_t popped;
            if (row % 7 == 0) beam.pop(popped);  // marks must move with their rows
        }
        std::stable_sort(all.begin(), all.end(), [](const ScoredRow& a, const ScoredRow& b) { return a.score > b.score; });
        REQUIRE(beam.size() == capacity);
        for (std::size_t i = 0; i < capacity; ++i) {
            CHECK(beam[i].score == all[i].score);
            CHECK(beam[i].row == all[i].row);
        }
    }
}

TEST_CASE("graph: every row stays reachable through changes") {
    for (const Walks walks : {Walks::floats, Walks::codes, Walks::records}) {
        const auto index = make(walks);
        const auto x = random_rows(1500, 1);
        index->add({x.data(), 1000, kDim}, nullptr, false, 2);
        check_shape(*index);
        for (int round = 0; round < 4; ++round) {
            index->remove(ids_from(round * 200, 150), false);
            const IdList again = ids_from(round * 200 + 150, 30);
            index->add({x.data() + 1000 * kDim, 30, kDim}, &again, true, 1);
            const IdList more = ids_from(5000 + round * 100, 100);
            index->add({x.data() + (1000 + static_cast<std::size_t>(round) * 100) * kDim, 100, kDim}, &more, false, 2);
            check_shape(*index);
        }
        index->compact();
        check_shape(*index);
        CHECK(index->shape().to_removed == 0);
    }
}

TEST_CASE("graph: the same for any number of threads") {
    const auto x = random_rows(3000, 2);
    const auto a = make(Walks::records), b = make(Walks::records);
    a->add({x.data(), 3000, kDim}, nullptr, false, 1);
    b->add({x.data(), 3000, kDim}, nullptr, false, 3);
    SearchParams params;
    const auto found_a = a->search({x.data(), 50, kDim}, params), found_b = b->search({x.data(), 50, kDim}, params);
    CHECK(found_a.rows == found_b.rows);
    CHECK(found_a.visited == found_b.visited);
    CHECK(a->shape().edges == b->shape().edges);
}

TEST_CASE("graph: searches beside one writer") {
    for (const Walks walks : {Walks::floats, Walks::codes, Walks::records}) {
        const auto index = make(walks);
        const auto x = random_rows(1200, 3);
        index->add({x.data(), 400, kDim}, nullptr, false, 1);
        std::atomic<std::int64_t> removed_below{0};
        std::atomic<bool> stop{false};
        std::atomic<int> bad{0}, searches{0};
        std::vector<std::thread> readers;
        for (int t = 0; t < 2; ++t) {
            readers.emplace_back([&, t] {
                SearchParams params;
                params.ef = 40;
                while (!stop.load()) {
                    const std::int64_t gone = removed_below.load();
                    const auto found = index->search({x.data() + static_cast<std::size_t>(t) * 10 * kDim, 10, kDim}, params);
                    for (const std::int64_t id : found.ids.ints) bad += id < gone;
                    bad += found.ids.ints.size() != 100;
                    ++searches;
                }
            });
        }
        for (std::size_t round = 0; round < 16; ++round) {
            index->add({x.data() + (400 + round * 50) * kDim, 50, kDim}, nullptr, false, 2);
            index->remove(ids_from(static_cast<std::int64_t>(round) * 40, 40), false);
            removed_below.store(static_cast<std::int64_t>(round + 1) * 40);
            if (round % 6 == 5) index->compact();
        }
        while (searches.load() < 4) std::this_thread::yield();
        stop.store(true);
        for (auto& t : readers) t.join();
        CHECK(bad.load() == 0);
        check_shape(*index);
    }
}
