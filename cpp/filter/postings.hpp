// SPDX-License-Identifier: Apache-2.0
// For every tag the rows that have it: the gaps between them as variable-length numbers (7 bits per
// byte, low ones first, bit 7 on all bytes but the last), or a bitmap where they are many.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/bitset.hpp"

namespace residua::filter {

class Postings {
public:
    // Rows of the table when this was made.
    std::size_t rows() const { return rows_; }
    std::size_t tags() const { return places_.size(); }
    std::size_t memory_bytes() const {
        return bytes_.capacity() + bitmaps_.capacity() * sizeof(std::uint64_t) + places_.capacity() * sizeof(Place);
    }

    // tag_at(i): the tag of entry i; those of row r are entries offsets[r] … offsets[r + 1] - 1.
    template <class TagAt>
    static Postings make(std::size_t n_tags, std::span<const std::uint32_t> offsets, TagAt tag_at);

    // Sets the bits of the rows that have the tag.
    void add_rows(std::size_t tag, Bitset& out) const;

private:
    static constexpr std::uint32_t kBitmap = 0xFFFFFFFFu;
    static std::size_t gap_bytes(std::uint32_t gap) { return gap < 1u << 7 ? 1 : gap < 1u << 14 ? 2 : gap < 1u << 21 ? 3 : gap < 1u << 28 ? 4 : 5; }
    static std::uint8_t* write_gap(std::uint8_t* p, std::uint32_t gap) {
        for (; gap >= 0x80; gap >>= 7) *p++ = static_cast<std::uint8_t>(gap | 0x80);
        *p++ = static_cast<std::uint8_t>(gap);
        return p;
    }

    struct Place {
        std::uint64_t begin = 0;   // in bytes_, or in bitmaps_
        std::uint32_t count = 0;   // rows, or kBitmap
    };

    std::size_t rows_ = 0;
    std::vector<Place> places_;
    std::vector<std::uint8_t> bytes_;
    std::vector<std::uint64_t> bitmaps_;
};

template <class TagAt>
Postings Postings::make(std::size_t n_tags, std::span<const std::uint32_t> offsets, TagAt tag_at) {
    Postings out;
    out.rows_ = offsets.size() - 1;
    out.places_.resize(n_tags);
    struct Tally {
        std::uint64_t bytes = 0;
        std::uint32_t rows = 0;
        std::uint32_t next = 0;  // the row after the last one that had the tag
    };
    std::vector<Tally> tallies(n_tags);
    const auto for_each_entry = [&](auto use) {
        for (std::uint32_t row = 0; row < out.rows_; ++row) {
            for (std::uint32_t i = offsets[row]; i < offsets[row + 1]; ++i) use(row, tag_at(i));
        }
    };
    for_each_entry([&](std::uint32_t row, std::uint32_t tag) {
        Tally& t = tallies[tag];
        t.bytes += gap_bytes(row - t.next);
        t.next = row + 1;
        ++t.rows;
    });
    const std::size_t words = (out.rows_ + 63) / 64;
    std::uint64_t n_bytes = 0, n_words = 0;
    for (std::size_t tag = 0; tag < n_tags; ++tag) {
        Tally& t = tallies[tag];
        // Setting the bits one by one would take longer than reading such a bitmap.
        const bool bitmap = std::size_t{t.rows} * 16 >= out.rows_ && t.rows > 0;
        out.places_[tag] = {bitmap ? n_words : n_bytes, bitmap ? kBitmap : t.rows};
        (bitmap ? n_words : n_bytes) += bitmap ? words : t.bytes;
        t = {out.places_[tag].begin, 0, 0};
    }
    out.bytes_.resize(n_bytes);
    out.bitmaps_.resize(n_words);
    for_each_entry([&](std::uint32_t row, std::uint32_t tag) {
        Tally& t = tallies[tag];
        if (out.places_[tag].count == kBitmap) {
            out.bitmaps_[t.bytes + row / 64] |= std::uint64_t{1} << (row % 64);
        } else {
            std::uint8_t* begin = out.bytes_.data() + t.bytes;
            t.bytes += static_cast<std::uint64_t>(write_gap(begin, row - t.next) - begin);
            t.next = row + 1;
        }
    });
    return out;
}

inline void Postings::add_rows(std::size_t tag, Bitset& out) const {
    if (tag >= places_.size()) return;
    const Place place = places_[tag];
    const auto words = out.words();
    if (place.count == kBitmap) {
        for (std::size_t w = 0; w < (rows_ + 63) / 64; ++w) words[w] |= bitmaps_[place.begin + w];
        return;
    }
    const std::uint8_t* p = bytes_.data() + place.begin;
    std::uint32_t row = 0;
    for (std::uint32_t i = 0; i < place.count; ++i) {
        std::uint32_t gap = *p & 0x7Fu;
        for (int shift = 7; (*p++ & 0x80u) != 0; shift += 7) gap |= (*p & 0x7Fu) << shift;
        row += gap;
        words[row >> 6] |= std::uint64_t{1} << (row & 63);
        ++row;
    }
}

}  // namespace residua::filter
