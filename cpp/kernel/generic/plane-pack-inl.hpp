// SPDX-License-Identifier: Apache-2.0
// Row codes to and from the strips of a block. Shared by all instruction sets: packing runs once per
// stored row, far from any hot loop. Include from an ISA translation unit only.
#pragma once

#include <bit>
#include <cstring>

#include "kernel/plane_kernels.hpp"

namespace residua::kernel {
namespace {

static_assert(std::endian::native == std::endian::little, "expand_planes writes bytes by words");

inline void pack_planes(std::size_t bytes, const std::uint8_t* rows, std::size_t stride, std::size_t n,
                        std::uint8_t* strips) {
    for (std::size_t b = 0; b < bytes; ++b) {
        std::uint8_t column[kBlockRows] = {};
        for (std::size_t r = 0; r < n; ++r) column[r] = rows[r * stride + b];
        // A code byte is 8 dims: its high nibble belongs to the first of two strips.
        std::uint8_t* first = strips + 2 * b * kStripBytes;
        std::uint8_t* second = first + kStripBytes;
        for (std::size_t j = 0; j < kStripBytes; ++j) {
            const unsigned x = column[j], y = column[j + kStripBytes];
            first[j] = static_cast<std::uint8_t>((x >> 4) | (y & 0xF0u));
            second[j] = static_cast<std::uint8_t>((x & 0x0Fu) | ((y << 4) & 0xF0u));
        }
    }
}

inline void unpack_planes(std::size_t bytes, const std::uint8_t* strips, std::size_t row, std::uint8_t* code) {
    const std::size_t j = row % kStripBytes;
    const unsigned shift = row < kStripBytes ? 0 : 4;
    for (std::size_t b = 0; b < bytes; ++b) {
        const std::uint8_t* first = strips + 2 * b * kStripBytes;
        const unsigned high = (first[j] >> shift) & 0x0Fu;
        const unsigned low = (first[kStripBytes + j] >> shift) & 0x0Fu;
        code[b] = static_cast<std::uint8_t>((high << 4) | low);
    }
}

// The bits of a nibble, first dim first, as the high bits of 4 bytes: the four shifted copies of x that
// the product adds up do not overlap.
inline std::uint32_t spread_nibble(std::uint32_t x) { return (x * 0x80402010u) & 0x80808080u; }

// The values of 4 dims of all rows, a byte each, from their strips in planes 0 … planes - 1. A plain
// function of the same name in the vocabulary of an instruction set goes before this template.
template <class Byte>
void spread_strips(const Byte* const* strips, std::uint32_t planes, Byte* cells) {
    std::uint32_t rows[kBlockRows] = {};
    for (std::uint32_t t = 0; t < planes; ++t) {
        for (std::size_t j = 0; j < kStripBytes; ++j) {
            rows[j] |= spread_nibble(strips[t][j] & 15u) >> (7 - t);
            rows[j + kStripBytes] |= spread_nibble(strips[t][j] >> 4) >> (7 - t);
        }
    }
    std::memcpy(cells, rows, sizeof rows);
}

inline void expand_planes(const PlaneLayout& layout, const std::uint8_t* strips, std::uint8_t* cells) {
    const std::uint8_t* plane[kMaxPlanes] = {};
    for (std::uint32_t t = layout.planes; t-- > 0; strips += layout.groups[t] * kGroupStrips * kStripBytes) {
        plane[t] = strips;
    }
    std::uint32_t planes = layout.planes;  // of the group at hand
    for (std::size_t s = 0; s < layout.groups[0] * kGroupStrips; ++s, cells += kBlockRows * 4) {
        while (s >= layout.groups[planes - 1] * kGroupStrips) --planes;
        spread_strips(plane, planes, cells);
        for (std::uint32_t t = 0; t < planes; ++t) plane[t] += kStripBytes;
    }
}

// Entry x of the tables of one strip, whose weights are w, for all x. A plain function of the same name goes before
// this template, as with spread_strips.
template <class Byte>
void fill_strip(const std::int32_t* w, std::int32_t range, float inverse, Byte* coarse, Byte* low, Byte* high,
                StripTable& out) {
    std::int32_t value[kStripBytes], entry[kStripBytes], error[kStripBytes];
    for (std::int32_t x = 0; x < std::int32_t{kStripBytes}; ++x) {
        value[x] = (w[0] & -(x >> 3 & 1)) + (w[1] & -(x >> 2 & 1)) + (w[2] & -(x >> 1 & 1)) + (w[3] & -(x & 1)) - out.low;
    }
    for (std::size_t x = 0; x < kStripBytes; ++x) {
        entry[x] = static_cast<std::int32_t>(static_cast<float>(value[x]) * inverse + 0.5f);
        error[x] = kCoarseMax * value[x] - range * entry[x];
    }
    std::int32_t sum = 0, squares = 0, most = error[0], least = error[0];
    for (std::size_t x = 0; x < kStripBytes; ++x) sum += error[x];
    for (std::size_t x = 0; x < kStripBytes; ++x) squares += error[x] * error[x];
    for (std::size_t x = 0; x < kStripBytes; ++x) most = most < error[x] ? error[x] : most;
    for (std::size_t x = 0; x < kStripBytes; ++x) least = error[x] < least ? error[x] : least;
    for (std::size_t x = 0; x < kStripBytes; ++x) {
        coarse[x] = static_cast<Byte>(entry[x]);
        low[x] = static_cast<Byte>(value[x] & ((1 << kExactLowBits) - 1));
        high[x] = static_cast<Byte>(value[x] >> kExactLowBits);
    }
    out.error_sum = sum;
    out.error_squares = squares;
    out.error_high = most;
    out.error_low = least;
}

inline void fill_tables(const std::int16_t* weights, std::size_t n_strips, std::int32_t range, std::uint8_t* coarse,
                        std::uint8_t* exact, StripTable* out) {
    const float inverse = range == 0 ? 0.0f : static_cast<float>(kCoarseMax) / static_cast<float>(range);
    std::uint8_t* high = exact + n_strips * kStripBytes;
    for (std::size_t s = 0; s < n_strips; ++s) {
        std::int32_t w[4];
        StripTable strip{};
        for (std::size_t i = 0; i < 4; ++i) {
            w[i] = weights[4 * s + i];
            strip.low += w[i] < 0 ? w[i] : 0;
            strip.total += w[i];
            strip.squares += w[i] * w[i];
        }
        const std::size_t at = s * kStripBytes;
        fill_strip(w, range, inverse, coarse + at, exact + at, high + at, strip);
        out[s] = strip;
    }
}

// The checks that every query of a tile asks for: only then can a block be left early.
inline std::uint32_t common_checks(const PlaneScan* queries, std::size_t nq) {
    std::uint32_t checks = ~0u;
    for (std::size_t i = 0; i < nq; ++i) checks &= queries[i].check_planes;
    return checks | 1u;
}

}  // namespace
}  // namespace residua::kernel
