// SPDX-License-Identifier: Apache-2.0
// The tokens of documents in one form: floats, int8 with scales, or recurrent codes. Knows nothing of locks and of
// removed documents, which TokenStore adds.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "codec/codec.hpp"
#include "multivector/token_scorer.hpp"
#include "store/container.hpp"

namespace residua::multivector {

// Where tokens lie: rows, with a scale each where they are int8; or blocks of codes, whole ones per document.
struct TokenMemory {
    const void* data = nullptr;
    const float* scales = nullptr;
    const std::size_t* first_block = nullptr;  // of every document, and their number
};

class TokenData {
public:
    virtual ~TokenData() = default;

    virtual std::size_t dim() const = 0;
    // "float32", "float16", "int8", or "codes".
    virtual const char* form() const = 0;
    virtual std::shared_ptr<const codec::Codec> codec() const { return nullptr; }
    virtual TokenMemory memory() const = 0;

    // Documents of float32 or float16 tokens in this form, by themselves. Throws value, naming document and token,
    // where the form does not hold them.
    virtual std::unique_ptr<TokenData> encoded(const TokenSets& documents, int num_threads) const = 0;
    // The same documents without the tokens that `places` leaves out.
    virtual std::unique_ptr<TokenData> compacted(const DocumentPlaces& places, std::size_t documents) const = 0;
    // Appends what encoded() made; strong guarantee.
    virtual void append(const TokenData& more) = 0;

    // The tokens of a document as float32, places.count(document) x dim().
    virtual void decode(const DocumentPlaces& places, std::size_t document, float* out) const = 0;
    // Queries are float32; they and the places must live as long as the scorer.
    virtual std::unique_ptr<TokenScorer> prepare(const TokenSets& queries, const DocumentPlaces& places,
                                                 int num_threads) const = 0;

    virtual void add_memory(std::map<std::string, std::size_t>& parts) const = 0;
    virtual void write(store::Writer& out) const = 0;
};

// form: "float32", "float16" or "int8".
std::unique_ptr<TokenData> make_float_tokens(std::string_view form, std::size_t dim);
// A recurrent codec, metric ip; throws ErrorKind::value.
std::unique_ptr<TokenData> make_code_tokens(std::shared_ptr<const codec::Codec> codec);
// What write() wrote; offsets are valid.
std::unique_ptr<TokenData> read_token_data(const store::Reader& in, std::span<const std::int64_t> offsets);
std::unique_ptr<TokenData> read_code_tokens(const store::Reader& in, std::span<const std::int64_t> offsets);

}  // namespace residua::multivector
