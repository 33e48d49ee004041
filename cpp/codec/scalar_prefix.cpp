// SPDX-License-Identifier: Apache-2.0
// Scalar codes by their first dims. The cells of those stand at the start of a block, but the score that
// its `add` completes is of all dims, so the cells are copied, a cache-sized chunk at a time, beside
// scalars of the prefix: for l2 the squared length of the shortened vector around the centre, 0 otherwise.
// Codes do not hold what cosine divides by; its prefixes rank by the product with the unit vector.
#include <algorithm>
#include <cstring>
#include <span>

#include "codec/byte_query.hpp"
#include "codec/normalize.hpp"
#include "codec/scalar_codec.hpp"
#include "core/aligned.hpp"
#include "core/parallel.hpp"
#include "kernel/dispatch.hpp"

namespace residua::codec {
namespace {

using kernel::ByteLayout;
using kernel::kByteRows;
using kernel::kCellBytes;

class ScalarPrefixScorer final : public Scorer {
public:
    // squares: step^2 of the dims of `part`, zero past the prefix; empty where `add` is zero.
    ScalarPrefixScorer(const ByteLayout& all, const ByteLayout& part, std::vector<float> squares,
                       std::vector<ByteQuery> queries)
        : all_(all), part_(part), squares_(std::move(squares)), queries_(std::move(queries)) {}

    std::size_t size() const override { return queries_.size(); }

    void top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
               std::size_t q_begin, std::size_t q_end, TopK* pools) const override {
        constexpr std::size_t kChunk = 1024;
        AlignedVector<std::uint8_t> blocks(kChunk / kByteRows * part_.block_bytes());
        for (std::size_t r = row_begin; r < row_end; r += kChunk) {
            const BlockRows rows(r, std::min(kChunk, row_end - r), allowed);
            for (std::size_t b = 0; b < rows.blocks(); ++b) {
                if (rows.mask(b) != 0) lay_out(codes, r + b * kByteRows, blocks.data() + b * part_.block_bytes());
            }
            byte_topk(kernel::active().bytes, part_, blocks.data(), rows,
                      {std::span(queries_).subspan(q_begin, q_end - q_begin), pools});
        }
    }

    void scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                float* out) const override {
        AlignedVector<std::uint8_t> block(part_.block_bytes());
        float values[kByteRows];
        for (std::size_t r = row_begin; r < row_end; r += kByteRows) {
            lay_out(codes, r, block.data());
            queries_[query].scores(kernel::active().bytes, part_, block.data(), ~0u, values);
            std::copy_n(values, std::min(kByteRows, row_end - r), out + (r - row_begin));
        }
    }

private:
    void lay_out(BlockView codes, std::size_t row, std::uint8_t* out) const {
        const std::uint8_t* block = codes.data + row / kByteRows * all_.block_bytes();
        std::memcpy(out, block, part_.add_offset());
        std::memcpy(out + part_.scale_offset(), block + all_.scale_offset(), kByteRows * sizeof(float));
        float add[kByteRows] = {};
        if (!squares_.empty()) squared_lengths(block, block + all_.scale_offset(), add);
        for (float& a : add) a = -a;
        std::memcpy(out + part_.add_offset(), add, sizeof add);
    }

    void squared_lengths(const std::uint8_t* cells, const std::uint8_t* scale, float* out) const {
        const float half = 0.5f * static_cast<float>(all_.top());
        const std::size_t per_byte = all_.cell_dims() / kCellBytes;
        const int shift = all_.bits == 8 ? 0 : 4;
        for (std::size_t c = 0; c < part_.cells; ++c) {
            const float* squares = squares_.data() + c * all_.cell_dims();
            for (std::size_t r = 0; r < kByteRows; ++r, cells += kCellBytes) {
                for (std::size_t i = 0; i < kCellBytes * per_byte; ++i) {
                    const unsigned byte = cells[i / per_byte];
                    const float v = static_cast<float>(byte >> (i % per_byte) * shift & all_.top()) - half;
                    out[r] += squares[i] * (v * v);
                }
            }
        }
        for (std::size_t r = 0; r < kByteRows; ++r) {
            float f;
            std::memcpy(&f, scale + r * sizeof f, sizeof f);
            out[r] *= f * f;
        }
    }

    ByteLayout all_, part_;
    std::vector<float> squares_;
    std::vector<ByteQuery> queries_;
};

}  // namespace

std::unique_ptr<Scorer> ScalarCodec::prepare_prefix(ConstMatrix queries, std::size_t dims, int num_threads) const {
    const bool l2 = p_.metric == Metric::l2;
    ByteLayout part = layout_;
    part.cells = (dims + layout_.cell_dims() - 1) / layout_.cell_dims();
    std::vector<float> squares(l2 ? part.dims() : 0, 0.0f);
    for (std::size_t i = 0; l2 && i < dims; ++i) squares[i] = p_.step[i] * p_.step[i];
    std::vector<ByteQuery> prepared(queries.rows);
    parallel_for(queries.rows, 64, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> q(dims);
        for (std::size_t r = begin; r < end; ++r) {
            copy_for_metric(queries.row(r), dims, p_.metric, q.data());
            double constant = 0;
            for (std::size_t i = 0; i < dims; ++i) {
                if (l2) q[i] -= p_.center[i];
                constant += static_cast<double>(q[i]) * (l2 ? -q[i] : p_.center[i]);
                q[i] *= (l2 ? 2.0f : 1.0f) * p_.step[i];
            }
            prepared[r] = ByteQuery(part, q, static_cast<float>(constant));
        }
    });
    return std::make_unique<ScalarPrefixScorer>(layout_, part, std::move(squares), std::move(prepared));
}

}  // namespace residua::codec
