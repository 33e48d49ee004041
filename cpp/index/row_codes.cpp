// SPDX-License-Identifier: Apache-2.0
#include "index/row_codes.hpp"

#include <algorithm>

namespace residua::index {

using codec::kBlockRows;

void RowCodes::reserve(const codec::Codec& codec, std::size_t rows) {
    block_rows_.resize(kBlockRows * codec.code_bytes());
    codes_.edit(blocks(rows) * codec.block_bytes());
}

void RowCodes::append(const codec::Codec& codec, std::size_t first, const std::uint8_t* codes, std::size_t n) {
    stamp_.renew();
    const std::size_t bytes = codec.code_bytes();
    AlignedVector<std::uint8_t>& store = codes_.edit();
    store.resize(blocks(first + n) * codec.block_bytes());
    for (std::size_t r = first; r < first + n;) {
        const std::size_t in_block = r % kBlockRows;
        const std::size_t take = std::min(kBlockRows - in_block, first + n - r);
        std::uint8_t* block = store.data() + r / kBlockRows * codec.block_bytes();
        for (std::size_t j = 0; j < in_block; ++j) codec.unpack_row(block, j, block_rows_.data() + j * bytes);
        std::copy_n(codes + (r - first) * bytes, take * bytes, block_rows_.data() + in_block * bytes);
        codec.pack_block(block_rows_.data(), in_block + take, block);
        r += take;
    }
}

void RowCodes::write(const codec::Codec& codec, std::uint32_t row, const std::uint8_t* code) {
    stamp_.renew();
    const std::size_t bytes = codec.code_bytes();
    std::uint8_t* block = codes_.edit().data() + row / kBlockRows * codec.block_bytes();
    for (std::size_t j = 0; j < kBlockRows; ++j) codec.unpack_row(block, j, block_rows_.data() + j * bytes);
    std::copy_n(code, bytes, block_rows_.data() + row % kBlockRows * bytes);
    codec.pack_block(block_rows_.data(), kBlockRows, block);
}

std::vector<std::uint8_t> RowCodes::gather(const codec::Codec& codec, std::span<const std::uint32_t> rows) const {
    const std::size_t bytes = codec.code_bytes();
    std::vector<std::uint8_t> out(rows.size() * bytes);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        codec.unpack_row(codes_.data() + rows[i] / kBlockRows * codec.block_bytes(), rows[i] % kBlockRows,
                         out.data() + i * bytes);
    }
    return out;
}

void RowCodes::compact(const codec::Codec& codec, std::span<const std::uint32_t> keep) {
    AlignedVector<std::uint8_t> packed(blocks(keep.size()) * codec.block_bytes());
    for (std::size_t b = 0; b < keep.size(); b += kBlockRows) {
        const std::size_t n = std::min(kBlockRows, keep.size() - b);
        codec.pack_block(gather(codec, keep.subspan(b, n)).data(), n,
                         packed.data() + b / kBlockRows * codec.block_bytes());
    }
    codes_ = store::SharedArray<std::uint8_t>(std::move(packed));
    stamp_.renew();
}

void RowCodes::load(const store::Reader& in, const codec::Codec& codec, std::size_t rows) {
    const auto codes = in.array<std::uint8_t>("codes", blocks(rows) * codec.block_bytes());
    codes_ = store::SharedArray<std::uint8_t>(codes, in.keep_alive("codes"));
    stamp_.renew();
}

}  // namespace residua::index
