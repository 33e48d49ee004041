// SPDX-License-Identifier: Apache-2.0
#include "codec/scalar_codec.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <string>

#include "codec/byte_query.hpp"
#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "kernel/dispatch.hpp"
#include "store/container.hpp"

namespace residua::codec {
namespace {

constexpr std::size_t kChunk = 64;

void require(bool ok, const char* what) {
    if (!ok) throw Error(ErrorKind::value, std::string("scalar codec: ") + what);
}

double dot(const float* a, const float* b, std::size_t n) {
    double s = 0;
    for (std::size_t i = 0; i < n; ++i) s += static_cast<double>(a[i]) * b[i];
    return s;
}

class ScalarScorer final : public Scorer {
public:
    ScalarScorer(const kernel::ByteLayout& layout, std::vector<ByteQuery> queries)
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
            queries_[query].scores(kernel::active().bytes, layout_,
                                   codes.data + r / kBlockRows * layout_.block_bytes(), ~0u, block_scores);
            std::copy_n(block_scores, n, out + (r - row_begin));
        }
    }

    std::optional<LinearQuery> linear_query(std::size_t query) const override {
        return queries_[query].linear(layout_, plane_dims(layout_));
    }

private:
    void offer(BlockView codes, const BlockRows& rows, const ScanQueries<ByteQuery>& queries, std::size_t row_begin) const {
        byte_topk(kernel::active().bytes, layout_, codes.data + row_begin / kBlockRows * layout_.block_bytes(), rows, queries);
    }

    kernel::ByteLayout layout_;
    std::vector<ByteQuery> queries_;
};

}  // namespace

ScalarCodec::ScalarCodec(ScalarParams params) : p_(std::move(params)) {
    require(p_.dim >= 1, "dim must be at least 1");
    require(p_.bits == 8 || p_.bits == 4, "bits must be 8 or 4");
    require(p_.center.size() == p_.dim && p_.query_mean.size() == p_.dim && p_.step.size() == p_.dim,
            "means and steps must have dim values");
    require(!(p_.per_vector && p_.unit_scale), "a scale of 1 needs ranges per dimension");
    require(std::isfinite(p_.expansion) && p_.expansion >= 1, "expansion must be at least 1");
    const auto finite = [](const std::vector<float>& v) {
        return std::all_of(v.begin(), v.end(), [](float f) { return std::isfinite(f); });
    };
    require(finite(p_.center) && finite(p_.query_mean) && finite(p_.step), "parameters must be finite");
    // Above the smallest normal number, so that their inverses are finite.
    require(*std::min_element(p_.step.begin(), p_.step.end()) >= std::numeric_limits<float>::min(),
            "steps must be positive");
    layout_.bits = p_.bits;
    layout_.cells = (p_.dim + layout_.cell_dims() - 1) / layout_.cell_dims();
    make_form();
    inv_step_.resize(p_.dim);
    for (std::size_t i = 0; i < p_.dim; ++i) inv_step_[i] = 1.0f / p_.step[i];
    mean_offset_ = p_.query_mean;
    if (p_.metric == Metric::l2) {
        for (std::size_t i = 0; i < p_.dim; ++i) mean_offset_[i] -= p_.center[i];
    } else {
        mean_dot_ = dot(mean_offset_.data(), p_.center.data(), p_.dim);
    }
}

std::size_t ScalarCodec::memory_bytes() const {
    return (p_.center.size() + p_.query_mean.size() + p_.step.size() + inv_step_.size() + mean_offset_.size()) *
           sizeof(float);
}

std::size_t ScalarCodec::candidates(std::size_t k, std::size_t n) const {
    // The rank that a true neighbour can fall to grows with n, more slowly than n itself.
    const double growth = std::sqrt(std::max(1.0, static_cast<double>(n) / 100'000.0));
    const double wanted = std::ceil(static_cast<double>(p_.expansion) * growth * static_cast<double>(k)) + 16;
    return static_cast<std::size_t>(std::min<double>(wanted, static_cast<double>(n)));
}

// Codes of t, which is in steps. Per vector, the part of the range that the levels are spread over is
// the one of largest cosine between t and its value: with few levels it pays to cut off the tails.
void ScalarCodec::choose_levels(float* t, std::uint8_t* u, std::uint8_t* trial) const {
    constexpr float kParts[] = {1.0f, 0.9f, 0.8f, 0.7f, 0.6f, 0.5f};
    const float top = static_cast<float>(layout_.top());
    const auto round = [&](float inverse, std::uint8_t* out) {
        // Clamped before truncation; truncation equals floor for values >= 0.
        for (std::size_t i = 0; i < p_.dim; ++i) {
            const float level = std::min(std::max(t[i] * inverse + 0.5f * (top + 1), 0.0f), top);
            out[i] = static_cast<std::uint8_t>(static_cast<int>(level));
        }
    };
    if (!p_.per_vector) {
        round(1.0f, u);
        return;
    }
    float largest = 0.0f;
    for (std::size_t i = 0; i < p_.dim; ++i) largest = std::max(largest, std::fabs(t[i]));
    const float inverse = 0.5f * top / largest;
    if (!std::isfinite(inverse)) {  // nothing to tell from zero
        std::fill_n(t, p_.dim, 0.0f);
        round(1.0f, u);
        return;
    }
    round(inverse, u);
    if (p_.bits == 8) return;
    const auto fit = [&](const std::uint8_t* code) {  // squared cosine, up to a factor
        float tv = 0, vv = 0;
        for (std::size_t i = 0; i < p_.dim; ++i) {
            const float v = static_cast<float>(code[i]) - 0.5f * top;
            tv += t[i] * inverse * v;
            vv += v * v;
        }
        return tv > 0 ? tv * tv / vv : 0.0f;
    };
    float best = fit(u);
    for (std::size_t j = 1; j < std::size(kParts); ++j) {
        round(inverse / kParts[j], trial);
        if (const float f = fit(trial); f > best) {
            best = f;
            std::copy_n(trial, p_.dim, u);
        }
    }
}

void ScalarCodec::encode_row(float* z, float* t, std::uint8_t* u, std::uint8_t* trial,
                             std::uint8_t* code) const {
    for (std::size_t i = 0; i < p_.dim; ++i) t[i] = z[i] * inv_step_[i];
    choose_levels(t, u, trial);
    write_code(z, u, code);
}

void ScalarCodec::write_code(float* z, const std::uint8_t* u, std::uint8_t* code) const {
    std::memset(code, 0, layout_.code_bytes());
    if (p_.bits == 8) {
        std::copy_n(u, p_.dim, code);
    } else {
        for (std::size_t i = 0; i < p_.dim; ++i) code[i / 2] |= static_cast<std::uint8_t>(u[i] << (i % 2 * 4));
    }
    const double half = 0.5 * static_cast<double>(layout_.top());
    if (p_.unit_scale) {
        for (std::size_t i = 0; i < p_.dim; ++i) z[i] = static_cast<float>(p_.step[i] * (u[i] - half));
    }
    double zz = 0, zv = 0;
    for (std::size_t i = 0; i < p_.dim; ++i) {
        zz += static_cast<double>(z[i]) * z[i];
        zv += static_cast<double>(z[i]) * p_.step[i] * (u[i] - half);
    }
    // A degenerate row (z = 0) has nothing to scale.
    const double ratio = p_.unit_scale ? 1.0 : zv > 0 && zz > 0 ? zz / zv : 0.0;
    const float f = static_cast<float>(std::min(ratio, double{std::numeric_limits<float>::max()}));
    double add = dot(mean_offset_.data(), z, p_.dim);
    add = p_.metric == Metric::l2 ? 2 * add - zz : add + mean_dot_;
    const float add32 = static_cast<float>(add);
    std::memcpy(code + layout_.code_bytes(), &add32, 4);
    std::memcpy(code + layout_.code_bytes() + 4, &f, 4);
}

void ScalarCodec::encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort) const {
    parallel_for(x.rows, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> z(p_.dim), t(p_.dim);
        std::vector<std::uint8_t> u(p_.dim), trial(p_.dim);
        for (std::size_t r = begin; r < end; ++r) {
            copy_for_metric(x.row(r), p_.dim, p_.metric, z.data());
            for (std::size_t i = 0; i < p_.dim; ++i) z[i] -= p_.center[i];
            encode_row(z.data(), t.data(), u.data(), trial.data(), codes + r * code_bytes());
        }
    });
}

void ScalarCodec::add_to_score(std::uint8_t* code, float value) const {
    float add;
    std::memcpy(&add, code + layout_.code_bytes(), sizeof add);
    add += value;
    std::memcpy(code + layout_.code_bytes(), &add, sizeof add);
}

void ScalarCodec::encode_levels(const std::uint8_t* levels, std::size_t n, std::uint8_t* codes,
                                int num_threads) const {
    require(p_.unit_scale, "levels are codes only where all vectors have a scale of 1");
    parallel_for(n, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> z(p_.dim);
        for (std::size_t r = begin; r < end; ++r) {
            write_code(z.data(), levels + r * p_.dim, codes + r * code_bytes());
        }
    });
}

bool ScalarCodec::is_code(const std::uint8_t* code) const {
    float scalars[2];
    std::memcpy(scalars, code + layout_.code_bytes(), sizeof scalars);
    const bool scaled = p_.unit_scale ? scalars[1] == 1.0f : std::isfinite(scalars[1]) && scalars[1] >= 0;
    // The places past the last dim weigh nothing, but equal vectors have equal codes.
    const std::size_t used = p_.bits == 8 ? p_.dim : (p_.dim + 1) / 2;
    const bool filled = std::all_of(code + used, code + layout_.code_bytes(), [](std::uint8_t b) { return b == 0; }) &&
                        (p_.bits == 8 || p_.dim % 2 == 0 || code[used - 1] < 16);
    return filled && scaled && std::isfinite(scalars[0]);
}

void ScalarCodec::decode(const std::uint8_t* codes, std::size_t n, float* out, int num_threads) const {
    const kernel::ByteKernels& kernels = kernel::active().bytes;
    parallel_for(n, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t r = begin; r < end; ++r) {
            const std::uint8_t* code = codes + r * code_bytes();
            float f;
            std::memcpy(&f, code + layout_.code_bytes() + 4, 4);
            kernels.decode(layout_, code, p_.step.data(), p_.center.data(), f, p_.dim, out + r * p_.dim);
        }
    });
}

void ScalarCodec::pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const {
    constexpr std::size_t kCell = kernel::kCellBytes;
    std::memset(block, 0, block_bytes());
    for (std::size_t r = 0; r < n; ++r) {
        const std::uint8_t* code = codes + r * code_bytes();
        // The two scalars are cells like the others.
        for (std::size_t c = 0; c < code_bytes() / kCell; ++c) {
            std::memcpy(block + (c * kBlockRows + r) * kCell, code + c * kCell, kCell);
        }
    }
}

void ScalarCodec::unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const {
    constexpr std::size_t kCell = kernel::kCellBytes;
    for (std::size_t c = 0; c < code_bytes() / kCell; ++c) {
        std::memcpy(code + c * kCell, block + (c * kBlockRows + row) * kCell, kCell);
    }
}

template <class Take>
void ScalarCodec::weigh(ConstMatrix queries, int num_threads, Take take) const {
    parallel_for(queries.rows, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> q(p_.dim), w(p_.dim);
        const float factor = p_.metric == Metric::l2 ? 2.0f : 1.0f;
        for (std::size_t r = begin; r < end; ++r) {
            copy_for_metric(queries.row(r), p_.dim, p_.metric, q.data());
            for (std::size_t i = 0; i < p_.dim; ++i) w[i] = q[i] - p_.query_mean[i];
            double constant;
            if (p_.metric == Metric::l2) {
                for (std::size_t i = 0; i < p_.dim; ++i) q[i] -= p_.center[i];
                constant = -dot(q.data(), q.data(), p_.dim);
            } else {
                constant = dot(w.data(), p_.center.data(), p_.dim);
            }
            for (std::size_t i = 0; i < p_.dim; ++i) w[i] *= factor * p_.step[i];
            take(r, w, static_cast<float>(constant));
        }
    });
}

std::unique_ptr<Scorer> ScalarCodec::prepare(ConstMatrix queries, int num_threads) const {
    std::vector<ByteQuery> prepared(queries.rows);
    weigh(queries, num_threads, [&](std::size_t r, const std::vector<float>& w, float constant) {
        prepared[r] = ByteQuery(layout_, w, constant, p_.unit_scale);
    });
    return std::make_unique<ScalarScorer>(layout_, std::move(prepared));
}

// The row code is a row form already: bytes of one dim, or of two in their halves. Its scalars, which
// the last piece may reach into, meet weights of zero there.
void ScalarCodec::make_form() {
    kernel::FieldRun& run = form_.fields.runs[form_.fields.n_runs++];
    run.halves = static_cast<std::uint32_t>((layout_.code_bytes() + kernel::kHalfPiece - 1) / kernel::kHalfPiece);
    run.width = static_cast<std::uint8_t>(p_.bits);
    form_.add_at = layout_.code_bytes();
    form_.scale_at = form_.add_at + 4;
    form_.row_bytes = std::max(code_bytes(), form_.fields.bytes());
    for (std::size_t i = 0; i < p_.dim; ++i) {
        const std::size_t byte = p_.bits == 8 ? i : i / 2, sub = p_.bits == 8 ? 0 : i % 2;
        const std::size_t at = (byte / kernel::kPieceBytes * run.subs() + sub) * kernel::kPieceBytes;
        places_.push_back({static_cast<std::uint32_t>(at + byte % kernel::kPieceBytes)});
    }
}

void ScalarCodec::to_rows(const std::uint8_t* codes, std::size_t n, std::uint8_t* rows) const {
    for (std::size_t r = 0; r < n; ++r) {
        std::uint8_t* row = rows + r * row_bytes();
        std::memcpy(row, codes + r * code_bytes(), code_bytes());
        std::memset(row + code_bytes(), 0, row_bytes() - code_bytes());
    }
}

void ScalarCodec::from_rows(const std::uint8_t* rows, std::size_t n, std::uint8_t* codes) const {
    for (std::size_t r = 0; r < n; ++r) std::memcpy(codes + r * code_bytes(), rows + r * row_bytes(), code_bytes());
}

std::unique_ptr<RowScorer> ScalarCodec::prepare_rows(ConstMatrix queries, int num_threads) const {
    std::vector<FieldQuery> prepared(queries.rows);
    const std::vector<float> tops(p_.dim, static_cast<float>(layout_.top()));
    weigh(queries, num_threads, [&](std::size_t r, const std::vector<float>& w, float constant) {
        prepared[r] = make_field_query(form_, w, tops, places_, constant);
    });
    return field_scorer(form_, std::move(prepared));
}

std::unique_ptr<Scorer> ScalarCodec::prepare_codes(const std::uint8_t* codes, std::size_t n, int num_threads) const {
    std::vector<float> decoded(n * p_.dim);
    decode(codes, n, decoded.data(), num_threads);
    return prepare({decoded.data(), n, p_.dim}, num_threads);
}

void ScalarCodec::write(store::Writer& out) const {
    out.put_string("metric", to_string(p_.metric));
    out.put_int("dim", static_cast<std::int64_t>(p_.dim));
    out.put_int("bits", p_.bits);
    out.put_int("per_vector", p_.per_vector ? 1 : 0);
    if (p_.unit_scale) out.put_int("unit_scale", 1);
    out.put_double("expansion", static_cast<double>(p_.expansion));
    out.put<float>("center", p_.center);
    out.put<float>("query_mean", p_.query_mean);
    out.put<float>("step", p_.step);
}

std::shared_ptr<const Codec> ScalarCodec::read(const store::Reader& in) {
    ScalarParams p;
    try {
        p.metric = read_metric(in);
        p.dim = static_cast<std::size_t>(in.get_int("dim", 1, 65'536));
        p.bits = static_cast<int>(in.get_int("bits", 4, 8));
        p.per_vector = in.get_int("per_vector", 0, 1) == 1;
        p.unit_scale = in.has_key("unit_scale") && in.get_int("unit_scale", 0, 1) == 1;
        p.expansion = static_cast<float>(in.get_double("expansion"));
        const auto copy = [&](const char* name) {
            const auto values = in.array<float>(name, p.dim);
            return std::vector<float>(values.begin(), values.end());
        };
        p.center = copy("center");
        p.query_mean = copy("query_mean");
        p.step = copy("step");
        return std::make_shared<ScalarCodec>(std::move(p));
    } catch (const Error& e) {
        if (e.kind() == ErrorKind::value) in.fail("meta", e.what());
        throw;
    }
}

}  // namespace residua::codec
