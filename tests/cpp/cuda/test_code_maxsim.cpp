// SPDX-License-Identifier: Apache-2.0
// MaxSim of token stores on the device: scores of codes are the CPU's to the bit.
#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "codec/recurrent_codec.hpp"
#include "core/random.hpp"
#include "cuda/maxsim.hpp"
#include "multivector/token_store.hpp"

namespace {

using namespace residua;
using namespace residua::cuda;
using multivector::TokenSets;
using multivector::TokenStore;
using multivector::TokenType;

std::vector<float> normals(std::size_t n, std::uint64_t seed) {
    Random random(seed);
    std::vector<float> out(n);
    for (float& x : out) x = static_cast<float>(random.uniform() + random.uniform() + random.uniform() - 1.5);
    return out;
}

std::shared_ptr<const codec::Codec> recurrent(std::size_t dim, std::vector<std::uint8_t> bits) {
    codec::RecurrentParams p;
    p.metric = Metric::ip;
    p.dim = p.block_dims = dim;
    p.bits = 1;
    p.group_bits = std::move(bits);
    const std::size_t rows = p.group_bits.size() * 32;
    p.center = normals(dim, 1);
    p.query_mean = p.center;
    p.encode_map = normals(rows * dim, 2);
    for (float& v : p.encode_map) v *= 0.1f;
    p.query_scale.assign(p.group_bits.size(), 1.0f);
    for (const std::uint8_t b : p.group_bits) {
        const int top = (1 << b) - 1;
        p.step.insert(p.step.end(), 32, 2.0f / static_cast<float>(top + 1));
        for (int u = 0; u <= top; ++u) p.levels.push_back(static_cast<float>(u) - 0.5f * static_cast<float>(top));
    }
    return std::make_shared<codec::RecurrentCodec>(std::move(p));
}

struct Sets {
    std::size_t dim;
    std::vector<std::int64_t> offsets{0};
    std::vector<float> values;

    Sets(std::size_t d, const std::vector<std::size_t>& counts, std::uint64_t seed) : dim(d) {
        for (const std::size_t n : counts) offsets.push_back(offsets.back() + static_cast<std::int64_t>(n));
        values = normals(static_cast<std::size_t>(offsets.back()) * dim, seed);
    }
    TokenSets view() const { return {values.data(), TokenType::f32, dim, offsets.data(), offsets.size() - 1, nullptr}; }
};

void check_same(const TokenStore& store, const Sets& queries, multivector::DocumentNumbers chosen = std::nullopt) {
    Context context(0);
    const auto documents = store_documents(context, store);
    CHECK(documents->size() == store.size());
    CHECK(documents->tokens() == store.tokens());
    const std::vector<float> expected = store.maxsim(queries.view(), chosen, 1);
    DeviceArray<float> scores(context, expected.size(), "scores");
    documents->maxsim({queries.view(), false}, chosen, scores.data());
    const std::vector<float> got = scores.to_host();
    CHECK(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0);
}

}  // namespace

TEST_CASE("maxsim of codes on the device: every layout of bits") {
    const std::vector<std::vector<std::uint8_t>> layouts = {{4, 4}, {2, 2}, {1, 1, 1, 1, 1}, {6, 5, 3, 2}, {8, 7}, {3, 1}, {4}};
    for (const auto& bits : layouts) {
        CAPTURE(bits.size());
        CAPTURE(int{bits[0]});
        TokenStore store(multivector::make_code_tokens(recurrent(40, bits)));
        store.add(Sets(40, {1, 32, 0, 33, 70}, 3).view(), 1);
        check_same(store, Sets(40, {3, 17}, 4));
    }
}

TEST_CASE("maxsim of codes on the device: numbers of query tokens, split documents, many groups of dims") {
    TokenStore store(multivector::make_code_tokens(recurrent(64, {4, 4})));
    store.add(Sets(64, {500, 0, 640}, 5).view(), 1);
    check_same(store, Sets(64, {1}, 6));
    check_same(store, Sets(64, {33, 2, 64, 1, 90}, 7));
    // Groups in several steps, and weights that do not fit shared memory.
    TokenStore wide(multivector::make_code_tokens(recurrent(20, std::vector<std::uint8_t>(70, 8))));
    wide.add(Sets(20, {40, 3}, 8).view(), 1);
    check_same(wide, Sets(20, {40}, 9));
}

TEST_CASE("maxsim on the device: removed documents of a store are empty, whatever its form") {
    const Sets tokens(32, {4, 40, 7, 0, 9}, 10), queries(32, {5, 2}, 11);
    const std::vector<std::int64_t> removed = {1}, chosen = {4, 1, 0};
    TokenStore codes(multivector::make_code_tokens(recurrent(32, {2})));
    codes.add(tokens.view(), 1);
    codes.remove(removed);
    check_same(codes, queries);
    check_same(codes, queries, std::span(chosen));
    for (const char* form : {"float32", "float16", "int8"}) {
        TokenStore store(multivector::make_float_tokens(form, 32));
        store.add(tokens.view(), 1);
        store.remove(removed);
        Context context(0);
        const auto documents = store_documents(context, store);
        CHECK(std::string(documents->form()) == form);
        DeviceArray<float> scores(context, 10, "scores");
        documents->maxsim({queries.view(), false}, std::nullopt, scores.data());
        const std::vector<float> expected = store.maxsim(queries.view(), std::nullopt, 1), got = scores.to_host();
        for (std::size_t i = 0; i < got.size(); ++i) {
            CHECK((got[i] == expected[i] || got[i] == doctest::Approx(expected[i]).epsilon(1e-5)));
        }
    }
}
