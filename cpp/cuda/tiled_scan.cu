// SPDX-License-Identifier: Apache-2.0
#include "cuda/tiled_scan.hpp"

#include <algorithm>
#include <limits>
#include <string>

#include "core/error.hpp"
#include "cuda/launch.hpp"

namespace residua::cuda {
namespace {

constexpr std::size_t kEveryQuery = std::numeric_limits<std::size_t>::max();
constexpr std::size_t kBlocksPerProcessor = 8;
constexpr std::size_t kGrowth = 200;  // few parts: keys that are offered cost little here

std::uint32_t tiles_of(std::uint32_t begin, std::uint32_t end) { return (end - begin + kWarpRows - 1) / kWarpRows; }

// Pieces of all groups, on the host.
struct PieceList {
    std::vector<Piece> pieces;
    std::vector<std::uint32_t> first{0};
    std::uint32_t longest = 0;  // tiles of a group

    // Adds a group of these ranges.
    template <class Ranges>
    void add(const Ranges& ranges) {
        std::uint32_t tiles = 0;
        for (const RowRange& r : ranges) {
            if (r.begin >= r.end) continue;
            pieces.push_back({tiles, r.begin, r.end, r.term});
            tiles += tiles_of(r.begin, r.end);
        }
        pieces.push_back({tiles, 0, 0, 0.0f});
        first.push_back(static_cast<std::uint32_t>(pieces.size()));
        longest = std::max(longest, tiles);
    }
};

void check_ranges(std::span<const RowRange> ranges, std::size_t queries, std::size_t rows) {
    for (const RowRange& r : ranges) {
        if (r.query < queries && r.begin % kWarpRows == 0 && (r.begin >= r.end || r.end <= rows)) continue;
        throw Error(ErrorKind::value, "rows " + std::to_string(r.begin) + " to " + std::to_string(r.end) + " of query " +
                                          std::to_string(r.query) + " do not begin with a block, or are not there");
    }
}

// Ranges by query.
std::vector<std::vector<RowRange>> by_query(std::span<const RowRange> ranges, std::size_t begin, std::size_t end) {
    std::vector<std::vector<RowRange>> out(end - begin);
    for (const RowRange& r : ranges) {
        if (r.query >= begin && r.query < end) out[r.query - begin].push_back(r);
    }
    return out;
}

}  // namespace

std::vector<std::vector<ScoredRow>> TiledScan::best(const codec::Scorer& queries, std::size_t keep, const RowChoice& choice) {
    return run(queries, nullptr, keep, choice);
}

std::vector<std::vector<ScoredRow>> TiledScan::best_of(const codec::Scorer& queries, std::span<const RowRange> ranges,
                                                       std::size_t keep, const RowChoice& choice) {
    check_ranges(ranges, queries.size(), n_);
    return run(queries, &ranges, keep, choice);
}

std::size_t TiledScan::blocks_for(const TileLaunch& tiles, std::size_t groups, std::size_t per_block) const {
    const std::size_t enough = static_cast<std::size_t>(context_.info().multiprocessors) * kBlocksPerProcessor;
    const std::size_t most = (tiles.end - tiles.begin + per_block - 1) / per_block;
    return std::min(most, std::max<std::size_t>(1, enough / groups));
}

std::vector<std::vector<ScoredRow>> TiledScan::run(const codec::Scorer& queries, const std::span<const RowRange>* ranges,
                                                   std::size_t keep, const RowChoice& choice) {
    std::vector<std::vector<ScoredRow>> out(queries.size());
    if (n_ == 0 || queries.size() == 0) return out;
    context_.enter();
    const DeviceChoice chosen(context_, choice, n_);
    std::size_t most = batch();
    if (context_.limit() != 0) {  // half of what is left of it
        const std::size_t left = context_.limit() - std::min(context_.limit(), context_.used());
        most = std::clamp<std::size_t>(left / 2 / (Pools::bytes_per_query(keep) + query_bytes()), 1, most);
    }
    for (std::size_t begin = 0; begin < queries.size(); begin += most) {
        const std::size_t end = std::min(queries.size(), begin + most), n = end - begin;
        const std::uint32_t together = load(queries, begin, end, ranges == nullptr ? kEveryQuery : 1, choice.num_threads);
        PieceList list;
        if (ranges == nullptr) {
            const RowRange all[] = {{0, 0, static_cast<std::uint32_t>(n_), 0.0f}};
            for (std::size_t q = 0; q < n; q += together) list.add(all);
        } else {
            for (const auto& own : by_query(*ranges, begin, end)) list.add(own);
        }
        const DeviceArray<Piece> pieces(context_, list.pieces, "the rows of the queries");
        const DeviceArray<std::uint32_t> first(context_, list.first, "the rows of the queries");
        Pools pools(context_, n, keep);
        pools.scan(std::size_t{list.longest} * kWarpRows, kWarpRows, kGrowth, [&](std::size_t row_begin, std::size_t row_end) {
            offer({pools.view(), {pieces.data(), first.data()}, chosen.view(), static_cast<std::uint32_t>(n),
                   static_cast<std::uint32_t>(row_begin / kWarpRows), static_cast<std::uint32_t>((row_end + kWarpRows - 1) / kWarpRows)});
        });
        chosen.take(pools, n, out.begin() + static_cast<std::ptrdiff_t>(begin));
    }
    return out;
}

}  // namespace residua::cuda
