// SPDX-License-Identifier: Apache-2.0
// Which rows a scan may find and what breaks ties (RowChoice), on the device, and the way from keys back to rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "cuda/code_scan.hpp"
#include "cuda/pools.hpp"
#include "cuda/simt.hpp"

namespace residua::cuda {

inline constexpr std::uint32_t kWarpRows = 32;
static_assert(kWarpRows == codec::kBlockRows && kWarpRows == kWarp);

// Which rows may be found, and the numbers that tell them apart.
struct ChoiceView {
    const std::uint32_t* allowed;  // a bit per row, nullptr: all
    const std::uint32_t* ranks;    // nullptr: the rows

    // Bit i: row + i may be found, where rows end at `end`. row is the first of a tile.
    RZ_DEVICE std::uint32_t rows(std::uint32_t row, std::uint32_t end) const {
        const std::uint32_t there = end - row >= kWarpRows ? 0xFFFFFFFFu : (1u << (end - row)) - 1u;
        return allowed == nullptr ? there : allowed[row / kWarpRows] & there;
    }
    RZ_DEVICE bool allows(std::uint32_t row) const {
        return allowed == nullptr || (allowed[row / kWarpRows] >> row % kWarpRows & 1u) != 0;
    }
    RZ_DEVICE std::uint32_t rank(std::uint32_t row) const { return ranks == nullptr ? row : ranks[row]; }

    // Offers a row to a query whose threshold is `threshold`.
    RZ_DEVICE void offer(const PoolView& pools, std::uint32_t query, Key threshold, float score, std::uint32_t row) const {
        if (key_of(score, 0) > threshold) pools.offer(query, key_of(score, rank(row)));
    }
};

// Ranks of rows, and the reverse.
struct DeviceRanks {
    DeviceRanks(Context& context, std::span<const std::uint32_t> ranks);
    std::size_t bytes() const { return ranks.bytes() + rows.bytes(); }

    DeviceArray<std::uint32_t> ranks, rows;
};

class DeviceChoice {
public:
    // Of n rows.
    DeviceChoice(Context& context, const RowChoice& choice, std::size_t n);
    DeviceChoice(const DeviceChoice&) = delete;
    DeviceChoice& operator=(const DeviceChoice&) = delete;

    ChoiceView view() const;
    // The rows of n pools, per query best first, as out[0 … n).
    void take(const Pools& pools, std::size_t n, std::vector<std::vector<ScoredRow>>::iterator out) const;

private:
    void to_rows(std::vector<std::uint32_t>& numbers) const;

    Context& context_;
    std::size_t n_;
    DeviceArray<std::uint64_t> allowed_;
    std::optional<DeviceRanks> own_;
    const DeviceRanks* ranks_ = nullptr;  // own_ or those that somebody keeps
};

}  // namespace residua::cuda
