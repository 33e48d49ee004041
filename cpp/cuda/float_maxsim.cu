// SPDX-License-Identifier: Apache-2.0
// MaxSim of float16 rows by tensor cores. What bounds it, on an H200 with 4.3 TB/s: the bytes of the documents. One
// query of 32 tokens against 5,000 x 300 x 128 reads 384 MB, 0.09 ms; its two products of each pair are 25 GFLOP,
// 0.03 ms at 790 TFLOP/s and 0.045 at what mma.sync is known to reach. So up to 64 query tokens, two products are done
// while the documents are read.
//
// A lane loads 16 bytes of a document's row: with its three neighbours 64 contiguous bytes, which are, as they lie, its
// words of two tiles of multiply_halves, because the order of dims in a product is free as long as the query's is the
// same. So documents go from device memory to registers, once, and the next tile's loads are under way while the last
// one is multiplied. Queries stand in shared memory in the order of fragments: 16 bytes per lane and tile.
#include <algorithm>
#include <string>
#include <utility>

#include "core/error.hpp"
#include "cuda/launch.hpp"
#include "cuda/maxsim.hpp"
#include "cuda/maxsim_units.hpp"

namespace residua::cuda {
namespace {

using multivector::TokenSets;
using multivector::TokenType;

constexpr int kChunks = 4;             // of a slab, per row
constexpr std::uint32_t kChunkPacks = 4;  // 64 bytes of a row, 16 per lane
constexpr std::uint32_t kPackHalves = 8;
constexpr std::uint32_t kSlabHalves = kChunks * kChunkPacks * kPackHalves;
constexpr int kLargestExponent = 14;   // queries are scaled to below 2^15

// Rows on the device: `parts` times `width` halves, multiples of 8.
struct HalfRows {
    const std::uint16_t* data;
    std::uint32_t packs;   // of a row, 16 bytes each
    const float* scales;   // per row, or null
};

RZ_HD inline float power_of_2(int exponent) {
    const auto bits = static_cast<std::uint32_t>(exponent + 127) << 23;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

// The power of 2 that brings a largest value to 2^14 … 2^15, as an exponent.
RZ_HD inline int shift_for(float largest) {
    std::uint32_t bits;
    memcpy(&bits, &largest, sizeof bits);
    const int exponent = static_cast<int>(bits >> 23) - 127;
    const int shift = kLargestExponent - exponent;
    return bits == 0 ? 0 : shift > 126 ? 126 : shift;
}

RZ_DEVICE float largest_of_warp(float x) {
    for (int mask = kWarp / 2; mask > 0; mask /= 2) x = fmaxf(x, shuffle_xor(x, mask));
    return x;
}

RZ_DEVICE float value_at(const void* data, TokenType type, std::size_t at) {
    if (type == TokenType::f32) return static_cast<const float*>(data)[at];
    if (type == TokenType::f16) return half_to_float(static_cast<const std::uint16_t*>(data)[at]);
    return static_cast<float>(static_cast<const std::int8_t*>(data)[at]);
}

// Documents in the form of HalfRows: a warp per token. Two parts are a float32 value times a power of 2 of the token.
struct SplitRows {
    static constexpr int kThreads = 256;
    const void* in;
    TokenType type;
    std::size_t n;
    std::uint32_t dim, width, parts;
    std::uint16_t* out;
    float* scales;

    RZ_DEVICE void operator()() const {
        const std::size_t row = std::size_t{block_index().x} * (kThreads / kWarp) + static_cast<std::size_t>(warp_index());
        if (row >= n) return;  // a whole warp
        const auto lane = static_cast<std::uint32_t>(lane_index());
        int shift = 0;
        if (parts == 2) {
            float largest = 0;
            for (std::uint32_t i = lane; i < dim; i += kWarp) largest = fmaxf(largest, fabsf(value_at(in, type, row * dim + i)));
            shift = shift_for(largest_of_warp(largest));
        }
        std::uint16_t* to = out + row * parts * width;
        for (std::uint32_t i = lane; i < width; i += kWarp) {
            const float x = i < dim ? value_at(in, type, row * dim + i) : 0.0f;
            if (parts == 1) {
                to[i] = float_to_half(x);
                continue;
            }
            const float scaled = multiply(x, power_of_2(shift));
            const std::uint16_t high = float_to_half(scaled);
            to[i] = high;
            to[width + i] = float_to_half(scaled - half_to_float(high));
        }
        if (parts == 2 && lane == 0) scales[row] = power_of_2(-shift);
    }
};

// Query tokens as fragments, fragments[tile][part][slab step][lane], high parts first, and the powers of 2 that take
// the scaling back. A block per tile of 16 tokens.
struct SplitQueries {
    static constexpr int kThreads = 512;
    const void* in;
    TokenType type;
    std::uint32_t n, dim, width, row_halves;  // of a document's row: dims again and again, every `width`
    std::uint32_t steps, parts;               // 16 halves each; parts of a query
    Pack16* fragments;
    float* units;
    std::uint32_t* bad;  // ~number of the first token that is not finite

    RZ_DEVICE void operator()() const {
        auto* shift = reinterpret_cast<int*>(shared_memory());
        const std::uint32_t tile = block_index().x;
        {
            const std::uint32_t token = tile * kQueryTile + static_cast<std::uint32_t>(warp_index());
            float largest = 0, check = 0;
            for (auto i = static_cast<std::uint32_t>(lane_index()); token < n && i < dim; i += kWarp) {
                const float x = value_at(in, type, std::size_t{token} * dim + i);
                largest = fmaxf(largest, fabsf(x));
                check = fmaf(x, 0.0f, check);
            }
            largest = largest_of_warp(largest);
            if (ballot(check != 0.0f) != 0 && lane_index() == 0) atomic_max(bad, ~token);
            if (lane_index() == 0) {
                shift[warp_index()] = shift_for(largest);
                units[token] = power_of_2(-shift_for(largest));
            }
        }
        sync_block();
        for (auto i = static_cast<std::uint32_t>(thread_index()); i < steps * kWarp; i += kThreads) {
            const std::uint32_t step = i / kWarp, lane = i % kWarp, g = lane / 4, t = lane % 4;
            Pack16 high{}, low{};
            for (std::uint32_t w = 0; w < 4; ++w) {  // a[w]: rows g and g + 8, then the second half of the step
                const std::uint32_t row = g + (w & 1u) * 8;
                const std::uint32_t at = step / 2 * (kChunkPacks * kPackHalves) + t * kPackHalves + step % 2 * 4 + (w >> 1) * 2;
                for (std::uint32_t h = 0; h < 2; ++h) {
                    const float x = multiply(value(tile * kQueryTile + row, at + h), power_of_2(shift[row]));
                    const std::uint16_t top = float_to_half(x);
                    high.word[w] |= std::uint32_t{top} << (16 * h);
                    low.word[w] |= std::uint32_t{float_to_half(x - half_to_float(top))} << (16 * h);
                }
            }
            Pack16* to = fragments + (std::size_t{tile} * parts * steps + step) * kWarp + lane;
            to[0] = high;
            if (parts == 2) to[std::size_t{steps} * kWarp] = low;
        }
    }

    // Of a query token where a document's row has half `at`.
    RZ_DEVICE float value(std::uint32_t token, std::uint32_t at) const {
        const std::uint32_t i = at % width;
        if (token >= n || at >= row_halves || i >= dim) return 0.0f;
        return value_at(in, type, std::size_t{token} * dim + i);
    }
};

// kTiles tiles of 16 query tokens against 8 kColumns document tokens at a time. kSlabs: rows of more than 128 halves,
// whose products are added up slab by slab.
template <int kTiles, int kColumns, bool kSlabs>
struct HalfMaxsim {
    static constexpr int kThreads = 384;  // 168 registers each, one block per multiprocessor
    static constexpr std::uint32_t kGroupTokens = kTiles * kQueryTile;
    static constexpr std::uint32_t kTile = 8 * kColumns;

    MaxsimUnits units;
    HalfRows rows;
    const Pack16* fragments;
    const float* query_units;
    std::uint32_t chunks, parts;  // of a row; of a query
    bool in_shared;               // whether a group's fragments go there
    std::uint32_t* bad;

    // Where a lane reads: its column's rows from the first row of a tile.
    struct Place {
        const Pack16* base;
        std::uint32_t row[kColumns];
    };

    static std::size_t slots_bytes() { return kThreads / kWarp * kGroupTokens * sizeof(float); }
    std::size_t group_packs() const { return std::size_t{kTiles} * parts * chunks * 2 * kWarp; }
    std::size_t shared_bytes() const { return slots_bytes() + (in_shared ? group_packs() * sizeof(Pack16) : 0); }

    RZ_DEVICE std::uint32_t row_in_document(const MaxsimUnits::Unit& unit, int n) const {
        const std::uint32_t row = unit.tile * kTile + static_cast<std::uint32_t>(n) * 8 + static_cast<std::uint32_t>(lane_index()) / 4;
        return row < unit.count ? row : unit.count - 1;  // the last token again changes no maximum
    }
    RZ_DEVICE Place place_of(const MaxsimUnits::Unit& unit) const {
        Place place;
        place.base = reinterpret_cast<const Pack16*>(rows.data) + (unit.begin + std::size_t{unit.tile} * kTile) * rows.packs +
                     lane_index() % 4;
        RZ_UNROLL
        for (int n = 0; n < kColumns; ++n) place.row[n] = (row_in_document(unit, n) - unit.tile * kTile) * rows.packs;
        return place;
    }
    RZ_DEVICE Pack16 load(const Place& place, int n, std::uint32_t chunk) const {
        const std::uint32_t at = chunk * kChunkPacks;
        if (at + static_cast<std::uint32_t>(lane_index()) % 4 >= rows.packs) return Pack16{};
        return load_once(place.base + place.row[n] + at);
    }

    RZ_DEVICE const Pack16* group_fragments() const {
        const Pack16* mine = fragments + std::size_t{block_index().y} * kTiles * parts * chunks * 2 * kWarp;
        if (kSlabs && !in_shared) return mine;  // short rows always fit
        auto* shared = reinterpret_cast<Pack16*>(shared_memory() + kThreads / kWarp * kGroupTokens * sizeof(float));
        const std::uint32_t n = kTiles * parts * chunks * 2 * kWarp;
        for (auto i = static_cast<std::uint32_t>(thread_index()); i < n; i += kThreads) shared[i] = mine[i];
        return shared;
    }

    RZ_DEVICE void operator()() const {
        const Pack16* query = group_fragments();
        sync_block();
        query += lane_index();
        const std::uint32_t group = block_index().y;
        float* slot = reinterpret_cast<float*>(shared_memory()) + static_cast<std::uint32_t>(warp_index()) * kGroupTokens;

        MaxsimUnits::Unit at = units.take(group, kGroupTokens);
        if (!at.any()) return;  // a whole warp, and no barrier follows
        Place place = place_of(at);
        Pack16 b[kColumns][kChunks];
        RZ_UNROLL
        for (int c = 0; c < kChunks; ++c) {
        RZ_UNROLL
            for (int n = 0; n < kColumns; ++n) b[n][c] = load(place, n, static_cast<std::uint32_t>(c));
        }
        float top[2 * kTiles];
        float check = 0;
        RZ_UNROLL
        for (float& x : top) x = -INFINITY;
        for (;;) {
            MaxsimUnits::Unit ahead = at;
            if (++ahead.tile == at.end) ahead = units.take(group, kGroupTokens);
            if (ahead.any()) place = place_of(ahead);  // else the same tile is read again, in vain
            multiply_tile(query, at, b, place, top, check);
            if (ahead.number != at.number) {
                finish(at, group, top, check, slot);
                if (!ahead.any()) return;
            }
            at = ahead;
        }
    }

    RZ_DEVICE void multiply_tile(const Pack16* query, const MaxsimUnits::Unit& at, Pack16 (&b)[kColumns][kChunks], const Place& ahead,
                                 float (&top)[2 * kTiles], float& check) const {
        float total[kSlabs ? kTiles : 1][kColumns][4] = {};
        float scale[kColumns][2];
        if (rows.scales != nullptr) load_scales(at, scale);
        const std::uint32_t slabs = kSlabs ? (chunks + kChunks - 1) / kChunks : 1;
        Place same = ahead;
        if constexpr (kSlabs) same = place_of(at);
        for (std::uint32_t s = 0; s < slabs; ++s) {
            const bool last = s + 1 == slabs;
            Place next = ahead;
            if (kSlabs && !last) next = same;
            const std::uint32_t first = s * kChunks, next_first = last ? 0 : first + kChunks;
        RZ_UNROLL
            for (int m = 0; m < kTiles; ++m) {
                float d[kColumns][4] = {};
                // Small products first, where they are not yet lost in rounding.
                for (std::uint32_t part = parts; part-- > 0;) {
                    const Pack16* f = query + ((static_cast<std::uint32_t>(m) * parts + part) * chunks + first) * 2 * kWarp;
                    const bool refill = m == kTiles - 1 && part == 0;
        RZ_UNROLL
                    for (int c = 0; c < kChunks; ++c) {
                        const auto chunk = static_cast<std::uint32_t>(c);
                        if (first + chunk < chunks) {
        RZ_UNROLL
                            for (int half = 0; half < 2; ++half) {
                                const Pack16 a = f[(2 * c + half) * kWarp];
        RZ_UNROLL
                                for (int n = 0; n < kColumns; ++n) multiply_halves(d[n], a.word, b[n][c].word + 2 * half);
                            }
                        }
                        if (refill && next_first + chunk < chunks) {
        RZ_UNROLL
                            for (int n = 0; n < kColumns; ++n) b[n][c] = load(next, n, next_first + chunk);
                        }
                    }
                }
                if constexpr (kSlabs) {
        RZ_UNROLL
                    for (int i = 0; i < 4 * kColumns; ++i) total[m][i / 4][i % 4] += d[i / 4][i % 4];
                    if (last) keep_largest(total[m], m, scale, top, check);
                } else {
                    keep_largest(d, m, scale, top, check);
                }
            }
        }
    }

    RZ_DEVICE void load_scales(const MaxsimUnits::Unit& at, float (&scale)[kColumns][2]) const {
        RZ_UNROLL
        for (int n = 0; n < kColumns; ++n) {
        RZ_UNROLL
            for (int i = 0; i < 2; ++i) {
                const std::uint32_t row = at.tile * kTile + static_cast<std::uint32_t>(n) * 8 +
                                          static_cast<std::uint32_t>(lane_index()) % 4 * 2 + static_cast<std::uint32_t>(i);
                scale[n][i] = rows.scales[at.begin + (row < at.count ? row : at.count - 1)];
            }
        }
    }

    RZ_DEVICE void keep_largest(const float (&d)[kColumns][4], int m, const float (&scale)[kColumns][2], float (&top)[2 * kTiles],
                                float& check) const {
        RZ_UNROLL
        for (int n = 0; n < kColumns; ++n) {
        RZ_UNROLL
            for (int i = 0; i < 4; ++i) {
                const float x = rows.scales != nullptr ? multiply(d[n][i], scale[n][i % 2]) : d[n][i];
                if (m == 0 && i < 2) check = fmaf(d[n][i], 0.0f, check);  // NaN for good if a token is not finite
                top[2 * m + i / 2] = fmaxf(top[2 * m + i / 2], x);
            }
        }
    }

    RZ_DEVICE void finish(const MaxsimUnits::Unit& at, std::uint32_t group, float (&top)[2 * kTiles], float& check, float* slot) const {
        const int g = lane_index() / 4;
        RZ_UNROLL
        for (int i = 0; i < 2 * kTiles; ++i) {
            float x = fmaxf(top[i], shuffle_xor(top[i], 1));
            x = fmaxf(x, shuffle_xor(x, 2));
            const int token = i * 8 + g;
            if (lane_index() % 4 == 0) slot[token] = multiply(x, query_units[group * kGroupTokens + static_cast<std::uint32_t>(token)]);
            top[i] = -INFINITY;
        }
        if (ballot(check != 0.0f) != 0 && lane_index() == 0) atomic_max(bad, ~at.document);
        check = 0;
        units.answer(at.number, group, kGroupTokens, slot);
    }
};

class FloatDocuments final : public DeviceDocuments {
public:
    FloatDocuments(Context& context, const PlacedSets& documents, bool borrow, bool halve)
        : DeviceDocuments(context, {documents.sets.offsets, documents.sets.offsets + documents.sets.n + 1}),
          dim_(documents.sets.dim), type_(documents.sets.type) {
        if (dim_ == 0 || dim_ > 65'536) throw Error(ErrorKind::value, "tokens must have from 1 to 65536 dims");
        const bool is_fit = type_ == TokenType::f16 && dim_ % kPackHalves == 0 && documents.sets.scale == nullptr;
        parts_ = type_ == TokenType::f32 && !halve ? 2 : 1;
        width_ = static_cast<std::uint32_t>((dim_ + kPackHalves - 1) / kPackHalves * kPackHalves);
        data_ = static_cast<const std::uint16_t*>(documents.sets.data);
        const std::size_t n = tokens();
        const std::size_t bytes = n * dim_ * type_bytes(type_);
        if (is_fit && documents.on_device && borrow && reinterpret_cast<std::uintptr_t>(data_) % sizeof(Pack16) == 0) return;
        rows_ = {context, n * parts_ * width_, "the tokens of documents"};
        data_ = rows_.data();
        if (is_fit) {
            documents.on_device ? context.copy(rows_.data(), documents.sets.data, bytes)
                                : context.copy_in(rows_.data(), documents.sets.data, bytes);
            return;
        }
        if (parts_ == 2 || documents.sets.scale != nullptr) scales_ = {context, n, "the scales of tokens"};
        if (documents.sets.scale != nullptr) {
            if (parts_ == 2) throw Error(ErrorKind::value, "scales belong to int8 tokens");
            documents.on_device ? context.copy(scales_.data(), documents.sets.scale, n * sizeof(float))
                                : context.copy_in(scales_.data(), documents.sets.scale, n * sizeof(float));
        }
        split(documents, bytes);
    }

    std::size_t dim() const override { return dim_; }
    const char* form() const override { return parts_ == 2 ? "float32" : type_ == TokenType::i8 ? "int8" : "float16"; }
    std::size_t device_bytes() const override { return rows_.bytes() + scales_.bytes() + offsets().size() * sizeof(std::int64_t); }

protected:
    MaxsimPass prepare(const PlacedSets& queries, std::uint32_t* bad, std::vector<DeviceArray<std::uint8_t>>& keep) override {
        const std::size_t tokens = queries.sets.total();
        const std::uint32_t packs = width_ / kPackHalves * parts_;
        if (packs <= kSlabHalves / kPackHalves) {
            if (tokens <= 16) return prepare_with<1, 4, false>(queries, bad, keep);
            if (tokens <= 32) return prepare_with<2, 4, false>(queries, bad, keep);
            return prepare_with<4, 4, false>(queries, bad, keep);
        }
        if (tokens <= 16) return prepare_with<1, 2, true>(queries, bad, keep);
        return prepare_with<2, 2, true>(queries, bad, keep);
    }

    void name_bad(std::size_t document) const override {
        const auto begin = static_cast<std::size_t>(offsets()[document]), end = static_cast<std::size_t>(offsets()[document + 1]);
        const std::size_t halves = std::size_t{parts_} * width_;
        std::vector<std::uint16_t> rows((end - begin) * halves);
        context().copy_out(rows.data(), data_ + begin * halves, rows.size() * sizeof(std::uint16_t));
        const auto bad = std::find_if(rows.begin(), rows.end(), [](std::uint16_t h) { return (h & 0x7C00u) == 0x7C00u; });
        const std::size_t token = static_cast<std::size_t>(bad - rows.begin()) / halves;
        throw Error(ErrorKind::non_finite, "doc_tokens: document " + std::to_string(document) + ", token " + std::to_string(token) +
                                               " contains NaN or infinity; float16 holds at most 65504");
    }

private:
    // In steps, so that what comes from the host takes little of the device.
    void split(const PlacedSets& documents, std::size_t bytes) {
        const std::size_t token_bytes = dim_ * type_bytes(type_);
        const std::size_t step = documents.on_device ? std::max<std::size_t>(1, tokens())
                                                     : std::max<std::size_t>(1, std::min(bytes, std::size_t{64} << 20) / token_bytes);
        DeviceArray<std::uint8_t> staged(context(), documents.on_device ? 0 : std::min(step, tokens()) * token_bytes, "tokens on their way");
        const auto* from = static_cast<const std::uint8_t*>(documents.sets.data);
        for (std::size_t first = 0; first < tokens(); first += step) {
            const std::size_t n = std::min(step, tokens() - first);
            if (!documents.on_device) staged.copy_in(from + first * token_bytes, n * token_bytes);
            const void* in = documents.on_device ? static_cast<const void*>(from) : staged.data();
            const SplitRows kernel{in, type_, n, static_cast<std::uint32_t>(dim_), width_, parts_,
                                   rows_.data() + first * parts_ * width_, scales_.data() + (scales_.empty() ? 0 : first)};
            launch(kernel, context(), {(n + SplitRows::kThreads / kWarp - 1) / (SplitRows::kThreads / kWarp)});
        }
        context().synchronize();  // the staged tokens are done with
    }

    template <int kTiles, int kColumns, bool kSlabs>
    MaxsimPass prepare_with(const PlacedSets& queries, std::uint32_t* bad, std::vector<DeviceArray<std::uint8_t>>& keep) {
        using Kernel = HalfMaxsim<kTiles, kColumns, kSlabs>;
        const std::size_t tokens = queries.sets.total();
        const std::size_t groups = (tokens + Kernel::kGroupTokens - 1) / Kernel::kGroupTokens;
        const auto hold = [&](std::size_t bytes) {
            keep.emplace_back(context(), bytes, "the tokens of queries");
            return keep.back().data();
        };
        const std::uint32_t row_halves = width_ * parts_, chunks = (row_halves / kPackHalves + kChunkPacks - 1) / kChunkPacks;
        SplitQueries split{};
        split.in = queries.sets.data;
        if (!queries.on_device) {
            const std::size_t bytes = tokens * dim_ * type_bytes(queries.sets.type);
            std::uint8_t* to = hold(bytes);
            context().copy_in(to, queries.sets.data, bytes);
            split.in = to;
        }
        split.type = queries.sets.type;
        split.n = static_cast<std::uint32_t>(tokens);
        split.dim = static_cast<std::uint32_t>(dim_);
        split.width = width_;
        split.row_halves = row_halves;
        split.steps = 2 * chunks;
        split.parts = split.type == TokenType::f32 ? 2 : 1;
        const std::size_t tiles = groups * kTiles;
        split.fragments = reinterpret_cast<Pack16*>(hold(tiles * split.parts * split.steps * kWarp * sizeof(Pack16)));
        split.units = reinterpret_cast<float*>(hold(tiles * kQueryTile * sizeof(float)));
        split.bad = bad + 1;
        launch(split, context(), {tiles}, kQueryTile * sizeof(int));

        Kernel kernel{};
        kernel.rows = {data_, row_halves / kPackHalves, scales_.empty() ? nullptr : scales_.data()};
        kernel.fragments = split.fragments;
        kernel.query_units = split.units;
        kernel.chunks = chunks;
        kernel.parts = split.parts;
        kernel.bad = bad;
        kernel.in_shared = true;
        kernel.in_shared = kernel.shared_bytes() <= context().info().shared_bytes;
        return {Kernel::kGroupTokens, Kernel::kTile, [this, kernel](const MaxsimUnits& units, std::size_t n_groups) mutable {
                    kernel.units = units;
                    launch(kernel, context(), {static_cast<std::size_t>(context().info().multiprocessors), n_groups}, kernel.shared_bytes());
                }};
    }

    std::size_t dim_;
    TokenType type_;
    std::uint32_t parts_ = 1, width_ = 0;
    const std::uint16_t* data_ = nullptr;
    DeviceArray<std::uint16_t> rows_;
    DeviceArray<float> scales_;
};

}  // namespace

std::unique_ptr<DeviceDocuments> float_documents(Context& context, const PlacedSets& documents, bool borrow, bool halve) {
    return std::make_unique<FloatDocuments>(context, documents, borrow, halve);
}

}  // namespace residua::cuda
