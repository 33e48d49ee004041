// SPDX-License-Identifier: Apache-2.0
// Plain float32, float16 or bfloat16 rows as codes; unit vectors under cosine. A block is 32 rows in order.
#pragma once

#include <memory>

#include "codec/codec.hpp"

namespace residua::codec {

class FloatCodec final : public Codec {
public:
    static constexpr const char* kKind = "float_codec";

    enum class Type : std::uint8_t { f32 = 0, f16 = 1, bf16 = 2 };

    FloatCodec(std::size_t dim, Type type, Metric metric) : dim_(dim), type_(type), metric_(metric) {}
    static std::shared_ptr<const Codec> read(const store::Reader& in);

    Type type() const { return type_; }
    std::string kind() const override { return kKind; }
    std::size_t dim() const override { return dim_; }
    std::size_t code_bytes() const override { return dim_ * (type_ == Type::f32 ? 4 : 2); }
    Metric metric() const override { return metric_; }
    std::size_t memory_bytes() const override { return sizeof(*this); }
    std::size_t candidates(std::size_t k, std::size_t n) const override;

    // Throws ErrorKind::value when a value overflows a half; nothing useful could be stored.
    void encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort effort) const override;
    void decode(const std::uint8_t* codes, std::size_t n, float* out, int num_threads) const override;
    void pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const override;
    void unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const override;
    bool is_code(const std::uint8_t* code) const override;
    std::unique_ptr<Scorer> prepare(ConstMatrix queries, int num_threads) const override;
    std::unique_ptr<Scorer> prepare_codes(const std::uint8_t* codes, std::size_t n, int num_threads) const override;
    std::size_t prefix_dims() const override { return dim_; }
    std::optional<store::RowSource> rows(BlockView codes) const override;
    void write(store::Writer& out) const override;

private:
    std::size_t dim_;
    Type type_;
    Metric metric_;
};

}  // namespace residua::codec
