// SPDX-License-Identifier: Apache-2.0
// MaxSim on the device against sums in float64, and against the CPU.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/half.hpp"
#include "core/random.hpp"
#include "cuda/maxsim.hpp"
#include "multivector/maxsim.hpp"

namespace {

using namespace residua;
using namespace residua::cuda;
using multivector::TokenSets;
using multivector::TokenType;

struct Sets {
    std::size_t dim;
    std::vector<float> values;           // what the tokens stand for
    std::vector<std::int64_t> offsets{0};
    std::vector<std::uint16_t> halves;
    std::vector<std::int8_t> bytes;
    std::vector<float> scales;

    Sets(std::size_t d, const std::vector<std::size_t>& counts, std::uint64_t seed, float size = 1.0f) : dim(d) {
        Random random(seed);
        for (const std::size_t n : counts) offsets.push_back(offsets.back() + static_cast<std::int64_t>(n));
        values.resize(static_cast<std::size_t>(offsets.back()) * dim);
        for (float& x : values) {
            x = size * static_cast<float>(random.uniform() + random.uniform() + random.uniform() - 1.5);
        }
    }
    std::size_t n() const { return offsets.size() - 1; }
    std::size_t count(std::size_t i) const { return static_cast<std::size_t>(offsets[i + 1] - offsets[i]); }
    const float* token(std::size_t set, std::size_t t) const { return values.data() + (static_cast<std::size_t>(offsets[set]) + t) * dim; }

    void to_halves() {
        for (float& x : values) {
            halves.push_back(half_from_float(x));
            x = float_from_half(halves.back());
        }
    }
    void to_bytes() {
        for (std::size_t i = 0; i < values.size(); ++i) {
            if (i % dim == 0) scales.push_back(0.001f * static_cast<float>(i / dim + 1));
            bytes.push_back(static_cast<std::int8_t>(std::lround(values[i] * 80)));
            values[i] = scales.back() * static_cast<float>(bytes.back());
        }
    }
    TokenSets view() const {
        if (!halves.empty()) return {halves.data(), TokenType::f16, dim, offsets.data(), n(), nullptr};
        if (!bytes.empty()) return {bytes.data(), TokenType::i8, dim, offsets.data(), n(), scales.data()};
        return {values.data(), TokenType::f32, dim, offsets.data(), n(), nullptr};
    }
};

// Every score, and the sum of the sizes of the terms of its best products.
void check_scores(const Sets& queries, const Sets& documents, const std::vector<std::size_t>& which, const std::vector<float>& scores) {
    REQUIRE(scores.size() == queries.n() * which.size());
    for (std::size_t q = 0; q < queries.n(); ++q) {
        for (std::size_t i = 0; i < which.size(); ++i) {
            const float got = scores[q * which.size() + i];
            if (documents.count(which[i]) == 0) {
                CHECK(got == -std::numeric_limits<float>::infinity());
                continue;
            }
            double sum = 0, size = 0;
            for (std::size_t s = 0; s < queries.count(q); ++s) {
                double best = -std::numeric_limits<double>::infinity(), best_size = 0;
                for (std::size_t t = 0; t < documents.count(which[i]); ++t) {
                    double product = 0, terms = 0;
                    for (std::size_t k = 0; k < queries.dim; ++k) {
                        const double term = static_cast<double>(queries.token(q, s)[k]) * static_cast<double>(documents.token(which[i], t)[k]);
                        product += term;
                        terms += std::fabs(term);
                    }
                    best = std::max(best, product);
                    best_size = std::max(best_size, terms);
                }
                sum += best;
                size += best_size;
            }
            CAPTURE(q);
            CAPTURE(which[i]);
            // Half of what float32 gives the CPU, which has (dim + 16) 2^-24.
            CHECK(std::fabs(static_cast<double>(got) - sum) <= 1e-6 * size);
        }
    }
}

std::vector<std::size_t> all_of(const Sets& documents) {
    std::vector<std::size_t> out;
    for (std::size_t i = 0; i < documents.n(); ++i) out.push_back(i);
    return out;
}

std::vector<float> scores_of(DeviceDocuments& documents, const PlacedSets& queries, multivector::DocumentNumbers chosen = std::nullopt) {
    const std::size_t n = chosen ? chosen->size() : documents.size();
    DeviceArray<float> scores(documents.context(), queries.sets.n * n, "scores");
    documents.maxsim(queries, chosen, scores.data());
    return scores.to_host();
}

void check_all(const Sets& queries, const Sets& documents) {
    Context context(0);
    const auto held = float_documents(context, {documents.view(), false}, false);
    CHECK(held->tokens() == static_cast<std::size_t>(documents.offsets.back()));
    check_scores(queries, documents, all_of(documents), scores_of(*held, {queries.view(), false}));
}

}  // namespace

TEST_CASE("maxsim on the device: float16 documents of any dims, lengths and numbers of query tokens") {
    // Dims below, at and beyond what a lane, a tile and a slab take.
    for (const std::size_t dim : {1, 8, 30, 64, 96, 128, 200, 264}) {
        for (const std::size_t tokens : {1, 17, 33, 70}) {
            if (dim != 128 && dim != 264 && tokens == 17) continue;
            CAPTURE(dim);
            CAPTURE(tokens);
            Sets documents(dim, {5, 0, 32, 1, 33, 0, 70}, dim);
            documents.to_halves();
            check_all(Sets(dim, {tokens, 2}, 7 * dim, 0.1f), documents);
        }
    }
}

TEST_CASE("maxsim on the device: float32 and int8 documents, and queries of float16") {
    for (const std::size_t dim : {48, 128, 136}) {
        CAPTURE(dim);
        Sets queries(dim, {3, 20}, 1, 4.0f);
        // Far beyond what float16 holds.
        Sets wide(dim, {4, 37, 0, 2}, 2);
        for (std::size_t i = 0; i < wide.values.size(); ++i) wide.values[i] *= i / dim % 2 == 0 ? 1e-30f : 1e20f;
        check_all(queries, wide);
        Sets bytes(dim, {9, 40}, 3);
        bytes.to_bytes();
        check_all(queries, bytes);
        queries.to_halves();
        Sets halves(dim, {9, 40}, 4);
        halves.to_halves();
        check_all(queries, halves);
        check_all(queries, wide);
    }
}

TEST_CASE("maxsim on the device: float32 documents may be kept as float16") {
    Sets documents(40, {5, 33}, 1);
    const Sets given = documents;
    documents.to_halves();
    Context context(0);
    const auto held = float_documents(context, {given.view(), false}, false, true);
    CHECK(std::string(held->form()) == "float16");
    const Sets queries(40, {4}, 2);
    check_scores(queries, documents, {0, 1}, scores_of(*held, {queries.view(), false}));
}

TEST_CASE("maxsim on the device: one long document is shared by many warps, and many queries by groups") {
    Sets documents(24, {700, 0, 650}, 5);
    documents.to_halves();
    check_all(Sets(24, {3}, 6), documents);
    check_all(Sets(24, {60, 1, 1, 70, 9}, 7), documents);
}

TEST_CASE("maxsim on the device agrees with the CPU, for chosen documents, and on tokens that are there already") {
    Context context(0);
    Sets documents(64, {12, 3, 0, 40, 8}, 8);
    documents.to_halves();
    const Sets queries(64, {5, 16, 1}, 9);
    const DeviceArray<std::uint16_t> tokens(context, documents.halves, "tokens");
    const DeviceArray<float> asked(context, queries.values, "queries");
    TokenSets there = documents.view(), q = queries.view();
    there.data = tokens.data();
    q.data = asked.data();
    const std::size_t used = context.used();
    const auto held = float_documents(context, {there, true}, true);
    CHECK(context.used() < used + 200);  // offsets alone
    const std::vector<std::int64_t> chosen = {4, 2, 0, 4};
    const std::vector<float> got = scores_of(*held, {q, true}, std::span(chosen));
    const auto scorer = multivector::float_scorer(queries.view(), documents.view());
    const std::vector<float> expected = multivector::maxsim(*scorer, queries.view(), std::span(chosen), 1);
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK((got[i] == doctest::Approx(expected[i]).epsilon(1e-5) || got[i] == expected[i]));
    CHECK(context.used() < used + 200);  // nothing is left behind
}

TEST_CASE("maxsim on the device: what is wrong is named, and the documents stay usable") {
    Context context(0);
    const Sets queries(16, {4}, 1);
    for (const bool halves : {true, false}) {
        Sets documents(16, {3, 5, 4}, 2);
        documents.values[(3 + 2) * 16 + 7] = std::numeric_limits<float>::infinity();
        documents.values[(3 + 5 + 1) * 16] = std::numeric_limits<float>::quiet_NaN();
        if (halves) documents.to_halves();
        const auto held = float_documents(context, {documents.view(), false}, false);
        CHECK_THROWS_WITH_AS(scores_of(*held, {queries.view(), false}),
                             "doc_tokens: document 1, token 2 contains NaN or infinity; float16 holds at most 65504", Error);
        const std::vector<std::int64_t> chosen = {0, 2}, fine = {0}, out = {0, 3};
        CHECK_THROWS_WITH_AS(scores_of(*held, {queries.view(), false}, std::span(chosen)),
                             "doc_tokens: document 2, token 1 contains NaN or infinity; float16 holds at most 65504", Error);
        CHECK_THROWS_WITH_AS(scores_of(*held, {queries.view(), false}, std::span(out)), "documents: 3 is not one of the 3 documents", Error);
        check_scores(queries, documents, {0}, scores_of(*held, {queries.view(), false}, std::span(fine)));
        Sets asked(16, {1, 3}, 1);
        asked.values[3 * 16] = std::numeric_limits<float>::quiet_NaN();
        CHECK_THROWS_WITH_AS(scores_of(*held, {asked.view(), false}), "q_tokens: query 1, token 2 contains NaN or infinity", Error);
        const Sets other(8, {1}, 1);
        CHECK_THROWS_WITH_AS(scores_of(*held, {other.view(), false}), "q_tokens have 8 dims, expected 16", Error);
    }
}
