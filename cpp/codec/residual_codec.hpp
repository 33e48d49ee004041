// SPDX-License-Identifier: Apache-2.0
// Residual quantization: a vector less the mean c of the sample is a sum of codewords, one of 256 from each of
// several codebooks over all dims (Chen et al., Sensors 2010), found by beam search (train/beam_search.hpp).
//
//   x  ~  c + v,   v = sum of codebook[m][code[m]]
//
// One more byte chooses one of 256 levels, ascending, for what lengths need:
//   cosine   s = 1 / |c + v|;      <q, x>      ~  s (<q, c> + <q, v>)
//   ip       s = |x| / |c + v|;    <q, x>      ~  s (<q, c> + <q, v>)
//   l2       n = |v|^2;            -|q - x|^2  ~  -|q - c|^2 + 2 <q - c, v> - n
// Row code: code[0], code[1], …, level. Block: byte i of all rows together. Scores sum n_codebooks entries of tables
// of <q, codeword>, in the order of the codebooks: all instruction sets add the same numbers.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "codec/codec.hpp"
#include "kernel/matmul.hpp"
#include "train/beam_search.hpp"

namespace residua::codec {

// Everything that defines a codec.
struct ResidualParams {
    Metric metric = Metric::cosine;
    std::size_t dim = 0;
    std::size_t beam = 1;          // of encode, 1 … train::kMaxBeam
    std::vector<float> center;     // c, dim
    std::vector<float> codebooks;  // n_codebooks x 256 x dim, 1 … train::kMaxCodebooks of them
    std::vector<float> levels;     // 256, ascending; at least 0
    float expansion = 4;           // candidates per result that re-ranking needs at 100,000 rows
};

class ResidualCodec final : public Codec {
public:
    static constexpr const char* kKind = "residual_codec";

    // Validates everything; throws ErrorKind::value.
    explicit ResidualCodec(ResidualParams params);
    static std::shared_ptr<const Codec> read(const store::Reader& in);

    std::string kind() const override { return kKind; }
    std::size_t dim() const override { return p_.dim; }
    std::size_t code_bytes() const override { return n_codebooks() + 1; }
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

    std::size_t n_codebooks() const { return p_.codebooks.size() / (train::kCodewords * p_.dim); }
    const ResidualParams& params() const { return p_; }

private:
    const train::BeamSearch& search(int num_threads) const;
    void add_codewords(const std::uint8_t* code, float* out) const;
    std::uint8_t level_of(double value) const;

    ResidualParams p_;
    kernel::PackedPanels panels_;  // of all codewords
    // Tables for encoding take far more memory than the rest: they are made when something is encoded.
    mutable std::once_flag search_made_;
    mutable std::unique_ptr<train::BeamSearch> search_;
};

}  // namespace residua::codec
