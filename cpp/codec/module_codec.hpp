// SPDX-License-Identifier: Apache-2.0
// Codes of a recurrent binarization module, as published (Gan et al., "Binary Embedding-based Retrieval at
// Tencent", KDD 2023). A vector x of length 1 goes through blocks W, then B_t and R_t of every residual code:
//
//   b = sign W(x);   for t = 1 … L:  b += 2^-t sign R_t(x - B_t(b) / |B_t(b)|)
//   a block is    u -> out relu(in u + in_bias) + out_bias;   sign 0 = 1
//
// The score is the cosine of two composed codes, <b_q, b_x> / (|b_q| |b_x|), whether the query comes as a vector
// or as a code. b is one of 2^(L+1) equal levels per code dim, so what is stored is the code of a
// RecurrentCodec whose maps are the identity: its layouts, kernels and scorers are used as they are, with 1 / |b|
// as the scale of a row.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "codec/block_map.hpp"
#include "codec/codec.hpp"
#include "codec/recurrent_codec.hpp"

namespace residua::codec {

// Weights of one block; matrices are row-major, one row per output.
struct ModuleBlock {
    std::vector<float> in;        // hidden x inputs
    std::vector<float> in_bias;   // hidden
    std::vector<float> out;       // outputs x hidden
    std::vector<float> out_bias;  // outputs
};

struct ModuleParams {
    std::size_t dim = 0;
    std::size_t code_dims = 0;         // of b; a multiple of 32
    double bits = 0;                   // as the user asked, for repr
    std::vector<ModuleBlock> blocks;   // W, B_1, R_1, B_2, R_2, …
    std::vector<float> decode_map;     // dim x code_dims: b / |b| to the vector
    std::vector<float> decode_offset;  // dim
    float expansion = 4;               // candidates per result that re-ranking needs at 100,000 rows
};

class ModuleCodec final : public Codec {
public:
    static constexpr const char* kKind = "recurrent_module_codec";

    // Validates everything; throws ErrorKind::value.
    explicit ModuleCodec(const ModuleParams& params);
    static std::shared_ptr<const Codec> read(const store::Reader& in);

    std::string kind() const override { return kKind; }
    std::size_t dim() const override { return dim_; }
    std::size_t code_bytes() const override { return codes_->code_bytes(); }
    Metric metric() const override { return Metric::cosine; }
    std::size_t memory_bytes() const override;
    std::size_t candidates(std::size_t k, std::size_t n) const override { return codes_->candidates(k, n); }

    void encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort effort) const override;
    void decode(const std::uint8_t* codes, std::size_t n, float* out, int num_threads) const override;
    void pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const override {
        codes_->pack_block(codes, n, block);
    }
    void unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const override {
        codes_->unpack_row(block, row, code);
    }
    bool is_code(const std::uint8_t* code) const override { return codes_->is_code(code); }
    std::unique_ptr<Scorer> prepare(ConstMatrix queries, int num_threads) const override;
    std::unique_ptr<Scorer> prepare_codes(const std::uint8_t* codes, std::size_t n, int num_threads) const override {
        return codes_->prepare_codes(codes, n, num_threads);
    }
    std::size_t edge_rows() const override { return codes_->edge_rows(); }
    std::size_t edge_unit_bytes() const override { return codes_->edge_unit_bytes(); }
    void pack_edges(const std::uint8_t* codes, std::size_t n, std::uint8_t* unit) const override {
        codes_->pack_edges(codes, n, unit);
    }
    void unpack_edge(const std::uint8_t* unit, std::size_t row, std::uint8_t* code) const override {
        codes_->unpack_edge(unit, row, code);
    }
    std::unique_ptr<EdgeScorer> prepare_edges(ConstMatrix queries, int num_threads) const override;
    std::size_t row_bytes() const override { return codes_->row_bytes(); }
    void to_rows(const std::uint8_t* codes, std::size_t n, std::uint8_t* rows) const override {
        codes_->to_rows(codes, n, rows);
    }
    void from_rows(const std::uint8_t* rows, std::size_t n, std::uint8_t* codes) const override {
        codes_->from_rows(rows, n, codes);
    }
    std::unique_ptr<RowScorer> prepare_rows(ConstMatrix queries, int num_threads) const override;
    void write(store::Writer& out) const override;

    double bits() const { return codes_->bits(); }
    // The same codec with another number of candidates per result, at least 1.
    std::shared_ptr<const Codec> with_expansion(float expansion) const;

private:
    // y = M x + bias, of any number of rows.
    class Affine {
    public:
        Affine() = default;
        Affine(std::span<const float> values, std::span<const float> bias, std::size_t inputs);
        std::size_t padded() const { return map_.rows(); }
        // y has padded() columns.
        void apply(ConstMatrix x, MutMatrix y) const;
        std::vector<float> values() const;
        const std::vector<float>& bias() const { return bias_; }
        std::size_t memory_bytes() const { return map_.memory_bytes() + bias_.size() * sizeof(float); }
        bool is_finite() const;

    private:
        BlockMap map_;
        std::vector<float> bias_;
    };
    struct Block {
        Affine in, out;
    };

    std::size_t residuals() const { return blocks_.size() / 2; }
    std::size_t code_dims() const { return codes_->dim(); }
    // Composed codes of rows: b is x.rows x code_dims().
    void compose(ConstMatrix x, float* b) const;
    // Composed codes of length 1.
    std::vector<float> compose_all(ConstMatrix x, int num_threads) const;

    std::size_t dim_ = 0;
    std::vector<Block> blocks_;
    Affine decoder_;
    std::shared_ptr<const RecurrentCodec> codes_;  // of b
};

}  // namespace residua::codec
