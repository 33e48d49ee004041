// SPDX-License-Identifier: Apache-2.0
// A scan of 100 million codes that are made on the device, against a kernel that does nothing but count; in the emulation of
// as many as it bears.
#include <doctest/doctest.h>

#include <vector>

#include "codec/binary_codec.hpp"
#include "core/random.hpp"
#include "cuda/launch.hpp"
#include "cuda/linear_scan.hpp"

namespace {

using namespace residua;
using namespace residua::cuda;

constexpr std::size_t kDim = 768;

struct MakeWords {
    static constexpr int kThreads = 256;
    std::uint32_t* words;
    std::size_t count;
    RZ_DEVICE void operator()() const {
        const std::size_t stride = std::size_t{grid_blocks().x} * kThreads;
        for (std::size_t i = std::size_t{block_index().x} * kThreads + static_cast<std::size_t>(thread_index()); i < count; i += stride) {
            unsigned long long z = (i + 1) * 0x9E3779B97F4A7C15ull;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
            words[i] = static_cast<std::uint32_t>(z >> 20);
        }
    }
};

// Rows whose key is above `last`, bit by bit.
struct CountBetter {
    static constexpr int kThreads = 256;
    LinearLayout layout;
    const std::uint32_t* words;
    const std::int16_t* weights;
    LinearTerms terms;
    std::size_t n;
    Key last;
    std::uint32_t* better;
    RZ_DEVICE void operator()() const {
        const std::size_t stride = std::size_t{grid_blocks().x} * kThreads;
        for (std::size_t row = std::size_t{block_index().x} * kThreads + static_cast<std::size_t>(thread_index()); row < n; row += stride) {
            long long sum = 0;
            for (std::uint32_t g = 0; g < layout.groups; ++g) {
                const std::uint32_t word = words[layout.at(row, layout.first[0] + g)];
                for (std::uint32_t d = 0; d < 32; ++d) sum += (word >> bit_of_dim(d) & 1u) != 0 ? weights[g * 32 + d] : 0;
            }
            if (key_of(exact_score(terms, sum, 0, 1.0f, 0.0f), static_cast<std::uint32_t>(row)) > last) atomic_add(better, 1u);
        }
    }
};

}  // namespace

TEST_CASE("100 million codes made on the device") {
    std::size_t n = is_emulated() ? 500 : 100'000'000;
    const std::size_t room = device_info(0).free_bytes / 2 / (kDim / 8);
    if (n > room) {
        MESSAGE("the device has no room for 100 million codes; " << room << " instead");
        n = room;
    }
    const codec::BinaryCodec codec(kDim, kDim, Metric::ip);
    Context context(0);
    LinearScan scan(context);
    std::uint32_t* words = nullptr;
    scan.take_made(*codec.linear_form(), n, [&](std::uint32_t* to, std::size_t count) {
        words = to;
        launch(MakeWords{to, count}, context, {is_emulated() ? std::size_t{2} : std::size_t{4096}});
    });
    for (const std::size_t nq : {std::size_t{1}, std::size_t{40}}) {
        std::vector<float> q(nq * kDim);
        Random random(nq);
        for (float& v : q) v = static_cast<float>(random.uniform() - 0.5);
        const auto scorer = codec.prepare({q.data(), nq, kDim}, 1);
        const std::size_t keep = 100;
        const auto found = scan.best(*scorer, keep, {});
        const LinearQueries queries = linear_queries(*scorer, 0, nq, scan.layout(), 1);
        const DeviceArray<std::int16_t> weights(context, queries.weights, "a test");
        DeviceArray<std::uint32_t> better(context, 1, "a test");
        const std::size_t query = nq - 1;
        REQUIRE(found[query].size() == keep);
        for (const std::size_t place : {std::size_t{0}, keep / 2, keep - 1}) {
            const ScoredRow& row = found[query][place];
            better.fill(0);
            launch(CountBetter{scan.layout(), words, weights.data() + query * queries.dims, queries.terms[query], n, key_of(row.score, row.row), better.data()},
                   context, {is_emulated() ? std::size_t{2} : std::size_t{4096}});
            CHECK(better.to_host()[0] == place);
        }
    }
}
