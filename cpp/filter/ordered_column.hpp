// SPDX-License-Identifier: Apache-2.0
// Numbers and times: values in order of rows, and a lane of bins that hold about equally many rows
// each. Values that are frequent have a bin of their own, so that only rows near the ends of a range
// are ever looked at.
#pragma once

#include <array>
#include <vector>

#include "core/aligned.hpp"
#include "filter/column.hpp"
#include "filter/lane.hpp"
#include "store/shared_array.hpp"

namespace residua::filter {

template <class T>
class OrderedColumn final : public Column {
public:
    std::size_t size() const override { return values_.size(); }
    void prepare(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) override;
    void commit(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) noexcept override;
    void compact(std::span<const std::uint32_t> keep) override;
    Cells read(std::span<const std::uint32_t> rows) const override;
    void select(const Condition& condition, Bitset& out) const override;
    std::size_t memory_bytes() const override;
    void save(store::Writer& writer, const std::string& prefix) const override;
    static std::unique_ptr<OrderedColumn> load(const store::Reader& reader, const std::string& prefix,
                                               std::size_t rows);

private:
    struct Bin {
        T low{}, high{};  // smallest and largest value it ever held
        std::size_t rows = 0;
    };

    std::uint8_t bin_of(T value) const;
    void put(std::size_t row, T value, bool null) noexcept;  // into a row that is in no bin
    void choose_bins();                                      // by the values that are there
    void fill_bins() noexcept;
    bool is_crowded() const;
    void rebin_if_crowded() noexcept;

    store::SharedArray<T> values_;  // of null rows: 0, or NaN
    AlignedVector<std::uint8_t> lane_;
    std::vector<T> bounds_;         // bin b holds values up to bounds_[b], the last one all above
    std::array<Bin, kMaxBins> bins_{};
};

extern template class OrderedColumn<std::int64_t>;
extern template class OrderedColumn<double>;

}  // namespace residua::filter
