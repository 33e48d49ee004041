// SPDX-License-Identifier: Apache-2.0
// The random tables of fixed-dimensional encodings (fd_encoder.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace residua::multivector {

enum class Projection : std::uint8_t { count_sketch, dense, identity };
// Whose encodings to reproduce: none; github.com/google/graph-mining (sketching/point_cloud, as libstdc++
// draws its numbers); fastembed.postprocess.Muvera, whose matrices NumPy draws and the caller hands in.
enum class Compat : std::uint8_t { none, google, fastembed };

inline constexpr std::size_t kMaxHyperplanes = 16;
inline constexpr std::size_t kMaxWideDim = std::size_t{1} << 26;

struct FdParams {
    std::size_t dim = 0;
    std::size_t k_sim = 5;     // hyperplanes per repetition; 2^k_sim cells
    std::size_t reps = 20;
    std::size_t proj_dim = 16;
    Projection proj = Projection::count_sketch;
    std::size_t final_dim = 0;  // 0: none
    bool fill_empty = true;
    std::uint64_t seed = 1;
    Compat compat = Compat::none;

    std::size_t cells() const { return std::size_t{1} << k_sim; }
    std::size_t wide_dim() const { return reps * cells() * proj_dim; }
    std::size_t output_dim() const { return final_dim != 0 ? final_dim : wide_dim(); }
};

struct FdTables {
    std::vector<float> hyperplanes;     // reps * k_sim rows of dim
    std::vector<std::uint32_t> column;  // count sketch: reps * dim, below proj_dim
    std::vector<std::int8_t> sign;      // 1 or -1. Count sketch: reps * dim; dense: reps * proj_dim rows of dim
};

FdTables make_tables(const FdParams& p);

// The final count sketch: per coordinate of the wide vector 2 * column, plus 1 where its sign is negative.
// Made of integers alone, so that files need not hold it.
std::vector<std::uint32_t> make_final_sketch(const FdParams& p);

}  // namespace residua::multivector
