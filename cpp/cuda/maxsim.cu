// SPDX-License-Identifier: Apache-2.0
#include "cuda/maxsim.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "core/error.hpp"
#include "cuda/launch.hpp"
#include "cuda/maxsim_units.hpp"

namespace residua::cuda {
namespace {

constexpr std::size_t kBestBytes = std::size_t{64} << 20;  // of partial results at a time
constexpr std::size_t kUnitsPerWarp = 4;                   // documents are split up to that many
constexpr std::size_t kWarps = 12;                         // of a multiprocessor

// Scores of documents from the best products of their parts: a thread per document and query.
struct SumBest {
    static constexpr int kThreads = 128;
    MaxsimUnits units;

    RZ_DEVICE void operator()() const {
        const std::uint32_t i = block_index().x * kThreads + static_cast<std::uint32_t>(thread_index());
        const std::uint32_t query = block_index().y;
        if (i >= units.n) return;
        const float* best = units.best + std::size_t{i} * units.parts * units.query_tokens;
        double sum = 0;
        for (std::uint32_t t = units.sets[query]; t < units.sets[query + 1]; ++t) {
            float top = best[t];
            for (std::uint32_t p = 1; p < units.parts; ++p) top = fmaxf(top, best[std::size_t{p} * units.query_tokens + t]);
            sum += static_cast<double>(top);
        }
        units.scores[query * units.row + units.first + i] = static_cast<float>(sum);
    }
};

std::size_t ceil_div(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// Small tables of one call in one copy: counters, which start at 0, where the queries begin, and chosen documents.
class Tables {
public:
    std::size_t put(const void* data, std::size_t n) {
        const std::size_t at = words_.size();
        words_.resize(at + n);
        if (data != nullptr) std::memcpy(words_.data() + at, data, n * sizeof(std::uint32_t));
        return at;
    }
    std::vector<std::uint32_t> take() { return std::move(words_); }

private:
    std::vector<std::uint32_t> words_;
};

std::vector<std::uint32_t> numbers_of(std::span<const std::int64_t> chosen, std::size_t n) {
    multivector::check_numbers(chosen, n);
    return {chosen.begin(), chosen.end()};
}

}  // namespace

DeviceDocuments::DeviceDocuments(Context& context, std::vector<std::int64_t> offsets)
    : context_(context), offsets_(std::move(offsets)), device_offsets_(context, offsets_, "the offsets of documents") {
    if (size() >= std::numeric_limits<std::uint32_t>::max()) {
        throw Error(ErrorKind::unsupported, "the GPU scores fewer than 2^32 - 1 documents at a time, got " + std::to_string(size()));
    }
    for (std::size_t i = 0; i < size(); ++i) {
        if (offsets_[i + 1] - offsets_[i] >= std::int64_t{1} << 24) {
            throw Error(ErrorKind::unsupported, "document " + std::to_string(i) + " has " + std::to_string(offsets_[i + 1] - offsets_[i]) +
                                                    " tokens; the GPU takes fewer than 2^24");
        }
    }
}

void DeviceDocuments::maxsim(const PlacedSets& queries, multivector::DocumentNumbers chosen, float* scores) {
    const multivector::TokenSets& q = queries.sets;
    if (q.dim != dim()) {
        throw Error(ErrorKind::shape, "q_tokens have " + std::to_string(q.dim) + " dims, expected " + std::to_string(dim()));
    }
    const std::size_t n = chosen ? chosen->size() : size();
    const std::vector<std::uint32_t> numbers = chosen ? numbers_of(*chosen, size()) : std::vector<std::uint32_t>();
    if (n == 0 || q.n == 0) return;
    const std::size_t query_tokens = q.total();
    const std::size_t most_groups = ceil_div(query_tokens, kQueryTile);
    if (most_groups > 65'535 || q.n > 65'535) {
        throw Error(ErrorKind::unsupported, "the GPU takes up to 65535 queries and 1048560 query tokens at a time, got " +
                                                std::to_string(q.n) + " and " + std::to_string(query_tokens));
    }
    context_.enter();

    Tables host;
    const std::size_t bad_at = host.put(nullptr, 2);
    const std::size_t next_at = host.put(nullptr, most_groups);
    const std::vector<std::uint32_t> begins(q.offsets, q.offsets + q.n + 1);
    const std::size_t sets_at = host.put(begins.data(), begins.size());
    const std::size_t chosen_at = host.put(numbers.data(), numbers.size());
    DeviceArray<std::uint32_t> tables(context_, host.take(), "the tables of queries");
    std::vector<DeviceArray<std::uint8_t>> keep;
    const MaxsimPass prepared = prepare(queries, tables.data() + bad_at, keep);

    // Few documents are split, so that all of the device is busy.
    const std::size_t groups = ceil_div(query_tokens, prepared.group_tokens);
    const std::size_t tiles = std::max<std::size_t>(1, tokens() / std::max<std::size_t>(1, size()) / prepared.tile);
    const std::size_t warps = kWarps * static_cast<std::size_t>(context_.info().multiprocessors);
    const std::size_t parts = std::clamp<std::size_t>(kUnitsPerWarp * warps / (n * groups), 1, tiles);
    const bool direct = parts == 1 && groups == 1;
    const std::size_t unit_bytes = query_tokens * sizeof(float);
    const std::size_t most = std::numeric_limits<std::uint32_t>::max() / parts / 2;
    const std::size_t step = std::min({n, most, direct ? n : std::max<std::size_t>(1, kBestBytes / (parts * unit_bytes))});
    DeviceArray<float> best(context_, direct ? 0 : step * parts * query_tokens, "the best products of documents");

    MaxsimUnits units{};
    units.offsets = device_offsets_.data();
    units.chosen = chosen ? tables.data() + chosen_at : nullptr;
    units.parts = static_cast<std::uint32_t>(parts);
    units.tile = prepared.tile;
    units.next = tables.data() + next_at;
    units.scores = scores;
    units.row = n;
    units.sets = tables.data() + sets_at;
    units.n_sets = static_cast<std::uint32_t>(q.n);
    units.query_tokens = static_cast<std::uint32_t>(query_tokens);
    units.best = direct ? nullptr : best.data();
    for (std::size_t first = 0; first < n; first += step) {
        if (first > 0) context_.fill(units.next, 0, most_groups * sizeof(std::uint32_t));
        units.first = static_cast<std::uint32_t>(first);
        units.n = static_cast<std::uint32_t>(std::min(step, n - first));
        prepared.launch(units, groups);
        if (!direct) launch(SumBest{units}, context_, {ceil_div(units.n, SumBest::kThreads), q.n});
    }
    std::uint32_t bad[2];
    tables.copy_out(bad, 2, bad_at);
    if (bad[1] != 0) {
        const std::int64_t token = ~bad[1];
        const std::int64_t* owner = std::upper_bound(q.offsets, q.offsets + q.n + 1, token) - 1;
        throw Error(ErrorKind::non_finite, "q_tokens: query " + std::to_string(owner - q.offsets) + ", token " +
                                               std::to_string(token - *owner) + " contains NaN or infinity");
    }
    if (bad[0] != 0) name_bad(~bad[0]);
}

}  // namespace residua::cuda
