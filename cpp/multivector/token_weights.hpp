// SPDX-License-Identifier: Apache-2.0
// Query tokens as integer weights, for tokens that are kept as recurrent codes.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/recurrent_codec.hpp"
#include "core/aligned.hpp"
#include "multivector/tokens.hpp"

namespace residua::multivector {

// A code with levels u, scale f and `add` scores, in separate multiplications and additions,
//     f * (unit * sum + offset) + add,    sum = sum of weight * u,
// and a query token's best score is the largest of them plus its constant.
struct TokenWeights {
    std::size_t rows = 0;                // of the codec's map
    AlignedVector<std::int8_t> weights;  // rows per query token
    std::vector<float> units, offsets, constants;
};

// Queries are float32. |weight| <= kernel::token_weight_max of the largest level.
TokenWeights token_weights(const codec::RecurrentCodec& codec, const TokenSets& queries, int num_threads);

}  // namespace residua::multivector
