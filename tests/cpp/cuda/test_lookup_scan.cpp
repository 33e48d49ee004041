// SPDX-License-Identifier: Apache-2.0
// Product codes on the device against the CPU.
#include <memory>
#include <vector>

#include "codec/float_codec.hpp"
#include "codec/pq_codec.hpp"
#include "core/error.hpp"
#include "cuda/lookup_scan.hpp"
#include "scan_test.hpp"

namespace {

using namespace residua;
using namespace residua::cuda;
using namespace residua::cuda::scan_test;

std::unique_ptr<codec::PqCodec> make_codec(Metric metric, std::size_t dim, std::size_t subspaces, int bits, float square_weight = 0) {
    codec::PqParams p;
    p.metric = metric;
    p.dim = dim;
    p.n_subspaces = subspaces;
    p.bits = bits;
    p.codebooks = normal_values(subspaces * (std::size_t{1} << bits) * ((dim + subspaces - 1) / subspaces), 5);
    p.square_weight = square_weight;
    p.mean_square = square_weight * 3;
    return std::make_unique<codec::PqCodec>(std::move(p));
}

// `distinct` codes, again and again.
std::vector<std::uint8_t> make_codes(const codec::PqCodec& codec, std::size_t n, std::size_t distinct) {
    Random random(6);
    std::vector<std::uint8_t> out(n * codec.code_bytes());
    for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = i < distinct * codec.code_bytes() ? static_cast<std::uint8_t>(random.next()) : out[i - distinct * codec.code_bytes()];
    }
    if (codec.layout().bits == 4 && codec.layout().numbers % 2 == 1) {
        for (std::size_t r = 0; r < n; ++r) out[(r + 1) * codec.code_bytes() - 1] &= 15;
    }
    return out;
}

void check(Metric metric, std::size_t dim, std::size_t subspaces, int bits, std::size_t n, std::size_t queries, std::size_t distinct,
           float square_weight = 0) {
    CAPTURE(subspaces);
    CAPTURE(bits);
    const auto codec = make_codec(metric, dim, subspaces, bits, square_weight);
    const auto blocks = pack(*codec, make_codes(*codec, n, distinct));
    const codec::BlockView view{blocks.data(), n};
    const std::vector<float> q = normal_values(queries * dim, 7);
    const auto scorer = codec->prepare({q.data(), queries, dim}, 1);
    Context context(0);
    LookupScan scan(context, *codec->lookup_shape());
    scan.take(*codec, view, 2);
    check_scan(scan, {*codec, view, *scorer, bits == 4});
}

}  // namespace

TEST_CASE("lookup scan: codes of 8 bits") {
    check(Metric::cosine, 24, 12, 8, 1003, 5, 1003);    // tables of four queries at a time
    check(Metric::ip, 40, 33, 8, 640, 2, 50, 0.3f);     // of two; hundreds of ties
    check(Metric::l2, 52, 50, 8, 333, 2, 333);          // of one; 50 bytes are no whole units
    check(Metric::l2, 3, 1, 8, 97, 3, 97);
}

TEST_CASE("lookup scan: codes of 4 bits score the same bits") {
    check(Metric::cosine, 64, 32, 4, 1003, 5, 200);
    check(Metric::l2, 51, 51, 4, 700, 3, 700);          // a number without a pair
    check(Metric::ip, 30, 6, 4, 5000, 4, 900, 0.5f);    // beyond the capacity of a pool
    check(Metric::cosine, 7, 1, 4, 40, 1, 40);
}

TEST_CASE("lookup scan: tables that shared memory does not hold") {
    check(Metric::ip, 240, 240, 8, 2100, 1, 300);       // more rows than one round of a block
    check(Metric::l2, 4001, 4001, 4, 150, 1, 150);
}

TEST_CASE("lookup scan: codes against codes") {
    for (const int bits : {4, 8}) {
        const auto codec = make_codec(Metric::l2, 20, 10, bits);
        const auto codes = make_codes(*codec, 300, 300);
        const auto blocks = pack(*codec, codes);
        const auto scorer = codec->prepare_codes(codes.data(), 3, 1);
        Context context(0);
        LookupScan scan(context, *codec->lookup_shape());
        scan.take(*codec, {blocks.data(), 300}, 1);
        check_scan(scan, {*codec, {blocks.data(), 300}, *scorer, bits == 4});
        CHECK(scan.best(*scorer, 1, {})[2][0].score == 0.0f);
    }
}

TEST_CASE("lookup scan: codes are replaced, and an empty scan finds nothing") {
    const auto codec = make_codec(Metric::ip, 16, 8, 8);
    const auto codes = make_codes(*codec, 100, 100);
    const auto blocks = pack(*codec, codes);
    const std::vector<float> q = normal_values(16, 7);
    const auto scorer = codec->prepare({q.data(), 1, 16}, 1);
    Context context(0);
    LookupScan scan(context, *codec->lookup_shape());
    CHECK(scan.best(*scorer, 5, {})[0].empty());
    scan.take(*codec, {blocks.data(), 100}, 1);
    CHECK(scan.device_bytes() == 128 * 8);
    scan.take(*codec, {blocks.data(), 33}, 1);
    check_best(scan, {*codec, {blocks.data(), 33}, *scorer}, 50, {});
    CHECK_THROWS_AS(scan.best(*scorer, Pools::kMostKept + 1, {}), Error);
    const RowRange odd[] = {{0, 5, 10, 0.0f}}, beyond[] = {{0, 0, 34, 0.0f}}, nobody[] = {{1, 0, 32, 0.0f}};
    CHECK_THROWS_AS(scan.best_of(*scorer, odd, 5, {}), Error);
    CHECK_THROWS_AS(scan.best_of(*scorer, beyond, 5, {}), Error);
    CHECK_THROWS_AS(scan.best_of(*scorer, nobody, 5, {}), Error);
    const codec::FloatCodec other(16, codec::FloatCodec::Type::f32, Metric::ip);
    CHECK_THROWS_AS(scan.best(*other.prepare({q.data(), 1, 16}, 1), 5, {}), Error);
    Context small(0, 1000);
    LookupScan full(small, *codec->lookup_shape());
    CHECK_THROWS_AS(full.take(*codec, {blocks.data(), 100}, 1), Error);
    CHECK(full.rows() == 0);
    CHECK(small.used() == 0);
}
