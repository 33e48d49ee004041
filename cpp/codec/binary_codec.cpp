// SPDX-License-Identifier: Apache-2.0
#include "codec/binary_codec.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <span>

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
        : queries_(codes, codes + n * bytes), n_(n), dim_(dim), bytes_(bytes) {}

    std::size_t size() const override { return n_; }

    void top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
               std::size_t q_begin, std::size_t q_end, TopK* pools) const override {
        for (std::size_t q = q_begin; q < q_end; q += kernel::kHammingTile) {
            scan_tile(codes, row_begin, row_end, allowed, q, std::min(kernel::kHammingTile, q_end - q),
                      pools + (q - q_begin));
        }
    }

    void scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                float* out) const override {
        std::vector<std::int32_t> distance(row_end - row_begin);
        kernel::active().bits.hamming(queries_.data() + query * bytes_, 1, codes.data + row_begin * bytes_,
                                      distance.size(), bytes_, distance.data());
        std::transform(distance.begin(), distance.end(), out, [this](std::int32_t d) { return score(d); });
    }

private:
    float score(std::int32_t distance) const {
        return static_cast<float>(static_cast<std::int64_t>(dim_) - 2 * static_cast<std::int64_t>(distance));
    }
    // The largest distance whose score still reaches the pool.
    std::int32_t limit(const TopK& pool) const {
        const float t = pool.threshold();
        if (t == kWorstScore) return static_cast<std::int32_t>(dim_);
        return static_cast<std::int32_t>(std::floor((static_cast<double>(dim_) - static_cast<double>(t)) / 2));
    }

    void scan_tile(BlockView codes, std::size_t row, std::size_t row_end, const Bitset* allowed, std::size_t q,
                   std::size_t tile, TopK* pools) const {
        std::int32_t limits[kernel::kHammingTile];
        std::uint32_t mask[kernel::kHammingTile];
        std::int32_t distance[kernel::kHammingTile * kBlockRows];
        for (std::size_t i = 0; i < tile; ++i) limits[i] = limit(pools[i]);
        while (row < row_end) {
            row += kernel::active().bits.hamming_scan(queries_.data() + q * bytes_, tile, codes.data + row * bytes_,
                                                      row_end - row, bytes_, limits, mask, distance);
            if (row >= row_end) return;
            const std::uint32_t live = allowed != nullptr ? allowed->block32(row / kBlockRows) : ~0u;
            for (std::size_t i = 0; i < tile; ++i) {
                for (std::uint32_t m = mask[i] & live; m != 0; m &= m - 1) {
                    const auto j = static_cast<std::size_t>(std::countr_zero(m));
                    pools[i].push(score(distance[i * kBlockRows + j]), static_cast<std::uint32_t>(row + j));
                }
                limits[i] = limit(pools[i]);
            }
            row += kBlockRows;
        }
    }

    std::vector<std::uint8_t> queries_;
    std::size_t n_, dim_, bytes_;
};

// Float query against signs: bit planes of one level, laid out on the way. The work of that is
// shared by all queries of a call.
class SignScorer final : public Scorer {
public:
    SignScorer(std::size_t bytes, kernel::PlaneLayout layout, std::vector<PlaneQuery> queries)
        : bytes_(bytes), layout_(layout), queries_(std::move(queries)) {}

    std::size_t size() const override { return queries_.size(); }

    void top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
               std::size_t q_begin, std::size_t q_end, TopK* pools) const override {
        AlignedVector<std::uint8_t> blocks;
        for (std::size_t r = row_begin; r < row_end; r += kChunk) {
            const std::size_t n = std::min(kChunk, row_end - r);
            lay_out(codes, r, n, blocks);
            plane_topk(kernel::active().planes, layout_, blocks.data(), r, n, allowed, std::span(queries_).subspan(q_begin, q_end - q_begin),
                       pools);
        }
    }

    void scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                float* out) const override {
        AlignedVector<std::uint8_t> block;
        float values[kBlockRows];
        for (std::size_t r = row_begin; r < row_end; r += kBlockRows) {
            const std::size_t n = std::min(kBlockRows, row_end - r);
            lay_out(codes, r, n, block);
            score_block(kernel::active().planes, layout_, queries_[query],
                        block.data(), values);
            std::copy_n(values, n, out + (r - row_begin));
        }
    }

private:
    void lay_out(BlockView codes, std::size_t row, std::size_t n, AlignedVector<std::uint8_t>& blocks) const {
        const std::size_t padded = layout_.code_bytes();
        const std::size_t n_blocks = (n + kBlockRows - 1) / kBlockRows;
        blocks.resize(n_blocks * layout_.block_bytes());
        std::vector<std::uint8_t> rows(kBlockRows * padded);
        for (std::size_t b = 0; b < n_blocks; ++b) {
            const std::size_t have = std::min(kBlockRows, n - b * kBlockRows);
            for (std::size_t j = 0; j < have; ++j) {
                std::memcpy(rows.data() + j * padded, codes.data + (row + b * kBlockRows + j) * bytes_, bytes_);
            }
            std::uint8_t* block = blocks.data() + b * layout_.block_bytes();
            kernel::active().planes.pack(layout_, rows.data(), padded, have, block);
            std::memset(block + layout_.strip_bytes(), 0, kBlockRows * 4);
            constexpr std::uint16_t kHalfOne = 0x3C00;
            auto* scale = reinterpret_cast<std::uint16_t*>(block + layout_.strip_bytes() + kBlockRows * 4);
            std::fill_n(scale, kBlockRows, kHalfOne);
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
    std::memcpy(block, codes, n * code_bytes());
    std::memset(block + n * code_bytes(), 0, (kBlockRows - n) * code_bytes());
}

void BinaryCodec::unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const {
    std::memcpy(code, block + row * code_bytes(), code_bytes());
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
