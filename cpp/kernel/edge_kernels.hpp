// SPDX-License-Identifier: Apache-2.0
// Data sheet of the edge kernels, which score the codes of a graph node's neighbours: few rows at a time,
// read once, so there is no filter and no second pass.
//
// Codes are those of the plane kernels (kernel/plane_kernels.hpp), for which see layout and row code.
//
// A unit holds kEdgeRows = 16 rows. 8 strips of 4 dims make a group of a plane; of every group, in row-code
// order, there are 64 bytes: byte 16 l + j holds strip l of row j in its low and strip l + 4 in its high
// nibble, l = 0 … 3. Then come 16 float32 `add` and 16 float16 `scale`. Missing rows are zero. A unit is
// total_groups * 64 + 96 bytes long and needs no alignment.
//
// Query: a table per strip of plane 0, 16 bytes each, which all planes share; entry x is the sum of the
// weights of the dims whose bits are set in x, in steps of `unit` above the strip's smallest sum, rounded to
// 0 … edge_entry_max(layout). With A the sum over planes t of 2^t * (sum of the entries of plane t),
//     out[r] = scale * (unit * A + offset) + add + constant,
// in separate multiplications and additions, in this order, never fused: all instruction sets agree bit for bit.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernel/plane_kernels.hpp"

namespace residua::kernel {

inline constexpr std::size_t kEdgeRows = 16;
inline constexpr std::size_t kEdgeGroupBytes = kEdgeRows * kGroupDims / 8;
inline constexpr std::size_t kEdgeScalarBytes = kEdgeRows * 6;

inline std::size_t edge_unit_bytes(const PlaneLayout& layout) {
    return layout.total_groups() * kEdgeGroupBytes + kEdgeScalarBytes;
}

// Half of a unit's strips are summed in 16 bits: 4 entries per group, doubled from plane to plane.
inline std::size_t edge_entry_max(const PlaneLayout& layout) {
    std::size_t groups = 0;
    for (std::uint32_t t = layout.planes; t-- > 0;) groups = 2 * groups + layout.groups[t];
    return std::min<std::size_t>(kCoarseMax, 65535 / (4 * groups));
}

struct EdgeScan {
    const std::uint8_t* tables;
    float unit;
    float offset;
    float constant;
};

struct EdgeKernels {
    // Plane bits of row codes (n <= kEdgeRows rows, `stride` bytes apart) to the strips of a unit.
    void (*pack)(std::size_t bytes, const std::uint8_t* rows, std::size_t stride, std::size_t n, std::uint8_t* strips);
    // … and those of one row back.
    void (*unpack)(std::size_t bytes, const std::uint8_t* strips, std::size_t row, std::uint8_t* code);

    // Bit r of the result is set when out[r] > threshold.
    std::uint32_t (*scores)(const PlaneLayout& layout, const std::uint8_t* unit, const EdgeScan& query,
                            float threshold, float* out);
};

}  // namespace residua::kernel
