// SPDX-License-Identifier: Apache-2.0
// A block per set of tokens, 32 of them at a time, a warp per repetition, a lane per token: hyperplanes and columns of the
// sketch are the same for all lanes, tokens lie dim by dim, so that every load is one of 128 contiguous bytes or of one
// value. Cells add their tokens in order, a lane per column.
//
// What bounds it, at 80 tokens of 128 dims and 20 repetitions of 5 hyperplanes and 16 columns: instructions. Per
// repetition and 32 tokens some 1,000 for the hyperplanes (640 of them products), 500 for the sketch and 300 for the cells:
// 0.11 million per warp and document, so 8 million documents/s at the 0.9 T/s that 132 multiprocessors issue at most. Its
// 20 KB of tokens and 41 KB of output per document are 0.12 TB/s at 2 million documents/s.
#include "cuda/fd_encode.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.hpp"
#include "cuda/launch.hpp"
#include "kernel/dispatch.hpp"

namespace residua::cuda {
namespace {

using multivector::FdParams;
using multivector::Projection;
using multivector::TokenSets;
using multivector::TokenType;

constexpr std::uint32_t kPanel = 32;         // tokens
constexpr std::uint32_t kStride = kPanel + 1;  // of a dim, against bank conflicts
constexpr std::uint32_t kColumns = 16;       // that a warp adds up at a time
constexpr std::uint32_t kWarps = 10;
constexpr std::size_t kValueBytes = kWarps * kColumns * kStride * sizeof(float);
constexpr std::uint32_t kRows = 8;           // that a batch of products has at most
constexpr int kTieAt = 16, kDistanceAt = 48;

// Products of a token with N rows of a batch, which stand four dims at a time: rows[k / 4][row][k % 4]. As on the CPU, a
// sum takes its dims in one chain or in two, of even and odd ones.
template <int kChains, int N>
RZ_DEVICE void products(const float* rows, const float* x, std::uint32_t stride, std::uint32_t dim, float (&out)[kRows]) {
    constexpr int kSums = kChains == 2 ? 2 : 1;
    float sum[kSums][N] = {};
    const auto four = [&](std::uint32_t k, std::uint32_t n) {
        Pack16 row[N];
        RZ_UNROLL
        for (int j = 0; j < N; ++j) row[j] = reinterpret_cast<const Pack16*>(rows + k * N)[j];
        RZ_UNROLL
        for (std::uint32_t i = 0; i < 4; ++i) {
            if (i >= n) break;
            const float value = x[(k + i) * stride];
            RZ_UNROLL
            for (int j = 0; j < N; ++j) {
                float& to = sum[kSums == 2 ? i % 2 : 0][j];
                const float weight = bits_to_float(row[j].word[i]);
                to = kChains == 0 ? add(to, multiply(weight, value)) : fmaf(weight, value, to);
            }
        }
    };
    std::uint32_t k = 0;
    for (; k + 4 <= dim; k += 4) four(k, 4);
    if (k < dim) four(k, dim - k);
    RZ_UNROLL
    for (int j = 0; j < N; ++j) out[j] = kSums == 1 ? sum[0][j] : add(sum[0][j], sum[kSums - 1][j]);
}

template <int kChains>
RZ_DEVICE void products_of(std::uint32_t n, const float* rows, const float* x, std::uint32_t stride, std::uint32_t dim, float (&out)[kRows]) {
    switch (n) {
        case 1: return products<kChains, 1>(rows, x, stride, dim, out);
        case 2: return products<kChains, 2>(rows, x, stride, dim, out);
        case 3: return products<kChains, 3>(rows, x, stride, dim, out);
        case 4: return products<kChains, 4>(rows, x, stride, dim, out);
        case 5: return products<kChains, 5>(rows, x, stride, dim, out);
        case 6: return products<kChains, 6>(rows, x, stride, dim, out);
        case 7: return products<kChains, 7>(rows, x, stride, dim, out);
        default: return products<kChains, 8>(rows, x, stride, dim, out);
    }
}

// How many batches n rows take, and rows of a full one, as even as can be.
constexpr std::uint32_t batches_of(std::size_t n) { return static_cast<std::uint32_t>((n + kRows - 1) / kRows); }
constexpr std::uint32_t batch_rows(std::size_t n) {
    return n == 0 ? 0 : static_cast<std::uint32_t>((n + batches_of(n) - 1) / batches_of(n));
}

// Floats of a batch in memory.
RZ_HD inline std::size_t batch_floats(std::uint32_t rows, std::uint32_t dim) { return std::size_t{rows} * ((dim + 3) / 4 * 4); }

RZ_DEVICE float token_value(const void* tokens, TokenType type, std::size_t at) {
    return type == TokenType::f32 ? static_cast<const float*>(tokens)[at] : half_to_float(static_cast<const std::uint16_t*>(tokens)[at]);
}

struct FdKernelParams {
    const void* tokens;
    TokenType type;
    const std::int64_t* offsets;
    std::uint32_t n;  // sets
    std::uint32_t dim, k_sim, cells, reps, width;
    Projection proj;
    bool document, fill, ties_by_cell;
    const float* planes;          // by repetition and batch
    const float* plane_offsets;   // reps * k_sim
    const float* dense;           // by repetition and batch of kRows columns
    const std::uint32_t* place;   // of every cell
    const std::uint32_t* sketch_limits;
    const std::uint16_t* sketch_dims;
    std::uint32_t final_dim;      // 0: none
    const std::uint32_t* final_begins;   // of every output, final_dim + 1
    const std::uint32_t* final_entries;  // 2 * coordinate of the wide vector, plus 1 where it is subtracted
    std::uint32_t* next;          // sets taken so far
    std::uint32_t* bad;           // ~number of the first set with a token, and with a sum, that is not finite
    std::uint8_t* workspace;      // of every block, or null: shared memory
    float* out;

    RZ_HD std::size_t wide() const { return std::size_t{reps} * cells * width; }
    RZ_HD std::size_t all_cells() const { return std::size_t{reps} * cells; }
    // Keys for filling, where they do not fit those of the values, sums, counts and first tokens.
    RZ_HD std::size_t work_bytes() const { return ((keys_fit() ? 0 : all_cells() * 8) + all_cells() * 8 + wide() * 4 + 15) / 16 * 16; }
    RZ_HD bool keys_fit() const { return all_cells() * 8 <= kValueBytes; }
};

template <int kChains>
struct EncodeSets {
    static constexpr int kThreads = kWarps * kWarp;

    FdKernelParams p;

    static std::size_t panel_bytes(std::size_t dim) { return (dim * kStride * sizeof(float) + 15) / 16 * 16; }
    std::size_t shared_bytes() const { return 16 + kValueBytes + panel_bytes(p.dim) + (p.workspace == nullptr ? p.work_bytes() : 0); }

    struct Work {
        std::uint64_t* keys;
        float* sums;
        std::uint32_t* counts;
        std::uint32_t* first;
        float* panel;
        float* values;  // of the warp
        std::uint32_t* set;
    };

    RZ_DEVICE Work work() const {
        Work w;
        std::uint8_t* shared = shared_memory();
        w.set = reinterpret_cast<std::uint32_t*>(shared);
        shared += 16;
        w.values = reinterpret_cast<float*>(shared) + static_cast<std::uint32_t>(warp_index()) * kColumns * kStride;
        shared += kValueBytes;
        w.panel = reinterpret_cast<float*>(shared);
        shared += (p.dim * kStride * sizeof(float) + 15) / 16 * 16;
        std::uint8_t* space = p.workspace == nullptr ? shared : p.workspace + block_index().x * p.work_bytes();
        // Values are done with when keys are made.
        w.keys = reinterpret_cast<std::uint64_t*>(p.keys_fit() ? shared_memory() + 16 : space);
        w.sums = reinterpret_cast<float*>(p.keys_fit() ? space : space + p.all_cells() * sizeof(std::uint64_t));
        w.counts = reinterpret_cast<std::uint32_t*>(w.sums + p.wide());
        w.first = w.counts + p.all_cells();
        return w;
    }

    RZ_DEVICE void operator()() const {
        const Work w = work();
        const auto thread = static_cast<std::uint32_t>(thread_index());
        for (;;) {
            if (thread == 0) *w.set = atomic_add(p.next, 1u);
            sync_block();
            const std::uint32_t set = *w.set;
            if (set >= p.n) return;  // all threads of the block
            const auto begin = static_cast<std::size_t>(p.offsets[set]);
            const auto count = static_cast<std::uint32_t>(static_cast<std::size_t>(p.offsets[set + 1]) - begin);
            for (std::size_t i = thread; i < p.wide(); i += kThreads) w.sums[i] = 0;
            for (std::size_t i = thread; i < p.all_cells(); i += kThreads) w.counts[i] = 0;
            sync_block();
            for (std::uint32_t t = 0; t < count; t += kPanel) {
                const std::uint32_t here = count - t < kPanel ? count - t : kPanel;
                load_panel(w, set, begin + t, here);
                sync_block();
                for (auto rep = static_cast<std::uint32_t>(warp_index()); rep < p.reps; rep += kWarps) collect(w, rep, t, here);
                sync_block();
            }
            finish(w, set, begin, count);
            sync_block();
        }
    }

    // Dim by dim; tokens that are not there are zero.
    RZ_DEVICE void load_panel(const Work& w, std::uint32_t set, std::size_t first, std::uint32_t here) const {
        const auto lane = static_cast<std::uint32_t>(lane_index());
        float check = 0;
        for (auto t = static_cast<std::uint32_t>(warp_index()); t < kPanel; t += kWarps) {
            for (std::uint32_t k = lane; k < p.dim; k += kWarp) {
                const float x = t < here ? token_value(p.tokens, p.type, (first + t) * p.dim + k) : 0.0f;
                w.panel[k * kStride + t] = x;
                check = fmaf(x, 0.0f, check);
            }
        }
        if (ballot(check != 0.0f) != 0 && lane == 0) atomic_max(p.bad, ~set);
    }

    RZ_DEVICE std::uint32_t cell_of(const Work& w, std::uint32_t rep) const {
        const std::uint32_t batches = (p.k_sim + kRows - 1) / kRows;
        const std::uint32_t rows = batches == 0 ? 0 : (p.k_sim + batches - 1) / batches;
        std::uint32_t cell = 0;
        for (std::uint32_t b = 0; b < batches; ++b) {
            float sums[kRows] = {};
            products_of<kChains>(rows, p.planes + (std::size_t{rep} * batches + b) * batch_floats(rows, p.dim), w.panel + lane_index(), kStride,
                                 p.dim, sums);
            RZ_UNROLL
            for (std::uint32_t j = 0; j < kRows; ++j) {
                const std::uint32_t bit = b * rows + j;
                if (j < rows && bit < p.k_sim) cell |= (sums[j] > p.plane_offsets[rep * p.k_sim + bit] ? 1u : 0u) << bit;
            }
        }
        return cell;
    }

    // A column of the sketch of a token whose dims are `stride` apart, or in device memory.
    template <class Value>
    RZ_DEVICE float sketched(std::uint32_t rep, std::uint32_t column, Value value) const {
        const std::uint32_t* limits = p.sketch_limits + std::size_t{rep} * (2 * p.width + 1) + 2 * column;
        const std::uint16_t* dims = p.sketch_dims + std::size_t{rep} * p.dim;
        const std::uint32_t middle = limits[1], end = limits[2];
        float sum = 0;
        std::uint32_t e = limits[0];
        RZ_UNROLL_BY(4)
        for (; e < middle; ++e) sum = add(sum, value(dims[e]));
        RZ_UNROLL_BY(4)
        for (; e < end; ++e) sum = sum - value(dims[e]);
        return sum;
    }

    // One panel in one repetition, by a warp.
    RZ_DEVICE void collect(const Work& w, std::uint32_t rep, std::uint32_t t0, std::uint32_t here) const {
        const auto lane = static_cast<std::uint32_t>(lane_index());
        const std::uint32_t cell = cell_of(w, rep), place = p.place[cell];
        const float* x = w.panel + lane;
        float* sums = w.sums + std::size_t{rep} * p.cells * p.width;
        for (std::uint32_t c0 = 0; c0 < p.width; c0 += kColumns) {
            const std::uint32_t n = p.width - c0 < kColumns ? p.width - c0 : kColumns;
            if (p.proj == Projection::dense) {
                const std::uint32_t batches = (p.width + kRows - 1) / kRows;
                for (std::uint32_t c = 0; c < n; c += kRows) {
                    float out[kRows] = {};
                    const std::size_t batch = std::size_t{rep} * batches + (c0 + c) / kRows;
                    products_of<kChains>(kRows, p.dense + batch * batch_floats(kRows, p.dim), x, kStride, p.dim, out);
                    RZ_UNROLL
                    for (std::uint32_t j = 0; j < kRows; ++j) w.values[(c + j) * kStride + lane] = out[j];
                }
            } else {
                for (std::uint32_t c = 0; c < n; ++c) {
                    const float value = p.proj == Projection::identity
                                            ? x[(c0 + c) * kStride]
                                            : sketched(rep, c0 + c, [&](std::uint32_t k) { return x[k * kStride]; });
                    w.values[c * kStride + lane] = value;
                }
            }
            sync_warp();
            for (std::uint32_t t = 0; t < here; ++t) {
                const std::uint32_t to = shuffle(place, static_cast<int>(t)), its = shuffle(cell, static_cast<int>(t));
                if (lane < n) {
                    float& sum = sums[std::size_t{to} * p.width + c0 + lane];
                    sum = add(sum, w.values[lane * kStride + t]);
                } else if (lane == kWarp - 1 && c0 == 0) {
                    const std::size_t at = std::size_t{rep} * p.cells + its;
                    if (w.counts[at]++ == 0) w.first[at] = t0 + t;
                }
            }
            sync_warp();
        }
    }

    // The nearest cell with tokens for every cell: distances add up bit by bit. A key is the distance, what decides among
    // equals, and the cell.
    RZ_DEVICE void find_nearest(const Work& w) const {
        const auto thread = static_cast<std::uint32_t>(thread_index());
        for (std::size_t i = thread; i < p.all_cells(); i += kThreads) {
            const auto cell = static_cast<std::uint32_t>(i % p.cells);
            const std::uint64_t tie = p.ties_by_cell ? cell : w.first[i];
            w.keys[i] = w.counts[i] == 0 ? std::uint64_t{multivector::kMaxHyperplanes + 1} << kDistanceAt : tie << kTieAt | cell;
        }
        sync_block();
        for (std::uint32_t bit = 1; bit < p.cells; bit *= 2) {
            for (std::size_t i = thread; i < p.all_cells() / 2; i += kThreads) {
                const std::size_t low = i / bit * 2 * bit + i % bit;
                std::uint64_t& a = w.keys[low];
                std::uint64_t& b = w.keys[low + bit];
                const std::uint64_t step = std::uint64_t{1} << kDistanceAt, from_a = a + step, from_b = b + step;
                b = from_a < b ? from_a : b;
                a = from_b < a ? from_b : a;
            }
            sync_block();
        }
    }

    RZ_DEVICE void finish(const Work& w, std::uint32_t set, std::size_t begin, std::uint32_t count) const {
        const auto thread = static_cast<std::uint32_t>(thread_index());
        const std::size_t out_dim = p.final_dim != 0 ? p.final_dim : p.wide();
        float* to = p.out + set * out_dim;
        const bool fill = p.fill && count > 0;  // without tokens all stays zero
        if (fill) find_nearest(w);
        float check = 0;
        for (std::size_t i = thread; i < p.wide(); i += kThreads) {
            const auto column = static_cast<std::uint32_t>(i % p.width), cell = static_cast<std::uint32_t>(i / p.width % p.cells);
            const auto rep = static_cast<std::uint32_t>(i / p.width / p.cells);
            const std::size_t at = std::size_t{rep} * p.cells + cell;
            const std::size_t wide_at = (std::size_t{rep} * p.cells + p.place[cell]) * p.width + column;
            float value = w.sums[wide_at];
            if (p.document && w.counts[at] > 1) value = value / static_cast<float>(w.counts[at]);
            if (fill && w.counts[at] == 0) value = filled(w, rep, static_cast<std::uint32_t>(w.keys[at] & 0xFFFFu), column, begin);
            check = fmaf(value, 0.0f, check);
            // Cells of one token, which others are filled from, stay as they are.
            (p.final_dim != 0 ? w.sums : to)[wide_at] = value;
        }
        if (p.final_dim != 0) {
            sync_block();
            for (std::uint32_t o = thread; o < p.final_dim; o += kThreads) {
                float sum = 0;
                for (std::uint32_t e = p.final_begins[o]; e < p.final_begins[o + 1]; ++e) {
                    const float value = w.sums[p.final_entries[e] / 2];
                    sum = add(sum, (p.final_entries[e] & 1u) != 0 ? -value : value);
                }
                check = fmaf(sum, 0.0f, check);
                to[o] = sum;
            }
        }
        if (ballot(check != 0.0f) != 0 && lane_index() == 0) atomic_max(p.bad + 1, ~set);
    }

    // The first token of a cell, projected.
    RZ_DEVICE float filled(const Work& w, std::uint32_t rep, std::uint32_t from, std::uint32_t column, std::size_t begin) const {
        const std::size_t at = std::size_t{rep} * p.cells + from;
        if (w.counts[at] == 1) return w.sums[(std::size_t{rep} * p.cells + p.place[from]) * p.width + column];
        const std::size_t token = (begin + w.first[at]) * p.dim;
        const auto value = [&](std::uint32_t k) { return token_value(p.tokens, p.type, token + k); };
        if (p.proj == Projection::identity) return value(column);
        if (p.proj == Projection::count_sketch) return sketched(rep, column, value);
        const std::uint32_t batches = (p.width + kRows - 1) / kRows;
        const float* row = p.dense + (std::size_t{rep} * batches + column / kRows) * batch_floats(kRows, p.dim) + column % kRows * 4;
        float even = 0, odd = 0;
        for (std::uint32_t k = 0; k < p.dim; ++k) {
            const float x = value(k), y = row[k / 4 * 4 * kRows + k % 4];
            if (kChains == 2 && k % 2 == 1) odd = fmaf(y, x, odd);
            else even = kChains == 0 ? add(even, multiply(y, x)) : fmaf(y, x, even);
        }
        return kChains == 2 ? add(even, odd) : even;
    }
};

// The chains of products that the CPU's kernels have: two where a vector is a panel.
int chains_of_cpu() {
    const std::string_view name = kernel::active().name;
    return name == "avx512" ? 2 : name == "scalar" ? 0 : 1;
}

// Parts of n rows of `dim` each, in batches of per_batch as products() reads them.
std::vector<float> batched(std::span<const float> rows, std::size_t parts, std::size_t n, std::uint32_t per_batch, std::size_t dim) {
    const std::size_t batches = batches_of(n), floats = batch_floats(per_batch, static_cast<std::uint32_t>(dim));
    std::vector<float> out(parts * batches * floats, 0.0f);
    for (std::size_t i = 0; i < parts * n; ++i) {
        const std::size_t part = i / n, row = i % n;
        float* to = out.data() + (part * batches + row / per_batch) * floats + row % per_batch * 4;
        for (std::size_t k = 0; k < dim; ++k) to[k / 4 * 4 * per_batch + k % 4] = rows[i * dim + k];
    }
    return out;
}

constexpr const char* kWhat = "the tables of an encoder";
constexpr std::size_t kWorkspaceBytes = std::size_t{512} << 20;

}  // namespace

DeviceFdEncoder::DeviceFdEncoder(Context& context, const multivector::FdEncoder& encoder)
    : context_(context), params_(encoder.params()), chains_(chains_of_cpu()) {
    const FdParams& p = params_;
    const std::size_t least = 16 + kValueBytes + EncodeSets<1>::panel_bytes(p.dim);
    if (least > context.info().shared_bytes) {
        throw Error(ErrorKind::unsupported, "tokens of " + std::to_string(p.dim) + " dims are too long for the shared memory of " +
                                                context.info().name + "; encode them on the CPU");
    }
    const multivector::FdView v = encoder.view();
    planes_ = {context, batched(v.hyperplanes, p.reps, p.k_sim, batch_rows(p.k_sim), p.dim), kWhat};
    plane_offsets_ = {context, std::vector<float>(v.offsets.begin(), v.offsets.end()), kWhat};
    if (p.proj == Projection::dense) dense_ = {context, batched(v.dense, p.reps, p.proj_dim, kRows, p.dim), kWhat};
    const auto to_device = [&](auto values) { return DeviceArray<std::uint32_t>(context, {values.begin(), values.end()}, kWhat); };
    place_ = to_device(v.place);
    sketch_limits_ = to_device(v.sketch_limits);
    sketch_dims_ = {context, std::vector<std::uint16_t>(v.sketch_dims.begin(), v.sketch_dims.end()), kWhat};
    if (p.final_dim == 0) return;
    std::vector<std::uint32_t> begins(p.final_dim + 1, 0), entries(v.final_entries.size());
    for (const std::uint32_t entry : v.final_entries) ++begins[entry / 2 + 1];
    for (std::size_t o = 0; o < p.final_dim; ++o) begins[o + 1] += begins[o];
    std::vector<std::uint32_t> at(begins.begin(), begins.end() - 1);
    for (std::size_t i = 0; i < entries.size(); ++i) {
        entries[at[v.final_entries[i] / 2]++] = static_cast<std::uint32_t>(2 * i) | (v.final_entries[i] & 1u);
    }
    final_begins_ = to_device(begins);
    final_entries_ = to_device(entries);
}

std::size_t DeviceFdEncoder::device_bytes() const {
    return planes_.bytes() + plane_offsets_.bytes() + dense_.bytes() + place_.bytes() + sketch_limits_.bytes() + sketch_dims_.bytes() +
           final_begins_.bytes() + final_entries_.bytes();
}

void DeviceFdEncoder::encode(const PlacedSets& sets, bool document, float* out) {
    const TokenSets& s = sets.sets;
    if (s.dim != params_.dim) {
        throw Error(ErrorKind::shape, "tokens have " + std::to_string(s.dim) + " dims, expected " + std::to_string(params_.dim));
    }
    if (s.n == 0) return;
    if (s.n >= std::numeric_limits<std::uint32_t>::max()) throw Error(ErrorKind::unsupported, "the GPU encodes fewer than 2^32 - 1 sets at a time");
    context_.enter();
    DeviceArray<std::int64_t> offsets(context_, {s.offsets, s.offsets + s.n + 1}, "the offsets of tokens");
    DeviceArray<std::uint32_t> counters(context_, std::vector<std::uint32_t>(3, 0), "counters");
    DeviceArray<std::uint8_t> tokens;
    FdKernelParams p{};
    p.tokens = s.data;
    if (!sets.on_device) {
        tokens = {context_, s.total() * s.dim * type_bytes(s.type), "the tokens"};
        tokens.copy_in(static_cast<const std::uint8_t*>(s.data), tokens.size());
        p.tokens = tokens.data();
    }
    p.type = s.type;
    p.offsets = offsets.data();
    p.n = static_cast<std::uint32_t>(s.n);
    p.dim = static_cast<std::uint32_t>(params_.dim);
    p.k_sim = static_cast<std::uint32_t>(params_.k_sim);
    p.cells = static_cast<std::uint32_t>(params_.cells());
    p.reps = static_cast<std::uint32_t>(params_.reps);
    p.width = static_cast<std::uint32_t>(params_.proj_dim);
    p.proj = params_.proj;
    p.document = document;
    p.fill = document && params_.fill_empty;
    p.ties_by_cell = params_.compat == multivector::Compat::fastembed;
    p.planes = planes_.data();
    p.plane_offsets = plane_offsets_.data();
    p.dense = dense_.data();
    p.place = place_.data();
    p.sketch_limits = sketch_limits_.data();
    p.sketch_dims = sketch_dims_.data();
    p.final_dim = static_cast<std::uint32_t>(params_.final_dim);
    p.final_begins = final_begins_.data();
    p.final_entries = final_entries_.data();
    p.next = counters.data();
    p.bad = counters.data() + 1;
    p.out = out;

    // As many blocks as fit at once; those whose sums are too many for shared memory have them in device memory.
    const auto multiprocessors = static_cast<std::size_t>(context_.info().multiprocessors);
    const std::size_t room = context_.info().shared_bytes;
    std::size_t blocks = multiprocessors * std::max<std::size_t>(1, std::min<std::size_t>(6, room / EncodeSets<1>{p}.shared_bytes()));
    DeviceArray<std::uint8_t> workspace;
    if (EncodeSets<1>{p}.shared_bytes() > room) {
        blocks = std::min({2 * multiprocessors, s.n, std::max<std::size_t>(1, kWorkspaceBytes / p.work_bytes())});
        workspace = {context_, blocks * p.work_bytes(), "the sums of cells"};
        p.workspace = workspace.data();
    }
    blocks = std::min(blocks, s.n);
    const auto run = [&](auto kernel) { launch(kernel, context_, {blocks}, kernel.shared_bytes()); };
    if (chains_ == 2) run(EncodeSets<2>{p});
    else if (chains_ == 1) run(EncodeSets<1>{p});
    else run(EncodeSets<0>{p});
    std::uint32_t bad[2];
    counters.copy_out(bad, 2, 1);
    if (bad[0] != 0) name_bad({{p.tokens, s.type, s.dim, s.offsets, s.n, nullptr}, true}, ~bad[0]);
    if (bad[1] != 0) {
        throw Error(ErrorKind::value, "tokens: sums of set " + std::to_string(~bad[1]) + " overflow float32; scale the tokens down");
    }
}

void DeviceFdEncoder::name_bad(const PlacedSets& sets, std::size_t set) const {
    const TokenSets& s = sets.sets;
    const std::size_t bytes = s.dim * type_bytes(s.type);
    AlignedVector<std::uint8_t> rows(s.count(set) * bytes);
    context_.copy_out(rows.data(), static_cast<const std::uint8_t*>(s.data) + s.begin(set) * bytes, rows.size());
    const std::int64_t ends[2] = {0, static_cast<std::int64_t>(s.count(set))};
    AlignedVector<float> buffer;
    const float* x = multivector::as_floats({rows.data(), s.type, s.dim, ends, 1, nullptr}, 0, s.count(set), buffer);
    const float* bad = std::find_if(x, x + s.count(set) * s.dim, [](float v) { return !std::isfinite(v); });
    throw Error(ErrorKind::non_finite, "tokens: set " + std::to_string(set) + ", token " +
                                           std::to_string(static_cast<std::size_t>(bad - x) / s.dim) + " contains NaN or infinity");
}

}  // namespace residua::cuda
