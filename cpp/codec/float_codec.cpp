// SPDX-License-Identifier: Apache-2.0
#include "codec/float_codec.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "kernel/dispatch.hpp"
#include "store/container.hpp"

namespace residua::codec {
namespace {

constexpr std::size_t kChunk = 256;

class FloatScorer final : public Scorer {
public:
    FloatScorer(std::vector<float> queries, std::size_t dim, FloatCodec::Type type, Metric metric)
        : queries_(std::move(queries)), dim_(dim), type_(type), metric_(metric) {}

    std::size_t size() const override { return queries_.size() / dim_; }
    std::span<const float> float_query(std::size_t query) const override {
        return std::span(queries_).subspan(query * dim_, dim_);
    }

    void top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
               std::size_t q_begin, std::size_t q_end, TopK* pools) const override {
        for (std::size_t r = row_begin; r < row_end; ++r) {
            if (allowed != nullptr && !allowed->test(r)) continue;
            for (std::size_t q = q_begin; q < q_end; ++q) {
                const float s = score(codes, r, q);
                if (s >= pools[q - q_begin].threshold()) pools[q - q_begin].push(s, static_cast<std::uint32_t>(r));
            }
        }
    }

    void scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                float* out) const override {
        for (std::size_t r = row_begin; r < row_end; ++r) out[r - row_begin] = score(codes, r, query);
    }

    void scores_of(BlockView codes, std::span<const std::uint32_t> rows, std::size_t query,
                   float* out) const override {
        for (std::size_t i = 0; i < rows.size(); ++i) out[i] = score(codes, rows[i], query);
    }

private:
    float score(BlockView codes, std::size_t row, std::size_t query) const {
        const kernel::FloatKernels& k = kernel::active().floats;
        const float* q = queries_.data() + query * dim_;
        if (type_ == FloatCodec::Type::f32) {
            const auto* x = reinterpret_cast<const float*>(codes.data) + row * dim_;
            return metric_ == Metric::l2 ? -k.l2_f32(q, x, dim_) : k.dot_f32(q, x, dim_);
        }
        const auto* x = reinterpret_cast<const std::uint16_t*>(codes.data) + row * dim_;
        if (type_ == FloatCodec::Type::bf16) {
            return metric_ == Metric::l2 ? -k.l2_bf16(q, x, dim_) : k.dot_bf16(q, x, dim_);
        }
        return metric_ == Metric::l2 ? -k.l2_f16(q, x, dim_) : k.dot_f16(q, x, dim_);
    }

    std::vector<float> queries_;
    std::size_t dim_;
    FloatCodec::Type type_;
    Metric metric_;
};

}  // namespace

std::size_t FloatCodec::candidates(std::size_t k, std::size_t n) const {
    return std::min(n, type_ == Type::f32 ? k + 8 : type_ == Type::f16 ? 2 * k + 16 : 4 * k + 32);
}

void FloatCodec::encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort) const {
    const kernel::FloatKernels& floats = kernel::active().floats;
    const bool wide = type_ == Type::bf16;
    parallel_for(x.rows, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> row(dim_);
        for (std::size_t r = begin; r < end; ++r) {
            copy_for_metric(x.row(r), dim_, metric_, row.data());
            std::uint8_t* code = codes + r * code_bytes();
            if (type_ == Type::f32) {
                std::memcpy(code, row.data(), code_bytes());
                continue;
            }
            std::vector<std::uint16_t> half(dim_);
            (wide ? floats.f32_to_bf16 : floats.f32_to_f16)(row.data(), half.data(), dim_);
            const std::uint16_t infinity = wide ? 0x7F80u : 0x7C00u;
            for (std::uint16_t h : half) {
                if ((h & infinity) != infinity) continue;
                throw Error(ErrorKind::value, "row " + std::to_string(r) + " has a value beyond " +
                                                  (wide ? "bfloat16 (3.39e38)" : "float16 (65504)") +
                                                  "; use FloatCodec(dim, 'float32')");
            }
            std::memcpy(code, half.data(), code_bytes());
        }
    });
}

bool FloatCodec::is_code(const std::uint8_t* code) const {
    std::vector<float> x(dim_);
    decode(code, 1, x.data(), 1);
    return std::all_of(x.begin(), x.end(), [](float v) { return std::isfinite(v); });
}

void FloatCodec::decode(const std::uint8_t* codes, std::size_t n, float* out, int) const {
    if (type_ == Type::f32) {
        std::memcpy(out, codes, n * code_bytes());
    } else {
        std::vector<std::uint16_t> half(dim_);
        for (std::size_t r = 0; r < n; ++r) {
            std::memcpy(half.data(), codes + r * code_bytes(), code_bytes());
            const kernel::FloatKernels& k = kernel::active().floats;
            (type_ == Type::bf16 ? k.bf16_to_f32 : k.f16_to_f32)(half.data(), out + r * dim_, dim_);
        }
    }
}

void FloatCodec::pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const {
    std::memcpy(block, codes, n * code_bytes());
    std::memset(block + n * code_bytes(), 0, (kBlockRows - n) * code_bytes());
}

void FloatCodec::unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const {
    std::memcpy(code, block + row * code_bytes(), code_bytes());
}

std::unique_ptr<Scorer> FloatCodec::prepare(ConstMatrix queries, int) const {
    std::vector<float> q(queries.rows * dim_);
    for (std::size_t i = 0; i < queries.rows; ++i) copy_for_metric(queries.row(i), dim_, metric_, q.data() + i * dim_);
    return std::make_unique<FloatScorer>(std::move(q), dim_, type_, metric_);
}

std::unique_ptr<Scorer> FloatCodec::prepare_codes(const std::uint8_t* codes, std::size_t n, int num_threads) const {
    std::vector<float> q(n * dim_);
    decode(codes, n, q.data(), num_threads);
    return prepare({q.data(), n, dim_}, num_threads);
}

std::optional<store::RowSource> FloatCodec::rows(BlockView codes) const {
    store::RowSource out;
    out.data = codes.data;
    out.type = type_ == Type::f32 ? store::RowType::f32 : type_ == Type::f16 ? store::RowType::f16 : store::RowType::bf16;
    out.n = codes.n;
    out.dim = dim_;
    out.stride_bytes = code_bytes();
    return out;
}

void FloatCodec::write(store::Writer& out) const {
    out.put_string("metric", to_string(metric_));
    out.put_int("dim", static_cast<std::int64_t>(dim_));
    out.put_int("type", static_cast<std::int64_t>(type_));
}

std::shared_ptr<const Codec> FloatCodec::read(const store::Reader& in) {
    const auto dim = static_cast<std::size_t>(in.get_int("dim", 1, 65'536));
    const auto type = static_cast<Type>(in.get_int("type", 0, 2));
    return std::make_shared<FloatCodec>(dim, type, read_metric(in));
}

}  // namespace residua::codec
