// SPDX-License-Identifier: Apache-2.0
// Recurrent codes of tokens on the device, and the kernels of their MaxSim (cuda/code_maxsim.cu).
//
// Codes stand in tiles of 32 tokens, whole ones per document. A tile is, group by group of 32 dims, the levels' fields
// of 4, 2 and 1 bits, highest first, as many as the group has bits, and then 32 `add` and 32 `scale`. A field holds, lane
// by lane, what the lane's two words of four fragments B (8 tokens each) are made of: of width 4 a word per fragment
// (low, then high halves of bytes), of width 2 half a word, of width 1 a byte. So the bytes of a tile are those of its
// codes.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/codec.hpp"
#include "cuda/maxsim.hpp"
#include "cuda/simt.hpp"
#include "kernel/plane_kernels.hpp"

namespace residua::cuda {

inline constexpr std::uint32_t kGroupBitBytes = 128;  // of a tile, per bit of a group
inline constexpr std::uint32_t kTileScalarBytes = codec::kBlockRows * 6;

// Where the groups of a tile stand.
struct GroupPlace {
    std::uint32_t at, bits;  // byte of the tile
};

// Dim of byte `byte` of word `half` of a fragment, for a lane.
RZ_HD inline std::uint32_t dim_of(std::uint32_t lane, std::uint32_t half, std::uint32_t byte) { return half * 16 + lane % 4 * 4 + byte; }

struct CodeTiles {
    std::size_t tile_bytes = 0;
    std::vector<GroupPlace> groups;       // and one more where they end
    DeviceArray<GroupPlace> device_groups;
    DeviceArray<std::size_t> first_tile;  // of every document, and their number
    DeviceArray<std::uint8_t> tiles;

    CodeTiles(Context& context, const std::vector<std::uint8_t>& group_bits, const std::vector<std::size_t>& first);
    std::uint32_t n_groups() const { return static_cast<std::uint32_t>(groups.size() - 1); }
    // The CPU's blocks (kernel/plane_kernels.hpp), of which block i has present[i] rows.
    void take(Context& context, const kernel::PlaneLayout& layout, const std::uint8_t* blocks, const std::vector<std::uint8_t>& present);
};

// One pass for as many query tokens as suits `n`. Given on the device: weights as fragments A, [tile of 16 tokens][group]
// [lane], and per token pairs (unit, offset) and constants, all filled up with zeros to whole passes.
struct CodeQueries {
    const Pack16* fragments;
    const float* terms;
    const float* constants;
};
std::uint32_t code_pass_tokens(std::size_t n);
MaxsimPass code_pass(Context& context, const CodeTiles& tiles, std::uint32_t pass_tokens, const CodeQueries& queries);

}  // namespace residua::cuda
