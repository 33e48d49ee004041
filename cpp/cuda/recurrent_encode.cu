// SPDX-License-Identifier: Apache-2.0
#if defined(__CUDACC__)
#pragma nv_diag_suppress 554, 997  // of core/matrix.hpp and codec/recurrent_codec.hpp, which mean what they say
#endif
#include "cuda/recurrent_encode.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/dot.hpp"
#include "core/error.hpp"
#include "cuda/launch.hpp"
#include "cuda/products.hpp"

namespace residua::cuda {
namespace {

using codec::Effort;
using store::RowType;

constexpr std::size_t kChunkFloats = std::size_t{1} << 23;  // of rows and their products: 32 MiB
constexpr std::uint32_t kGroup = 32;
static_assert(kGroup == kWarp && kGroup == kernel::kGroupDims);
constexpr const char* kWhat = "encoding";

RZ_DEVICE double sum_of_lanes(double sum) {
    for (int mask = kWarp / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    return sum;
}

// z = x - c of a row as the metric sees it, and the part of the score that is known, in the order of dot_f64(): the
// same bits as on the CPU. Eight lanes per row.
template <RowType kType>
struct CenterRows {
    static constexpr int kThreads = 256;
    static constexpr std::uint32_t kLanes = 8;
    static constexpr std::size_t kRows = kThreads / kLanes;  // of a block
    const void* x;
    std::size_t n, dim;
    const float* center;
    const float* mean_offset;
    double mean_dot;
    bool cosine, l2;
    float* z;
    float* known;
    std::uint32_t first_row;  // of the chunk
    std::uint32_t* faults;    // the first row that is not finite and the first without a cosine, as ~row; 0: none

    RZ_DEVICE float value(std::size_t i) const {
        if constexpr (kType == RowType::f32) return static_cast<const float*>(x)[i];
        const std::uint16_t bits = static_cast<const std::uint16_t*>(x)[i];
        return kType == RowType::f16 ? half_to_float(bits) : bits_to_float(static_cast<std::uint32_t>(bits) << 16);
    }
    // Calls term(j) for the dims that the lane adds up, in their order.
    template <class Term>
    RZ_DEVICE void for_dims(std::size_t lane, Term term) const {
        const std::size_t whole = dim / kLanes * kLanes;
        for (std::size_t j = lane; j < whole; j += kLanes) term(j);
        for (std::size_t j = whole; lane == 0 && j < dim; ++j) term(j);
    }
    RZ_DEVICE static double sum_of_eight(double sum) {
        for (int mask = kLanes / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
        return sum;
    }
    RZ_DEVICE void operator()() const {
        const auto thread = static_cast<std::size_t>(thread_index());
        const std::size_t row = std::size_t{block_index().x} * kRows + thread / kLanes, lane = thread % kLanes;
        const std::size_t first = row * dim;
        const bool there = row < n;
        float factor = 1.0f;
        if (cosine) {
            double square = 0;
            if (there) for_dims(lane, [&](std::size_t j) { square += static_cast<double>(value(first + j)) * static_cast<double>(value(first + j)); });
            square = sum_of_eight(square);
            factor = square > 0 ? static_cast<float>(1.0 / sqrt(square)) : 0.0f;
        }
        double product = 0, square = 0;
        if (there) {
            for_dims(lane, [&](std::size_t j) {
                const float v = add(multiply(value(first + j), factor), -center[j]);
                z[first + j] = v;
                product += static_cast<double>(mean_offset[j]) * static_cast<double>(v);
                square += static_cast<double>(v) * static_cast<double>(v);
            });
        }
        product = sum_of_eight(product);
        square = sum_of_eight(square);
        if (!there || lane != 0) return;
        const float part = static_cast<float>(l2 ? 2 * product - square : product + mean_dot);
        known[row] = part;
        const std::uint32_t number = ~(first_row + static_cast<std::uint32_t>(row));
        if (!(part - part == 0.0f)) atomic_max(faults, number);
        if (cosine && factor == 0.0f) atomic_max(faults + 1, number);
    }
};

// Of a row and its value: <y, v>, |v|^2, and the factor of y before rounding.
struct Moments {
    double yv, vv;
    float factor;
};

// What kernels see of the codec and of a chunk of rows.
struct EncodeView {
    const float* y;             // (n, groups, 32), groups by place
    std::size_t n;
    std::uint32_t groups;
    const std::uint16_t* place;
    const std::uint8_t* bits;   // of a group
    const float* step;
    const float* inverse;

    RZ_DEVICE float y_at(std::size_t row, std::uint32_t group, std::uint32_t dim) const {
        return y[(row * groups + place[group]) * kGroup + dim];
    }
    // Truncation equals floor for what is not negative.
    RZ_DEVICE std::uint32_t level(float value, std::uint32_t i, int group_bits, float factor) const {
        const float half = static_cast<float>(1 << (group_bits - 1)), top = static_cast<float>((1 << group_bits) - 1);
        const float at = add(multiply(value, multiply(factor, inverse[i])), half);
        return static_cast<std::uint32_t>(at > 0.0f ? (at < top ? at : top) : 0.0f);
    }
    RZ_DEVICE float value_of(std::uint32_t level, std::uint32_t i, int group_bits) const {
        return multiply(step[i], add(add(static_cast<float>(level), 0.5f), -static_cast<float>(1 << (group_bits - 1))));
    }
};

// The scale of every row, a warp each: of the factors the first peak of the cosine of y and its value.
struct FindScales {
    static constexpr int kThreads = 256;
    EncodeView view;
    bool search;
    Moments* moments;
    std::uint8_t* levels;  // (rows of the map, n), nullptr: not wanted

    RZ_DEVICE void operator()() const {
        const std::size_t row = std::size_t{block_index().x} * (kThreads / kWarp) + static_cast<std::size_t>(warp_index());
        if (row >= view.n) return;  // the same for the warp, and no barrier follows
        Moments best = round(row, 1.0f);
        for (int i = 0; search && i < 5; ++i) {
            const float factor = i == 0 ? 0.8f : i == 1 ? 0.64f : i == 2 ? 0.5f : i == 3 ? 0.4f : 0.3f;
            const Moments m = round(row, factor);
            if (!(m.yv > 0 && m.yv * m.yv * best.vv > best.yv * best.yv * m.vv)) break;
            best = m;
        }
        if (lane_index() == 0) moments[row] = best;
        if (levels == nullptr) return;
        for (std::uint32_t g = 0; g < view.groups; ++g) {
            const std::uint32_t lane = static_cast<std::uint32_t>(lane_index()), i = g * kGroup + lane;
            levels[i * view.n + row] = static_cast<std::uint8_t>(view.level(view.y_at(row, g, lane), i, view.bits[g], best.factor));
        }
    }

    RZ_DEVICE Moments round(std::size_t row, float factor) const {
        const auto lane = static_cast<std::uint32_t>(lane_index());
        double yv = 0, vv = 0;
        for (std::uint32_t g = 0; g < view.groups; ++g) {
            const std::uint32_t i = g * kGroup + lane;
            const int bits = view.bits[g];
            const float y = view.y_at(row, g, lane), v = view.value_of(view.level(y, i, bits, factor), i, bits);
            yv += static_cast<double>(multiply(y, v));
            vv += static_cast<double>(multiply(v, v));
        }
        return {sum_of_lanes(yv), sum_of_lanes(vv), factor};
    }
};

// Coordinate ascent on the cosine of y and its value, as RecurrentCodec::refine_levels: a thread per row.
struct RefineLevels {
    static constexpr int kThreads = 128;
    EncodeView view;
    Moments* moments;
    std::uint8_t* levels;

    RZ_DEVICE void operator()() const {
        const std::size_t row = std::size_t{block_index().x} * kThreads + static_cast<std::size_t>(thread_index());
        if (row >= view.n) return;
        Moments m = moments[row];
        for (int sweep = 0; sweep < 3; ++sweep) {
            bool moved = false;
            for (std::uint32_t g = 0; g < view.groups; ++g) {
                for (std::uint32_t j = 0; j < kGroup; ++j) moved = move(row, g, j, m) || moved;
            }
            if (!moved) break;
        }
        moments[row] = m;
    }

    // Whether the level of a dim moved.
    RZ_DEVICE bool move(std::size_t row, std::uint32_t g, std::uint32_t j, Moments& m) const {
        const std::uint32_t i = g * kGroup + j;
        const int top = (1 << view.bits[g]) - 1;
        std::uint8_t& level = levels[i * view.n + row];
        const double y = static_cast<double>(view.y_at(row, g, j)), width = static_cast<double>(view.step[i]);
        const double v = width * (level - 0.5 * top);
        const int step = y * m.vv > v * m.yv ? 1 : -1, next = static_cast<int>(level) + step;
        if (next < 0 || next > top) return false;
        const double d = step * width, yv = m.yv + d * y, vv = m.vv + 2 * d * v + d * d;
        if (!(yv > 0 && yv * yv * m.vv > m.yv * m.yv * vv * (1 + 1e-9))) return false;
        level = static_cast<std::uint8_t>(next);
        m.yv = yv;
        m.vv = vv;
        return true;
    }
};

// Planes and scalars of a code, a warp per row.
struct PackCodes {
    static constexpr int kThreads = 256;
    static constexpr float kMaxScale = 60000.0f;  // below the largest float16
    EncodeView view;
    kernel::PlaneLayout layout;
    const Moments* moments;
    const std::uint8_t* levels;  // as in FindScales
    const float* known;
    std::uint32_t code_bytes;
    std::uint8_t* codes;

    RZ_DEVICE void operator()() const {
        const std::size_t row = std::size_t{block_index().x} * (kThreads / kWarp) + static_cast<std::size_t>(warp_index());
        if (row >= view.n) return;  // the same for the warp, and no barrier follows
        const auto lane = static_cast<std::uint32_t>(lane_index());
        // Bytes have their first dim in the highest bit.
        const std::uint32_t dim = lane ^ 7u;
        auto* code = reinterpret_cast<std::uint16_t*>(codes + row * code_bytes);  // of which even numbers of bytes are whole
        const Moments m = moments[row];
        double yy = 0;
        for (std::uint32_t g = 0; g < view.groups; ++g) {
            const std::uint32_t i = g * kGroup + dim;
            const int bits = view.bits[g];
            const float y = view.y_at(row, g, dim);
            yy += static_cast<double>(multiply(y, y));
            const std::uint32_t u = levels != nullptr ? levels[i * view.n + row] : view.level(y, i, bits, m.factor);
            std::uint32_t word = g;  // of the code: the planes from the highest on
            for (int t = static_cast<int>(layout.planes) - 1; t >= 0; --t) {
                if (t < bits) {  // the same for the warp
                    const std::uint32_t plane = ballot((u >> t & 1u) != 0);
                    if (lane < 2) code[2 * word + lane] = static_cast<std::uint16_t>(plane >> 16 * lane);
                }
                word += layout.groups[t];
            }
        }
        yy = sum_of_lanes(yy);
        const float ratio = static_cast<float>(yy / m.yv);
        const float f = m.yv > 0 && yy > 0 ? (ratio < kMaxScale ? ratio : kMaxScale) : 0.0f;
        const std::uint32_t bits = float_to_bits(known[row]);
        if (lane < 2) code[code_bytes / 2 - 3 + lane] = static_cast<std::uint16_t>(bits >> 16 * lane);
        if (lane == 2) code[code_bytes / 2 - 1] = float_to_half(f);
    }
};

void refuse(const std::vector<std::uint32_t>& faults) {
    if (faults[0] != 0) {
        throw Error(ErrorKind::non_finite, "x: row " + std::to_string(~faults[0]) + " contains NaN or infinity, or values whose "
                                                                                    "squares leave float32; remove or repair it");
    }
    if (faults[1] != 0) {
        throw Error(ErrorKind::value, "x: row " + std::to_string(~faults[1]) + " is a zero vector, which has no cosine; remove it or use 'ip'");
    }
}

std::size_t blocks_of(std::size_t n, std::size_t per_block) { return (n + per_block - 1) / per_block; }

}  // namespace

RecurrentEncoder::RecurrentEncoder(Context& context, const codec::RecurrentCodec& codec)
    : context_(context), codec_(codec), dim_(codec.dim()), groups_(codec.group_bits().size()) {
    context.enter();
    const codec::RecurrentParams p = codec.params();
    const codec::BlockMap& map = codec.encode_map();
    std::vector<std::size_t> at(groups_), order(groups_);
    for (std::size_t g = 0, offset = 0; g < groups_; offset += kGroup * map.block_width(g++)) {
        at[g] = offset;
        order[g] = g;
    }
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return map.block_begin(a) < map.block_begin(b); });
    std::vector<float> sorted;
    std::vector<std::uint16_t> place(groups_);
    for (std::size_t i = 0; i < groups_; ++i) {
        const std::size_t g = order[i], width = map.block_width(g);
        if (blocks_.empty() || blocks_.back().begin != map.block_begin(g)) blocks_.push_back({map.block_begin(g), width, i, 0, sorted.size()});
        ++blocks_.back().groups;
        place[g] = static_cast<std::uint16_t>(i);
        sorted.insert(sorted.end(), p.encode_map.begin() + static_cast<std::ptrdiff_t>(at[g]),
                      p.encode_map.begin() + static_cast<std::ptrdiff_t>(at[g] + kGroup * width));
    }
    std::vector<float> mean_offset = p.query_mean, inverse;
    if (p.metric == Metric::l2) {
        for (std::size_t j = 0; j < dim_; ++j) mean_offset[j] -= p.center[j];
    } else {
        mean_dot_ = dot_f64(mean_offset.data(), p.center.data(), dim_);
    }
    for (const float step : p.step) inverse.push_back(1.0f / step);
    map_ = {context, sorted, kWhat};
    center_ = {context, p.center, kWhat};
    mean_offset_ = {context, mean_offset, kWhat};
    step_ = {context, p.step, kWhat};
    inverse_ = {context, inverse, kWhat};
    bits_ = {context, p.group_bits, kWhat};
    place_ = {context, place, kWhat};
}

std::size_t RecurrentEncoder::chunk_rows() const {
    std::size_t floats = kChunkFloats;
    if (context_.limit() != 0) floats = std::min(floats, (context_.limit() - std::min(context_.limit(), context_.used())) / 2 / sizeof(float));
    return std::max<std::size_t>(1, floats / (dim_ + 2 * rows()));
}

void RecurrentEncoder::encode(const void* x, RowType type, std::size_t n, Effort effort, std::uint8_t* codes) {
    const std::size_t chunk = std::min(n, chunk_rows()), value_bytes = store::row_type_bytes(type);
    DeviceArray<float> z(context_, chunk * dim_, kWhat), y(context_, chunk * rows(), kWhat), known(context_, chunk, kWhat);
    DeviceArray<std::uint32_t> faults(context_, 2, kWhat);
    faults.fill(0);
    DeviceArray<Moments> moments(context_, chunk, kWhat);
    DeviceArray<std::uint8_t> levels(context_, effort == Effort::refined ? chunk * rows() : 0, kWhat);
    std::uint8_t* u = effort == Effort::refined ? levels.data() : nullptr;
    const bool cosine = codec_.metric() == Metric::cosine, l2 = codec_.metric() == Metric::l2;
    for (std::size_t begin = 0; begin < n; begin += chunk) {
        const std::size_t m = std::min(chunk, n - begin);
        const void* from = static_cast<const std::uint8_t*>(x) + begin * dim_ * value_bytes;
        const auto center = [&](auto kernel) {
            kernel = {from, m, dim_, center_.data(), mean_offset_.data(), mean_dot_, cosine, l2, z.data(), known.data(),
                      static_cast<std::uint32_t>(begin), faults.data()};
            launch(kernel, context_, {blocks_of(m, decltype(kernel)::kRows)});
        };
        if (type == RowType::f32) {
            center(CenterRows<RowType::f32>{});
        } else if (type == RowType::f16) {
            center(CenterRows<RowType::f16>{});
        } else {
            center(CenterRows<RowType::bf16>{});
        }
        for (const Block& b : blocks_) {
            multiply_rows(context_, {z.data() + b.begin, m, dim_}, {map_.data() + b.map_at, b.groups * kGroup, b.width}, b.width,
                          y.data() + b.first_group * kGroup, rows());
        }
        const EncodeView view{y.data(), m, static_cast<std::uint32_t>(groups_), place_.data(), bits_.data(), step_.data(), inverse_.data()};
        launch(FindScales{view, effort != Effort::rounded, moments.data(), u}, context_, {blocks_of(m, FindScales::kThreads / kWarp)});
        if (u != nullptr) launch(RefineLevels{view, moments.data(), u}, context_, {blocks_of(m, RefineLevels::kThreads)});
        launch(PackCodes{view, codec_.layout(), moments.data(), u, known.data(), static_cast<std::uint32_t>(code_bytes()),
                         codes + begin * code_bytes()},
               context_, {blocks_of(m, PackCodes::kThreads / kWarp)});
    }
    refuse(faults.to_host());
}

void RecurrentEncoder::encode(ConstMatrix x, Effort effort, std::uint8_t* codes) {
    const std::size_t chunk = std::min(x.rows, chunk_rows());
    DeviceArray<float> rows(context_, chunk * dim_, kWhat);
    DeviceArray<std::uint8_t> made(context_, chunk * code_bytes(), kWhat);
    std::vector<float> dense;
    for (std::size_t begin = 0; begin < x.rows; begin += chunk) {
        const std::size_t n = std::min(chunk, x.rows - begin);
        const float* from = x.row(begin);
        if (x.stride != x.cols) {
            dense.resize(n * dim_);
            for (std::size_t i = 0; i < n; ++i) std::copy_n(x.row(begin + i), dim_, dense.data() + i * dim_);
            from = dense.data();
        }
        rows.copy_in(from, n * dim_);
        encode(rows.data(), RowType::f32, n, effort, made.data());
        made.copy_out(codes + begin * code_bytes(), n * code_bytes());
    }
}

}  // namespace residua::cuda
