// SPDX-License-Identifier: Apache-2.0
// Codes whose scores are linear in unsigned numbers u of up to 8 bits, one per dim, for devices that have kernels of
// their own. With N = 2 (sum of Q u) - offset of the sum, the score of a row is
//     scale * (unit / 2 * N + offset) + add + constant
// in float32, step by step; where there are rests R, likewise with N' = 2 (sum of R u) - rest_offset, in double,
//     scale * ((unit N + rest_unit N') / 2) + add + constant.
// Bits stand in the planes of kernel/plane_kernels.hpp, whatever form the codec has them in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel/plane_kernels.hpp"

namespace residua::codec {

struct LinearForm {
    kernel::PlaneLayout layout;  // a row has layout.code_bytes() bytes
    bool has_scalars = false;    // otherwise scale is 1 and add 0 for all rows
};

struct LinearQuery {
    std::vector<std::int16_t> weights;  // Q, of every dim of the layout
    std::vector<std::int16_t> rests;    // R, likewise; may be empty
    float unit = 0;
    float offset = 0;
    float constant = 0;
    std::int64_t sum_offset = 0;
    double rest_unit = 0;
    std::int64_t rest_offset = 0;
};

}  // namespace residua::codec
