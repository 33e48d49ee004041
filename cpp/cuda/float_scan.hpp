// SPDX-License-Identifier: Apache-2.0
// Scan of rows of floats: float32, float16 or bfloat16, added up in float32.
//   few queries   lanes of a warp take 16 bytes each of a row, for up to four queries at once, four rows in flight: bound
//                 by the memory's bandwidth (a row of 768 float16 is 24 multiplications per lane and query).
//   many queries  products of all queries with a chunk of rows by cuBLAS (cuda/products.hpp), widened to float32 before;
//                 rows that may reach a query's threshold are scored as above, so scores do not depend on the batch:
//                 bound by the float32 rate of the product.
#pragma once

#include "cuda/tiled_scan.hpp"
#include "store/row_source.hpp"

namespace residua::cuda {

class FloatScan final : public TiledScan {
public:
    // rows: as the codec says they are (Codec::rows), of which dim and type count.
    FloatScan(Context& context, const store::RowSource& rows, Metric metric);

    void take(const codec::Codec& codec, codec::BlockView codes, int num_threads) override;
    std::size_t device_bytes() const override { return codes_.bytes() + lengths_.bytes(); }

    // Queries from which products are taken; for tests and measurements. 0: where they are fast.
    void set_many_from(std::size_t queries) { many_from_ = queries; }

private:
    std::size_t batch() const override { return 1024; }
    std::size_t query_bytes() const override { return 2 * padded_dim() * sizeof(float); }
    std::uint32_t load(const codec::Scorer& queries, std::size_t begin, std::size_t end, std::size_t most,
                       int num_threads) override;
    void offer(const TileLaunch& tiles) override;
    template <store::RowType kType, bool kL2>
    void offer_as(const TileLaunch& tiles);
    template <store::RowType kType, bool kL2>
    void offer_products(const TileLaunch& tiles);
    // Calls run(type, whether distances are scores), both as constants.
    template <class Run>
    void dispatch(Run run) const;

    std::size_t chunk_for(std::size_t n_queries, std::size_t most) const;
    std::size_t unit_values() const { return 16 / store::row_type_bytes(type_); }  // of 16 bytes
    std::size_t units() const { return (dim_ + unit_values() - 1) / unit_values(); }
    std::size_t padded_dim() const { return units() * unit_values(); }

    std::size_t dim_;
    store::RowType type_;
    Metric metric_;
    std::size_t many_from_ = 0;
    DeviceArray<std::uint8_t> codes_;  // rows of units() * 16 bytes, zeros at their ends; whole tiles of rows
    DeviceArray<float> lengths_;       // of the rows
    std::uint32_t together_ = 1;       // queries of a group
    DeviceArray<float> queries_;       // rows of padded_dim(): the first 4 values of all units, then the others
    DeviceArray<float> plain_, query_lengths_;  // many: the queries as they are
    std::size_t chunk_ = 0;            // many: rows of a product; few: 0
    DeviceArray<float> products_, wide_;
};

}  // namespace residua::cuda
