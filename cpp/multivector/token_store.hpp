// SPDX-License-Identifier: Apache-2.0
// Documents of token vectors as recurrent codes, contiguous per document, scored by MaxSim without being decoded
// to floats: levels are unpacked block by block and multiplied as integers.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "codec/recurrent_codec.hpp"
#include "core/aligned.hpp"
#include "multivector/maxsim.hpp"
#include "multivector/tokens.hpp"

namespace residua::multivector {

// Reads by any number of threads; not while add() runs.
class TokenStore {
public:
    // A recurrent codec, metric ip; throws ErrorKind::value.
    explicit TokenStore(std::shared_ptr<const codec::Codec> codec);

    const std::shared_ptr<const codec::Codec>& codec() const { return codec_; }
    std::size_t size() const { return offsets_.size() - 1; }
    std::size_t tokens() const { return static_cast<std::size_t>(offsets_.back()); }
    const std::vector<std::int64_t>& offsets() const { return offsets_; }

    // Appends documents of float32 tokens.
    void add(const TokenSets& documents, int num_threads);
    // The tokens of one document as float32, count x dim.
    void decode(std::size_t document, float* out) const;

    // As the functions of maxsim.hpp, with the codec's estimates of inner products; a query token is rounded to
    // int8 weights. Instruction sets agree bit for bit on the estimates of one set of weights.
    void maxsim(const TokenSets& queries, const DocumentChoice& chosen, float* out, int num_threads) const;
    void best_tokens(const TokenSets& query, const DocumentChoice& chosen, float* scores, std::int64_t* tokens,
                     int num_threads) const;

    std::map<std::string, std::size_t> memory() const;

private:
    struct Queries;
    struct Scratch;
    void scan(const Queries& q, std::size_t document, bool where, Scratch& s) const;
    Queries prepare(const TokenSets& queries, int num_threads) const;

    std::shared_ptr<const codec::Codec> codec_;
    const codec::RecurrentCodec* recurrent_;
    std::vector<std::int64_t> offsets_{0};     // of tokens
    std::vector<std::size_t> first_block_{0};  // a document starts a block
    AlignedVector<std::uint8_t> blocks_;
};

}  // namespace residua::multivector
