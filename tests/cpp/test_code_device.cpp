// SPDX-License-Identifier: Apache-2.0
// What an index asks of a device: in batches, with ranks that are a permutation in the order of ids, and with the
// answers that it finds by itself.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "codec/binary_codec.hpp"
#include "core/error.hpp"
#include "core/random.hpp"
#include "index/code_device.hpp"
#include "index/flat_index.hpp"
#include "index/ivf_index.hpp"

namespace {

using namespace residua;
using index::RowLists;

class RankOrder final : public TieOrder {
public:
    explicit RankOrder(std::vector<std::uint32_t> ranks) : ranks_(std::move(ranks)) {}
    bool before(std::uint32_t a, std::uint32_t b) const override { return ranks_[a] < ranks_[b]; }

private:
    std::vector<std::uint32_t> ranks_;
};

// Scans by the scorers of the CPU.
class HostDevice final : public index::CodeDevice {
public:
    std::string name() const override { return "host:0"; }
    std::size_t most_kept() const override { return 40; }
    std::size_t memory_bytes() const override { return 0; }
    void hold(const index::CodesNow& codes, int) override { stamps.push_back(codes.stamp); }
    RowLists best(const index::CodesNow& codes, const codec::Scorer& queries, std::size_t keep, const Bitset* allowed, int) override {
        std::vector<index::RowRange> all;
        for (std::uint32_t q = 0; q < queries.size(); ++q) all.push_back({q, 0, static_cast<std::uint32_t>(codes.view.n), 0.0f});
        return best_of(codes, queries, all, keep, allowed, 1);
    }
    RowLists best_of(const index::CodesNow& codes, const codec::Scorer& queries, std::span<const index::RowRange> ranges, std::size_t keep,
                     const Bitset* allowed, int) override {
        batches.push_back(queries.size());
        stamps.push_back(codes.stamp);
        const RankOrder order(codes.ranks ? checked(codes.ranks(), codes.view.n) : std::vector<std::uint32_t>());
        std::vector<TopK> pools(queries.size(), TopK(keep, codes.ranks ? &order : nullptr));
        for (const index::RowRange& r : ranges) {
            REQUIRE(r.begin % codec::kBlockRows == 0);
            pools[r.query].set_offset(r.term);
            queries.top_k(codes.view, r.begin, r.end, allowed, r.query, r.query + 1, &pools[r.query]);
        }
        RowLists out;
        for (TopK& pool : pools) out.push_back(pool.take_sorted());
        return out;
    }

    std::vector<std::size_t> batches;
    std::vector<std::uint64_t> stamps;

private:
    static std::vector<std::uint32_t> checked(std::vector<std::uint32_t> ranks, std::size_t n) {
        REQUIRE(ranks.size() == n);
        std::vector<std::uint32_t> sorted = ranks;
        std::sort(sorted.begin(), sorted.end());
        for (std::uint32_t i = 0; i < n; ++i) REQUIRE(sorted[i] == i);
        return ranks;
    }
};

constexpr std::size_t kDim = 32, kRows = 90;

std::vector<float> vectors(std::size_t n, std::uint64_t seed) {
    Random random(seed);
    std::vector<float> out(n * kDim);
    for (float& v : out) v = static_cast<float>(random.uniform() - 0.5);
    return out;
}

ConstMatrix view(const std::vector<float>& x) { return {x.data(), x.size() / kDim, kDim}; }

index::IdList descending_ids() {
    index::IdList ids;
    for (std::size_t i = 0; i < kRows; ++i) ids.ints.push_back(static_cast<std::int64_t>(1000 - i));
    return ids;
}

std::shared_ptr<const codec::Codec> codec_of(Metric metric) { return std::make_shared<codec::BinaryCodec>(kDim, kDim, metric); }

template <class Search>
void check_same(const Search& search, std::int64_t rerank, HostDevice& device) {
    index::SearchParams params;
    params.k = 10;
    params.rerank = rerank;
    const index::SearchResult expected = search(params);
    params.device = &device;
    const index::SearchResult found = search(params);
    CHECK(found.ids.ints == expected.ids.ints);
    CHECK(found.scores == expected.scores);
    CHECK(found.offsets == expected.offsets);
}

}  // namespace

TEST_CASE("a flat index hands queries to a device in batches") {
    index::FlatIndex index(kDim, Metric::cosine, store::VectorMode::float32, true);
    index.set_codec(codec_of(Metric::cosine), 1);
    const std::vector<float> x = vectors(kRows, 1), q = vectors(index::kDeviceQueries + 5, 2);
    const index::IdList ids = descending_ids();
    index.add(view(x), &ids, false, 1);
    HostDevice device;
    check_same([&](const index::SearchParams& p) { return index.search(view(q), p); }, 0, device);
    check_same([&](const index::SearchParams& p) { return index.search(view(q), p); }, 30, device);
    std::vector<std::uint8_t> codes(view(q).rows * index.codec()->code_bytes());
    index.codec()->encode(view(q), codes.data(), 1, codec::Effort::rounded);
    check_same([&](const index::SearchParams& p) { return index.search_codes(codes.data(), view(q).rows, p); }, 0, device);
    CHECK(device.batches == std::vector<std::size_t>{index::kDeviceQueries, 5, index::kDeviceQueries, 5, index::kDeviceQueries, 5});
    index::SearchParams wide;
    wide.k = 50;
    wide.rerank = 0;
    wide.device = &device;
    CHECK_THROWS_AS(index.search(view(q), wide), Error);
}

TEST_CASE("every change of codes has a stamp of its own") {
    index::FlatIndex flat(kDim, Metric::cosine, store::VectorMode::float32, true);
    flat.set_codec(codec_of(Metric::cosine), 1);
    index::IvfIndex lists(kDim, Metric::cosine, store::VectorMode::float32, true);
    const std::vector<float> x = vectors(kRows, 1);
    lists.train({vectors(4, 3), codec_of(Metric::cosine), false, 0.0}, 1);
    for (index::TableIndex* index : {static_cast<index::TableIndex*>(&flat), static_cast<index::TableIndex*>(&lists)}) {
        HostDevice device;
        index->bring_codes(device, 1);
        const index::IdList ids = index->add(view(x), nullptr, false, 1);
        index->bring_codes(device, 1);
        index::IdList one;
        one.ints = {ids.ints[7]};
        index->add(view(x).slice(0, 1), &one, true, 1);
        index->bring_codes(device, 1);
        index->remove(one, false);
        index->compact();
        index->bring_codes(device, 1);
        std::vector<std::uint64_t> stamps = device.stamps;
        index->bring_codes(device, 1);
        CHECK(device.stamps.back() == stamps.back());  // nothing has changed
        std::sort(stamps.begin(), stamps.end());
        CHECK(std::unique(stamps.begin(), stamps.end()) == stamps.end());
    }
}

TEST_CASE("lists are ranges, whose places go by the ids of their rows") {
    index::IvfIndex index(kDim, Metric::cosine, store::VectorMode::float32, true);
    index.train({vectors(6, 3), codec_of(Metric::cosine), false, 0.0}, 1);
    const std::vector<float> x = vectors(kRows, 1), q = vectors(20, 2);
    const index::IdList ids = descending_ids();
    index.add(view(x), &ids, false, 1);
    HostDevice device;
    check_same([&](const index::SearchParams& p) { return index.search(view(q), p); }, 0, device);
    index::IdList gone;
    gone.ints = {1000, 990, 950};
    index.remove(gone, false);
    check_same([&](const index::SearchParams& p) { return index.search(view(q), p); }, 0, device);
    index.compact();
    check_same([&](const index::SearchParams& p) { return index.search(view(q), p); }, 25, device);
}
