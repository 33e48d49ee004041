// SPDX-License-Identifier: Apache-2.0
// The sums that a table of a strip is made of (kernel/plane_kernels.hpp).
#pragma once

#include <cstddef>

#include "kernel/plane_kernels.hpp"

namespace residua::codec {

// sums[x] = none + the sum of the weights, one per dim of a strip, whose bits are set in x; the first dim is the
// most significant bit.
template <class Sum, class Weight>
void subset_sums(const Weight* weights, Sum none, Sum (&sums)[kernel::kStripBytes]) {
    sums[0] = none;
    std::size_t dim = 4;
    for (std::size_t bit = 1; bit < kernel::kStripBytes; bit *= 2) {
        const Sum weight = weights[--dim];
        for (std::size_t x = 0; x < bit; ++x) sums[bit + x] = sums[x] + weight;
    }
}

}  // namespace residua::codec
