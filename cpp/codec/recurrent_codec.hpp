// SPDX-License-Identifier: Apache-2.0
// Recurrent binary codes: a base binary code plus residual binary codes at weights 1, 1/2, 1/4, …
// Taken together the levels of a dim are a uniform mid-rise quantizer, so the code of dim i is an
// unsigned number u_i of b bits and its value v_i = D_i (u_i - (2^b - 1) / 2).
//
//   y = M (x - c)                         M: dims of decreasing weighted variance, groups of 32
//   <q - qm, x - c>  ~  f <Mq (q - qm), v>    Mq need not be the inverse of M
//
// M is block-diagonal (codec/block_map.hpp), with one block for few dims. Mq is either a map of the same
// shape or M times one factor per group.
//
// Per vector two scalars: f (float16) and `add` (float32), the part of the score that is known
// exactly. With c the mean of the vectors and qm the mean of the queries
//   cosine, ip   <q, x>   = <q - qm, c> + <qm, x> + <q - qm, x - c>
//   l2           -|q-x|^2 = -|q - c|^2 + (2 <qm - c, x - c> - |x - c|^2) + 2 <q - qm, x - c>.
// docs/codecs.md derives the fit (python/residua/_recurrent_fit.py).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "codec/block_map.hpp"
#include "codec/codec.hpp"
#include "codec/plane_query.hpp"
#include "kernel/edge_kernels.hpp"
#include "kernel/plane_kernels.hpp"

namespace residua::codec {

// Everything that defines a codec. rows = 32 * group_bits.size(); maps hold group by group 32 rows as long as
// the group's block.
struct RecurrentParams {
    Metric metric = Metric::cosine;
    std::size_t dim = 0;
    double bits = 0;                        // as the user asked, for repr
    std::vector<std::uint8_t> group_bits;   // 1 … 8, non-increasing
    std::vector<float> center;              // c, dim
    std::vector<float> query_mean;          // qm, dim
    std::size_t block_dims = 0;             // dims of a block; dim for a dense map
    std::vector<std::uint16_t> group_block; // the block that a group reads; empty for a dense map
    std::vector<float> encode_map;          // M
    std::vector<float> query_map;           // Mq, or empty
    std::vector<float> query_scale;         // per group, Mq = query_scale * M; or empty
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
    bool is_code(const std::uint8_t* code) const override;
    std::unique_ptr<Scorer> prepare(ConstMatrix queries, int num_threads) const override;
    std::unique_ptr<Scorer> prepare_codes(const std::uint8_t* codes, std::size_t n, int num_threads) const override;
    std::optional<LinearForm> linear_form() const override { return LinearForm{layout_, true}; }
    void linear_rows(BlockView codes, std::size_t row_begin, std::size_t row_end, std::uint8_t* planes, float* scale,
                     float* add) const override;
    std::size_t edge_rows() const override { return kernel::kEdgeRows; }
    std::size_t edge_unit_bytes() const override { return kernel::edge_unit_bytes(layout_); }
    void pack_edges(const std::uint8_t* codes, std::size_t n, std::uint8_t* unit) const override;
    void unpack_edge(const std::uint8_t* unit, std::size_t row, std::uint8_t* code) const override;
    std::unique_ptr<EdgeScorer> prepare_edges(ConstMatrix queries, int num_threads) const override;
    std::size_t row_bytes() const override { return form_.row_bytes; }
    void to_rows(const std::uint8_t* codes, std::size_t n, std::uint8_t* rows) const override;
    void from_rows(const std::uint8_t* rows, std::size_t n, std::uint8_t* codes) const override;
    std::unique_ptr<RowScorer> prepare_rows(ConstMatrix queries, int num_threads) const override;
    bool gains_from_residuals() const override { return true; }
    bool reads_codes_of(const Codec& other) const override;
    void add_to_score(std::uint8_t* code, float value) const override;
    void write(store::Writer& out) const override;

    double bits() const { return p_.bits; }
    // All parameters, maps included: what the constructor took.
    RecurrentParams params() const;
    const BlockMap& encode_map() const { return encode_map_; }
    const std::vector<std::uint8_t>& group_bits() const { return p_.group_bits; }
    std::size_t block_dims() const { return p_.block_dims; }
    const kernel::PlaneLayout& layout() const { return layout_; }
    // The largest level of every row of the map.
    const std::vector<float>& tops() const { return tops_; }
    // take(i, weights, constant) for every query, from several threads. A code with levels u, scale f and `add`
    // scores f * (sum of weight * (u - top / 2)) + add + constant, with one weight per row of the map.
    using TakeWeights = std::function<void(std::size_t, std::span<const float>, float)>;
    void query_weights(ConstMatrix queries, int num_threads, const TakeWeights& take) const;
    // Replaces f of the row code that ends at `code_end`.
    static void set_scale(float f, std::uint8_t* code_end);
    // The same codec with another number of candidates per result, at least 1.
    std::shared_ptr<const Codec> with_expansion(float expansion) const;

private:
    std::unique_ptr<Scorer> prepare(ConstMatrix queries, WeightBits weight_bits, int num_threads) const;
    static constexpr std::size_t kScalarBytes = 6;  // float32 add, float16 f

    // take(i, weights, constant) for every query: one weight per row of the map, multiplied by its step.
    template <class Take>
    void weigh(ConstMatrix queries, int num_threads, Take take) const;
    // The row form (recurrent_rows.cpp).
    struct Field {
        std::uint32_t at;      // byte of the row form
        std::uint8_t shift;    // of the field in its byte
        std::uint8_t level;    // of the field in the level
        std::uint8_t width;
        std::uint32_t weight;  // its place among the weights
    };
    void make_form();

    std::size_t rows() const { return p_.step.size(); }
    void check() const;
    // scratch: two levels per row of the map.
    void encode_row(const float* z, const float* y, Effort effort, std::uint8_t* scratch, std::uint8_t* code) const;
    struct Moments {
        double yv = 0, vv = 0;  // <y, v>, |v|^2
    };
    Moments round_levels(const float* y, float factor, std::uint8_t* u) const;
    Moments search_scale(const float* y, std::uint8_t* trial, std::uint8_t* u) const;
    void refine_levels(const float* y, Moments& m, std::uint8_t* u) const;
    void unpack_levels(const std::uint8_t* code, std::uint8_t* levels) const;
    void unpack_values(const std::uint8_t* code, std::uint8_t* levels, float* v) const;
    void scale_groups(float* y) const;  // by query_scale, where the query map is made of M
    const BlockMap& query_map() const { return query_map_.empty() ? encode_map_ : query_map_; }

    RecurrentParams p_;                   // without the maps, which stand below
    kernel::PlaneLayout layout_;
    FieldForm form_;
    std::vector<std::vector<Field>> fields_;              // of every dim
    std::vector<std::vector<std::uint32_t>> places_;      // their weights
    std::vector<float> tops_;                             // largest level of every dim
    BlockMap encode_map_;                 // M
    BlockMap query_map_;                  // Mq; empty when made of M
    std::vector<float> inv_step_;
    std::vector<float> mean_offset_;      // qm - c for l2, qm otherwise
    double mean_dot_ = 0;                 // <mean_offset, c>: add = <mean_offset, x - c> + this (not l2)
};

}  // namespace residua::codec
