// SPDX-License-Identifier: Apache-2.0
// One sign bit per dim (x > 0), packed per row as np.packbits packs: the `ubinary` precision of
// sentence-transformers, for any dim; or one sign per row of a rotation, W (x - c) > 0, with orthonormal rows.
// A code stands for c + a W^T (its signs), brought to unit length under cosine; without a rotation, W is the
// first `bits` dims and c is zero.
// A block is 32 rows in strips of one nibble each (kernel/bit_kernels.hpp).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "codec/block_map.hpp"
#include "codec/codec.hpp"
#include "codec/plane_query.hpp"

namespace residua::codec {

// A rotation for signs; `kind` is empty without one.
struct BinaryRotation {
    std::string kind;                        // "random" or "itq", as the user asked
    std::size_t block_dims = 0;              // of the map (codec/block_map.hpp)
    std::vector<std::uint16_t> group_block;
    std::vector<float> map;                  // W, of whole groups: rows from `bits` on are not used
    std::vector<float> center;               // c, dim
    float amplitude = 0;                     // a, positive
};

class BinaryCodec final : public Codec {
public:
    static constexpr const char* kKind = "binary_codec";

    // 1 <= bits <= dim. Throws ErrorKind::value.
    BinaryCodec(std::size_t dim, std::size_t bits, Metric metric, BinaryRotation rotation = {});
    static std::shared_ptr<const Codec> read(const store::Reader& in);

    std::string kind() const override { return kKind; }
    bool counts_bits() const override { return true; }
    std::size_t dim() const override { return dim_; }
    std::size_t code_bytes() const override { return (bits_ + 7) / 8; }
    Metric metric() const override { return metric_; }
    std::size_t memory_bytes() const override;
    std::size_t bits() const { return bits_; }
    std::string rotation() const { return rotation_.kind.empty() ? "none" : rotation_.kind; }
    std::size_t candidates(std::size_t k, std::size_t n) const override;

    void encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort effort) const override;
    // What codes stand for; without a rotation zeros past the last bit.
    void decode(const std::uint8_t* codes, std::size_t n, float* out, int num_threads) const override;
    void pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const override;
    void unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const override;
    bool is_code(const std::uint8_t* code) const override;
    // The metric between the query and the decoded signs. Under cosine behind a rotation, lengths are kept as
    // float16: scores are within 1e-3 of their size.
    std::unique_ptr<Scorer> prepare(ConstMatrix queries, int num_threads) const override;
    // bits - 2 * Hamming distance.
    std::unique_ptr<Scorer> prepare_codes(const std::uint8_t* codes, std::size_t n, int num_threads) const override;
    std::size_t prefix_dims() const override { return bits_; }
    std::unique_ptr<Scorer> prepare_prefix(ConstMatrix queries, std::size_t bits, int num_threads) const override;
    std::optional<LinearForm> linear_form() const override;
    void linear_rows(BlockView codes, std::size_t row_begin, std::size_t row_end, std::uint8_t* planes, float* scale,
                     float* add) const override;
    void write(store::Writer& out) const override;

private:
    // Whether decoded signs have lengths that differ and scores divide by.
    bool divides_by_length() const { return !map_.empty() && metric_ == Metric::cosine; }
    // |c|^2 + a^2 bits: of what the first `bits` signs stand for, where they do not lean along c or against it.
    double squared_length(std::size_t bits) const;
    float amplitude() const;
    // What divides scores, as a query of the codes; none where lengths are 1.
    std::optional<PlaneQuery> squared_lengths(std::size_t bits) const;
    // y: `width` values per row of x, the first `bits` of them signed by the code.
    void project(ConstMatrix x, bool centred, MutMatrix y) const;
    std::size_t width() const { return map_.empty() ? bits_ : map_.rows(); }

    std::size_t dim_, bits_;
    Metric metric_;
    BinaryRotation rotation_;  // without the map, which stands below
    BlockMap map_;
    std::vector<float> turned_center_;  // W c, where scores divide by lengths
};

// out is (na, nb), row-major: differing bits of every pair of rows of `bytes` bytes.
void hamming(const std::uint8_t* a, std::size_t na, const std::uint8_t* b, std::size_t nb, std::size_t bytes,
             std::int32_t* out, int num_threads);

}  // namespace residua::codec
