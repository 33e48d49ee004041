// SPDX-License-Identifier: Apache-2.0
#include "multivector/token_weights.hpp"

#include <algorithm>
#include <cmath>
#include <span>

#include "kernel/token_kernels.hpp"

namespace residua::multivector {

TokenWeights token_weights(const codec::RecurrentCodec& codec, const TokenSets& queries, int num_threads) {
    TokenWeights out;
    const std::size_t n = queries.total(), rows = codec.tops().size();
    const int top = static_cast<int>(*std::max_element(codec.tops().begin(), codec.tops().end()));
    const auto limit = static_cast<float>(kernel::token_weight_max(top));
    out.rows = rows;
    out.weights.resize(n * rows);
    out.units.resize(n);
    out.offsets.resize(n);
    out.constants.resize(n);
    const auto take = [&](std::size_t i, std::span<const float> w, float constant) {
        float largest = 0;
        for (const float x : w) largest = std::max(largest, std::abs(x));
        const float unit = largest > 0 ? largest / limit : 1.0f;
        std::int8_t* weights = out.weights.data() + i * rows;
        double offset = 0;
        for (std::size_t j = 0; j < rows; ++j) {
            const float rounded = std::nearbyint(w[j] / unit);
            weights[j] = static_cast<std::int8_t>(rounded);
            offset -= static_cast<double>(rounded) * static_cast<double>(codec.tops()[j]) / 2;
        }
        out.units[i] = unit;
        out.offsets[i] = static_cast<float>(offset * static_cast<double>(unit));
        out.constants[i] = constant;
    };
    codec.query_weights({static_cast<const float*>(queries.data), n, queries.dim}, num_threads, take);
    return out;
}

}  // namespace residua::multivector
