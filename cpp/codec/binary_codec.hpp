// SPDX-License-Identifier: Apache-2.0
// One sign bit per dim (x > 0), packed per row as np.packbits packs: the `ubinary` precision of
// sentence-transformers, for any dim. A block is 32 rows in strips of one nibble each (kernel/bit_kernels.hpp).
#pragma once

#include <memory>

#include "codec/codec.hpp"

namespace residua::codec {

class BinaryCodec final : public Codec {
public:
    static constexpr const char* kKind = "binary_codec";

    BinaryCodec(std::size_t dim, Metric metric) : dim_(dim), metric_(metric) {}
    static std::shared_ptr<const Codec> read(const store::Reader& in);

    std::string kind() const override { return kKind; }
    bool counts_bits() const override { return true; }
    std::size_t dim() const override { return dim_; }
    std::size_t code_bytes() const override { return (dim_ + 7) / 8; }
    Metric metric() const override { return metric_; }
    std::size_t memory_bytes() const override { return sizeof(*this); }
    std::size_t candidates(std::size_t k, std::size_t n) const override;

    void encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort effort) const override;
    // Signs, scaled to unit length under cosine.
    void decode(const std::uint8_t* codes, std::size_t n, float* out, int num_threads) const override;
    void pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const override;
    void unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const override;
    // The metric between the query and the decoded signs.
    std::unique_ptr<Scorer> prepare(ConstMatrix queries, int num_threads) const override;
    // dim - 2 * Hamming distance.
    std::unique_ptr<Scorer> prepare_codes(const std::uint8_t* codes, std::size_t n, int num_threads) const override;
    void write(store::Writer& out) const override;

private:
    float amplitude() const;

    std::size_t dim_;
    Metric metric_;
};

// out is (na, nb), row-major: differing bits of every pair of rows of `bytes` bytes.
void hamming(const std::uint8_t* a, std::size_t na, const std::uint8_t* b, std::size_t nb, std::size_t bytes,
             std::int32_t* out, int num_threads);

}  // namespace residua::codec
