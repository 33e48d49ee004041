// SPDX-License-Identifier: Apache-2.0
// When the device takes the codes of an index, and what is left where it cannot.
#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "codec/binary_codec.hpp"
#include "core/error.hpp"
#include "cuda/index_device.hpp"

namespace {

using namespace residua;
using namespace residua::cuda;

struct Seen {
    int made = 0, alive = 0, taken = 0, ranked = 0;
    bool fails = false;
    const DeviceRanks* ranks = nullptr;
};

// Finds row 0.
class FakeScan final : public CodeScan {
public:
    FakeScan(Context& context, Seen& seen) : context_(context), seen_(seen) {
        CHECK(seen_.alive == 0);
        ++seen_.made;
        ++seen_.alive;
    }
    ~FakeScan() override { --seen_.alive; }
    void take(const codec::Codec&, codec::BlockView codes, int) override {
        ++seen_.taken;
        memory_ = {context_, codes.n, "the codes"};
        if (seen_.fails) throw Error(ErrorKind::out_of_memory, "no room");
    }
    std::size_t rows() const override { return memory_.size(); }
    std::size_t device_bytes() const override { return memory_.bytes(); }
    std::vector<std::vector<ScoredRow>> best(const codec::Scorer& queries, std::size_t, const RowChoice& choice) override {
        seen_.ranks = choice.kept;
        return std::vector<std::vector<ScoredRow>>(queries.size(), {{1.0f, 0}});
    }
    std::vector<std::vector<ScoredRow>> best_of(const codec::Scorer& queries, std::span<const RowRange>, std::size_t keep,
                                                const RowChoice& choice) override {
        return best(queries, keep, choice);
    }

private:
    Context& context_;
    Seen& seen_;
    DeviceArray<std::uint8_t> memory_;
};

struct Fixture {
    std::shared_ptr<SharedContext> context = std::make_shared<SharedContext>(0, 0, 0);
    Seen seen;
    IndexDevice device{context, [this](Context& c, const codec::Codec&) { return std::make_unique<FakeScan>(c, seen); }};
    std::shared_ptr<const codec::Codec> codec = std::make_shared<codec::BinaryCodec>(64, 64, Metric::cosine);
    std::vector<float> query = std::vector<float>(128, 1.0f);
    std::unique_ptr<codec::Scorer> queries = codec->prepare({query.data(), 2, 64}, 1);

    index::CodesNow codes(std::uint64_t stamp, std::size_t n) const { return {codec, {nullptr, n}, stamp, {}}; }
    std::size_t used() { return context->use([](Context& c) { return c.used(); }); }
};

}  // namespace

TEST_CASE("a device takes codes once per state of them") {
    Fixture f;
    f.device.hold(f.codes(1, 100), 1);
    CHECK(f.device.best(f.codes(1, 100), *f.queries, 1, nullptr, 1).size() == 2);
    CHECK(f.seen.taken == 1);
    CHECK(f.device.memory_bytes() == 100);
    f.device.best(f.codes(2, 300), *f.queries, 1, nullptr, 1);
    CHECK(f.seen.taken == 2);
    CHECK(f.seen.made == 1);
    CHECK(f.device.memory_bytes() == 300);
    // Another codec gets another scan, after the first is gone.
    f.codec = std::make_shared<codec::BinaryCodec>(64, 64, Metric::cosine);
    f.device.best(f.codes(2, 300), *f.queries, 1, nullptr, 1);
    CHECK(f.seen.made == 2);
    CHECK(f.seen.alive == 1);
    // An index without rows holds nothing, and finds nothing.
    const index::RowLists none = f.device.best(f.codes(3, 0), *f.queries, 1, nullptr, 1);
    REQUIRE(none.size() == 2);
    CHECK((none[0].empty() && none[1].empty()));
    CHECK(f.used() == 0);
    CHECK(f.device.memory_bytes() == 0);
}

TEST_CASE("a device that failed holds nothing and tries again") {
    Fixture f;
    f.device.hold(f.codes(1, 100), 1);
    f.seen.fails = true;
    CHECK_THROWS_AS(f.device.hold(f.codes(2, 200), 1), Error);
    CHECK(f.used() == 0);
    CHECK(f.device.memory_bytes() == 0);
    CHECK_THROWS_AS(f.device.best(f.codes(1, 100), *f.queries, 1, nullptr, 1), Error);
    f.seen.fails = false;
    CHECK(f.device.best(f.codes(1, 100), *f.queries, 1, nullptr, 1).size() == 2);
    CHECK(f.device.memory_bytes() == 100);
}

TEST_CASE("ranks are asked for once per state of the codes, by the first search") {
    Fixture f;
    auto codes = f.codes(1, 3);
    codes.ranks = [&] {
        ++f.seen.ranked;
        return std::vector<std::uint32_t>{2, 0, 1};
    };
    f.device.hold(codes, 1);
    CHECK(f.seen.ranked == 0);
    f.device.best(codes, *f.queries, 1, nullptr, 1);
    f.device.best_of(codes, *f.queries, std::vector<RowRange>{{0, 0, 3, 0.0f}}, 1, nullptr, 1);
    CHECK(f.seen.ranked == 1);
    REQUIRE(f.seen.ranks != nullptr);
    CHECK(f.seen.ranks->ranks.to_host() == std::vector<std::uint32_t>{2, 0, 1});
    CHECK(f.seen.ranks->rows.to_host() == std::vector<std::uint32_t>{1, 2, 0});
    CHECK(f.device.memory_bytes() == 3 + 24);
    codes.stamp = 2;
    f.device.best(codes, *f.queries, 1, nullptr, 1);
    CHECK(f.seen.ranked == 2);
    f.device.best(f.codes(3, 3), *f.queries, 1, nullptr, 1);
    CHECK(f.seen.ranks == nullptr);
}
