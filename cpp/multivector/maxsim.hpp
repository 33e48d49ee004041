// SPDX-License-Identifier: Apache-2.0
// MaxSim of float tokens and int8 tokens with scales. An inner product is within (dim + 16) * 2^-24 * sum |term| of
// the true one.
#pragma once

#include <memory>

#include "multivector/token_scorer.hpp"

namespace residua::multivector {

// Queries are float32, documents of any type; both must live as long as the scorer. A document may have 2^24 tokens.
// removed: documents that count as empty, or null.
std::unique_ptr<TokenScorer> float_scorer(const TokenSets& queries, const TokenSets& documents,
                                          const Bitset* removed = nullptr);

}  // namespace residua::multivector
