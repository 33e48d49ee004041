// SPDX-License-Identifier: Apache-2.0
#include "cuda/row_choice.hpp"

#include <algorithm>

#include "cuda/launch.hpp"

namespace residua::cuda {
namespace {

constexpr const char* kWhat = "the choice of rows";

struct ScatterRanks {
    static constexpr int kThreads = 256;
    const std::uint32_t* ranks;
    std::uint32_t* rows;
    std::size_t n;

    RZ_DEVICE void operator()() const {
        const std::size_t i = std::size_t{block_index().x} * kThreads + static_cast<std::size_t>(thread_index());
        if (i < n && ranks[i] < n) rows[ranks[i]] = static_cast<std::uint32_t>(i);
    }
};

struct RowsOfRanks {
    static constexpr int kThreads = 256;
    const std::uint32_t* rows;
    std::uint32_t* found;  // ranks that become rows
    std::size_t n;

    RZ_DEVICE void operator()() const {
        const std::size_t i = std::size_t{block_index().x} * kThreads + static_cast<std::size_t>(thread_index());
        if (i < n) found[i] = rows[found[i]];
    }
};

std::size_t blocks_of(std::size_t n) { return (n + ScatterRanks::kThreads - 1) / ScatterRanks::kThreads; }

}  // namespace

DeviceRanks::DeviceRanks(Context& context, std::span<const std::uint32_t> given)
    : ranks(context, given.size(), kWhat), rows(context, given.size(), kWhat) {
    ranks.copy_in(given.data(), given.size());
    rows.fill(0);
    launch(ScatterRanks{ranks.data(), rows.data(), given.size()}, context, {blocks_of(given.size())});
}

DeviceChoice::DeviceChoice(Context& context, const RowChoice& choice, std::size_t n) : context_(context), n_(n) {
    if (choice.allowed != nullptr) {
        allowed_ = {context, (n + 63) / 64, kWhat};
        allowed_.fill(0);
        const auto words = choice.allowed->words();
        allowed_.copy_in(words.data(), std::min(words.size(), allowed_.size()));
    }
    ranks_ = choice.kept;
    if (ranks_ == nullptr && !choice.ranks.empty()) ranks_ = &own_.emplace(context, choice.ranks);
}

ChoiceView DeviceChoice::view() const {
    return {reinterpret_cast<const std::uint32_t*>(allowed_.data()), ranks_ == nullptr ? nullptr : ranks_->ranks.data()};
}

// What keys tell apart becomes rows.
void DeviceChoice::to_rows(std::vector<std::uint32_t>& numbers) const {
    if (ranks_ == nullptr || numbers.empty()) return;
    DeviceArray<std::uint32_t> found(context_, numbers, "the results");
    launch(RowsOfRanks{ranks_->rows.data(), found.data(), found.size()}, context_, {blocks_of(found.size())});
    found.copy_out(numbers.data(), numbers.size());
}

void DeviceChoice::take(const Pools& pools, std::size_t n, std::vector<std::vector<ScoredRow>>::iterator out) const {
    const std::vector<Key> keys = pools.take();
    const std::size_t keep = pools.keep();
    std::vector<std::uint32_t> numbers;
    for (const Key key : keys) {
        if (key != 0) numbers.push_back(row_of(key));
    }
    to_rows(numbers);
    for (std::size_t i = 0, at = 0; i < n * keep; ++i) {
        if (keys[i] != 0) out[static_cast<std::ptrdiff_t>(i / keep)].push_back({score_of(keys[i]), numbers[at++]});
    }
}

}  // namespace residua::cuda
