// SPDX-License-Identifier: Apache-2.0
// Inverted lists: per list the numbers of its rows and, with a codec, their codes in whole blocks. A list
// stands in one piece; one that outgrows its blocks moves to the end and leaves a hole until pack().
// A place is a position among all blocks: place / kBlockRows is the block, the rest the row in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "codec/codec.hpp"
#include "core/bitset.hpp"
#include "index/code_device.hpp"
#include "store/container.hpp"
#include "store/shared_array.hpp"

namespace residua::index {

class IvfLists {
public:
    struct List {
        std::uint32_t first_block = 0;
        std::uint32_t blocks = 0;  // that it may fill
        std::uint32_t n = 0;       // rows

        std::size_t first_place() const { return std::size_t{first_block} * codec::kBlockRows; }
    };
    // A row for a list.
    struct Entry {
        std::uint32_t list, row;
    };
    static constexpr std::uint32_t kNoRow = 0xFFFFFFFFu;  // of places that hold nothing

    explicit IvfLists(std::size_t nlist = 0) : lists_(nlist) {}

    std::size_t size() const { return lists_.size(); }
    const List& operator[](std::size_t l) const { return lists_[l]; }
    std::size_t places() const { return rows_.size(); }
    const std::uint32_t* rows() const { return rows_.data(); }
    const std::uint8_t* codes() const { return codes_.data(); }
    std::size_t entries() const;
    std::uint64_t stamp() const { return stamp_.value(); }

    // Room for more entries per list; afterwards append() cannot fail. codec == nullptr: rows without codes.
    void reserve(const codec::Codec* codec, std::span<const std::uint32_t> more);
    // Code i, of `codes`, belongs to entry i. Entries of a list go in order.
    void append(const codec::Codec* codec, std::span<const Entry> entries, const std::uint8_t* codes);
    // Room for a change of codes that are here; afterwards erase() cannot fail.
    void own(const codec::Codec* codec);
    // Takes the rows whose bit is set out of all lists: the last row of a list takes the place of one.
    void erase(const codec::Codec* codec, const Bitset& rows);
    // Row r becomes numbers[r]. Lists move together, without room to grow; an allocation failure changes nothing.
    void pack(const codec::Codec* codec, std::span<const std::uint32_t> numbers);
    // Row codes of rows, each of which is in some list, and the list that each was found in.
    std::vector<std::uint8_t> gather(const codec::Codec& codec, std::span<const std::uint32_t> rows,
                                     std::vector<std::uint32_t>& lists) const;

    std::size_t code_memory() const { return codes_.is_shown() ? codes_.size() : codes_.memory_bytes(); }
    std::size_t list_memory() const;

    // Sections "lists.sizes", "lists.rows" and "lists.codes", without holes.
    void save(store::Writer& out, const codec::Codec* codec) const;
    // Every row that is live stands in 1 … copies lists.
    static IvfLists load(const store::Reader& in, const codec::Codec* codec, std::size_t nlist, const Bitset& live,
                         std::size_t copies);

private:
    static std::size_t grown(std::size_t n, std::size_t more);
    void make_room(const codec::Codec* codec, List& list, std::size_t more);
    void write(const codec::Codec& codec, std::size_t place, const std::uint8_t* code);
    bool is_packed() const;
    IvfLists packed(const codec::Codec* codec) const;

    std::vector<List> lists_;
    store::SharedArray<std::uint32_t> rows_;
    store::SharedArray<std::uint8_t> codes_;
    CodeStamp stamp_;  // renewed by every change
    std::vector<std::uint8_t> block_rows_;  // the row codes of one block, while it changes
    std::vector<std::uint8_t> last_code_;   // of the row that takes the place of another
    std::vector<std::uint32_t> fill_;       // entries of each list, while some are added
};

}  // namespace residua::index
