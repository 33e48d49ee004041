// SPDX-License-Identifier: Apache-2.0
// MaxSim of documents, however their tokens are kept: a scorer finds the best token of a document for every query
// token, and the functions below sum, choose and rank. Sums over query tokens are float64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/aligned.hpp"
#include "core/bitset.hpp"
#include "multivector/tokens.hpp"

namespace residua::multivector {

// Where the tokens of documents stand; removed ones have none.
struct DocumentPlaces {
    const std::int64_t* offsets = nullptr;  // n + 1
    std::size_t n = 0;
    const Bitset* removed = nullptr;

    std::size_t begin(std::size_t i) const { return static_cast<std::size_t>(offsets[i]); }
    std::size_t count(std::size_t i) const {
        if (removed != nullptr && removed->test(i)) return 0;
        return static_cast<std::size_t>(offsets[i + 1] - offsets[i]);
    }
};

// Throws out_of_range unless all numbers are those of documents.
void check_numbers(std::span<const std::int64_t> numbers, std::size_t n);

// What one thread scores with.
struct TokenScratch {
    static constexpr std::size_t kAllFine = std::numeric_limits<std::size_t>::max();

    AlignedVector<float> rows;          // float tokens, widened
    AlignedVector<std::uint8_t> cells;  // a block of codes, unpacked
    AlignedVector<float> best, at;      // in the lanes of a kernel
    std::vector<std::uint32_t> blocks;
    std::vector<float> scores;          // one per query token
    std::vector<std::int64_t> tokens;
    std::size_t bad_document = kAllFine, bad_token = 0;  // the first that is not finite

    void note(std::size_t document, std::size_t token) {
        if (document < bad_document) {
            bad_document = document;
            bad_token = token;
        }
    }
};

// Query tokens made ready for the documents of one place. Threads share it, each with a scratch of its own.
class TokenScorer {
public:
    virtual ~TokenScorer() = default;

    const DocumentPlaces& places() const { return places_; }
    std::size_t query_tokens() const { return query_tokens_; }
    // For every query token the largest inner product with a token of the document, which has some; and the number
    // of that token, of equals the first, unless tokens == nullptr.
    virtual void best(std::size_t document, TokenScratch& s, float* scores, std::int64_t* tokens) const = 0;

protected:
    TokenScorer(const DocumentPlaces& places, std::size_t query_tokens)
        : places_(places), query_tokens_(query_tokens) {}

private:
    DocumentPlaces places_;
    std::size_t query_tokens_;
};

// Which documents are scored; nothing: all of them.
using DocumentNumbers = std::optional<std::span<const std::int64_t>>;

// These throw ErrorKind::non_finite, naming the first bad document of those scored.

// queries.n x documents, -infinity for documents without tokens. The scorer is that of all the queries.
std::vector<float> maxsim(const TokenScorer& scorer, const TokenSets& queries, const DocumentNumbers& chosen,
                          int num_threads);

// For one query of t tokens, t x documents each; -infinity and -1 for documents without tokens.
struct BestTokens {
    std::vector<float> scores;
    std::vector<std::int64_t> tokens;
};
BestTokens best_tokens(const TokenScorer& scorer, const DocumentNumbers& chosen, int num_threads);

// Of query i the documents numbers[offsets[i]] … numbers[offsets[i + 1] - 1]; offsets == nullptr: all documents.
// A number that is given twice counts once.
struct Candidates {
    const std::int64_t* offsets = nullptr;
    const std::int64_t* numbers = nullptr;
};

// Best first, ties by smaller number; rows of `width`, at most k, padded with -1 and -infinity. Documents without
// tokens are never among them.
struct Ranking {
    std::size_t width = 0;
    std::vector<std::int64_t> numbers;
    std::vector<float> scores;
    std::vector<std::int64_t> counts;
};
using MakeScorer = std::function<std::unique_ptr<TokenScorer>(const TokenSets& query)>;
Ranking rank(const TokenSets& queries, const DocumentPlaces& places, const Candidates& candidates, std::size_t k,
             const MakeScorer& make_scorer, int num_threads);

}  // namespace residua::multivector
