// SPDX-License-Identifier: Apache-2.0
#include "index/ivf_lists.hpp"

#include <algorithm>
#include <cstring>

#include "core/error.hpp"

namespace residua::index {
namespace {

using codec::kBlockRows;

std::uint32_t blocks_of(std::size_t rows) { return static_cast<std::uint32_t>((rows + kBlockRows - 1) / kBlockRows); }

std::size_t bytes_of(const codec::Codec* codec) { return codec == nullptr ? 0 : codec->block_bytes(); }

}  // namespace

std::size_t IvfLists::entries() const {
    std::size_t n = 0;
    for (const List& l : lists_) n += l.n;
    return n;
}

std::size_t IvfLists::list_memory() const {
    const std::size_t rows = rows_.is_shown() ? rows_.size() * sizeof(std::uint32_t) : rows_.memory_bytes();
    return rows + lists_.capacity() * sizeof(List) + block_rows_.capacity() + fill_.capacity() * sizeof(std::uint32_t);
}

void IvfLists::own(const codec::Codec* codec) {
    if (codec != nullptr) {
        block_rows_.resize(kBlockRows * codec->code_bytes());
        last_code_.resize(codec->code_bytes());
    }
    rows_.edit();
    codes_.edit();
}

void IvfLists::reserve(const codec::Codec* codec, std::span<const std::uint32_t> more) {
    std::size_t blocks = rows_.size() / kBlockRows;
    for (std::size_t l = 0; l < lists_.size(); ++l) {
        if (lists_[l].n + more[l] > lists_[l].blocks * kBlockRows) blocks += blocks_of(grown(lists_[l].n, more[l]));
    }
    if (blocks > kNoRow / kBlockRows) throw Error(ErrorKind::unsupported, "the lists would hold more than 2^32 places");
    own(codec);
    fill_.resize(lists_.size());
    rows_.edit(blocks * kBlockRows);
    codes_.edit(blocks * bytes_of(codec));
}

// Rows that a list makes room for when it moves: the first rows exactly, later ones with slack.
std::size_t IvfLists::grown(std::size_t n, std::size_t more) { return n == 0 ? more : std::max(n + more, n + n / 2); }

void IvfLists::make_room(const codec::Codec* codec, List& list, std::size_t more) {
    if (list.n + more <= list.blocks * kBlockRows) return;
    const std::size_t bytes = bytes_of(codec);
    AlignedVector<std::uint32_t>& rows = rows_.edit();
    AlignedVector<std::uint8_t>& codes = codes_.edit();
    const auto first = static_cast<std::uint32_t>(rows.size() / kBlockRows);
    const std::uint32_t blocks = blocks_of(grown(list.n, more));
    rows.resize((first + blocks) * kBlockRows, kNoRow);
    codes.resize((first + blocks) * bytes);
    std::copy_n(rows.data() + list.first_place(), list.n, rows.data() + first * kBlockRows);
    std::copy_n(codes.data() + list.first_block * bytes, blocks_of(list.n) * bytes, codes.data() + first * bytes);
    std::fill_n(rows.data() + list.first_place(), list.n, kNoRow);
    list.first_block = first;
    list.blocks = blocks;
}

void IvfLists::append(const codec::Codec* codec, std::span<const Entry> entries, const std::uint8_t* codes) {
    stamp_.renew();
    std::fill(fill_.begin(), fill_.end(), 0u);
    for (const Entry& e : entries) ++fill_[e.list];
    for (std::size_t l = 0; l < lists_.size(); ++l) make_room(codec, lists_[l], fill_[l]);
    std::uint32_t* rows = rows_.edit().data();
    const std::size_t bytes = codec == nullptr ? 0 : codec->code_bytes();
    for (std::size_t i = 0; i < entries.size();) {
        // As many as are for one block.
        List& list = lists_[entries[i].list];
        const std::size_t place = list.first_place() + list.n, in_block = place % kBlockRows;
        std::size_t n = 0;
        for (; i + n < entries.size() && entries[i + n].list == entries[i].list && in_block + n < kBlockRows; ++n) {
            rows[place + n] = entries[i + n].row;
        }
        if (codec != nullptr) {
            std::uint8_t* block = codes_.edit().data() + place / kBlockRows * codec->block_bytes();
            for (std::size_t j = 0; j < in_block; ++j) codec->unpack_row(block, j, block_rows_.data() + j * bytes);
            std::copy_n(codes + i * bytes, n * bytes, block_rows_.data() + in_block * bytes);
            codec->pack_block(block_rows_.data(), in_block + n, block);
        }
        list.n += static_cast<std::uint32_t>(n);
        i += n;
    }
}

// The other rows of the block stay; those past the end of the list are of no matter.
void IvfLists::write(const codec::Codec& codec, std::size_t place, const std::uint8_t* code) {
    const std::size_t bytes = codec.code_bytes();
    std::uint8_t* block = codes_.edit().data() + place / kBlockRows * codec.block_bytes();
    for (std::size_t j = 0; j < kBlockRows; ++j) codec.unpack_row(block, j, block_rows_.data() + j * bytes);
    std::copy_n(code, bytes, block_rows_.data() + place % kBlockRows * bytes);
    codec.pack_block(block_rows_.data(), kBlockRows, block);
}

void IvfLists::erase(const codec::Codec* codec, const Bitset& gone) {
    stamp_.renew();
    std::uint32_t* rows = rows_.edit().data();
    std::vector<std::uint8_t>& code = last_code_;
    for (List& list : lists_) {
        const std::size_t first = list.first_place();
        for (std::uint32_t i = 0; i < list.n;) {
            if (!gone.test(rows[first + i])) {
                ++i;
                continue;
            }
            const std::size_t last = first + --list.n;
            rows[first + i] = rows[last];
            rows[last] = kNoRow;
            if (codec == nullptr || first + i == last) continue;
            codec->unpack_row(codes_.data() + last / kBlockRows * codec->block_bytes(), last % kBlockRows, code.data());
            write(*codec, first + i, code.data());
        }
    }
}

std::vector<std::uint8_t> IvfLists::gather(const codec::Codec& codec, std::span<const std::uint32_t> wanted,
                                           std::vector<std::uint32_t>& lists) const {
    // Places of the wanted rows, by one pass over all.
    std::vector<std::uint32_t> order(wanted.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return wanted[a] < wanted[b]; });
    const std::size_t bytes = codec.code_bytes();
    std::vector<std::uint8_t> out(wanted.size() * bytes);
    lists.assign(wanted.size(), 0);
    for (std::size_t l = 0; l < lists_.size(); ++l) {
        for (std::size_t p = lists_[l].first_place(); p < lists_[l].first_place() + lists_[l].n; ++p) {
            const std::uint32_t row = rows_[p];
            auto at = std::lower_bound(order.begin(), order.end(), row, [&](auto i, auto r) { return wanted[i] < r; });
            for (; at != order.end() && wanted[*at] == row; ++at) {
                codec.unpack_row(codes_.data() + p / kBlockRows * codec.block_bytes(), p % kBlockRows,
                                 out.data() + *at * bytes);
                lists[*at] = static_cast<std::uint32_t>(l);
            }
        }
    }
    return out;
}

bool IvfLists::is_packed() const {
    std::size_t block = 0;
    for (const List& l : lists_) {
        if (l.first_block != block || l.blocks != blocks_of(l.n)) return false;
        block += l.blocks;
    }
    return block * kBlockRows == rows_.size();
}

IvfLists IvfLists::packed(const codec::Codec* codec) const {
    IvfLists out(lists_.size());
    std::size_t blocks = 0;
    for (const List& l : lists_) blocks += blocks_of(l.n);
    const std::size_t bytes = bytes_of(codec);
    AlignedVector<std::uint32_t> rows(blocks * kBlockRows, kNoRow);
    AlignedVector<std::uint8_t> codes(blocks * bytes);
    std::uint32_t block = 0;
    for (std::size_t l = 0; l < lists_.size(); ++l) {
        const List& from = lists_[l];
        out.lists_[l] = {block, blocks_of(from.n), from.n};
        std::copy_n(rows_.data() + from.first_place(), from.n, rows.data() + block * kBlockRows);
        std::copy_n(codes_.data() + from.first_block * bytes, blocks_of(from.n) * bytes, codes.data() + block * bytes);
        block += blocks_of(from.n);
    }
    out.rows_ = store::SharedArray<std::uint32_t>(std::move(rows));
    out.codes_ = store::SharedArray<std::uint8_t>(std::move(codes));
    return out;
}

void IvfLists::pack(const codec::Codec* codec, std::span<const std::uint32_t> numbers) {
    IvfLists out = packed(codec);
    out.own(codec);
    for (std::uint32_t& row : out.rows_.edit()) {
        if (row != kNoRow) row = numbers[row];
    }
    *this = std::move(out);
}

void IvfLists::save(store::Writer& out, const codec::Codec* codec) const {
    std::vector<std::uint32_t> sizes;
    for (const List& l : lists_) sizes.push_back(l.n);
    out.put_copy<std::uint32_t>("lists.sizes", sizes);
    if (is_packed()) {
        out.put<std::uint32_t>("lists.rows", rows_.span());
        if (codec != nullptr) out.put<std::uint8_t>("lists.codes", codes_.span());
        return;
    }
    const IvfLists tight = packed(codec);
    out.put_copy<std::uint32_t>("lists.rows", tight.rows_.span());
    if (codec != nullptr) out.put_copy<std::uint8_t>("lists.codes", tight.codes_.span());
}

IvfLists IvfLists::load(const store::Reader& in, const codec::Codec* codec, std::size_t nlist, const Bitset& live,
                        std::size_t copies) {
    IvfLists out(nlist);
    const auto sizes = in.array<std::uint32_t>("lists.sizes", nlist);
    const std::size_t most = live.count() * copies;
    std::size_t entries = 0, block = 0;
    for (std::size_t l = 0; l < nlist; ++l) {
        entries += sizes[l];
        if (entries > most) in.fail("lists.sizes", "sums up to more rows than the index has");
        out.lists_[l] = {static_cast<std::uint32_t>(block), blocks_of(sizes[l]), sizes[l]};
        block += blocks_of(sizes[l]);
    }
    const auto rows = in.array<std::uint32_t>("lists.rows", block * kBlockRows);
    std::vector<std::uint8_t> seen(live.size());
    for (const List& list : out.lists_) {
        const std::uint32_t* row = rows.data() + list.first_place();
        for (std::uint32_t i = 0; i < list.n; ++i) {
            if (row[i] >= live.size() || !live.test(row[i])) in.fail("lists.rows", "names a row that the index has not");
            if (++seen[row[i]] > copies) in.fail("lists.rows", "names row " + std::to_string(row[i]) + " too often");
        }
        for (std::size_t i = list.n; i < list.blocks * kBlockRows; ++i) {
            if (row[i] != kNoRow) in.fail("lists.rows", "names a row past the end of a list");
        }
    }
    for (std::size_t r = 0; r < live.size(); ++r) {
        if (live.test(r) && seen[r] == 0) in.fail("lists.rows", "row " + std::to_string(r) + " is in no list");
    }
    out.rows_ = store::SharedArray<std::uint32_t>(rows, in.keep_alive("lists.rows"));
    if (codec != nullptr) {
        const auto codes = in.array<std::uint8_t>("lists.codes", block * codec->block_bytes());
        out.codes_ = store::SharedArray<std::uint8_t>(codes, in.keep_alive("lists.codes"));
    }
    return out;
}

}  // namespace residua::index
