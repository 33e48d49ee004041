// SPDX-License-Identifier: Apache-2.0
// The kernels of LinearScan.
#pragma once

#include "cuda/linear_layout.hpp"
#include "cuda/linear_query.hpp"
#include "cuda/pools.hpp"
#include "cuda/row_choice.hpp"
#include "cuda/simt.hpp"

namespace residua::cuda {

// What all of them see of the codes.
struct LinearCodes {
    LinearLayout layout;
    const std::uint32_t* words;
    const float* scale;  // nullptr: 1
    const float* add;    // nullptr: 0
    ChoiceView choice;

    RZ_DEVICE float scale_of(std::uint32_t row) const { return scale == nullptr ? 1.0f : scale[row]; }
    RZ_DEVICE float add_of(std::uint32_t row) const { return add == nullptr ? 0.0f : add[row]; }
};

// Rows that the queries of a tile of bits read.
struct ScanTask {
    std::uint32_t tile;
    std::uint32_t begin, end;  // begin: a multiple of 32
    float term;
};

// An entry of a pool that is not scored yet: the row, and the term of its list.
RZ_HD inline Key unscored(std::uint32_t row, float term) {
    std::uint32_t bits;
    memcpy(&bits, &term, sizeof bits);
    return static_cast<Key>(bits) << 32 | row;
}

RZ_DEVICE float least_bound(const PoolView& pools, std::uint32_t query, float constant, float term) {
    const Key threshold = pools.thresholds[query];
    return threshold == 0 ? bits_to_float(0xFF800000u) : lowered(score_of(threshold), constant, term);
}

// Few queries. A block takes one task; its warps take 32 rows in turn, as four tiles.
// Per 8 rows and 256 bits: 256 bytes read, one product of tiles (two cycles of an SM at most): far below the
// rate at which memory delivers them (19 bytes per cycle and SM).
template <bool kPairs, bool kShared>
struct ScanBits {
    static constexpr int kThreads = 128;
    static constexpr std::uint32_t kRows = 32;

    LinearCodes codes;
    PoolView pools;
    const ScanTask* tasks;
    const std::uint32_t* fragments;
    std::size_t tile_words;
    int planes;
    const LinearBound* bounds;
    std::uint32_t n_queries;

    RZ_DEVICE void operator()() const {
        const ScanTask task = tasks[block_index().x];
        const auto* tile = reinterpret_cast<const Pack16*>(fragments + task.tile * tile_words);
        if (kShared) {
            auto* shared = reinterpret_cast<Pack16*>(shared_memory());
            for (std::size_t i = static_cast<std::size_t>(thread_index()); i < tile_words / 4; i += kThreads) shared[i] = tile[i];
            sync_block();
            tile = shared;
        }
        constexpr std::uint32_t kSlots = kPairs ? 2 : 1;
        LinearBound bound[kSlots];
        float least[kSlots];
        for (std::uint32_t s = 0; s < kSlots; ++s) {
            const std::uint32_t query = task.tile * kSlots + s;
            const bool real = query < n_queries;
            bound[s] = real ? bounds[query] : LinearBound{0.0f, 0.0f, 0.0f};
            least[s] = real ? least_bound(pools, query, bound[s].constant, task.term) : bits_to_float(0x7F800000u);
        }
        for (std::uint32_t row = task.begin + static_cast<std::uint32_t>(warp_index()) * kRows; row < task.end;
             row += kRows * (kThreads / kWarp)) {
            scan_rows(task, tile, row, bound, least);
        }
    }

private:
    RZ_DEVICE void scan_rows(const ScanTask& task, const Pack16* tile, std::uint32_t row, const LinearBound* bound, const float* least) const {
        const int g = lane_index() / 4, t = lane_index() % 4;
        std::int32_t sums[4][4] = {};
        const std::uint32_t* first = codes.words + std::size_t{row} / kTileRows * codes.layout.tile_words();
        const std::size_t stride = codes.layout.tile_words();
        const std::uint32_t units = codes.layout.units();
        RZ_UNROLL_BY(2)
        for (std::uint32_t unit = 0; unit < units; ++unit) {
            Pack8 b[4];
            RZ_UNROLL
            for (int i = 0; i < 4; ++i) {
                b[i] = load_once(reinterpret_cast<const Pack8*>(first + static_cast<std::size_t>(i) * stride + std::size_t{unit} * 64 + g * 8 + t * 2));
            }
            const Pack16 a = tile[unit * kWarp + static_cast<std::uint32_t>(lane_index())];
            RZ_UNROLL
            for (int i = 0; i < 4; ++i) multiply_bits(sums[i], a.word, b[i].word);
        }
        if (codes.layout.has_half()) {
            const Pack16 a = tile[units * kWarp + static_cast<std::uint32_t>(lane_index())];
            RZ_UNROLL
            for (int i = 0; i < 4; ++i) {
                const std::uint32_t b[2] = {load_once(first + static_cast<std::size_t>(i) * stride + std::size_t{units} * 64 + g * 4 + t), 0u};
                multiply_bits(sums[i], a.word, b);
            }
        }
        // Rows of the tile become one sum per column: lane (g, t) ends with that of row 8 i + 2 t + c.
        const std::uint32_t i = static_cast<std::uint32_t>(g / 2), c = static_cast<std::uint32_t>(g % 2);
        const std::uint32_t mine = row + 8 * i + 2 * static_cast<std::uint32_t>(t) + c;
        const auto low = static_cast<std::uint32_t>(bit_weight(planes, g));
        const auto high = static_cast<std::uint32_t>(bit_weight(planes, kPairs ? g : g + 8));
        if (kPairs) {
            const std::uint32_t s0 = gather(sums, 0, low, 0u), s1 = gather(sums, 2, high, 0u);
            offer(task, mine, 0, s0, bound[0], least[0]);
            offer(task, mine, kPairs ? 1 : 0, s1, bound[kPairs ? 1 : 0], least[kPairs ? 1 : 0]);
        } else {
            offer(task, mine, 0, gather(sums, 0, low, high), bound[0], least[0]);
        }
    }

    // Sum over lanes of equal t of low * sums[.][at + c] + high * sums[.][at + 2 + c]; modulo 2^32, as the sum fits.
    RZ_DEVICE static std::uint32_t gather(const std::int32_t (&sums)[4][4], int at, std::uint32_t low, std::uint32_t high) {
        const int g = lane_index() / 4;
        std::uint32_t x[4][2];
        RZ_UNROLL
        for (int i = 0; i < 4; ++i) {
            for (int c = 0; c < 2; ++c) {
                x[i][c] = low * static_cast<std::uint32_t>(sums[i][at + c]);
                if (!kPairs) x[i][c] += high * static_cast<std::uint32_t>(sums[i][2 + c]);
            }
        }
        std::uint32_t y[2][2], z[2];
        const bool b2 = (g & 4) != 0, b1 = (g & 2) != 0, b0 = (g & 1) != 0;
        RZ_UNROLL
        for (int i = 0; i < 2; ++i) {
            for (int c = 0; c < 2; ++c) y[i][c] = (b2 ? x[i + 2][c] : x[i][c]) + shuffle_xor(b2 ? x[i][c] : x[i + 2][c], 16);
        }
        for (int c = 0; c < 2; ++c) z[c] = (b1 ? y[1][c] : y[0][c]) + shuffle_xor(b1 ? y[0][c] : y[1][c], 8);
        return (b0 ? z[1] : z[0]) + shuffle_xor(b0 ? z[0] : z[1], 4);
    }

    RZ_DEVICE void offer(const ScanTask& task, std::uint32_t row, std::uint32_t slot, std::uint32_t sum, const LinearBound& bound,
                         float least) const {
        if (row >= task.end) return;
        const float inner = add(multiply(bound.step, static_cast<float>(static_cast<std::int32_t>(sum))), bound.upper);
        if (!(add(multiply(codes.scale_of(row), inner), codes.add_of(row)) >= least) || !codes.choice.allows(row)) return;
        pools.append(task.tile * (kPairs ? 2 : 1) + slot, unscored(row, task.term));
    }
};

// Many queries: a block multiplies kQueries queries with tiles of kRows rows, 64 dims at a time; the next codes are loaded and
// spread out into a second buffer of shared memory while tiles are multiplied. Weights of all dims stay in shared memory where
// they fit (resident: up to 832 dims of an H100), otherwise those of a step are copied with its codes. Warp (m, n) has
// queries 64 m … and rows 64 n …. Per 64 dims a warp reads 16 times 16 bytes per lane for 64 products of tiles.
template <bool kResident>
struct ScanBytes {
    static constexpr int kThreads = 256;
    static constexpr std::uint32_t kQueries = 256, kRows = 128, kDepth = 64;
    static constexpr std::size_t kQueryBytes = std::size_t{kQueries} * kDepth, kRowBytes = std::size_t{kRows} * kDepth;
    static constexpr std::size_t shared_bytes(std::size_t steps) { return (kResident ? steps : 2) * kQueryBytes + 2 * kRowBytes; }

    LinearCodes codes;
    PoolView pools;
    const std::int8_t* weights;  // byte_tiles(…, kQueries)
    std::uint32_t steps;         // of kDepth dims
    const LinearBound* bounds;
    std::uint32_t n_queries, query_blocks;
    std::uint32_t row_begin, row_end;  // row_begin: a multiple of 32

    // A place in the block's work.
    struct At {
        std::uint32_t row0, step;
    };

    RZ_DEVICE void operator()() const {
        // Blocks of the same rows stand together, so that codes come from the caches for all but one.
        const std::uint32_t query0 = block_index().x % query_blocks * kQueries;
        const std::uint32_t stride = grid_blocks().x / query_blocks * kRows;
        const int warp = warp_index(), lane = lane_index();
        const std::uint32_t m = static_cast<std::uint32_t>(warp) / 2 * 64, n = static_cast<std::uint32_t>(warp) % 2 * 64;
        std::uint8_t* const query_bytes = shared_memory();
        std::uint8_t* const row_bytes = query_bytes + (kResident ? steps : 2) * kQueryBytes;
        std::uint32_t words[8];
        At at{row_begin + block_index().x / query_blocks * kRows, 0};
        if (at.row0 >= row_end) return;  // the whole block
        for (std::uint32_t step = 0; step < (kResident ? steps : 1); ++step) copy_weights(query_bytes + step * kQueryBytes, query0, step);
        end_copies();
        load_codes(words, at);
        spread_codes(row_bytes, words);
        for (std::uint32_t turn = 0; at.row0 < row_end;) {
            std::int32_t sums[4][8][4] = {};
            const std::uint32_t row0 = at.row0;
            for (std::uint32_t step = 0; step < steps; ++step, ++turn) {
                at = step + 1 < steps ? At{row0, step + 1} : At{row0 + stride, 0};
                // Near 2^32 rows the last tile's successor may wrap around; there is none then.
                if (at.row0 < row0) at.row0 = row_end;
                const bool more = at.row0 < row_end;
                wait_copies<0>();
                sync_block();  // this turn's buffers are full, and all are done with the others
                if (!kResident && more) copy_weights(query_bytes + (turn + 1) % 2 * kQueryBytes, query0, at.step);
                end_copies();
                if (more) load_codes(words, at);
                multiply_step(sums, query_bytes + (kResident ? step : turn % 2) * kQueryBytes, row_bytes + turn % 2 * kRowBytes, m, n, lane);
                if (more) spread_codes(row_bytes + (turn + 1) % 2 * kRowBytes, words);
            }
            offer_rows(sums, query0 + m, row0 + n, lane);
        }
    }

private:
    // Weights lie on both sides in the order in which they are read: 1,024 bytes per 16 queries and step.
    RZ_DEVICE void copy_weights(std::uint8_t* to, std::uint32_t query0, std::uint32_t step) const {
        constexpr int kTileBytes = 16 * kDepth;
        RZ_UNROLL
        for (int i = 0; i < static_cast<int>(kQueryBytes / 16 / kThreads); ++i) {
            const int byte = (i * kThreads + thread_index()) * 16;
            const std::size_t tile = query0 / 16 + static_cast<std::uint32_t>(byte / kTileBytes);
            copy_16(to + byte, weights + (tile * steps + step) * kTileBytes + byte % kTileBytes);
        }
    }

    // A thread has one group of one row. Rows past the end repeat the last one, and are not offered.
    RZ_DEVICE void load_codes(std::uint32_t* words, const At& at) const {
        const std::uint32_t mine = at.row0 + static_cast<std::uint32_t>(thread_index()) / 2;
        const std::uint32_t row = mine < row_end ? mine : row_end - 1;
        const std::uint32_t group = at.step * 2 + static_cast<std::uint32_t>(thread_index()) % 2;
        RZ_UNROLL
        for (std::uint32_t t = 0; t < 8; ++t) {
            words[t] = 0;
            if (t < codes.layout.planes && group < codes.layout.covered[t]) {
                words[t] = codes.words[codes.layout.at(row, codes.layout.first[t] + group)];
            }
        }
    }

    RZ_DEVICE void spread_codes(std::uint8_t* to, const std::uint32_t* words) const {
        Pack16 low{}, high{};
        RZ_UNROLL
        for (int t = 0; t < 8; ++t) {
            if (t >= static_cast<int>(codes.layout.planes)) continue;
            RZ_UNROLL
            for (int j = 0; j < 4; ++j) {
                low.word[j] |= spread(words[t], t, j);
                high.word[j] |= spread(words[t], t, j + 4);
            }
        }
        auto* out = reinterpret_cast<Pack16*>(to + thread_index() * 32);
        out[0] = low;
        out[1] = high;
    }

    RZ_DEVICE static void multiply_step(std::int32_t (&sums)[4][8][4], const std::uint8_t* query_bytes, const std::uint8_t* row_bytes,
                                        std::uint32_t m, std::uint32_t n, int lane) {
        const auto* a_at = reinterpret_cast<const Pack16*>(query_bytes + m * kDepth) + lane;
        const auto* b_at = reinterpret_cast<const Pack16*>(row_bytes + n * kDepth) + lane;
        Pack16 a[4][2];
        RZ_UNROLL
        for (int i = 0; i < 4; ++i) {
            a[i][0] = a_at[(2 * i) * kWarp];
            a[i][1] = a_at[(2 * i + 1) * kWarp];
        }
        RZ_UNROLL
        for (int j = 0; j < 8; ++j) {
            const Pack16 b = b_at[j * kWarp];  // 8 rows of 64 bytes: lane (g, t) has bytes 16 t … of row g
            RZ_UNROLL
            for (int h = 0; h < 2; ++h) {
                RZ_UNROLL
                for (int i = 0; i < 4; ++i) multiply_bytes(sums[i][j], a[i][h].word, b.word + 2 * h);
            }
        }
    }

    // Bounds are compared for all 16 rows of a query at once; few queries have one that passes.
    RZ_DEVICE void offer_rows(const std::int32_t (&sums)[4][8][4], std::uint32_t query0, std::uint32_t row0, int lane) const {
        const auto g = static_cast<std::uint32_t>(lane) / 4, t = static_cast<std::uint32_t>(lane) % 4;
        float scale[16], more[16];
        RZ_UNROLL
        for (int j = 0; j < 16; ++j) {
            const std::uint32_t row = row_of_column(row0, t, j);
            // A row that is not there is below every bound.
            scale[j] = row < row_end ? codes.scale_of(row) : 0.0f;
            more[j] = row < row_end ? codes.add_of(row) : bits_to_float(0xFF800000u);
        }
        RZ_UNROLL
        for (int i = 0; i < 8; ++i) {
            const std::uint32_t query = query0 + static_cast<std::uint32_t>(i / 2 * 16 + i % 2 * 8) + g;
            if (query >= n_queries) continue;
            const LinearBound bound = bounds[query];
            const float least = least_bound(pools, query, bound.constant, 0.0f);
            std::uint32_t passed = 0;
            RZ_UNROLL
            for (int j = 0; j < 16; ++j) {
                const float inner = fmaf(bound.step, static_cast<float>(sums[i / 2][j / 2][i % 2 * 2 + j % 2]), bound.upper);
                if (fmaf(scale[j], inner, more[j]) >= least) passed |= 1u << j;
            }
            for (; passed != 0; passed &= passed - 1) {
                const std::uint32_t row = row_of_column(row0, t, first_bit(passed));
                if (row < row_end && codes.choice.allows(row)) pools.append(query, unscored(row, 0.0f));
            }
        }
    }
    RZ_DEVICE static std::uint32_t row_of_column(std::uint32_t row0, std::uint32_t t, int j) {
        return row0 + static_cast<std::uint32_t>(j / 2 * 8 + j % 2) + 2 * t;
    }
};

// Exact scores of new entries of the pools, a warp for each.
struct Rescore {
    static constexpr int kThreads = 256;
    static constexpr std::uint32_t kBlocksPerQuery = 4;

    LinearCodes codes;
    PoolView pools;
    const std::int16_t* weights;  // (queries, dims)
    const std::int16_t* rests;    // likewise, or nullptr
    const LinearTerms* terms;

    RZ_DEVICE void operator()() const {
        const std::uint32_t query = block_index().x / kBlocksPerQuery;
        const std::uint32_t part = block_index().x % kBlocksPerQuery * (kThreads / kWarp) + static_cast<std::uint32_t>(warp_index());
        const std::uint32_t offered = pools.counts[query];
        const std::uint32_t end = offered < pools.capacity ? offered : pools.capacity;
        const LinearTerms q = terms[query];
        const Key threshold = pools.thresholds[query];
        for (std::uint32_t e = pools.kept[query] + part; e < end; e += kBlocksPerQuery * (kThreads / kWarp)) {
            Key* entry = pools.keys + std::size_t{query} * pools.capacity + e;
            const auto row = static_cast<std::uint32_t>(*entry);
            const float term = bits_to_float(static_cast<std::uint32_t>(*entry >> 32));
            long long sum = 0, rest = 0;
            add_up(query, row, sum, rest);
            for (int mask = kWarp / 2; mask > 0; mask /= 2) {
                sum += shuffle_xor(sum, mask);
                rest += shuffle_xor(rest, mask);
            }
            const float score = add(exact_score(q, sum, rest, codes.scale_of(row), codes.add_of(row)), term);
            const Key key = key_of(score, codes.choice.rank(row));
            if (lane_index() == 0) *entry = key > threshold ? key : 0;
            sync_warp();
        }
    }

private:
    // A lane has one dim of every group.
    RZ_DEVICE void add_up(std::uint32_t query, std::uint32_t row, long long& sum, long long& rest) const {
        const auto dim = static_cast<std::uint32_t>(lane_index());
        const std::size_t first = std::size_t{query} * codes.layout.groups * 32 + dim;
        for (std::uint32_t group = 0; group < codes.layout.groups; ++group) {
            std::int32_t level = 0;
            for (std::uint32_t t = codes.layout.planes; t-- > 0;) {
                if (group >= codes.layout.covered[t]) continue;
                const std::uint32_t word = codes.words[codes.layout.at(row, codes.layout.first[t] + group)];
                level = level << 1 | static_cast<std::int32_t>(word >> bit_of_dim(dim) & 1u);
            }
            sum += std::int32_t{weights[first + std::size_t{group} * 32]} * level;
            if (rests != nullptr) rest += std::int32_t{rests[first + std::size_t{group} * 32]} * level;
        }
    }
};

}  // namespace residua::cuda
