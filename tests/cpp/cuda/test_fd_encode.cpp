// SPDX-License-Identifier: Apache-2.0
// Encodings on the device: the bits of the CPU's, whatever the parameters.
#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/half.hpp"
#include "core/random.hpp"
#include "cuda/fd_encode.hpp"

namespace {

using namespace residua;
using namespace residua::cuda;
using multivector::Compat;
using multivector::FdEncoder;
using multivector::FdParams;
using multivector::Projection;
using multivector::TokenSets;
using multivector::TokenType;

std::vector<float> normals(std::size_t n, std::uint64_t seed) {
    Random random(seed);
    std::vector<float> out(n);
    for (float& x : out) x = static_cast<float>(random.uniform() + random.uniform() + random.uniform() - 1.5);
    return out;
}

struct Sets {
    std::size_t dim;
    std::vector<std::int64_t> offsets{0};
    std::vector<float> values;
    std::vector<std::uint16_t> halves;

    Sets(std::size_t d, const std::vector<std::size_t>& counts) : dim(d) {
        for (const std::size_t n : counts) offsets.push_back(offsets.back() + static_cast<std::int64_t>(n));
        values = normals(static_cast<std::size_t>(offsets.back()) * dim, 5);
        for (const float x : values) halves.push_back(half_from_float(x));
    }
    TokenSets view(TokenType type) const {
        const void* data = type == TokenType::f16 ? static_cast<const void*>(halves.data()) : values.data();
        return {data, type, dim, offsets.data(), offsets.size() - 1, nullptr};
    }
};

FdParams params(std::size_t dim, std::size_t k_sim, std::size_t reps, std::size_t proj_dim, Projection proj) {
    FdParams p;
    p.dim = dim;
    p.k_sim = k_sim;
    p.reps = reps;
    p.proj_dim = proj_dim;
    p.proj = proj;
    return p;
}

void check_same(const FdParams& p, const Sets& sets, bool centered = false) {
    const FdEncoder encoder(p, make_tables(p), centered ? normals(p.dim, 9) : std::vector<float>());
    Context context(0);
    DeviceFdEncoder device(context, encoder);
    REQUIRE(device.output_dim() == encoder.output_dim());
    for (const bool document : {true, false}) {
        for (const TokenType type : {TokenType::f32, TokenType::f16}) {
            CAPTURE(document);
            const TokenSets view = sets.view(type);
            std::vector<float> expected(view.n * encoder.output_dim());
            encoder.encode(view, document, expected.data(), 1);
            DeviceArray<float> out(context, expected.size(), "encodings");
            device.encode({view, false}, document, out.data());
            const std::vector<float> got = out.to_host();
            std::size_t different = 0;
            for (std::size_t i = 0; i < got.size(); ++i) different += got[i] == expected[i] ? 0 : 1;
            CHECK(different == 0);
        }
    }
}

}  // namespace

TEST_CASE("encodings on the device: projections, hyperplanes and lengths of all sorts") {
    const Sets sets(20, {1, 0, 32, 33, 5, 70});
    check_same(params(20, 3, 3, 8, Projection::count_sketch), sets);
    check_same(params(20, 0, 2, 5, Projection::count_sketch), sets);
    check_same(params(20, 5, 12, 17, Projection::dense), sets, true);
    check_same(params(20, 9, 1, 20, Projection::identity), sets);
    check_same(params(20, 7, 2, 3, Projection::dense), sets);
    const Sets odd(33, {6, 40});
    check_same(params(33, 2, 4, 16, Projection::count_sketch), odd, true);
}

TEST_CASE("encodings on the device: a final sketch, other people's tables, cells beyond shared memory") {
    const Sets sets(16, {40, 0, 3});
    FdParams p = params(16, 4, 3, 16, Projection::identity);
    p.final_dim = 50;
    check_same(p, sets);
    p.fill_empty = false;
    check_same(p, sets);
    p = params(16, 3, 2, 4, Projection::count_sketch);
    p.compat = Compat::google;
    check_same(p, sets);
    p = params(16, 10, 2, 16, Projection::count_sketch);  // 163 KB of sums and cells
    p.compat = Compat::none;
    check_same(p, sets);
    // Ties go to cells, as fastembed has them.
    p = params(16, 4, 3, 4, Projection::dense);
    multivector::FdTables tables = make_tables(p);
    p.compat = Compat::fastembed;
    const FdEncoder encoder(p, tables, {});
    Context context(0);
    DeviceFdEncoder device(context, encoder);
    const TokenSets view = sets.view(TokenType::f32);
    std::vector<float> expected(3 * encoder.output_dim());
    encoder.encode(view, true, expected.data(), 1);
    DeviceArray<float> out(context, expected.size(), "encodings");
    const DeviceArray<float> tokens(context, sets.values, "tokens");
    TokenSets there = view;
    there.data = tokens.data();
    device.encode({there, true}, true, out.data());
    CHECK(out.to_host() == expected);
}

TEST_CASE("encodings on the device: what is wrong is named") {
    const FdParams p = params(8, 2, 2, 4, Projection::count_sketch);
    const FdEncoder encoder(p, make_tables(p), {});
    Context context(0);
    DeviceFdEncoder device(context, encoder);
    Sets sets(8, {2, 3, 4});
    DeviceArray<float> out(context, 3 * encoder.output_dim(), "encodings");
    const auto encode = [&] { device.encode({sets.view(TokenType::f32), false}, true, out.data()); };
    sets.values[(2 + 1) * 8] = 3e38f;
    sets.values[(2 + 2) * 8] = 3e38f;
    for (std::size_t i = 2 * 8; i < 5 * 8; ++i) sets.values[i] = 3e38f;
    CHECK_THROWS_WITH_AS(encode(), "tokens: sums of set 1 overflow float32; scale the tokens down", Error);
    sets.values[(5 + 3) * 8 + 1] = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_WITH_AS(encode(), "tokens: set 2, token 3 contains NaN or infinity", Error);
    const Sets other(9, {1});
    CHECK_THROWS_WITH_AS(device.encode({other.view(TokenType::f32), false}, true, out.data()), "tokens have 9 dims, expected 8", Error);
    const FdParams wide = params(5000, 1, 1, 1, Projection::count_sketch);
    const std::string message = "tokens of 5000 dims are too long for the shared memory of " + context.info().name + "; encode them on the CPU";
    CHECK_THROWS_WITH_AS(DeviceFdEncoder(context, FdEncoder(wide, make_tables(wide), {})), message.c_str(), Error);
}
