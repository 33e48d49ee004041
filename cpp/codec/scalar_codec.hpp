// SPDX-License-Identifier: Apache-2.0
// Scalar codes of 8 or 4 bits per dim that saturate. With top = 2^bits - 1, the code u of dim i stands for
//
//   x_i  ~  c_i + f * step_i * (u_i - top / 2),      f = |x - c|^2 / <x - c, step * (u - top / 2)>
//
// Two ways to choose the levels, one per codec (docs/codecs.md has the measurements):
//   per vector     the range of (x - c) / step, of its largest absolute value or a part of it, is spread
//                  over the levels; f is, up to rounding, the size of a level;
//   per dimension  step is the size of a dim's levels, the same for all vectors; f is close to 1.
// Per dimension f may be 1 for all vectors (unit_scale): a code then stands for the levels themselves, as
// scalar codes of other libraries do, and scores are those of the decoded vector. Otherwise f makes the estimate exact along x - c itself (the unbiased scale of RaBitQ, SIGMOD 2024), and
// one float32 `add` holds the part of the score that is known exactly: with qm the mean of the queries
//   cosine, ip   <q, x>   = <q - qm, c> + <qm, x> + <q - qm, x - c>
//   l2           -|q-x|^2 = -|q - c|^2 + (2 <qm - c, x - c> - |x - c|^2) + 2 <q - qm, x - c>.
//
// Row code: the codes (kernel/byte_kernels.hpp), float32 add, float32 f.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "codec/codec.hpp"
#include "kernel/byte_kernels.hpp"

namespace residua::codec {

// Everything that defines a codec.
struct ScalarParams {
    Metric metric = Metric::cosine;
    std::size_t dim = 0;
    int bits = 8;                   // 8 or 4
    bool per_vector = true;
    std::vector<float> center;      // c, dim
    std::vector<float> query_mean;  // qm, dim
    std::vector<float> step;        // dim; positive
    bool unit_scale = false;        // f = 1; per dimension only
    float expansion = 4;            // candidates per result that re-ranking needs at 100,000 rows
};

class ScalarCodec final : public Codec {
public:
    static constexpr const char* kKind = "scalar_codec";

    // Validates everything; throws ErrorKind::value.
    explicit ScalarCodec(ScalarParams params);
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
    bool is_code(const std::uint8_t* code) const override;
    bool settles_decoded() const override { return p_.unit_scale; }
    // Ranges that others have fitted to residuals.
    bool gains_from_residuals() const override { return p_.unit_scale; }
    void add_to_score(std::uint8_t* code, float value) const override;
    std::unique_ptr<Scorer> prepare(ConstMatrix queries, int num_threads) const override;
    std::unique_ptr<Scorer> prepare_codes(const std::uint8_t* codes, std::size_t n, int num_threads) const override;
    std::size_t prefix_dims() const override { return p_.dim; }
    std::unique_ptr<Scorer> prepare_prefix(ConstMatrix queries, std::size_t dims, int num_threads) const override;
    // All dims have all planes.
    std::optional<LinearForm> linear_form() const override;
    void linear_rows(BlockView codes, std::size_t row_begin, std::size_t row_end, std::uint8_t* planes, float* scale,
                     float* add) const override;
    std::size_t row_bytes() const override { return form_.row_bytes; }
    void to_rows(const std::uint8_t* codes, std::size_t n, std::uint8_t* rows) const override;
    void from_rows(const std::uint8_t* rows, std::size_t n, std::uint8_t* codes) const override;
    std::unique_ptr<RowScorer> prepare_rows(ConstMatrix queries, int num_threads) const override;
    void write(store::Writer& out) const override;

    const ScalarParams& params() const { return p_; }

    // Row codes of levels (n x dim, 0 … top) that others have chosen; unit_scale only.
    void encode_levels(const std::uint8_t* levels, std::size_t n, std::uint8_t* codes, int num_threads) const;

private:
    static constexpr std::size_t kScalarBytes = 8;  // float32 add, float32 f

    void encode_row(float* z, float* t, std::uint8_t* u, std::uint8_t* trial, std::uint8_t* code) const;
    void choose_levels(float* t, std::uint8_t* u, std::uint8_t* trial) const;
    // z becomes what the code stands for, around the centre, where all vectors have f = 1.
    void write_code(float* z, const std::uint8_t* u, std::uint8_t* code) const;

    // take(i, weights, constant) for every query: one weight per dim, multiplied by its step.
    template <class Take>
    void weigh(ConstMatrix queries, int num_threads, Take take) const;
    void make_form();

    ScalarParams p_;
    kernel::ByteLayout layout_;
    FieldForm form_;
    std::vector<std::vector<std::uint32_t>> places_;  // of the weight of every dim in the row form
    std::vector<float> inv_step_;
    std::vector<float> mean_offset_;  // qm - c for l2, qm otherwise
    double mean_dot_ = 0;             // <mean_offset, c>: add = <mean_offset, x - c> + this (not l2)
};

}  // namespace residua::codec
