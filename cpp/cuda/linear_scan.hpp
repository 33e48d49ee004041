// SPDX-License-Identifier: Apache-2.0
// Scans of linear codes (codec/linear_form.hpp) in three steps: a kernel multiplies coarse weights with the codes and
// appends the rows whose bound reaches the threshold (cuda/linear_query.hpp), another scores those exactly, and the
// pools keep the best. Two kernels for the first step:
//   few queries   products of tiles of bits, of the codes as they lie in memory, which is read once: bound by its
//                 bandwidth. A tile is 8 rows and one or two queries; the bits of coarse weights are its 16 rows.
//   many queries  products of tiles of bytes: levels are spread out in shared memory, once for 256 queries; bound by
//                 the tensor cores' int8 rate.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "cuda/code_scan.hpp"
#include "cuda/linear_layout.hpp"
#include "cuda/linear_query.hpp"

namespace residua::cuda {

class LinearScan final : public CodeScan {
public:
    explicit LinearScan(Context& context) : context_(context) {}

    void take(const codec::Codec& codec, codec::BlockView codes, int num_threads) override;
    std::size_t rows() const override { return rows_; }
    std::size_t device_bytes() const override { return codes_.bytes() + scale_.bytes() + add_.bytes(); }
    std::vector<std::vector<ScoredRow>> best(const codec::Scorer& queries, std::size_t keep, const RowChoice& choice) override;
    std::vector<std::vector<ScoredRow>> best_of(const codec::Scorer& queries, std::span<const RowRange> ranges, std::size_t keep,
                                                const RowChoice& choice) override;

    const LinearLayout& layout() const { return layout_; }
    // For tests and measurements: n rows without scalars whose words, of whole tiles of kBlockRows rows, `make` writes on the device.
    void take_made(const codec::LinearForm& form, std::size_t n, const std::function<void(std::uint32_t* words, std::size_t count)>& make);
    // For tests and measurements; 0: as it is best.
    struct Way {
        std::size_t many_from = 0;  // queries from which the second kernel is taken
        std::size_t growth = 0;     // of parts (Pools::scan)
    };
    void set_way(Way way) { way_ = way; }

private:
    struct Batch;
    void make_room(const codec::LinearForm& form, std::size_t n);
    bool takes_many(std::size_t n_queries) const;
    std::size_t batch_size(std::size_t most, std::size_t keep) const;
    void scan_for_many(const Batch& batch, Pools& pools);
    template <bool kResident>
    void scan_for_many(const Batch& batch, const ByteTiles& tiles, Pools& pools);
    template <class MakeTasks>
    void scan_for_few(const Batch& batch, const BitTiles& tiles, std::size_t n, std::size_t growth, Pools& pools, MakeTasks make_tasks);

    Context& context_;
    LinearLayout layout_;
    std::size_t rows_ = 0;
    DeviceArray<std::uint32_t> codes_;  // whole tiles of kBlockRows rows
    DeviceArray<float> scale_, add_;    // empty where all are 1 and 0
    Way way_;
};

}  // namespace residua::cuda
