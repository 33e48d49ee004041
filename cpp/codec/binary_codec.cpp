// SPDX-License-Identifier: Apache-2.0
#include "codec/binary_codec.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "codec/hamming_scan.hpp"
#include "codec/normalize.hpp"
#include "codec/plane_query.hpp"
#include "codec/plane_scan.hpp"
#include "core/aligned.hpp"
#include "core/parallel.hpp"
#include "kernel/dispatch.hpp"
#include "store/container.hpp"

namespace residua::codec {
namespace {

constexpr std::size_t kChunk = 1024;

// Hamming distance between codes.
class HammingScorer final : public Scorer {
public:
    HammingScorer(const std::uint8_t* codes, std::size_t n, std::size_t dim, std::size_t bytes)
        : queries_(codes, n, bytes), dim_(dim) {}

    std::size_t size() const override { return queries_.size(); }

    void top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
               std::size_t q_begin, std::size_t q_end, TopK* pools) const override {
        hamming_topk(kernel::active().bits, queries_, q_begin, q_end, codes.data + row_begin * queries_.bytes(),
                     {row_begin, row_end - row_begin, allowed}, dim_, pools);
    }

    void scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                float* out) const override {
        float values[kBlockRows];
        for (std::size_t r = row_begin; r < row_end; r += kBlockRows) {
            hamming_scores(kernel::active().bits, queries_, query, codes.data + r * queries_.bytes(), dim_, values);
            std::copy_n(values, std::min(kBlockRows, row_end - r), out + (r - row_begin));
        }
    }

private:
    HammingQueries queries_;
    std::size_t dim_;
};

// Float query against signs: the strips of the codes are those of one plane, to which whole groups of
// dims and the scalars are added on the way. The work of that is shared by all queries of a call.
class SignScorer final : public Scorer {
public:
    SignScorer(std::size_t bytes, kernel::PlaneLayout layout, std::vector<PlaneQuery> queries)
        : bytes_(bytes), layout_(layout), queries_(std::move(queries)) {}

    std::size_t size() const override { return queries_.size(); }

    void top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
               std::size_t q_begin, std::size_t q_end, TopK* pools) const override {
        const std::span<const PlaneQuery> queries = std::span(queries_).subspan(q_begin, q_end - q_begin);
        AlignedVector<std::uint8_t> blocks(kChunk / kBlockRows * layout_.block_bytes());
        for (std::size_t r = row_begin; r < row_end; r += kChunk) {
            const std::size_t n = std::min(kChunk, row_end - r);
            lay_out(codes, r, n, blocks.data());
            plane_topk(kernel::active(), layout_, blocks.data(), {r, n, allowed}, queries, pools);
        }
    }

    void scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                float* out) const override {
        AlignedVector<std::uint8_t> block(layout_.block_bytes());
        float values[kBlockRows];
        for (std::size_t r = row_begin; r < row_end; r += kBlockRows) {
            const std::size_t n = std::min(kBlockRows, row_end - r);
            lay_out(codes, r, n, block.data());
            score_block(kernel::active().planes, layout_, queries_[query], block.data(), values);
            std::copy_n(values, n, out + (r - row_begin));
        }
    }

private:
    void lay_out(BlockView codes, std::size_t row, std::size_t n, std::uint8_t* blocks) const {
        constexpr std::uint16_t kHalfOne = 0x3C00;
        const std::size_t strip_bytes = kBlockRows * bytes_;
        for (std::size_t r = 0; r < n; r += kBlockRows, blocks += layout_.block_bytes()) {
            std::memcpy(blocks, codes.data + (row + r) * bytes_, strip_bytes);
            std::memset(blocks + strip_bytes, 0, layout_.scale_offset() - strip_bytes);
            std::fill_n(reinterpret_cast<std::uint16_t*>(blocks + layout_.scale_offset()), kBlockRows, kHalfOne);
        }
    }

    std::size_t bytes_;
    kernel::PlaneLayout layout_;
    std::vector<PlaneQuery> queries_;
};

}  // namespace

std::size_t BinaryCodec::candidates(std::size_t k, std::size_t n) const { return std::min(n, 20 * k + 100); }

float BinaryCodec::amplitude() const {
    return metric_ == Metric::cosine ? static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim_))) : 1.0f;
}

void BinaryCodec::encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort) const {
    parallel_for(x.rows, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t r = begin; r < end; ++r) {
            const float* v = x.row(r);
            std::uint8_t* code = codes + r * code_bytes();
            for (std::size_t b = 0; b < code_bytes(); ++b) {
                unsigned byte = 0;
                for (std::size_t j = b * 8; j < b * 8 + 8; ++j) byte = byte << 1 | (j < dim_ && v[j] > 0 ? 1u : 0u);
                code[b] = static_cast<std::uint8_t>(byte);
            }
        }
    });
}

void BinaryCodec::decode(const std::uint8_t* codes, std::size_t n, float* out, int) const {
    const float a = amplitude();
    for (std::size_t r = 0; r < n; ++r) {
        for (std::size_t j = 0; j < dim_; ++j) {
            out[r * dim_ + j] = (codes[r * code_bytes() + j / 8] >> (7 - j % 8)) & 1 ? a : -a;
        }
    }
}

void BinaryCodec::pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const {
    kernel::active().planes.pack(code_bytes(), codes, code_bytes(), n, block);
}

void BinaryCodec::unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const {
    kernel::active().planes.unpack(code_bytes(), block, row, code);
}

std::unique_ptr<Scorer> BinaryCodec::prepare(ConstMatrix queries, int num_threads) const {
    kernel::PlaneLayout layout;
    layout.planes = 1;
    layout.groups[0] = static_cast<std::uint32_t>((dim_ + kernel::kGroupDims - 1) / kernel::kGroupDims);
    std::vector<PlaneQuery> prepared(queries.rows);
    parallel_for(queries.rows, 64, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> w(layout.groups[0] * kernel::kGroupDims);
        for (std::size_t i = begin; i < end; ++i) {
            copy_for_metric(queries.row(i), dim_, metric_, w.data());
            double norm2 = 0;
            for (std::size_t j = 0; j < dim_; ++j) norm2 += static_cast<double>(w[j]) * w[j];
            // A sign is 2 (u - 1/2) times the amplitude; l2 is 2 <q, v> - |q|^2 - |v|^2.
            const bool l2 = metric_ == Metric::l2;
            for (std::size_t j = 0; j < dim_; ++j) w[j] *= (l2 ? 4.0f : 2.0f) * amplitude();
            const double constant = l2 ? -norm2 - static_cast<double>(dim_) : 0.0;
            prepared[i] = PlaneQuery(layout, w, static_cast<float>(constant));
        }
    });
    return std::make_unique<SignScorer>(code_bytes(), layout, std::move(prepared));
}

std::unique_ptr<Scorer> BinaryCodec::prepare_codes(const std::uint8_t* codes, std::size_t n, int) const {
    return std::make_unique<HammingScorer>(codes, n, dim_, code_bytes());
}

void BinaryCodec::write(store::Writer& out) const {
    out.put_string("metric", to_string(metric_));
    out.put_int("dim", static_cast<std::int64_t>(dim_));
}

std::shared_ptr<const Codec> BinaryCodec::read(const store::Reader& in) {
    const auto dim = static_cast<std::size_t>(in.get_int("dim", 1, 65'536));
    return std::make_shared<BinaryCodec>(dim, read_metric(in));
}

void hamming(const std::uint8_t* a, std::size_t na, const std::uint8_t* b, std::size_t nb, std::size_t bytes,
             std::int32_t* out, int num_threads) {
    parallel_for(na, 16, num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; i += kernel::kHammingTile) {
            const std::size_t tile = std::min(kernel::kHammingTile, end - i);
            kernel::active().bits.hamming(a + i * bytes, tile, b, nb, bytes, out + i * nb);
        }
    });
}

}  // namespace residua::codec
