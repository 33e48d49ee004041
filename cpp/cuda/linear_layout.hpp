// SPDX-License-Identifier: Apache-2.0
// Where the bits of linear codes (codec/linear_form.hpp) lie on the device, and in which order tiles of them are
// multiplied. Pure arithmetic, the same on both sides.
//
// Rows stand in tiles of 8, the columns of a product of tiles. A row is its planes as words of 32 bits, filled up to
// whole pieces of 16 bytes. A unit is 8 words of all rows of a tile, row by row, 256 bytes: of its words 2t and 2t + 1,
// thread t of a row's four makes its fragment with one 8-byte load. What is left over is half a unit: 4 words per
// row, 128 bytes, thread t has word t.
//
// A word holds 4 code bytes, dims in np.packbits order: dim d of a group of 32 is bit 8 (d / 8) + 7 - d % 8. Spread
// out to bytes, (word >> j) & 0x01010101 has the dims 8b + 7 - j in bytes b = 0 … 3, for j = 0 … 7: the order of a
// group's 32 bytes in which levels meet weights.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/simt.hpp"

namespace residua::cuda {

inline constexpr std::size_t kTileRows = 8;
inline constexpr std::size_t kUnitWords = 8;

struct LinearLayout {
    std::uint32_t words = 0;      // of a row, filled up: a multiple of 4
    std::uint32_t groups = 0;     // of 32 dims
    std::uint32_t planes = 0;
    std::uint32_t first[8] = {};  // word of plane t's first group
    std::uint32_t covered[8] = {};  // groups that have plane t

    RZ_HD std::uint32_t units() const { return words / kUnitWords; }  // whole ones
    RZ_HD bool has_half() const { return words % kUnitWords != 0; }
    RZ_HD std::size_t tile_words() const { return std::size_t{words} * kTileRows; }

    // Place of a word, counted in words.
    RZ_HD std::size_t at(std::size_t row, std::uint32_t word) const {
        const std::size_t tile = row / kTileRows * tile_words(), in_tile = row % kTileRows;
        const std::uint32_t unit = word / kUnitWords;
        if (unit < units()) return tile + std::size_t{unit} * 64 + in_tile * kUnitWords + word % kUnitWords;
        return tile + std::size_t{unit} * 64 + in_tile * (kUnitWords / 2) + word % kUnitWords;
    }
};

// Of dim d of a group: its bit in the word, and its byte in the spread-out order.
RZ_HD inline std::uint32_t bit_of_dim(std::uint32_t d) { return d / 8 * 8 + 7 - d % 8; }
RZ_HD inline std::uint32_t byte_of_dim(std::uint32_t d) { return (7 - d % 8) * 4 + d / 8; }

// What a plane's word adds to bytes 4j … 4j + 3 of its group's levels.
RZ_HD inline std::uint32_t spread(std::uint32_t word, int plane, int j) {
    const std::uint32_t moved = j >= plane ? word >> (j - plane) : word << (plane - j);
    return moved & (0x01010101u << plane);
}

// Words of a unit that make the fragment of thread t of a row.
RZ_HD inline std::uint32_t unit_word(std::uint32_t unit, std::uint32_t t, std::uint32_t half) { return unit * 8 + 2 * t + half; }

// Products of bytes: 64 levels of a row lie in shared memory as they are spread out; thread t of a row takes bytes
// 16t … 16t + 15, the first 8 for the first 32 of the depth, the others for the rest. The byte, of 64, of word `half` (0: of the
// first 16 of the depth) of part h:
RZ_HD inline std::uint32_t depth_byte(std::uint32_t t, std::uint32_t h, std::uint32_t half) { return 16 * t + 8 * h + 4 * half; }

}  // namespace residua::cuda
