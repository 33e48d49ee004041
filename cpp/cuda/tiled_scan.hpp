// SPDX-License-Identifier: Apache-2.0
// What scans of codes share that read rows in tiles of 32, one lane of a warp per row: which rows a query reads, which
// of them may be found, batches of queries, and their pools.
//
// Queries come in groups of a few that read the same rows together. A group's rows are pieces, put one after the
// other in whole tiles; what a launch is asked for are tiles of this order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cuda/code_scan.hpp"
#include "cuda/pools.hpp"
#include "cuda/row_choice.hpp"
#include "cuda/simt.hpp"

namespace residua::cuda {

// Rows [begin, end), and what is added to their scores; `tile` tiles of the group come before them.
struct Piece {
    std::uint32_t tile;
    std::uint32_t begin, end;
    float term;
};

// Pieces of group g are at first[g] …, and after them one without rows that has the number of tiles.
struct PieceView {
    const Piece* pieces;
    const std::uint32_t* first;
};

// A thread's way through the tiles of its group.
struct PieceWalk {
    const Piece* at;
    std::uint32_t tiles;

    RZ_DEVICE PieceWalk(const PieceView& view, std::uint32_t group, std::uint32_t tile)
        : at(view.pieces + view.first[group]), tiles(view.pieces[view.first[group + 1] - 1].tile) {
        const Piece* last = view.pieces + view.first[group + 1] - 1;
        while (last - at > 1) {
            const Piece* middle = at + (last - at) / 2;
            (middle->tile <= tile ? at : last) = middle;
        }
    }
    // tile < tiles, not before the tiles asked for until now.
    RZ_DEVICE void move_to(std::uint32_t tile) {
        while (at[1].tile <= tile) ++at;
    }
    RZ_DEVICE std::uint32_t row_of(std::uint32_t tile) const { return at->begin + (tile - at->tile) * kWarpRows; }
};

// One launch, of tiles [begin, end) of every group.
struct TileLaunch {
    PoolView pools;
    PieceView pieces;
    ChoiceView choice;
    std::uint32_t queries;  // of all groups
    std::uint32_t begin, end;
};

class TiledScan : public CodeScan {
public:
    explicit TiledScan(Context& context) : context_(context) {}

    std::size_t rows() const override { return n_; }
    std::vector<std::vector<ScoredRow>> best(const codec::Scorer& queries, std::size_t keep, const RowChoice& choice) override;
    std::vector<std::vector<ScoredRow>> best_of(const codec::Scorer& queries, std::span<const RowRange> ranges, std::size_t keep,
                                                const RowChoice& choice) override;

protected:
    // Queries whose pools and tables are on the device at a time.
    virtual std::size_t batch() const = 0;
    virtual std::size_t query_bytes() const = 0;  // that one takes beside its pool
    // Puts queries [begin, end) on the device in groups, each of as many as the result says: at most `most`.
    virtual std::uint32_t load(const codec::Scorer& queries, std::size_t begin, std::size_t end, std::size_t most,
                               int num_threads) = 0;
    // Launches kernels that offer all rows of the tiles to the queries that were loaded last.
    virtual void offer(const TileLaunch& tiles) = 0;

    // Blocks that every group of a launch gets, of `per_block` tiles at least: a few for each multiprocessor.
    std::size_t blocks_for(const TileLaunch& tiles, std::size_t groups, std::size_t per_block) const;

    Context& context_;
    std::size_t n_ = 0;

private:
    std::vector<std::vector<ScoredRow>> run(const codec::Scorer& queries, const std::span<const RowRange>* ranges,
                                            std::size_t keep, const RowChoice& choice);
};

}  // namespace residua::cuda
