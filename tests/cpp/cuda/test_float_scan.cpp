// SPDX-License-Identifier: Apache-2.0
// Rows of floats on the device against the CPU, and products against loops.
#include <memory>
#include <vector>

#include "codec/float_codec.hpp"
#include "core/dot.hpp"
#include "core/error.hpp"
#include "cuda/float_scan.hpp"
#include "cuda/products.hpp"
#include "scan_test.hpp"

namespace {

using namespace residua;
using namespace residua::cuda;
using namespace residua::cuda::scan_test;
using codec::FloatCodec;

struct Rows {
    FloatCodec codec;
    std::size_t n;
    AlignedVector<std::uint8_t> blocks;
    std::unique_ptr<codec::Scorer> scorer;

    // `distinct` rows, again and again, around `middle`.
    Rows(FloatCodec::Type type, Metric metric, std::size_t dim, std::size_t rows, std::size_t queries, std::size_t distinct,
         float middle = 0)
        : codec(dim, type, metric), n(rows) {
        std::vector<float> x = normal_values(rows * dim, 1), q = normal_values(queries * dim, 2);
        for (float& v : x) v += middle;
        for (float& v : q) v += middle;
        for (std::size_t i = distinct * dim; i < x.size(); ++i) x[i] = x[i - distinct * dim];
        std::vector<std::uint8_t> codes(rows * codec.code_bytes());
        codec.encode({x.data(), rows, dim}, codes.data(), 1, codec::Effort::rounded);
        blocks = pack(codec, codes);
        scorer = codec.prepare({q.data(), queries, dim}, 1);
    }
    codec::BlockView view() const { return {blocks.data(), n}; }
    Case as_case() const { return {codec, view(), *scorer}; }
};

void check(FloatCodec::Type type, Metric metric, std::size_t dim, std::size_t n, std::size_t queries, std::size_t distinct,
           std::size_t many_from = 1000, float middle = 0) {
    CAPTURE(dim);
    CAPTURE(queries);
    const Rows rows(type, metric, dim, n, queries, distinct, middle);
    Context context(0);
    FloatScan scan(context, *rows.codec.rows({}), metric);
    scan.set_many_from(many_from);
    scan.take(rows.codec, rows.view(), 2);
    check_scan(scan, rows.as_case());
}

}  // namespace

TEST_CASE("float scan: few queries") {
    check(FloatCodec::Type::f16, Metric::cosine, 300, 333, 1, 333);
    check(FloatCodec::Type::f16, Metric::l2, 20, 700, 5, 70);       // several rows to a warp, ties
    check(FloatCodec::Type::bf16, Metric::ip, 65, 200, 2, 200);
    check(FloatCodec::Type::f32, Metric::l2, 33, 300, 3, 300);
    check(FloatCodec::Type::f32, Metric::cosine, 3, 4500, 4, 900);  // one lane per row, more than one pool holds
}

TEST_CASE("float scan: many queries by products score the same bits as few") {
    check(FloatCodec::Type::f16, Metric::cosine, 40, 200, 4, 60, 1);
    check(FloatCodec::Type::bf16, Metric::l2, 17, 200, 3, 200, 1, 100.0f);  // far from the origin
    check(FloatCodec::Type::f32, Metric::ip, 30, 200, 3, 200, 1);
    for (const auto type : {FloatCodec::Type::f16, FloatCodec::Type::f32}) {
        for (const Metric metric : {Metric::cosine, Metric::l2}) {
            const Rows rows(type, metric, 8, 5600, 1, 5500, 30.0f);  // more than a pool holds, far from the origin
            Context context(0);
            FloatScan scan(context, *rows.codec.rows({}), metric);
            scan.take(rows.codec, rows.view(), 1);
            scan.set_many_from(1000);
            const auto few = scan.best(*rows.scorer, 20, {});
            scan.set_many_from(1);
            const auto many = scan.best(*rows.scorer, 20, {});
            for (std::size_t q = 0; q < few.size(); ++q) {
                REQUIRE(few[q].size() == many[q].size());
                for (std::size_t i = 0; i < few[q].size(); ++i) {
                    REQUIRE(few[q][i].row == many[q][i].row);
                    REQUIRE(few[q][i].score == many[q][i].score);
                }
            }
        }
    }
}

TEST_CASE("float scan: thousands of equal rows end") {
    for (const std::size_t many_from : {std::size_t{1}, std::size_t{100}}) {
        const Rows rows(FloatCodec::Type::f16, Metric::cosine, 8, 5000, 1, 1);
        Context context(0);
        FloatScan scan(context, *rows.codec.rows({}), Metric::cosine);
        scan.set_many_from(many_from);
        scan.take(rows.codec, rows.view(), 1);
        check_best(scan, rows.as_case(), 5, {});
    }
}

TEST_CASE("float scan: other queries and a small cap are refused") {
    const Rows rows(FloatCodec::Type::f16, Metric::ip, 24, 100, 1, 100), other(FloatCodec::Type::f16, Metric::ip, 25, 100, 1, 100);
    Context context(0, 200'000);
    FloatScan scan(context, *rows.codec.rows({}), Metric::ip);
    scan.take(rows.codec, rows.view(), 1);
    CHECK_THROWS_AS(scan.best(*other.scorer, 1, {}), Error);
    check_best(scan, rows.as_case(), 7, {});
    scan.set_many_from(1);  // no room for products: scored without
    check_best(scan, rows.as_case(), 7, {});
    const Rows large(FloatCodec::Type::f16, Metric::ip, 24, 6000, 1, 100);
    CHECK_THROWS_AS(scan.take(large.codec, large.view(), 1), Error);
    CHECK(scan.rows() == 0);
    CHECK(scan.device_bytes() == 0);
}

TEST_CASE("products of matrices, plain and not") {
    const std::size_t m = 70, n = 131, depth = 37, stride = 40, out_stride = 140;
    Context context(0);
    const std::vector<float> a = normal_values(m * stride, 1), b = normal_values(n * stride, 2);
    const DeviceArray<float> on_a(context, a, "a"), on_b(context, b, "b");
    for (const bool plain : {true, false}) {
        DeviceArray<float> out(context, m * out_stride, "out");
        out.fill(0);
        (plain ? multiply_rows_plainly : multiply_rows)(context, {on_a.data(), m, stride}, {on_b.data(), n, stride}, depth, out.data(), out_stride);
        const std::vector<float> found = out.to_host();
        for (std::size_t i = 0; i < m; ++i) {
            for (std::size_t j = 0; j < out_stride; ++j) {
                const double exact = j < n ? dot_f64(a.data() + i * stride, b.data() + j * stride, depth) : 0.0;
                REQUIRE(static_cast<double>(found[i * out_stride + j]) == doctest::Approx(exact).epsilon(1e-5).scale(depth));
            }
        }
    }
}
