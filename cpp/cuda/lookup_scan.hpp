// SPDX-License-Identifier: Apache-2.0
// Scan of codes whose score is a sum of table entries (codec/lookup_form.hpp). Tables of a group of queries stand in
// shared memory, entries of the group side by side, so that one load serves them all; where not even one query's fit, a
// pass takes a slice of the numbers of some rows after the other.
//
// Bound by shared memory. Random loads of a warp's lanes from 256 entries meet in banks: for one query, on average, 3.5
// cycles, for four 2.6 each. Loads from 16 entries do not: 1 cycle per query, and 5 instructions where four are issued
// at a time. At 132 multiprocessors and 1.7 GHz that is 2 to 2.8 * 10^12 and 6 to 7 * 10^12 numbers per second.
//
// Codes lie in tiles of 32 rows: 16 bytes of all rows, then the next 16, the rest in fours, with zeros to whole fours.
// A warp's loads are 512 or 128 bytes in a row.
#pragma once

#include "cuda/tiled_scan.hpp"

namespace residua::cuda {

class LookupScan final : public TiledScan {
public:
    LookupScan(Context& context, const codec::LookupShape& shape);

    void take(const codec::Codec& codec, codec::BlockView codes, int num_threads) override;
    std::size_t device_bytes() const override { return codes_.bytes(); }

private:
    std::size_t batch() const override;
    std::size_t query_bytes() const override { return table_floats() * sizeof(float); }
    std::uint32_t load(const codec::Scorer& queries, std::size_t begin, std::size_t end, std::size_t most,
                       int num_threads) override;
    void offer(const TileLaunch& tiles) override;
    template <int kBits>
    void offer_bits(const TileLaunch& tiles);

    std::size_t words() const { return (shape_.bytes + 3) / 4; }
    std::size_t word_entries() const { return std::size_t{32} / static_cast<std::size_t>(shape_.bits) * shape_.values(); }
    std::size_t table_floats() const { return words() * word_entries(); }  // of one query

    codec::LookupShape shape_;
    DeviceArray<std::uint8_t> codes_;
    std::uint32_t together_ = 1;      // queries of a group
    DeviceArray<float> tables_;       // (groups, numbers, values, together)
    DeviceArray<float> shared_parts_;  // of every query
};

}  // namespace residua::cuda
