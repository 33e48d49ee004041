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
#include "core/fair_mutex.hpp"
#include "multivector/maxsim.hpp"
#include "multivector/tokens.hpp"
#include "store/container.hpp"
#include "store/shared_array.hpp"

namespace residua::multivector {

// Any number of threads may read; they wait only for the last step of add().
class TokenStore {
public:
    static constexpr const char* kKind = "token_store";

    // A recurrent codec, metric ip; throws ErrorKind::value.
    explicit TokenStore(std::shared_ptr<const codec::Codec> codec);

    const std::shared_ptr<const codec::Codec>& codec() const { return codec_; }
    std::size_t size() const;
    std::size_t tokens() const;

    // Appends documents of float32 tokens.
    void add(const TokenSets& documents, int num_threads);
    // The tokens of one document as float32, row by row.
    std::vector<float> decode(std::size_t document) const;

    // As the functions of maxsim.hpp, with the codec's estimates of inner products; a query token is rounded to
    // int8 weights. Instruction sets agree bit for bit on the estimates of one set of weights.
    void maxsim(const TokenSets& queries, const DocumentChoice& chosen, float* out, int num_threads) const;
    void best_tokens(const TokenSets& query, const DocumentChoice& chosen, float* scores, std::int64_t* tokens,
                     int num_threads) const;

    std::map<std::string, std::size_t> memory() const;
    void save(const std::string& path) const;
    static std::shared_ptr<TokenStore> load(const store::Reader& in);

private:
    struct Queries;
    struct Scratch;
    void scan(const Queries& q, std::size_t document, bool where, Scratch& s) const;
    Queries prepare(const TokenSets& queries, int num_threads) const;

    std::shared_ptr<const codec::Codec> codec_;
    const codec::RecurrentCodec* recurrent_;
    std::vector<std::int64_t> offsets_{0};     // of tokens
    std::vector<std::size_t> first_block_{0};  // a document starts a block
    store::SharedArray<std::uint8_t> blocks_;
    mutable FairMutex mutex_;  // of the three above
};

}  // namespace residua::multivector
