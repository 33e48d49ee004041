// SPDX-License-Identifier: Apache-2.0
// MaxSim of token vectors: the sum over query tokens of the largest inner product with a token of the document.
// An inner product is within (dim + 16) * 2^-24 * sum |term| of the true one; sums over query tokens are float64.
#pragma once

#include "multivector/tokens.hpp"

namespace residua::multivector {

// Which documents are scored; numbers == nullptr: the first `count`.
struct DocumentChoice {
    const std::int64_t* numbers = nullptr;
    std::size_t count = 0;

    std::size_t operator[](std::size_t i) const {
        return numbers == nullptr ? i : static_cast<std::size_t>(numbers[i]);
    }
};

// Throws ErrorKind::non_finite, naming the first bad document of those chosen. Document tokens may be 2^24 at most.
//
// out: queries.n x chosen.count, -infinity for documents without tokens. Queries are float32 and have tokens.
// token_scale: what the values of every document token are multiplied by, or null.
void maxsim(const TokenSets& queries, const TokenSets& documents, const float* token_scale,
            const DocumentChoice& chosen, float* out, int num_threads);

// For one query of t tokens: scores, t x chosen.count, of the best token of every document, and its number
// within the document, of equals the first; -infinity and -1 for documents without tokens.
void best_tokens(const TokenSets& query, const TokenSets& documents, const float* token_scale,
                 const DocumentChoice& chosen, float* scores, std::int64_t* tokens, int num_threads);

}  // namespace residua::multivector
