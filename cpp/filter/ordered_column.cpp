// SPDX-License-Identifier: Apache-2.0
#include "filter/ordered_column.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

#include "filter/value_grid.hpp"

namespace residua::filter {
namespace {

constexpr std::size_t kSample = 65536;  // values that bins are chosen by
constexpr std::size_t kManyIntervals = 16;  // a search among more is worth a grid

std::int64_t before(std::int64_t x) { return x - 1; }
double before(double x) { return std::nextafter(x, -std::numeric_limits<double>::infinity()); }

bool is_null_value(std::int64_t) { return false; }
bool is_null_value(double x) { return std::isnan(x); }

template <class T>
constexpr T kNullValue = std::numeric_limits<T>::has_quiet_NaN ? std::numeric_limits<T>::quiet_NaN() : T{0};

// Upper bounds of bins with about `step` values of the ascending sample each; a value that fills one
// alone gets it for itself.
template <class T>
std::vector<T> bounds_by(const std::vector<T>& sample, std::size_t step) {
    std::vector<T> bounds;
    const auto close_at = [&](T bound) {
        if (bounds.empty() || bounds.back() < bound) bounds.push_back(bound);
    };
    std::size_t in_bin = 0;
    for (std::size_t i = 0; i < sample.size();) {
        std::size_t end = i + 1;
        while (end < sample.size() && sample[end] == sample[i]) ++end;
        if (end - i >= step && i > 0) {
            close_at(before(sample[i]));
            in_bin = 0;
        }
        in_bin += end - i;
        if (in_bin >= step) {
            close_at(sample[i]);
            in_bin = 0;
        }
        i = end;
    }
    if (in_bin > 0) close_at(sample.back());
    return bounds;
}

}  // namespace

template <class T>
std::uint8_t OrderedColumn<T>::bin_of(T value) const {
    const auto at = static_cast<std::size_t>(std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin());
    return static_cast<std::uint8_t>(at < bounds_.size() || at == 0 ? at : at - 1);
}

template <class T>
void OrderedColumn<T>::put(std::size_t row, T value, bool null) noexcept {
    if (null) {
        lane_[row] = kNullBin;
        return;
    }
    const std::uint8_t b = bin_of(value);
    lane_[row] = b;
    Bin& bin = bins_[b];
    bin.low = bin.rows == 0 ? value : std::min(bin.low, value);
    bin.high = bin.rows == 0 ? value : std::max(bin.high, value);
    ++bin.rows;
}

template <class T>
void OrderedColumn<T>::choose_bins() {
    std::vector<T> sample;
    const std::size_t n = values_.size(), stride = n / kSample + 1;
    sample.reserve(n / stride + 1);
    for (std::size_t row = 0; row < n; row += stride) {
        if (lane_[row] != kNullBin) sample.push_back(values_[row]);
    }
    std::sort(sample.begin(), sample.end());
    // A frequent value may take two bins, its own and the one it cuts off: so half as many steps are safe.
    std::vector<T> bounds = bounds_by(sample, sample.size() / kMaxBins + 1);
    if (bounds.size() > kMaxBins) bounds = bounds_by(sample, 2 * sample.size() / kMaxBins + 2);
    bounds_ = std::move(bounds);
}

template <class T>
void OrderedColumn<T>::fill_bins() noexcept {
    bins_.fill({});
    const T* values = values_.data();
    for (std::size_t row = 0; row < lane_.size(); ++row) put(row, values[row], lane_[row] == kNullBin);
}

template <class T>
bool OrderedColumn<T>::is_crowded() const {
    const std::size_t limit = crowded(lane_.size());
    return std::any_of(bins_.begin(), bins_.end(), [&](const Bin& b) { return b.rows > limit && b.low < b.high; });
}

// Better bins are not worth a failure: without memory for them the old ones stay.
template <class T>
void OrderedColumn<T>::rebin_if_crowded() noexcept {
    if (!is_crowded()) return;
    try {
        choose_bins();
    } catch (const std::bad_alloc&) {
        return;
    }
    fill_bins();
}

template <class T>
void OrderedColumn<T>::prepare(const Cells&, std::span<const std::uint32_t>, std::size_t n_new) {
    const std::size_t n = size() + n_new;
    reserve(values_, n);
    if (n > lane_.capacity()) lane_.reserve(std::max(n, lane_.capacity() + lane_.capacity() / 8));
}

template <class T>
void OrderedColumn<T>::commit(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) noexcept {
    AlignedVector<T>& values = values_.edit();
    values.resize(values.size() + n_new, kNullValue<T>);
    lane_.resize(values.size(), kNullBin);
    const auto* given = std::get_if<NumberCells<T>>(&cells);
    for (std::size_t i = 0; given != nullptr && i < rows.size(); ++i) {
        const std::size_t row = rows[i];
        if (lane_[row] != kNullBin) --bins_[lane_[row]].rows;
        const T value = given->values[i];
        const bool null = is_null_value(value) || (!given->nulls.empty() && given->nulls[i] != 0);
        values[row] = null ? kNullValue<T> : value;
        put(row, value, null);
    }
    rebin_if_crowded();
}

template <class T>
void OrderedColumn<T>::compact(std::span<const std::uint32_t> keep) {
    AlignedVector<T> values;
    values.reserve(keep.size());
    AlignedVector<std::uint8_t> lane;
    lane.reserve(keep.size());
    for (const std::uint32_t row : keep) {
        values.push_back(values_[row]);
        lane.push_back(lane_[row]);
    }
    values_ = store::SharedArray<T>(std::move(values));
    lane_ = std::move(lane);
    fill_bins();
    rebin_if_crowded();
}

template <class T>
Cells OrderedColumn<T>::read(std::span<const std::uint32_t> rows) const {
    NumberCells<T> out;
    out.values.reserve(rows.size());
    out.nulls.reserve(rows.size());
    for (const std::uint32_t row : rows) {
        out.values.push_back(values_[row]);
        out.nulls.push_back(lane_[row] == kNullBin ? 1 : 0);
    }
    return out;
}

template <class T>
void OrderedColumn<T>::select(const Condition& condition, Bitset& out) const {
    const auto& ranges = std::get<Ranges<T>>(condition);
    const std::vector<Interval<T>>& wanted = ranges.intervals;
    ByteSet sure, maybe;
    if (ranges.null) sure.add(kNullBin);
    struct Span {
        std::uint32_t begin, end;
    };
    std::array<Span, kMaxBins> overlap{};  // the intervals that meet a bin
    for (std::size_t b = 0; b < kMaxBins; ++b) {
        const Bin& bin = bins_[b];
        if (bin.rows == 0) continue;
        const auto first = std::partition_point(wanted.begin(), wanted.end(), [&](const auto& i) { return i.high < bin.low; });
        const auto last = std::partition_point(first, wanted.end(), [&](const auto& i) { return i.low <= bin.high; });
        if (first == last) continue;
        if (first->low <= bin.low && bin.high <= first->high) {
            sure.add(b);
        } else {
            maybe.add(b);
            overlap[b] = {static_cast<std::uint32_t>(first - wanted.begin()), static_cast<std::uint32_t>(last - wanted.begin())};
        }
    }
    const T* values = values_.data();
    const auto pass = [&](std::size_t row) {
        const T value = values[row];
        // The first interval that does not end below the value, without branches that cannot be foreseen.
        const Span meets = overlap[lane_[row]];
        const Interval<T>* at = wanted.data() + meets.begin;
        for (std::uint32_t n = meets.end - meets.begin; n > 1;) {
            const std::uint32_t half = n / 2;
            at += half * static_cast<std::uint32_t>(at[half - 1].high < value);
            n -= half;
        }
        return (at->low <= value) & (value <= at->high);
    };
    if (wanted.size() < kManyIntervals) {
        select_rows(lane_, sure, maybe, pass, out);
        return;
    }
    ValueGrid grid;
    for (std::size_t b = 0; b < kMaxBins; ++b) {
        const Span meets = overlap[b];
        if (meets.begin == meets.end) continue;
        grid.add_bin(b, bins_[b].low, bins_[b].high, std::span(wanted).subspan(meets.begin, meets.end - meets.begin));
    }
    const std::uint8_t* bins = lane_.data();
    const auto look = [&](std::size_t row) { return grid.may_match(bins[row], values[row]); };
    if (grid.is_exact()) select_rows(lane_, sure, maybe, look, out, look);
    else select_rows(lane_, sure, maybe, pass, out, look);
}

template <class T>
std::size_t OrderedColumn<T>::memory_bytes() const {
    return values_.memory_bytes() + lane_.capacity() + bounds_.capacity() * sizeof(T) + sizeof(*this);
}

template <class T>
void OrderedColumn<T>::save(store::Writer& writer, const std::string& prefix) const {
    writer.put<T>(prefix + ".values", values_.span());
    if constexpr (!std::numeric_limits<T>::has_quiet_NaN) {
        Bitset nulls(size());
        for (std::size_t row = 0; row < size(); ++row) {
            if (lane_[row] == kNullBin) nulls.set(row);
        }
        if (nulls.count() > 0) writer.put_copy<std::uint64_t>(prefix + ".nulls", nulls.words());
    }
}

template <class T>
std::unique_ptr<OrderedColumn<T>> OrderedColumn<T>::load(const store::Reader& reader, const std::string& prefix,
                                                         std::size_t rows) {
    const std::string values_name = prefix + ".values", nulls_name = prefix + ".nulls";
    reader.verify(values_name);
    auto out = std::make_unique<OrderedColumn<T>>();
    const auto values = reader.array<T>(values_name, rows);
    out->values_ = store::SharedArray<T>(values, reader.keep_alive(values_name));
    out->lane_.assign(rows, 0);
    if constexpr (std::numeric_limits<T>::has_quiet_NaN) {
        for (std::size_t row = 0; row < rows; ++row) {
            if (is_null_value(values[row])) out->lane_[row] = kNullBin;
        }
    } else if (reader.has(nulls_name)) {
        reader.verify(nulls_name);
        const auto words = reader.array<std::uint64_t>(nulls_name, (rows + 63) / 64);
        if (rows % 64 != 0 && words.back() >> (rows % 64) != 0) reader.fail(nulls_name, "has bits past the last row");
        for (std::size_t row = 0; row < rows; ++row) {
            if ((words[row / 64] >> (row % 64) & 1) == 0) continue;
            if (values[row] != 0) reader.fail(values_name, "a null row holds a value");
            out->lane_[row] = kNullBin;
        }
    }
    out->choose_bins();
    out->fill_bins();
    return out;
}

template class OrderedColumn<std::int64_t>;
template class OrderedColumn<double>;

}  // namespace residua::filter
