// SPDX-License-Identifier: Apache-2.0
// Scans of linear codes by the kernels of the GPU against those of the CPU: the same rows, the same bits of scores.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "codec/binary_codec.hpp"
#include "codec/recurrent_codec.hpp"
#include "codec/scalar_codec.hpp"
#include "core/error.hpp"
#include "core/random.hpp"
#include "cuda/linear_scan.hpp"

namespace {

using namespace residua;
using namespace residua::cuda;

std::vector<float> normals(std::size_t n, std::uint64_t seed) {
    Random random(seed);
    std::vector<float> out(n);
    for (float& v : out) {
        double sum = 0;
        for (int i = 0; i < 6; ++i) sum += random.uniform();
        v = static_cast<float>(sum - 3);
    }
    return out;
}

std::shared_ptr<const codec::Codec> recurrent(std::size_t dim, std::vector<std::uint8_t> bits, Metric metric) {
    codec::RecurrentParams p;
    p.metric = metric;
    p.dim = p.block_dims = dim;
    p.bits = 1;
    p.group_bits = std::move(bits);
    const std::size_t rows = p.group_bits.size() * 32;
    p.center = normals(dim, 1);
    for (float& v : p.center) v *= 0.1f;
    p.query_mean = p.center;
    p.encode_map = normals(rows * dim, 2);
    for (float& v : p.encode_map) v *= 0.1f;
    p.query_scale.assign(p.group_bits.size(), 1.0f);
    for (std::size_t g = 0; g < p.group_bits.size(); ++g) {
        const int top = (1 << p.group_bits[g]) - 1;
        p.step.insert(p.step.end(), 32, 2.0f / static_cast<float>(top + 1));
        for (int u = 0; u <= top; ++u) p.levels.push_back(static_cast<float>(u) - 0.5f * static_cast<float>(top));
    }
    return std::make_shared<codec::RecurrentCodec>(std::move(p));
}

std::shared_ptr<const codec::Codec> scalar(std::size_t dim, int bits, bool unit_scale, Metric metric) {
    codec::ScalarParams p;
    p.metric = metric;
    p.dim = dim;
    p.bits = bits;
    p.per_vector = !unit_scale;
    p.unit_scale = unit_scale;
    p.center = normals(dim, 3);
    for (float& v : p.center) v *= 0.1f;
    p.query_mean = p.center;
    p.step.assign(dim, unit_scale ? 0.3f : 1.0f);
    return std::make_shared<codec::ScalarCodec>(std::move(p));
}

// An index of n random rows, on both sides.
struct Rows {
    Rows(std::shared_ptr<const codec::Codec> codec_, std::size_t n_) : codec(std::move(codec_)), n(n_), scan(context) {
        const std::vector<float> x = normals(n * codec->dim(), 11);
        std::vector<std::uint8_t> codes(n * codec->code_bytes());
        codec->encode({x.data(), n, codec->dim()}, codes.data(), 1, codec::Effort::rounded);
        blocks.resize((n + 31) / 32 * codec->block_bytes());
        for (std::size_t r = 0; r < n; r += 32) {
            codec->pack_block(codes.data() + r * codec->code_bytes(), std::min<std::size_t>(32, n - r), blocks.data() + r / 32 * codec->block_bytes());
        }
        first_codes.assign(codes.begin(), codes.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(n, 40) * codec->code_bytes()));
        scan.take(*codec, view(), 1);
    }
    codec::BlockView view() const { return {blocks.data(), n}; }
    std::unique_ptr<codec::Scorer> queries(std::size_t nq) const {
        const std::vector<float> q = normals(nq * codec->dim(), 12);
        return codec->prepare({q.data(), nq, codec->dim()}, 1);
    }

    std::shared_ptr<const codec::Codec> codec;
    std::size_t n;
    AlignedVector<std::uint8_t> blocks;
    std::vector<std::uint8_t> first_codes;
    Context context{0};
    LinearScan scan;
};

class RankOrder final : public TieOrder {
public:
    explicit RankOrder(const std::vector<std::uint32_t>& ranks) : ranks_(ranks) {}
    bool before(std::uint32_t a, std::uint32_t b) const override { return ranks_[a] < ranks_[b]; }

private:
    const std::vector<std::uint32_t>& ranks_;
};

void check_equal(const std::vector<ScoredRow>& found, const std::vector<ScoredRow>& expected) {
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
        REQUIRE(found[i].row == expected[i].row);
        REQUIRE(found[i].score == expected[i].score);
    }
}

// Both kernels find what the CPU finds.
void check(Rows& rows, const codec::Scorer& scorer, std::size_t keep, const RowChoice& choice = {}) {
    const std::vector<std::uint32_t> ranks(choice.ranks.begin(), choice.ranks.end());
    const RankOrder order(ranks);
    std::vector<TopK> pools(scorer.size(), TopK(keep, ranks.empty() ? nullptr : &order));
    scorer.top_k(rows.view(), 0, rows.n, choice.allowed, 0, scorer.size(), pools.data());
    for (const std::size_t many_from : {std::size_t{1}, std::size_t{1} << 40}) {
        // Short parts: most rows meet a threshold.
        rows.scan.set_way({many_from, 1});
        const auto found = rows.scan.best(scorer, keep, choice);
        REQUIRE(found.size() == scorer.size());
        for (std::size_t q = 0; q < scorer.size(); ++q) {
            TopK pool = pools[q];
            check_equal(found[q], pool.take_sorted());
        }
    }
    rows.scan.set_way({});
}

}  // namespace

TEST_CASE("binary codes score as on the CPU, by floats and by distance") {
    for (const std::size_t dim : {std::size_t{31}, std::size_t{128}, std::size_t{200}}) {
        for (const Metric metric : {Metric::cosine, Metric::l2}) {
            Rows rows(std::make_shared<codec::BinaryCodec>(dim, dim - dim % 7, metric), 601);
            check(rows, *rows.queries(3), 10);
            // Distances tie often.
            check(rows, *rows.codec->prepare_codes(rows.first_codes.data(), 5, 1), 40);
        }
    }
}

TEST_CASE("recurrent codes of all layouts score as on the CPU") {
    using Bits = std::vector<std::uint8_t>;
    for (const Bits& bits : {Bits{1, 1, 1}, Bits{2, 2}, Bits{4, 2, 1}, Bits{8}, Bits{5, 5, 3, 3, 1}}) {
        Rows rows(recurrent(70, bits, bits.size() == 2 ? Metric::l2 : Metric::ip), 333);
        check(rows, *rows.queries(2), 7);
        check(rows, *rows.codec->prepare_codes(rows.first_codes.data(), 2, 1), 7);
    }
}

TEST_CASE("scalar codes score as on the CPU") {
    for (const int bits : {4, 8}) {
        for (const bool unit_scale : {false, true}) {
            Rows rows(scalar(50, bits, unit_scale, unit_scale ? Metric::l2 : Metric::cosine), 210);
            check(rows, *rows.queries(2), 12);
        }
    }
}

TEST_CASE("many queries, few rows, and more results than there are rows") {
    Rows rows(recurrent(40, {2, 1}, Metric::cosine), 45);
    check(rows, *rows.queries(259), 60);
    Rows one(recurrent(40, {1}, Metric::cosine), 1);
    check(one, *one.queries(1), 1);
}

TEST_CASE("thousands of equal rows end") {
    Rows rows(std::make_shared<codec::BinaryCodec>(32, 32, Metric::ip), 9000);
    const std::size_t block = rows.codec->block_bytes();
    std::vector<std::uint8_t> equal;
    for (int r = 0; r < 32; ++r) {
        equal.insert(equal.end(), rows.first_codes.begin(), rows.first_codes.begin() + static_cast<std::ptrdiff_t>(rows.codec->code_bytes()));
    }
    for (std::size_t b = 0; b < rows.n / 32; ++b) rows.codec->pack_block(equal.data(), 32, rows.blocks.data() + b * block);
    rows.scan.take(*rows.codec, rows.view(), 1);
    const auto queries = rows.queries(1);
    for (const std::size_t many_from : {std::size_t{1}, std::size_t{1} << 40}) {
        rows.scan.set_way({many_from, 0});
        const auto found = rows.scan.best(*queries, 10, {});
        TopK expected(10);
        queries->top_k(rows.view(), 0, rows.n, nullptr, 0, 1, &expected);
        check_equal(found[0], expected.take_sorted());
    }
}

TEST_CASE("weights of many dims, which do not fit shared memory") {
    Rows rows(std::make_shared<codec::BinaryCodec>(700, 700, Metric::ip), 300);
    check(rows, *rows.queries(2), 9);
}

TEST_CASE("only allowed rows are found, and ties go by rank") {
    Rows rows(std::make_shared<codec::BinaryCodec>(40, 40, Metric::cosine), 500);
    Bitset allowed(500);
    for (std::size_t i = 0; i < 500; i += 3) allowed.set(i);
    std::vector<std::uint32_t> ranks(500);
    std::iota(ranks.rbegin(), ranks.rend(), 0u);
    const auto symmetric = rows.codec->prepare_codes(rows.first_codes.data(), 3, 1);
    check(rows, *symmetric, 30, {&allowed});
    check(rows, *symmetric, 30, {nullptr, ranks});
    check(rows, *symmetric, 30, {&allowed, ranks});
    Bitset none(500);
    CHECK(rows.scan.best(*symmetric, 5, {&none})[0].empty());
}

TEST_CASE("more rows than a pool holds") {
    Rows rows(std::make_shared<codec::BinaryCodec>(64, 64, Metric::ip), 12'000);
    check(rows, *rows.queries(1), 100);
    check(rows, *rows.codec->prepare_codes(rows.first_codes.data(), 1, 1), 2048);
}

TEST_CASE("ranges of rows with terms are those of inverted lists") {
    Rows rows(recurrent(64, {2, 2}, Metric::ip), 640);
    const auto scorer = rows.queries(3);
    const std::vector<RowRange> ranges = {{0, 0, 100, 0.5f}, {0, 320, 390, -1.0f}, {2, 128, 129, 0.0f}, {2, 32, 120, 3.25f}, {2, 600 - 600 % 32, 640, 1e-3f}};
    const auto found = rows.scan.best_of(*scorer, ranges, 25, {});
    for (std::uint32_t q = 0; q < 3; ++q) {
        TopK pool(25);
        for (const RowRange& range : ranges) {
            if (range.query != q) continue;
            pool.set_offset(range.term);
            scorer->top_k(rows.view(), range.begin, range.end, nullptr, q, q + 1, &pool);
        }
        pool.set_offset(0);
        check_equal(found[q], pool.take_sorted());
    }
    CHECK(found[1].empty());
}

TEST_CASE("a cap on memory splits batches, and says what does not fit") {
    Rows rows(std::make_shared<codec::BinaryCodec>(64, 64, Metric::ip), 300);
    Context small(0, std::size_t{200} << 10);
    LinearScan scan(small);
    scan.take(*rows.codec, rows.view(), 1);
    const auto scorer = rows.queries(9);
    const auto found = scan.best(*scorer, 5, {}), expected = rows.scan.best(*scorer, 5, {});
    for (std::size_t q = 0; q < 9; ++q) check_equal(found[q], expected[q]);
    CHECK(small.peak() <= small.limit());
    Context tiny(0, 1000);
    LinearScan none(tiny);
    CHECK_THROWS_WITH_AS(none.take(*rows.codec, rows.view(), 1), doctest::Contains("the codes of the index needs"), Error);
    CHECK(none.rows() == 0);
    CHECK(tiny.used() == 0);
}
