// SPDX-License-Identifier: Apache-2.0
#include "cuda/float_scan.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "cuda/launch.hpp"
#include "cuda/products.hpp"

namespace residua::cuda {
namespace {

using store::RowType;

constexpr std::size_t kStagedBytes = std::size_t{32} << 20;   // copied to the device at a time
constexpr std::size_t kScratchBytes = std::size_t{28} << 20;  // of products and widened rows
constexpr std::size_t kChunkStep = 256, kMostChunk = 65536;   // rows of a product
constexpr std::size_t kManyFrom = 24;                         // queries

// Rows as they lie in memory, and how lanes share one.
template <RowType kType>
struct FloatRows {
    static constexpr std::uint32_t kValues = kType == RowType::f32 ? 4 : 8;  // of 16 bytes

    const std::uint8_t* data;
    std::uint32_t units;  // of 16 bytes of a row
    std::uint32_t lanes;  // of a warp that share a row: a power of two

    RZ_DEVICE const Pack16* row(std::size_t row) const { return reinterpret_cast<const Pack16*>(data) + row * units; }

    RZ_DEVICE static void widen(const Pack16& pack, float* out) {
        RZ_UNROLL
        for (std::uint32_t w = 0; w < 4; ++w) {
            if constexpr (kType == RowType::f32) {
                out[w] = bits_to_float(pack.word[w]);
            } else if constexpr (kType == RowType::bf16) {
                out[2 * w] = bits_to_float(pack.word[w] << 16);
                out[2 * w + 1] = bits_to_float(pack.word[w] & 0xFFFF0000u);
            } else {
                out[2 * w] = half_to_float(static_cast<std::uint16_t>(pack.word[w]));
                out[2 * w + 1] = half_to_float(static_cast<std::uint16_t>(pack.word[w] >> 16));
            }
        }
    }
    // The sum over the lanes that share a row; all of them get it.
    RZ_DEVICE float shared_sum(float sum) const {
        for (std::uint32_t mask = lanes / 2; mask > 0; mask /= 2) sum = add(sum, shuffle_xor(sum, static_cast<int>(mask)));
        return sum;
    }
};

// Values 4i … of a unit of a query: (kValues / 4, units, 4) floats.
struct alignas(16) Four {
    float of[4];
};

template <RowType kType>
RZ_DEVICE void load_query(const float* query, std::uint32_t units, std::uint32_t unit, float* out) {
    RZ_UNROLL
    for (std::uint32_t part = 0; part < FloatRows<kType>::kValues / 4; ++part) {
        const Four four = reinterpret_cast<const Four*>(query)[part * units + unit];
        RZ_UNROLL
        for (std::uint32_t i = 0; i < 4; ++i) out[4 * part + i] = four.of[i];
    }
}

template <std::uint32_t kValues, bool kL2>
RZ_DEVICE float add_terms(const float* query, const float* row, float sum) {
    RZ_UNROLL
    for (std::uint32_t i = 0; i < kValues; ++i) {
        const float a = kL2 ? add(query[i], -row[i]) : query[i];
        sum = fmaf(a, kL2 ? a : row[i], sum);
    }
    return sum;
}

// The score of one row by one query, by a whole warp: the same bits as in ScanFloats.
template <RowType kType, bool kL2>
RZ_DEVICE float score_row(const FloatRows<kType>& rows, std::size_t row, const float* query) {
    constexpr std::uint32_t kValues = FloatRows<kType>::kValues;
    float sum = 0.0f;
    for (std::uint32_t u = static_cast<std::uint32_t>(lane_index()) & (rows.lanes - 1); u < rows.units; u += rows.lanes) {
        float q[kValues], x[kValues];
        load_query<kType>(query, rows.units, u, q);
        rows.widen(rows.row(row)[u], x);
        sum = add_terms<kValues, kL2>(q, x, sum);
    }
    sum = rows.shared_sum(sum);
    return kL2 ? -sum : sum;
}

template <RowType kType, bool kL2, int kQueries>
struct ScanFloats {
    static constexpr int kThreads = 128;
    static constexpr std::uint32_t kWarps = kThreads / kWarp, kInFlight = 4;

    TileLaunch tiles;
    FloatRows<kType> rows;
    const float* queries;

    RZ_DEVICE void operator()() const {
        const std::uint32_t group = block_index().y, stride = grid_blocks().x * kWarps;
        std::uint32_t tile = tiles.begin + block_index().x * kWarps + static_cast<std::uint32_t>(warp_index());
        PieceWalk walk(tiles.pieces, group, tile);
        const std::uint32_t end = walk.tiles < tiles.end ? walk.tiles : tiles.end;
        const std::uint32_t per_load = kWarp / rows.lanes, step = per_load * kInFlight;
        for (; tile < end; tile += stride) {
            walk.move_to(tile);
            const std::uint32_t row = walk.row_of(tile), found = tiles.choice.rows(row, walk.at->end);
            for (std::uint32_t r = 0; r < kWarpRows; r += step) {
                const std::uint32_t here = found >> r & (step < kWarpRows ? (1u << step) - 1u : 0xFFFFFFFFu);
                if (here != 0) scan_rows(row + r, here, walk.at->term);
            }
        }
    }

    // Rows row + i, of which those whose bit i of `found` is set count.
    RZ_DEVICE void scan_rows(std::uint32_t row, std::uint32_t found, float term) const {
        constexpr std::uint32_t kValues = FloatRows<kType>::kValues;
        const std::uint32_t lane = static_cast<std::uint32_t>(lane_index()), per_load = kWarp / rows.lanes;
        const std::uint32_t mine = lane / rows.lanes, first_query = block_index().y * kQueries;
        const std::size_t query_floats = std::size_t{rows.units} * kValues;
        float sums[kInFlight][kQueries] = {};
        bool wanted[kInFlight];
        RZ_UNROLL
        for (std::uint32_t i = 0; i < kInFlight; ++i) {
            const std::uint32_t r = i * per_load + mine;
            wanted[i] = r < kWarpRows && (found >> (r & 31u) & 1u) != 0;
        }
        for (std::uint32_t u = lane & (rows.lanes - 1); u < rows.units; u += rows.lanes) {
            Pack16 packs[kInFlight];
            RZ_UNROLL
            for (std::uint32_t i = 0; i < kInFlight; ++i) {
                packs[i] = wanted[i] ? rows.row(row + i * per_load + mine)[u] : Pack16{};
            }
            float x[kInFlight][kValues];
            RZ_UNROLL
            for (std::uint32_t i = 0; i < kInFlight; ++i) rows.widen(packs[i], x[i]);
            RZ_UNROLL
            for (std::uint32_t q = 0; q < kQueries; ++q) {
                float values[kValues];
                load_query<kType>(queries + (first_query + q) * query_floats, rows.units, u, values);
                RZ_UNROLL
                for (std::uint32_t i = 0; i < kInFlight; ++i) sums[i][q] = add_terms<kValues, kL2>(values, x[i], sums[i][q]);
            }
        }
        RZ_UNROLL
        for (std::uint32_t q = 0; q < kQueries; ++q) {
            const std::uint32_t query = first_query + q;
            RZ_UNROLL
            for (std::uint32_t i = 0; i < kInFlight; ++i) {
                const float sum = rows.shared_sum(sums[i][q]);
                if (!wanted[i] || (lane & (rows.lanes - 1)) != 0 || query >= tiles.queries) continue;
                tiles.choice.offer(tiles.pools, query, tiles.pools.thresholds[query], add(kL2 ? -sum : sum, term),
                                   row + i * per_load + mine);
            }
        }
    }
};

// Offers rows [begin, begin + n) by their products with all queries: those that may reach a threshold are scored.
template <RowType kType, bool kL2>
struct OfferProducts {
    static constexpr int kThreads = 256;

    TileLaunch tiles;
    FloatRows<kType> rows;
    const float* queries;
    const float* products;       // (queries, stride)
    const float* lengths;        // of all rows
    const float* query_lengths;
    std::size_t begin, n, stride;
    std::size_t end;             // of all rows
    float slack;                 // of a product, and of a score, per product of lengths

    RZ_DEVICE void operator()() const {
        const std::uint32_t query = block_index().y;
        const std::size_t first = std::size_t{block_index().x} * kThreads + static_cast<std::size_t>(warp_index()) * kWarp;
        if (first >= n) return;  // the same for the warp, and no barrier follows
        const auto lane = static_cast<std::uint32_t>(lane_index());
        const std::uint32_t found = tiles.choice.rows(static_cast<std::uint32_t>(begin + first), static_cast<std::uint32_t>(end));
        bool may = (found >> lane & 1u) != 0;
        const Key threshold = tiles.pools.thresholds[query];
        if (may) may = key_of(bound(query, first + lane), 0) > threshold;
        const float* own = queries + std::size_t{query} * rows.units * FloatRows<kType>::kValues;
        for (std::uint32_t left = ballot(may); left != 0; left &= left - 1) {
            const auto row = static_cast<std::uint32_t>(begin + first) + static_cast<std::uint32_t>(first_bit(left));
            const float score = score_row<kType, kL2>(rows, row, own);
            if (lane == 0) tiles.choice.offer(tiles.pools, query, threshold, add(score, 0.0f), row);
        }
    }

    // What the score of a row is below.
    RZ_DEVICE float bound(std::uint32_t query, std::size_t i) const {
        const float product = products[query * stride + i], a = query_lengths[query], b = lengths[begin + i];
        if constexpr (kL2) {
            const float both = add(a, b);
            return add(add(multiply(2.0f, product), -add(multiply(a, a), multiply(b, b))), multiply(slack, multiply(both, both)));
        }
        return add(product, multiply(slack, multiply(a, b)));
    }
};

// |x| of every row, a warp per row.
template <RowType kType>
struct MeasureRows {
    static constexpr int kThreads = 256;
    FloatRows<kType> rows;
    std::size_t n;
    float* lengths;

    RZ_DEVICE void operator()() const {
        const std::size_t row = std::size_t{block_index().x} * (kThreads / kWarp) + static_cast<std::size_t>(warp_index());
        if (row >= n) return;  // the same for the warp, and no barrier follows
        float sum = 0.0f;
        for (std::uint32_t u = static_cast<std::uint32_t>(lane_index()); u < rows.units; u += kWarp) {
            float x[FloatRows<kType>::kValues];
            rows.widen(rows.row(row)[u], x);
            sum = add_terms<FloatRows<kType>::kValues, false>(x, x, sum);
        }
        for (int mask = kWarp / 2; mask > 0; mask /= 2) sum = add(sum, shuffle_xor(sum, mask));
        if (lane_index() == 0) lengths[row] = sqrtf(sum);
    }
};

// 16 bytes of rows [begin, begin + n) per thread become floats.
template <RowType kType>
struct WidenRows {
    static constexpr int kThreads = 256;
    FloatRows<kType> rows;
    std::size_t begin, n;
    float* out;

    RZ_DEVICE void operator()() const {
        constexpr std::uint32_t kValues = FloatRows<kType>::kValues;
        const std::size_t i = std::size_t{block_index().x} * kThreads + static_cast<std::size_t>(thread_index());
        if (i >= n * rows.units) return;
        float x[kValues];
        rows.widen(rows.row(begin)[i], x);
        auto* to = reinterpret_cast<Four*>(out + i * kValues);
        RZ_UNROLL
        for (std::uint32_t part = 0; part < kValues / 4; ++part) {
            to[part] = {{x[4 * part], x[4 * part + 1], x[4 * part + 2], x[4 * part + 3]}};
        }
    }
};

std::size_t blocks_of(std::size_t n, std::size_t per_block) { return (n + per_block - 1) / per_block; }

template <RowType kType>
FloatRows<kType> rows_at(const std::uint8_t* data, std::size_t units) {
    std::uint32_t lanes = 1;
    while (lanes < kWarp && lanes < units) lanes *= 2;
    return {data, static_cast<std::uint32_t>(units), lanes};
}

}  // namespace

FloatScan::FloatScan(Context& context, const store::RowSource& rows, Metric metric)
    : TiledScan(context), dim_(rows.dim), type_(rows.type), metric_(metric) {
    if (type_ == RowType::i8) throw Error(ErrorKind::unsupported, "rows of bytes are no rows of floats");
}

template <class Run>
void FloatScan::dispatch(Run run) const {
    const auto with_metric = [&](auto type) {
        if (metric_ == Metric::l2) return run(type, std::true_type{});
        run(type, std::false_type{});
    };
    if (type_ == RowType::f32) return with_metric(std::integral_constant<RowType, RowType::f32>{});
    if (type_ == RowType::f16) return with_metric(std::integral_constant<RowType, RowType::f16>{});
    with_metric(std::integral_constant<RowType, RowType::bf16>{});
}

void FloatScan::take(const codec::Codec&, codec::BlockView codes, int num_threads) {
    n_ = 0;
    codes_ = {};
    lengths_ = {};
    const std::size_t stride = units() * 16, bytes = dim_ * store::row_type_bytes(type_);
    const std::size_t padded = blocks_of(codes.n, kWarpRows) * kWarpRows;
    DeviceArray<std::uint8_t> made(context_, padded * stride, "the codes of the index");
    DeviceArray<float> lengths(context_, codes.n, "the codes of the index");
    if (bytes == stride) {
        made.copy_in(codes.data, codes.n * stride);
    } else {
        const std::size_t rows = std::min(codes.n, std::max<std::size_t>(1, kStagedBytes / stride));
        std::vector<std::uint8_t> staged(rows * stride, 0);
        for (std::size_t begin = 0; begin < codes.n; begin += rows) {
            const std::size_t n = std::min(rows, codes.n - begin);
            parallel_for(n, 4096, num_threads, [&](std::size_t from, std::size_t to, int) {
                for (std::size_t r = from; r < to; ++r) std::memcpy(staged.data() + r * stride, codes.data + (begin + r) * bytes, bytes);
            });
            made.copy_in(staged.data(), n * stride, begin * stride);
        }
    }
    dispatch([&](auto type, auto) {
        using Measure = MeasureRows<type()>;
        launch(Measure{rows_at<type()>(made.data(), units()), codes.n, lengths.data()}, context_,
               {blocks_of(codes.n, Measure::kThreads / kWarp)});
    });
    codes_ = std::move(made);
    lengths_ = std::move(lengths);
    n_ = codes.n;
}

// Rows of a product with so many queries that there is room for; 0 where there is none, or no gain.
std::size_t FloatScan::chunk_for(std::size_t n_queries, std::size_t most) const {
    const bool many = many_from_ != 0 ? n_queries >= many_from_ : n_queries >= kManyFrom && blas::is_there();
    if (!many || most < n_queries) return 0;
    const std::size_t row_bytes = (n_queries + (type_ == RowType::f32 ? 0 : padded_dim())) * sizeof(float);
    std::size_t room = std::max(kScratchBytes, kChunkStep * row_bytes);
    if (context_.limit() != 0) room = std::min(room, (context_.limit() - std::min(context_.limit(), context_.used())) / 4);
    return std::min(room / row_bytes / kChunkStep * kChunkStep, kMostChunk);
}

std::uint32_t FloatScan::load(const codec::Scorer& queries, std::size_t begin, std::size_t end, std::size_t most, int) {
    const std::size_t n = end - begin, stride = padded_dim();
    plain_ = {};
    query_lengths_ = {};
    products_ = {};
    wide_ = {};
    chunk_ = chunk_for(n, most);
    const bool many = chunk_ > 0;
    together_ = many ? static_cast<std::uint32_t>(n) : most < 2 || n < 2 ? 1 : n < 3 ? 2 : 4;
    // Groups are whole in memory.
    std::vector<float> turned(blocks_of(n, together_) * together_ * stride, 0.0f), plain(many ? n * stride : 0, 0.0f), lengths;
    for (std::size_t q = 0; q < n; ++q) {
        const std::span<const float> values = queries.float_query(begin + q);
        if (values.size() != dim_) throw Error(ErrorKind::unsupported, "these queries are no floats for the rows that are on the GPU");
        double square = 0;
        for (std::size_t i = 0; i < dim_; ++i) {
            const std::size_t unit = i / unit_values(), within = i % unit_values();
            turned[q * stride + within / 4 * units() * 4 + unit * 4 + within % 4] = values[i];
            square += static_cast<double>(values[i]) * static_cast<double>(values[i]);
        }
        if (many) std::copy(values.begin(), values.end(), plain.begin() + static_cast<std::ptrdiff_t>(q * stride));
        lengths.push_back(static_cast<float>(std::sqrt(square)));
    }
    queries_ = {context_, turned, "the queries"};
    if (!many) return together_;
    plain_ = {context_, plain, "the queries"};
    query_lengths_ = {context_, lengths, "the queries"};
    products_ = {context_, n * chunk_, "the products of rows with queries"};
    if (type_ != RowType::f32) wide_ = {context_, chunk_ * stride, "the products of rows with queries"};
    return together_;
}

template <RowType kType, bool kL2>
void FloatScan::offer_as(const TileLaunch& tiles) {
    const auto run = [&](auto kernel) {
        const std::size_t groups = blocks_of(tiles.queries, together_);
        kernel = {tiles, rows_at<kType>(codes_.data(), units()), queries_.data()};
        launch(kernel, context_, {blocks_for(tiles, groups, decltype(kernel)::kWarps), groups});
    };
    if (chunk_ > 0) return offer_products<kType, kL2>(tiles);
    if (together_ == 4) return run(ScanFloats<kType, kL2, 4>{});
    if (together_ == 2) return run(ScanFloats<kType, kL2, 2>{});
    run(ScanFloats<kType, kL2, 1>{});
}

template <RowType kType, bool kL2>
void FloatScan::offer_products(const TileLaunch& tiles) {
    const std::size_t stride = padded_dim(), last = std::min(n_, std::size_t{tiles.end} * kWarpRows);
    const auto rows = rows_at<kType>(codes_.data(), units());
    // Of float32 sums in any order: of the product, of the score that it stands for, and of the lengths.
    const float slack = 4 * static_cast<float>(stride + 16) * 0x1p-24f;
    for (std::size_t begin = std::size_t{tiles.begin} * kWarpRows; begin < last; begin += chunk_) {
        const std::size_t n = std::min(chunk_, last - begin);
        const float* wide = reinterpret_cast<const float*>(codes_.data()) + begin * stride;
        if constexpr (kType != RowType::f32) {
            using Widen = WidenRows<kType>;
            launch(Widen{rows, begin, n, wide_.data()}, context_, {blocks_of(n * units(), Widen::kThreads)});
            wide = wide_.data();
        }
        multiply_rows(context_, {plain_.data(), tiles.queries, stride}, {wide, n, stride}, stride, products_.data(), chunk_);
        using Offer = OfferProducts<kType, kL2>;
        launch(Offer{tiles, rows, queries_.data(), products_.data(), lengths_.data(), query_lengths_.data(), begin, n, chunk_, last, slack},
               context_, {blocks_of(n, Offer::kThreads), tiles.queries});
    }
}

void FloatScan::offer(const TileLaunch& tiles) {
    dispatch([&](auto type, auto l2) { offer_as<type(), l2()>(tiles); });
}

}  // namespace residua::cuda
