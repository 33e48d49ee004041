// SPDX-License-Identifier: Apache-2.0
#include "cuda/lookup_scan.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "cuda/launch.hpp"

namespace residua::cuda {
namespace {

constexpr std::size_t kStagedTiles = 4096;     // copied to the device at a time
constexpr std::size_t kTableFloats = 1 << 23;  // of a batch: 32 MiB
constexpr std::size_t kMostQueries = 1024;     // of a batch
constexpr std::uint32_t kUnitWords = 4;
constexpr int kChains = 4;

// The entries of one value of one number, for all queries of a group.
template <int kQueries>
struct alignas(4 * kQueries) Entry {
    float of[kQueries];
};

// kRounds: tiles of a warp per pass over the slices of the tables, 1 where the tables are one slice.
template <int kBits, int kQueries, int kRounds>
struct ScanLookups {
    static constexpr int kThreads = 512;
    static constexpr std::uint32_t kWarps = kThreads / kWarp;
    static constexpr bool kSliced = kRounds > 1;
    static constexpr std::uint32_t kWordEntries = 32 / kBits << kBits;
    static constexpr std::size_t kSumBytes = kSliced ? sizeof(float) * kChains * kRounds * kThreads : 0;

    TileLaunch tiles;
    const std::uint8_t* codes;
    std::uint32_t words;
    const float* tables;        // (groups, words, kWordEntries, kQueries)
    const float* shared_parts;
    std::uint32_t slice_words;  // whole units, or all words

    using Entries = Entry<kQueries>;
    struct Sums {
        float of[kChains][kQueries];
    };

    RZ_DEVICE void operator()() const {
        auto* table = reinterpret_cast<Entries*>(shared_memory() + kSumBytes);
        const std::uint32_t group = block_index().y, warp = static_cast<std::uint32_t>(warp_index());
        const std::uint32_t stride = grid_blocks().x * kWarps * kRounds;
        std::uint32_t round = tiles.begin + block_index().x * kWarps * kRounds;
        PieceWalk walk(tiles.pieces, group, round);
        const std::uint32_t end = walk.tiles < tiles.end ? walk.tiles : tiles.end;
        Key thresholds[kQueries];
        RZ_UNROLL
        for (std::uint32_t q = 0; q < kQueries; ++q) {
            const std::uint32_t query = group * kQueries + q;
            thresholds[q] = query < tiles.queries ? tiles.pools.thresholds[query] : ~Key{0};
        }
        if (!kSliced && round < end) load_table(table, group, 0, words);
        for (; round < end; round += stride) {  // the same for all threads of the block
            for (std::uint32_t first = 0; first < words; first += slice_words) {
                const std::uint32_t last = words - first <= slice_words ? words : first + slice_words;
                if (kSliced) load_table(table, group, first, last);
                PieceWalk at = walk;
                for (std::uint32_t r = 0; r < kRounds; ++r) {
                    const std::uint32_t tile = round + r * kWarps + warp;
                    if (tile >= end) break;
                    at.move_to(tile);
                    scan_tile(table, at, tile, first, last, r, thresholds);
                }
                if (last == words) walk = at;
            }
        }
    }

    // Words [first, last) of the group's tables.
    RZ_DEVICE void load_table(Entries* table, std::uint32_t group, std::uint32_t first, std::uint32_t last) const {
        constexpr std::uint32_t kPerCopy = 16 / sizeof(Entries);
        const auto* from = reinterpret_cast<const Entries*>(tables) + (std::size_t{group} * words + first) * kWordEntries;
        const std::uint32_t n = (last - first) * kWordEntries;
        sync_block();  // nobody reads what was there
        for (std::uint32_t i = static_cast<std::uint32_t>(thread_index()) * kPerCopy; i < n; i += kThreads * kPerCopy) {
            copy_16(table + i, from + i);
        }
        end_copies();
        wait_copies<0>();
        sync_block();
    }

    RZ_DEVICE void scan_tile(const Entries* table, const PieceWalk& at, std::uint32_t tile, std::uint32_t first, std::uint32_t last,
                             std::uint32_t round, const Key* thresholds) const {
        const std::uint32_t row = at.row_of(tile), found = tiles.choice.rows(row, at.at->end);
        if (found == 0) return;
        Sums sums;
        auto* kept = reinterpret_cast<Sums*>(shared_memory()) + round * kThreads + static_cast<std::uint32_t>(thread_index());
        if (kSliced && first > 0) {
            sums = *kept;
        } else {
            RZ_UNROLL
            for (int c = 0; c < kChains; ++c) {
                RZ_UNROLL
                for (int q = 0; q < kQueries; ++q) sums.of[c][q] = 0.0f;
            }
        }
        add_words(table, codes + std::size_t{row / kWarpRows} * words * 4 * kWarpRows, first, last, sums);
        if (kSliced && last < words) {
            *kept = sums;
            return;
        }
        const auto lane = static_cast<std::uint32_t>(lane_index());
        if ((found >> lane & 1u) != 0) offer(sums, row + lane, at.at->term, thresholds);
    }

    RZ_DEVICE void add_words(const Entries* table, const std::uint8_t* tile, std::uint32_t first, std::uint32_t last,
                             Sums& sums) const {
        const std::uint32_t units = words / kUnitWords, lane = static_cast<std::uint32_t>(lane_index());
        const auto* unit = reinterpret_cast<const Pack16*>(tile) + lane;
        const std::uint32_t end = last / kUnitWords;  // slices are whole units but for the last
        std::uint32_t u = first / kUnitWords;
        if (u < end) {
            Pack16 next = unit[u * kWarpRows];
            for (; u < end; ++u) {
                const Pack16 now = next;
                if (u + 1 < end) next = unit[(u + 1) * kWarpRows];
                RZ_UNROLL
                for (std::uint32_t w = 0; w < kUnitWords; ++w) add_word(table + w * kWordEntries, now.word[w], sums);
                table += kUnitWords * kWordEntries;
            }
        }
        const auto* rest = reinterpret_cast<const std::uint32_t*>(tile + std::size_t{units} * sizeof(Pack16) * kWarpRows) + lane;
        for (std::uint32_t w = end * kUnitWords; w < last; ++w, table += kWordEntries) {
            add_word(table, rest[(w - units * kUnitWords) * kWarpRows], sums);
        }
    }

    RZ_DEVICE static void add_word(const Entries* table, std::uint32_t word, Sums& sums) {
        RZ_UNROLL
        for (int b = 0; b < 4; ++b) {
            if constexpr (kBits == 8) {
                add_entry(table[b * 256 + (word >> 8 * b & 255u)], sums.of[b]);
            } else {
                add_entry(table[2 * b * 16 + (word >> (8 * b + 4) & 15u)], sums.of[2 * b % kChains]);
                add_entry(table[(2 * b + 1) * 16 + (word >> 8 * b & 15u)], sums.of[(2 * b + 1) % kChains]);
            }
        }
    }
    RZ_DEVICE static void add_entry(const Entries& entry, float* chain) {
        RZ_UNROLL
        for (int q = 0; q < kQueries; ++q) chain[q] = add(chain[q], entry.of[q]);
    }

    RZ_DEVICE void offer(const Sums& sums, std::uint32_t row, float term, const Key* thresholds) const {
        const std::uint32_t first = block_index().y * kQueries;
        RZ_UNROLL
        for (std::uint32_t q = 0; q < kQueries; ++q) {
            if (first + q >= tiles.queries) continue;
            const float sum = add(add(sums.of[0][q], sums.of[1][q]), add(sums.of[2][q], sums.of[3][q]));
            const float score = add(add(sum, shared_parts[first + q]), term);
            tiles.choice.offer(tiles.pools, first + q, thresholds[q], score, row);
        }
    }
};

// Queries whose entries one load takes. 16 entries of two queries are in all banks once; of four they would meet.
constexpr std::uint32_t kMostTogether(int bits) { return bits == 8 ? 4 : 2; }

// Tiles that a warp of a sliced scan keeps sums of.
constexpr int kSlicedRounds = 4;

}  // namespace

LookupScan::LookupScan(Context& context, const codec::LookupShape& shape) : TiledScan(context), shape_(shape) {}

void LookupScan::take(const codec::Codec& codec, codec::BlockView codes, int num_threads) {
    n_ = 0;
    codes_ = {};
    const std::size_t bytes = shape_.bytes, tile_bytes = words() * 4 * kWarpRows, tiles = (codes.n + kWarpRows - 1) / kWarpRows;
    const std::size_t whole = words() / kUnitWords * sizeof(Pack16);  // bytes of a row in units of 16
    DeviceArray<std::uint8_t> made(context_, tiles * tile_bytes, "the codes of the index");
    std::vector<std::uint8_t> staged(std::min(tiles, kStagedTiles) * tile_bytes);
    for (std::size_t begin = 0; begin < tiles; begin += kStagedTiles) {
        const std::size_t n = std::min(kStagedTiles, tiles - begin);
        parallel_for(n, 64, num_threads, [&](std::size_t from, std::size_t to, int) {
            std::vector<std::uint8_t> row(bytes);
            for (std::size_t t = from; t < to; ++t) {
                std::uint8_t* tile = staged.data() + t * tile_bytes;
                std::memset(tile, 0, tile_bytes);
                const std::uint8_t* block = codes.data + (begin + t) * codec.block_bytes();
                for (std::size_t r = 0; r < kWarpRows; ++r) {
                    codec.unpack_row(block, r, row.data());
                    for (std::size_t b = 0; b < bytes; b += b < whole ? 16 : 4) {
                        const std::size_t width = b < whole ? 16 : 4;
                        std::memcpy(tile + b * kWarpRows + r * width, row.data() + b, std::min(width, bytes - b));
                    }
                }
            }
        });
        made.copy_in(staged.data(), n * tile_bytes, begin * tile_bytes);
    }
    codes_ = std::move(made);
    n_ = codes.n;
}

std::size_t LookupScan::batch() const {
    return std::clamp<std::size_t>(kTableFloats / table_floats(), 1, kMostQueries);
}

std::uint32_t LookupScan::load(const codec::Scorer& queries, std::size_t begin, std::size_t end, std::size_t most,
                              int num_threads) {
    const std::size_t n = end - begin, table = table_floats();
    // Two blocks at least are on a multiprocessor.
    const std::size_t half = (context_.info().shared_bytes - 1024) / 2;
    together_ = 1;
    for (const std::uint32_t wanted : {2u, 4u}) {
        if (wanted <= kMostTogether(shape_.bits) && wanted <= most && n >= wanted && wanted * table * sizeof(float) <= half) together_ = wanted;
    }
    const std::size_t groups = (n + together_ - 1) / together_;
    std::vector<float> tables(groups * together_ * table, 0.0f), shared_parts(n);
    parallel_for(n, 4, num_threads, [&](std::size_t from, std::size_t to, int) {
        for (std::size_t q = from; q < to; ++q) {
            const std::optional<codec::LookupForm> form = queries.lookup_query(begin + q);
            if (!form || form->entries.size() > table) {
                throw Error(ErrorKind::unsupported, "these queries have no tables for the codes that are on the GPU");
            }
            float* out = tables.data() + q / together_ * together_ * table + q % together_;
            for (std::size_t i = 0; i < form->entries.size(); ++i) out[i * together_] = form->entries[i];
            shared_parts[q] = form->shared;
        }
    });
    tables_ = {};
    tables_ = {context_, tables, "the tables of the queries"};
    shared_parts_ = {context_, shared_parts, "the tables of the queries"};
    return together_;
}

template <int kBits>
void LookupScan::offer_bits(const TileLaunch& tiles) {
    const std::size_t table = table_floats() * sizeof(float) * together_;
    const std::size_t groups = (tiles.queries + together_ - 1) / together_;
    const auto all = static_cast<std::uint32_t>(words());
    const auto run = [&](auto kernel, std::size_t table_bytes) {
        using Kernel = decltype(kernel);
        const std::size_t blocks = blocks_for(tiles, groups, Kernel::kThreads / kWarp);
        launch(kernel, context_, {blocks, groups}, Kernel::kSumBytes + table_bytes);
    };
    const auto make = [&](auto kernel, std::uint32_t slice) {
        kernel = {tiles, codes_.data(), all, tables_.data(), shared_parts_.data(), slice};
        return kernel;
    };
    if constexpr (kMostTogether(kBits) == 4) {
        if (together_ == 4) return run(make(ScanLookups<kBits, 4, 1>{}, all), table);
    }
    if (together_ == 2) return run(make(ScanLookups<kBits, 2, 1>{}, all), table);
    const std::size_t room = context_.info().shared_bytes;
    if (table <= room) return run(make(ScanLookups<kBits, 1, 1>{}, all), table);
    using Sliced = ScanLookups<kBits, 1, kSlicedRounds>;
    const std::size_t unit_bytes = kUnitWords * word_entries() * sizeof(float);
    const auto units = static_cast<std::uint32_t>((room - Sliced::kSumBytes) / unit_bytes);
    run(make(Sliced{}, units * kUnitWords), units * unit_bytes);
}

void LookupScan::offer(const TileLaunch& tiles) {
    if (shape_.bits == 8) return offer_bits<8>(tiles);
    offer_bits<4>(tiles);
}

}  // namespace residua::cuda
