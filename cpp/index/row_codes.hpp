// SPDX-License-Identifier: Apache-2.0
// Codes of rows 0, 1, …, in the codec's blocks; the last block may be partly filled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "codec/codec.hpp"
#include "index/code_device.hpp"
#include "store/container.hpp"
#include "store/shared_array.hpp"

namespace residua::index {

class RowCodes {
public:
    static std::size_t blocks(std::size_t rows) { return (rows + codec::kBlockRows - 1) / codec::kBlockRows; }

    const std::uint8_t* data() const { return codes_.data(); }
    std::size_t bytes() const { return codes_.size(); }
    std::uint64_t stamp() const { return stamp_.value(); }
    std::size_t memory_bytes() const { return codes_.is_shown() ? codes_.size() : codes_.memory_bytes(); }

    // Room for `rows` rows in all, and for what append() and write() need; afterwards these cannot fail.
    void reserve(const codec::Codec& codec, std::size_t rows);
    // Codes of rows first … first + n - 1, of which the ones before `first` are here.
    void append(const codec::Codec& codec, std::size_t first, const std::uint8_t* codes, std::size_t n);
    void write(const codec::Codec& codec, std::uint32_t row, const std::uint8_t* code);
    // Row codes, one after the other.
    std::vector<std::uint8_t> gather(const codec::Codec& codec, std::span<const std::uint32_t> rows) const;
    // Row keep[i] becomes row i; an allocation failure changes nothing.
    void compact(const codec::Codec& codec, std::span<const std::uint32_t> keep);

    // Section "codes".
    void save(store::Writer& out) const { out.put<std::uint8_t>("codes", codes_.span()); }
    void load(const store::Reader& in, const codec::Codec& codec, std::size_t rows);

private:
    store::SharedArray<std::uint8_t> codes_;
    CodeStamp stamp_;  // renewed by every change
    std::vector<std::uint8_t> block_rows_;  // the row codes of one block, while it changes
};

}  // namespace residua::index
