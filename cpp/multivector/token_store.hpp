// SPDX-License-Identifier: Apache-2.0
// Documents of token vectors, contiguous per document, in one of the forms of token_data.hpp. Documents are numbers
// from 0, for good; a removed one has no tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "core/bitset.hpp"
#include "core/fair_mutex.hpp"
#include "multivector/token_data.hpp"
#include "multivector/token_scorer.hpp"
#include "store/container.hpp"

namespace residua::multivector {

// Any number of threads may read; they wait only for the last step of a change.
class TokenStore {
public:
    static constexpr const char* kKind = "token_store";

    explicit TokenStore(std::unique_ptr<TokenData> data) : data_(std::move(data)) {}

    std::size_t dim() const { return dim_; }
    const char* form() const { return form_; }
    // Null where tokens are no codes.
    const std::shared_ptr<const codec::Codec>& codec() const { return codec_; }
    std::size_t size() const;     // documents, removed ones included
    std::size_t tokens() const;   // of documents that are not removed
    std::size_t removed() const;  // documents

    // Appends documents of float32 or float16 tokens.
    void add(const TokenSets& documents, int num_threads);
    // Throws out_of_range, and value for one that is removed or given twice, before anything changes.
    void remove(std::span<const std::int64_t> documents);
    // Frees the tokens of removed documents; all documents keep their numbers.
    void compact();

    // Shows what the store holds now; no change ends before `look` has.
    void show(const std::function<void(const TokenData& data, const DocumentPlaces& places)>& look) const;
    // The tokens of one document as float32, row by row; throws out_of_range.
    std::vector<float> decode(std::size_t document) const;

    // token_scorer.hpp. Inner products are those of maxsim.hpp for floats and int8, and estimates for codes, where
    // a query token is rounded to int8 weights; instruction sets agree bit for bit on those of one set of weights.
    std::vector<float> maxsim(const TokenSets& queries, const DocumentNumbers& chosen, int num_threads) const;
    BestTokens best_tokens(const TokenSets& query, const DocumentNumbers& chosen, int num_threads) const;
    Ranking rank(const TokenSets& queries, const Candidates& candidates, std::size_t k, int num_threads) const;

    std::map<std::string, std::size_t> memory() const;
    void save(const std::string& path) const;
    // Shows the store to a writer; no change happens until the returned object is gone.
    [[nodiscard]] std::shared_ptr<const void> write(store::Writer& out) const;
    static std::shared_ptr<TokenStore> load(const store::Reader& in);

private:
    std::size_t documents() const { return offsets_.size() - 1; }
    DocumentPlaces places() const { return {offsets_.data(), documents(), removed_count_ != 0 ? &removed_ : nullptr}; }
    void check_dim(const TokenSets& sets, const char* what) const;
    void mark_removed(std::span<const std::int64_t> numbers);

    std::unique_ptr<TokenData> data_;
    const std::size_t dim_ = data_->dim();
    const char* const form_ = data_->form();
    const std::shared_ptr<const codec::Codec> codec_ = data_->codec();
    std::vector<std::int64_t> offsets_{0};
    Bitset removed_;
    std::size_t removed_count_ = 0;
    std::size_t removed_tokens_ = 0;
    mutable std::mutex writing_;  // one change at a time; taken before the other
    mutable FairMutex mutex_;     // of everything above
};

}  // namespace residua::multivector
