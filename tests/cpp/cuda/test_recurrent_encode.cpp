// SPDX-License-Identifier: Apache-2.0
// Recurrent codes made on the device against those of the CPU.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/half.hpp"
#include "cuda/recurrent_encode.hpp"
#include "scan_test.hpp"

namespace {

using namespace residua;
using namespace residua::cuda;
using codec::Effort;

// Groups read blocks of block_dims dims, one after the other and round again.
codec::RecurrentCodec make_codec(Metric metric, std::size_t dim, std::size_t block_dims, std::vector<std::uint8_t> bits) {
    codec::RecurrentParams p;
    p.metric = metric;
    p.dim = dim;
    p.block_dims = block_dims;
    p.group_bits = std::move(bits);
    const std::size_t groups = p.group_bits.size(), blocks = std::max<std::size_t>(1, dim / block_dims);
    std::size_t values = 0;
    for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t block = (3 * g + 1) % blocks;
        p.group_block.push_back(static_cast<std::uint16_t>(block));
        values += 32 * (block + 1 == blocks ? dim - block * block_dims : block_dims);
        for (int u = 0; u < 1 << p.group_bits[g]; ++u) p.levels.push_back(static_cast<float>(u) - 0.5f * static_cast<float>((1 << p.group_bits[g]) - 1));
        for (int j = 0; j < 32; ++j) p.step.push_back((0.5f + 0.01f * static_cast<float>(j)) * std::exp2(1.0f - static_cast<float>(p.group_bits[g])));
    }
    p.encode_map = scan_test::normal_values(values, 1);
    for (float& v : p.encode_map) v *= metric == Metric::cosine ? 1.0f : 0.15f;
    p.center = scan_test::normal_values(dim, 2);
    p.query_mean = scan_test::normal_values(dim, 3);
    for (float& v : p.center) v *= 0.05f;
    p.query_scale.assign(groups, 1.0f);
    return codec::RecurrentCodec(std::move(p));
}

void check_codes(const codec::RecurrentCodec& codec, const std::vector<std::uint8_t>& found, const std::vector<std::uint8_t>& expected) {
    const std::size_t bytes = codec.code_bytes(), n = found.size() / bytes, planes = codec.layout().code_bytes();
    std::size_t equal = 0;
    for (std::size_t i = 0; i < found.size(); ++i) equal += found[i] == expected[i] ? 1 : 0;
    CHECK(equal > static_cast<std::size_t>(0.999 * static_cast<double>(found.size())));
    for (std::size_t r = 0; r < n; ++r) {
        float add[2];
        std::uint16_t f[2];
        const std::uint8_t* ends[] = {found.data() + r * bytes + planes, expected.data() + r * bytes + planes};
        for (int i = 0; i < 2; ++i) {
            std::memcpy(&add[i], ends[i], 4);
            std::memcpy(&f[i], ends[i] + 4, 2);
        }
        REQUIRE(add[0] == add[1]);
        if (std::memcmp(found.data() + r * bytes, expected.data() + r * bytes, planes) != 0) continue;
        REQUIRE(float_from_half(f[0]) == doctest::Approx(float_from_half(f[1])).epsilon(0.001));
    }
}

void check(const codec::RecurrentCodec& codec, std::size_t n) {
    const std::size_t dim = codec.dim();
    std::vector<float> x = scan_test::normal_values(n * dim, 5);
    std::fill_n(x.begin(), dim, codec.metric() == Metric::cosine ? 1.0f : 0.0f);
    for (std::size_t i = dim; i < 2 * dim; ++i) x[i] *= 10;  // far beyond the steps
    Context context(0);
    RecurrentEncoder encoder(context, codec);
    for (const Effort effort : {Effort::rounded, Effort::scaled, Effort::refined}) {
        CAPTURE(static_cast<int>(effort));
        std::vector<std::uint8_t> found(n * codec.code_bytes()), expected(found.size());
        encoder.encode({x.data(), n, dim}, effort, found.data());
        codec.encode({x.data(), n, dim}, expected.data(), 1, effort);
        check_codes(codec, found, expected);
    }
}

}  // namespace

TEST_CASE("recurrent encoding: planes, scalars and efforts") {
    check(make_codec(Metric::cosine, 50, 50, {1, 1}), 67);
    check(make_codec(Metric::ip, 70, 70, {4, 2, 1}), 45);
    check(make_codec(Metric::l2, 33, 33, {8}), 20);
}

TEST_CASE("recurrent encoding: groups that read blocks of dims, in any order") {
    check(make_codec(Metric::l2, 100, 32, {3, 3, 2, 2, 1}), 40);
    check(make_codec(Metric::cosine, 141, 64, {2, 1, 1, 1}), 33);
}

TEST_CASE("recurrent encoding: rows without a code are named") {
    const auto codec = make_codec(Metric::cosine, 40, 40, {1});
    std::vector<float> x = scan_test::normal_values(90 * 40, 6);
    Context context(0);
    RecurrentEncoder encoder(context, codec);
    std::vector<std::uint8_t> codes(90 * codec.code_bytes());
    const auto fails = [&](ErrorKind kind, const char* row) {
        try {
            encoder.encode({x.data(), 90, 40}, Effort::rounded, codes.data());
        } catch (const Error& e) {
            return e.kind() == kind && std::string(e.what()).find(row) != std::string::npos;
        }
        return false;
    };
    std::fill_n(x.begin() + 70 * 40, 40, 0.0f);
    std::fill_n(x.begin() + 81 * 40, 40, 0.0f);
    CHECK(fails(ErrorKind::value, "row 70 "));
    x[33 * 40 + 39] = std::numeric_limits<float>::quiet_NaN();
    CHECK(fails(ErrorKind::non_finite, "row 33 "));
    x[33 * 40 + 39] = -std::numeric_limits<float>::infinity();
    CHECK(fails(ErrorKind::non_finite, "row 33 "));
}

TEST_CASE("recurrent encoding: rows of halves on the device, in chunks") {
    const auto codec = make_codec(Metric::ip, 40, 40, {2, 2});
    const std::size_t n = 100, dim = 40;
    const std::vector<float> x = scan_test::normal_values(n * dim, 6);
    for (const bool bf16 : {false, true}) {
        std::vector<std::uint16_t> half(x.size());
        std::vector<float> rounded(x.size());
        for (std::size_t i = 0; i < x.size(); ++i) {
            half[i] = bf16 ? bf16_from_float(x[i]) : half_from_float(x[i]);
            rounded[i] = bf16 ? float_from_bf16(half[i]) : float_from_half(half[i]);
        }
        std::vector<std::uint8_t> expected(n * codec.code_bytes());
        codec.encode({rounded.data(), n, dim}, expected.data(), 1, Effort::rounded);
        Context context(0, 64'000);  // a few rows at a time
        RecurrentEncoder encoder(context, codec);
        const DeviceArray<std::uint16_t> rows(context, half, "rows");
        DeviceArray<std::uint8_t> codes(context, expected.size(), "codes");
        encoder.encode(rows.data(), bf16 ? store::RowType::bf16 : store::RowType::f16, n, Effort::rounded, codes.data());
        check_codes(codec, codes.to_host(), expected);
    }
    Context small(0, 1000);
    CHECK_THROWS_AS(RecurrentEncoder(small, codec), Error);
    CHECK(small.used() == 0);
}
