// SPDX-License-Identifier: Apache-2.0
// Recurrent binary codes: a base binary code plus residual binary codes at weights 1, 1/2, 1/4, …
// Taken together the levels of a dim are a uniform mid-rise quantizer, so the code of dim i is an
// unsigned number u_i of b bits and its value v_i = D_i (u_i - (2^b - 1) / 2).
//
//   y = M (x - c)                         M: dims of decreasing weighted variance, groups of 32
//   <q - qm, x - c>  ~  f <Mq (q - qm), v>    Mq need not be the inverse of M
//
// Per vector two scalars: f (float16) and `add` (float32), the part of the score that is known
// exactly. With c the mean of the vectors and qm the mean of the queries
//   cosine, ip   <q, x>   = <q - qm, c> + <qm, x> + <q - qm, x - c>
//   l2           -|q-x|^2 = -|q - c|^2 + (2 <qm - c, x - c> - |x - c|^2) + 2 <q - qm, x - c>.
// docs/codecs.md derives the fit (python/residua/_recurrent_fit.py).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "codec/codec.hpp"
#include "codec/plane_query.hpp"
#include "kernel/matmul.hpp"
#include "kernel/plane_kernels.hpp"

namespace residua::codec {

// Everything that defines a codec. Matrices are row-major; rows = 32 * group_bits.size().
struct RecurrentParams {
    Metric metric = Metric::cosine;
    std::size_t dim = 0;
    double bits = 0;                        // as the user asked, for repr
    std::vector<std::uint8_t> group_bits;   // 1 … 8, non-increasing
    std::vector<float> center;              // c, dim
    std::vector<float> query_mean;          // qm, dim
    std::vector<float> encode_map;          // M, rows x dim
    std::vector<float> query_map;           // Mq, rows x dim
    std::vector<float> step;                // D, rows; positive
    std::vector<float> levels;              // per group 2^bits values in steps: what decode puts in place of u - (2^b - 1) / 2
    float expansion = 4;                    // candidates per result that re-ranking needs at 100,000 rows
};

class RecurrentCodec final : public Codec {
public:
    static constexpr const char* kKind = "recurrent_codec";

    // Validates everything; throws ErrorKind::value.
    explicit RecurrentCodec(RecurrentParams params);
    static std::shared_ptr<const Codec> read(const store::Reader& in);

    std::string kind() const override { return kKind; }
    std::size_t dim() const override { return p_.dim; }
    std::size_t code_bytes() const override { return layout_.code_bytes() + kScalarBytes; }
    Metric metric() const override { return p_.metric; }
    std::size_t memory_bytes() const override;
    std::size_t candidates(std::size_t k, std::size_t n) const override;

    void encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort effort) const override;
    void decode(const std::uint8_t* codes, std::size_t n, float* out, int num_threads) const override;
    void pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const override;
    void unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const override;
    std::unique_ptr<Scorer> prepare(ConstMatrix queries, int num_threads) const override;
    std::unique_ptr<Scorer> prepare_codes(const std::uint8_t* codes, std::size_t n, int num_threads) const override;
    void write(store::Writer& out) const override;

    const RecurrentParams& params() const { return p_; }
    const kernel::PlaneLayout& layout() const { return layout_; }

private:
    std::unique_ptr<Scorer> prepare(ConstMatrix queries, WeightBits weight_bits, int num_threads) const;
    static constexpr std::size_t kScalarBytes = 6;  // float32 add, float16 f

    std::size_t rows() const { return p_.step.size(); }
    void encode_row(const float* z, const float* y, Effort effort, std::uint8_t* code) const;
    struct Moments {
        double yv = 0, vv = 0;  // <y, v>, |v|^2
    };
    Moments round_levels(const float* y, float factor, std::uint8_t* u) const;
    Moments search_scale(const float* y, std::uint8_t* u) const;
    void refine_levels(const float* y, Moments& m, std::uint8_t* u) const;
    void unpack_values(const std::uint8_t* code, float* v) const;

    RecurrentParams p_;
    kernel::PlaneLayout layout_;
    kernel::PackedPanels encode_panels_;  // M
    kernel::PackedPanels query_panels_;   // Mq
    kernel::PackedPanels decode_panels_;  // transposed Mq
    std::vector<float> inv_step_;
    std::vector<float> mean_offset_;      // qm - c for l2, qm otherwise
    double mean_dot_ = 0;                 // <mean_offset, c>: add = <mean_offset, x - c> + this (not l2)
};

}  // namespace residua::codec
