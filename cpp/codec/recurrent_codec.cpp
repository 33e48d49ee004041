// SPDX-License-Identifier: Apache-2.0
#include "codec/recurrent_codec.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <span>
#include <string>

#include "codec/edge_query.hpp"
#include "codec/normalize.hpp"
#include "codec/plane_query.hpp"
#include "codec/plane_scan.hpp"
#include "core/dot.hpp"
#include "core/error.hpp"
#include "core/half.hpp"
#include "core/parallel.hpp"
#include "kernel/dispatch.hpp"

namespace residua::codec {
namespace {

constexpr std::size_t kGroup = kernel::kGroupDims;
constexpr std::size_t kEncodeChunk = 64;
constexpr std::size_t kMaxRows = 65'536;  // dims of the transform, as many as the codec's vectors may have
constexpr float kMaxScale = 60000.0f;  // below the largest float16

void require(bool ok, const std::string& what) {
    if (!ok) throw Error(ErrorKind::value, "recurrent codec: " + what);
}

class RecurrentScorer final : public Scorer {
public:
    RecurrentScorer(const kernel::PlaneLayout& layout, std::vector<PlaneQuery> queries)
        : layout_(layout), queries_(std::move(queries)) {}

    std::size_t size() const override { return queries_.size(); }

    void top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
               std::size_t q_begin, std::size_t q_end, TopK* pools) const override {
        offer(codes, {row_begin, row_end - row_begin, allowed},
              {std::span(queries_).subspan(q_begin, q_end - q_begin), pools}, row_begin);
    }

    void top_k_of(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
                  std::span<const std::uint32_t> queries, TopK* pools) const override {
        offer(codes, {row_begin, row_end - row_begin, allowed}, {queries_, pools, queries, true}, row_begin);
    }

    void scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                float* out) const override {
        float block_scores[kBlockRows];
        for (std::size_t r = row_begin; r < row_end; r += kBlockRows) {
            const std::size_t n = std::min(kBlockRows, row_end - r);
            score_block(kernel::active().planes, layout_, queries_[query],
                        codes.data + r / kBlockRows * layout_.block_bytes(), block_scores);
            std::copy_n(block_scores, n, out + (r - row_begin));
        }
    }

    std::optional<LinearQuery> linear_query(std::size_t query) const override { return queries_[query].linear(); }

private:
    void offer(BlockView codes, const BlockRows& rows, const ScanQueries<PlaneQuery>& queries, std::size_t row_begin) const {
        plane_topk(kernel::active(), layout_, codes.data + row_begin / kBlockRows * layout_.block_bytes(), rows, queries);
    }

    kernel::PlaneLayout layout_;
    std::vector<PlaneQuery> queries_;
};

}  // namespace

RecurrentCodec::RecurrentCodec(RecurrentParams params) : p_(std::move(params)) {
    check();
    layout_ = plane_layout(p_.group_bits);
    make_form();
    const std::size_t groups = p_.group_bits.size();
    encode_map_ = BlockMap(p_.encode_map, p_.dim, p_.block_dims, p_.group_block, groups);
    if (p_.query_scale.empty()) query_map_ = BlockMap(p_.query_map, p_.dim, p_.block_dims, p_.group_block, groups);
    require(encode_map_.is_finite() && query_map_.is_finite(), "maps must be finite");
    p_.encode_map = {};
    p_.query_map = {};
    inv_step_.resize(rows());
    for (std::size_t i = 0; i < rows(); ++i) inv_step_[i] = 1.0f / p_.step[i];
    mean_offset_ = p_.query_mean;
    if (p_.metric == Metric::l2) {
        for (std::size_t i = 0; i < p_.dim; ++i) mean_offset_[i] -= p_.center[i];
    } else {
        mean_dot_ = dot_f64(mean_offset_.data(), p_.center.data(), p_.dim);
    }
}

void RecurrentCodec::check() const {
    const std::size_t groups = p_.group_bits.size();
    require(p_.dim >= 1, "dim must be at least 1");
    require(groups >= 1 && groups * kGroup <= kMaxRows, "1 to 2048 groups expected");
    require(std::is_sorted(p_.group_bits.rbegin(), p_.group_bits.rend()), "group bits must not increase");
    require(p_.group_bits.back() >= 1 && p_.group_bits.front() <= kernel::kMaxPlanes, "group bits must be 1 to 8");
    require(p_.step.size() == rows(), "one step per dim expected");
    require(p_.center.size() == p_.dim && p_.query_mean.size() == p_.dim, "means must have dim values");
    require(p_.query_scale.empty() || (p_.query_scale.size() == groups && p_.query_map.empty()),
            "either a query map or one query scale per group expected");
    std::size_t n_levels = 0;
    for (std::uint8_t b : p_.group_bits) n_levels += std::size_t{1} << b;
    require(p_.levels.size() == n_levels, "2^bits levels per group expected");
    require(std::isfinite(p_.expansion) && p_.expansion >= 1, "expansion must be at least 1");
    const auto finite = [](const std::vector<float>& v) {
        return std::all_of(v.begin(), v.end(), [](float f) { return std::isfinite(f); });
    };
    require(finite(p_.center) && finite(p_.query_mean) && finite(p_.query_scale) && finite(p_.levels),
            "parameters must be finite");
    require(finite(p_.step) && *std::min_element(p_.step.begin(), p_.step.end()) > 0, "steps must be positive");
}

std::shared_ptr<const Codec> RecurrentCodec::with_expansion(float expansion) const {
    auto out = std::make_shared<RecurrentCodec>(*this);
    out->p_.expansion = expansion;
    out->check();
    return out;
}

RecurrentParams RecurrentCodec::params() const {
    RecurrentParams out = p_;
    out.encode_map = encode_map_.values();
    if (p_.query_scale.empty()) out.query_map = query_map_.values();
    return out;
}

std::size_t RecurrentCodec::memory_bytes() const {
    const std::size_t floats = p_.center.size() + p_.query_mean.size() + mean_offset_.size() + p_.step.size() +
                               inv_step_.size() + p_.query_scale.size() + p_.levels.size();
    return floats * sizeof(float) + encode_map_.memory_bytes() + query_map_.memory_bytes();
}

std::size_t RecurrentCodec::candidates(std::size_t k, std::size_t n) const {
    // The rank that a true neighbour can fall to grows with n, more slowly than n itself.
    const double growth = std::sqrt(std::max(1.0, static_cast<double>(n) / 100'000.0));
    const double wanted = std::ceil(static_cast<double>(p_.expansion) * growth * static_cast<double>(k)) + 16;
    return static_cast<std::size_t>(std::min<double>(wanted, static_cast<double>(n)));
}

// Rounds factor * y to levels; returns <y, v> and |v|^2.
RecurrentCodec::Moments RecurrentCodec::round_levels(const float* y, float factor, std::uint8_t* u) const {
    Moments m;
    for (std::size_t g = 0; g < p_.group_bits.size(); ++g) {
        const int bits = p_.group_bits[g];
        const float half = static_cast<float>(1 << (bits - 1));
        const float top = static_cast<float>((1 << bits) - 1);
        const float* yg = y + g * kGroup;
        const float* step = p_.step.data() + g * kGroup;
        const float* inverse = inv_step_.data() + g * kGroup;
        float v[kGroup];
        for (std::size_t j = 0; j < kGroup; ++j) {
            // Clamped before truncation; truncation equals floor for values >= 0.
            const int level = static_cast<int>(std::min(std::max(yg[j] * (factor * inverse[j]) + half, 0.0f), top));
            u[g * kGroup + j] = static_cast<std::uint8_t>(level);
            v[j] = step[j] * (static_cast<float>(level) + 0.5f - half);
        }
        float yv = 0, vv = 0;
        for (std::size_t j = 0; j < kGroup; ++j) {
            yv += yg[j] * v[j];
            vv += v[j] * v[j];
        }
        m.yv += static_cast<double>(yv);
        m.vv += static_cast<double>(vv);
    }
    return m;
}

// The scale is free, f takes it up: a vector larger or smaller than the sample's is coded at the
// scale that fits the steps. The cosine of y and its value has one peak over the factors.
RecurrentCodec::Moments RecurrentCodec::search_scale(const float* y, std::uint8_t* trial, std::uint8_t* u) const {
    constexpr float kFactors[] = {0.8f, 0.64f, 0.5f, 0.4f, 0.3f};
    Moments best = round_levels(y, 1.0f, u);
    for (float factor : kFactors) {
        const Moments m = round_levels(y, factor, trial);
        if (!(m.yv > 0 && m.yv * m.yv * best.vv > best.yv * best.yv * m.vv)) break;
        std::copy_n(trial, rows(), u);
        best = m;
    }
    return best;
}

// Coordinate ascent on the cosine of y and its value: one dim at a time moves to a neighbouring level
// when that helps (CAQ, SIGMOD 2026, section 3).
void RecurrentCodec::refine_levels(const float* y, Moments& m, std::uint8_t* u) const {
    constexpr int kSweeps = 3;
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
        bool moved = false;
        for (std::size_t i = 0; i < rows(); ++i) {
            const int top = (1 << p_.group_bits[i / kGroup]) - 1;
            const double v = static_cast<double>(p_.step[i]) * (u[i] - 0.5 * top);
            // The side of the level on which y lies relative to the best multiple of the value.
            const int step = static_cast<double>(y[i]) * m.vv > v * m.yv ? 1 : -1;
            const int next = static_cast<int>(u[i]) + step;
            if (next < 0 || next > top) continue;
            const double d = static_cast<double>(step) * static_cast<double>(p_.step[i]);
            const double yv = m.yv + d * static_cast<double>(y[i]);
            const double vv = m.vv + 2 * d * v + d * d;
            if (yv > 0 && yv * yv * m.vv > m.yv * m.yv * vv * (1 + 1e-9)) {
                u[i] = static_cast<std::uint8_t>(next);
                m = {yv, vv};
                moved = true;
            }
        }
        if (!moved) break;
    }
}

void RecurrentCodec::encode_row(const float* z, const float* y, Effort effort, std::uint8_t* scratch,
                                std::uint8_t* code) const {
    std::uint8_t* u = scratch;
    Moments m = effort == Effort::rounded ? round_levels(y, 1.0f, u) : search_scale(y, scratch + rows(), u);
    if (effort == Effort::refined) refine_levels(y, m, u);
    const double yv = m.yv;

    std::uint8_t* plane[kernel::kMaxPlanes];  // where group 0 of plane t starts
    std::uint8_t* next = code;
    for (int t = static_cast<int>(layout_.planes) - 1; t >= 0; --t) {
        plane[t] = next;
        next += layout_.groups[t] * 4;
    }
    double yy = 0;
    for (std::size_t g = 0; g < p_.group_bits.size(); ++g) {
        const int bits = p_.group_bits[g];
        const std::uint8_t* ug = u + g * kGroup;
        float syy = 0;
        for (std::size_t j = g * kGroup; j < (g + 1) * kGroup; ++j) syy += y[j] * y[j];
        yy += static_cast<double>(syy);
        for (int t = 0; t < bits; ++t) {
            std::uint8_t* out = plane[t] + g * 4;
            for (std::size_t b = 0; b < 4; ++b) {
                unsigned byte = 0;
                for (std::size_t j = 0; j < 8; ++j) byte = byte << 1 | ((ug[b * 8 + j] >> t) & 1u);
                out[b] = static_cast<std::uint8_t>(byte);
            }
        }
    }
    // |y|^2 / <y, v> makes the estimate exact along y. A degenerate row (y = 0) has nothing to scale.
    const float f = yv > 0 && yy > 0 ? std::min(static_cast<float>(yy / yv), kMaxScale) : 0.0f;
    double add = dot_f64(mean_offset_.data(), z, p_.dim);
    add = p_.metric == Metric::l2 ? 2 * add - dot_f64(z, z, p_.dim) : add + mean_dot_;
    const float add32 = static_cast<float>(add);
    const std::uint16_t f16 = half_from_float(f);
    std::memcpy(code + layout_.code_bytes(), &add32, 4);
    std::memcpy(code + layout_.code_bytes() + 4, &f16, 2);
}

bool RecurrentCodec::is_code(const std::uint8_t* code) const {
    float add;
    std::uint16_t f16;
    std::memcpy(&add, code + layout_.code_bytes(), 4);
    std::memcpy(&f16, code + layout_.code_bytes() + 4, 2);
    return std::isfinite(add) && f16 < 0x7C00u;  // a finite scale that is not negative
}

void RecurrentCodec::encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort effort) const {
    parallel_for(x.rows, kEncodeChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        const std::size_t n = end - begin;
        std::vector<float> z(n * p_.dim), y(n * rows());
        std::vector<std::uint8_t> scratch(2 * rows());
        for (std::size_t i = 0; i < n; ++i) {
            float* zi = z.data() + i * p_.dim;
            copy_for_metric(x.row(begin + i), p_.dim, p_.metric, zi);
            for (std::size_t j = 0; j < p_.dim; ++j) zi[j] -= p_.center[j];
        }
        encode_map_.multiply({z.data(), n, p_.dim}, {y.data(), n, rows()});
        for (std::size_t i = 0; i < n; ++i) {
            encode_row(z.data() + i * p_.dim, y.data() + i * rows(), effort, scratch.data(),
                       codes + (begin + i) * code_bytes());
        }
    });
}

void RecurrentCodec::unpack_levels(const std::uint8_t* code, std::uint8_t* u) const {
    std::fill_n(u, rows(), std::uint8_t{0});
    for (int t = static_cast<int>(layout_.planes) - 1; t >= 0; --t) {
        for (std::size_t i = 0; i < layout_.groups[t] * kGroup; ++i) {
            u[i] = static_cast<std::uint8_t>(u[i] << 1 | ((code[i / 8] >> (7 - i % 8)) & 1));
        }
        code += layout_.groups[t] * 4;
    }
}

void RecurrentCodec::unpack_values(const std::uint8_t* code, std::uint8_t* u, float* v) const {
    unpack_levels(code, u);
    const float* levels = p_.levels.data();
    for (std::size_t g = 0; g < p_.group_bits.size(); ++g) {
        for (std::size_t i = g * kGroup; i < (g + 1) * kGroup; ++i) v[i] = p_.step[i] * levels[u[i]];
        levels += std::size_t{1} << p_.group_bits[g];
    }
}

void RecurrentCodec::scale_groups(float* y) const {
    for (std::size_t g = 0; g < p_.query_scale.size(); ++g) {
        for (std::size_t i = g * kGroup; i < (g + 1) * kGroup; ++i) y[i] *= p_.query_scale[g];
    }
}

void RecurrentCodec::decode(const std::uint8_t* codes, std::size_t n, float* out, int num_threads) const {
    parallel_for(n, kEncodeChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        const std::size_t m = end - begin;
        std::vector<float> v(m * rows());
        std::vector<std::uint8_t> u(rows());
        for (std::size_t r = 0; r < m; ++r) {
            const std::uint8_t* code = codes + (begin + r) * code_bytes();
            float* vr = v.data() + r * rows();
            unpack_values(code, u.data(), vr);
            std::uint16_t f16;
            std::memcpy(&f16, code + layout_.code_bytes() + 4, 2);
            const float f = float_from_half(f16);
            for (std::size_t i = 0; i < rows(); ++i) vr[i] *= f;
            scale_groups(vr);
        }
        query_map().multiply_transposed({v.data(), m, rows()}, {out + begin * p_.dim, m, p_.dim});
        for (std::size_t r = begin; r < end; ++r) {
            for (std::size_t j = 0; j < p_.dim; ++j) out[r * p_.dim + j] += p_.center[j];
        }
    });
}

void RecurrentCodec::pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const {
    kernel::active().planes.pack(layout_.code_bytes(), codes, code_bytes(), n, block);
    std::uint8_t* add = block + layout_.strip_bytes();
    std::uint8_t* scale = add + kBlockRows * 4;
    std::memset(add, 0, kBlockRows * kScalarBytes);
    for (std::size_t r = 0; r < n; ++r) {
        const std::uint8_t* scalars = codes + r * code_bytes() + layout_.code_bytes();
        std::memcpy(add + r * 4, scalars, 4);
        std::memcpy(scale + r * 2, scalars + 4, 2);
    }
}

void RecurrentCodec::unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const {
    kernel::active().planes.unpack(layout_.code_bytes(), block, row, code);
    const std::uint8_t* add = block + layout_.strip_bytes();
    std::memcpy(code + layout_.code_bytes(), add + row * 4, 4);
    std::memcpy(code + layout_.code_bytes() + 4, add + kBlockRows * 4 + row * 2, 2);
}

void RecurrentCodec::linear_rows(BlockView codes, std::size_t row_begin, std::size_t row_end, std::uint8_t* planes,
                                 float* scale, float* add) const {
    const std::size_t bytes = layout_.code_bytes();
    for (std::size_t r = row_begin; r < row_end; ++r) {
        const std::uint8_t* block = codes.data + r / kBlockRows * layout_.block_bytes();
        const std::size_t i = r - row_begin, in_block = r % kBlockRows;
        kernel::active().planes.unpack(bytes, block, in_block, planes + i * bytes);
        std::uint16_t f16;
        std::memcpy(add + i, block + layout_.add_offset() + in_block * sizeof *add, sizeof *add);
        std::memcpy(&f16, block + layout_.scale_offset() + in_block * sizeof f16, sizeof f16);
        scale[i] = float_from_half(f16);
    }
}

std::unique_ptr<Scorer> RecurrentCodec::prepare(ConstMatrix queries, int num_threads) const {
    return prepare(queries, WeightBits::twelve, num_threads);
}

template <class Take>
void RecurrentCodec::weigh(ConstMatrix queries, int num_threads, Take take) const {
    parallel_for(queries.rows, kEncodeChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        const std::size_t n = end - begin;
        std::vector<float> q(p_.dim), z(n * p_.dim), w(n * rows());
        std::vector<double> constant(n);
        const float factor = p_.metric == Metric::l2 ? 2.0f : 1.0f;
        for (std::size_t i = 0; i < n; ++i) {
            copy_for_metric(queries.row(begin + i), p_.dim, p_.metric, q.data());
            float* zi = z.data() + i * p_.dim;
            for (std::size_t j = 0; j < p_.dim; ++j) zi[j] = q[j] - p_.query_mean[j];
            if (p_.metric == Metric::l2) {
                for (std::size_t j = 0; j < p_.dim; ++j) q[j] -= p_.center[j];
                constant[i] = -dot_f64(q.data(), q.data(), p_.dim);
            } else {
                constant[i] = dot_f64(zi, p_.center.data(), p_.dim);
            }
        }
        query_map().multiply({z.data(), n, p_.dim}, {w.data(), n, rows()});
        for (std::size_t i = 0; i < n; ++i) {
            float* wi = w.data() + i * rows();
            scale_groups(wi);
            for (std::size_t j = 0; j < rows(); ++j) wi[j] *= factor * p_.step[j];
            take(begin + i, std::span<const float>(wi, rows()), static_cast<float>(constant[i]));
        }
    });
}

void RecurrentCodec::query_weights(ConstMatrix queries, int num_threads, const TakeWeights& take) const {
    weigh(queries, num_threads, take);
}

std::unique_ptr<Scorer> RecurrentCodec::prepare(ConstMatrix queries, WeightBits weight_bits, int num_threads) const {
    std::vector<PlaneQuery> prepared(queries.rows);
    const bool for_cells = scans_cells(kernel::active(), layout_, queries.rows);
    weigh(queries, num_threads, [&](std::size_t r, std::span<const float> w, float constant) {
        prepared[r] = PlaneQuery(layout_, w, constant, weight_bits, for_cells);
    });
    return std::make_unique<RecurrentScorer>(layout_, std::move(prepared));
}

std::unique_ptr<EdgeScorer> RecurrentCodec::prepare_edges(ConstMatrix queries, int num_threads) const {
    std::vector<EdgeQuery> prepared(queries.rows);
    weigh(queries, num_threads, [&](std::size_t i, std::span<const float> weights, float constant) {
        prepared[i] = EdgeQuery(layout_, weights, constant);
    });
    return edge_scorer(layout_, std::move(prepared));
}

std::unique_ptr<RowScorer> RecurrentCodec::prepare_rows(ConstMatrix queries, int num_threads) const {
    std::vector<FieldQuery> prepared(queries.rows);
    weigh(queries, num_threads, [&](std::size_t r, std::span<const float> w, float constant) {
        prepared[r] = make_field_query(form_, w, tops_, places_, constant);
    });
    return field_scorer(form_, std::move(prepared));
}

std::unique_ptr<Scorer> RecurrentCodec::prepare_codes(const std::uint8_t* codes, std::size_t n,
                                                      int num_threads) const {
    std::vector<float> decoded(n * p_.dim);
    decode(codes, n, decoded.data(), num_threads);
    return prepare({decoded.data(), n, p_.dim}, WeightBits::seven, num_threads);
}

void RecurrentCodec::add_to_score(std::uint8_t* code, float value) const {
    float add;
    std::memcpy(&add, code + layout_.code_bytes(), sizeof add);
    add += value;
    std::memcpy(code + layout_.code_bytes(), &add, sizeof add);
}

bool RecurrentCodec::reads_codes_of(const Codec& other) const {
    const auto* o = dynamic_cast<const RecurrentCodec*>(&other);
    if (o == nullptr || p_.metric != o->p_.metric || p_.dim != o->p_.dim || p_.group_bits != o->p_.group_bits) return false;
    return p_.center == o->p_.center && p_.query_mean == o->p_.query_mean && p_.step == o->p_.step &&
           p_.block_dims == o->p_.block_dims && p_.group_block == o->p_.group_block &&
           p_.query_scale == o->p_.query_scale && query_map().values() == o->query_map().values();
}

void RecurrentCodec::set_scale(float f, std::uint8_t* code_end) {
    const std::uint16_t f16 = half_from_float(f);
    std::memcpy(code_end - sizeof f16, &f16, sizeof f16);
}

}  // namespace residua::codec
