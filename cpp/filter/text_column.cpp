// SPDX-License-Identifier: Apache-2.0
#include "filter/text_column.hpp"

#include <algorithm>
#include <new>
#include <numeric>

namespace residua::filter {

TextColumn::TextColumn(bool booleans) : booleans_(booleans) {
    if (!booleans) return;
    dictionary_.add("false");
    dictionary_.add("true");
}

void TextColumn::put(std::size_t row, std::uint32_t code) noexcept {
    codes_.set(row, code == kNullCode ? null_code() : code);
    if (is_narrow()) return;
    if (lane_[row] != kNullBin) --bins_[lane_[row]].rows;
    lane_[row] = code == kNullCode ? kNullBin : bin_of_[code];
    if (code != kNullCode) ++bins_[lane_[row]].rows;
}

// The same values in codes of at least `width` bytes, with room for n.
void TextColumn::widen(std::size_t n, std::size_t width) {
    const std::uint32_t old_null = null_code();
    const bool had_lane = !is_narrow();
    codes_.prepare(n, std::max(width, codes_.width()));
    if (null_code() != old_null) {
        for (std::size_t row = 0; row < size(); ++row) {
            if (codes_[row] == old_null) codes_.set(row, null_code());
        }
    }
    if (had_lane || is_narrow()) return;
    lane_.assign(codes_.size(), kNullBin);
    choose_bins();
    fill_lane();
}

void TextColumn::bin_new_texts() {
    const std::size_t known = bin_of_.size();
    bin_of_.resize(dictionary_.size());
    for (std::size_t code = known; code < bin_of_.size(); ++code) {
        const std::size_t bin = first_shared_ + code % (kMaxBins - first_shared_);
        bin_of_[code] = static_cast<std::uint8_t>(bin);
        ++bins_[bin].texts;
    }
}

// A text of 1/128 of the rows has its own bin; the others go, largest first, to the emptiest bin.
void TextColumn::choose_bins() {
    std::vector<std::uint32_t> rows_of(dictionary_.size()), order(dictionary_.size());
    std::size_t n = 0;
    for (std::size_t row = 0; row < codes_.size(); ++row) {
        const std::uint32_t code = codes_[row];
        if (code == null_code()) continue;
        ++rows_of[code];
        ++n;
    }
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) { return rows_of[a] > rows_of[b]; });
    std::vector<std::uint8_t> bin_of(dictionary_.size());
    std::array<Bin, kMaxBins> bins{};
    std::size_t own = 0;
    while (own < order.size() && own < kMaxBins / 2 && std::size_t{rows_of[order[own]]} * 128 >= n) ++own;
    const auto emptier = [&](std::uint8_t a, std::uint8_t b) { return bins[a].rows != bins[b].rows ? bins[a].rows > bins[b].rows : a > b; };
    std::vector<std::uint8_t> heap;
    for (std::size_t bin = own; bin < kMaxBins; ++bin) heap.push_back(static_cast<std::uint8_t>(bin));
    for (std::size_t i = 0; i < order.size(); ++i) {
        std::uint8_t bin = static_cast<std::uint8_t>(i);
        if (i >= own) {
            std::pop_heap(heap.begin(), heap.end(), emptier);
            bin = heap.back();
        }
        bin_of[order[i]] = bin;
        ++bins[bin].texts;
        bins[bin].rows += rows_of[order[i]];
        if (i >= own) std::push_heap(heap.begin(), heap.end(), emptier);
    }
    bin_of_ = std::move(bin_of);
    bins_ = bins;
    first_shared_ = own;
}

void TextColumn::fill_lane() noexcept {
    for (Bin& bin : bins_) bin.rows = 0;
    for (std::size_t row = 0; row < lane_.size(); ++row) {
        const std::uint32_t code = codes_[row];
        lane_[row] = code == null_code() ? kNullBin : bin_of_[code];
        if (lane_[row] != kNullBin) ++bins_[lane_[row]].rows;
    }
}

// Better bins are not worth a failure: without memory for them the old ones stay.
void TextColumn::rebin_if_crowded() noexcept {
    const std::size_t limit = crowded(codes_.size());
    if (is_narrow() || std::none_of(bins_.begin(), bins_.end(), [&](const Bin& b) { return b.rows > limit && b.texts > 1; })) return;
    try {
        choose_bins();
    } catch (const std::bad_alloc&) {
        return;
    }
    fill_lane();
}

void TextColumn::prepare(const Cells& cells, std::span<const std::uint32_t>, std::size_t n_new) {
    const auto* given = std::get_if<TextCells>(&cells);
    const std::size_t n = size() + n_new;
    // Wide enough before the dictionary grows, so that no failure leaves it with more texts than codes.
    widen(n, CodeArray::width_for(dictionary_.size() + (given == nullptr ? 0 : dictionary_.count_new(given->texts))));
    pending_.clear();
    if (given != nullptr) {
        pending_.reserve(given->texts.size());
        for (const std::string_view text : given->texts) pending_.push_back(dictionary_.add(text));
    }
    if (is_narrow()) return;
    bin_new_texts();
    if (n > lane_.capacity()) lane_.reserve(std::max(n, lane_.capacity() + lane_.capacity() / 8));
}

void TextColumn::commit(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) noexcept {
    const std::size_t first = size();
    codes_.resize(first + n_new);
    if (!is_narrow()) lane_.resize(first + n_new, kNullBin);
    for (std::size_t row = first; row < size(); ++row) codes_.set(row, null_code());
    if (const auto* given = std::get_if<TextCells>(&cells)) {
        for (std::size_t i = 0; i < rows.size(); ++i) {
            put(rows[i], given->codes[i] == kNullCode ? kNullCode : pending_[given->codes[i]]);
        }
    }
    rebin_if_crowded();
}

void TextColumn::compact(std::span<const std::uint32_t> keep) {
    // Texts that no row has any more are forgotten.
    TextColumn kept(booleans_);
    TextCells cells = std::get<TextCells>(read(keep));
    kept.prepare(cells, {}, keep.size());
    std::vector<std::uint32_t> rows(keep.size());
    std::iota(rows.begin(), rows.end(), 0u);
    kept.commit(cells, rows, keep.size());
    *this = std::move(kept);
}

Cells TextColumn::read(std::span<const std::uint32_t> rows) const {
    TextCells out;
    out.codes.reserve(rows.size());
    std::vector<std::uint32_t> number(dictionary_.size(), kNullCode);
    for (const std::uint32_t row : rows) {
        const std::uint32_t code = codes_[row];
        if (code == null_code()) {
            out.codes.push_back(kNullCode);
            continue;
        }
        if (number[code] == kNullCode) {
            number[code] = static_cast<std::uint32_t>(out.texts.size());
            out.texts.push_back(dictionary_[code]);
        }
        out.codes.push_back(number[code]);
    }
    return out;
}

// The texts that are named, by code.
Bitset TextColumn::hits(const Texts& texts) const {
    Bitset out(dictionary_.size());
    for (const std::string& value : texts.values) {
        if (const auto code = dictionary_.find(value)) out.set(*code);
    }
    if (texts.prefixes.empty()) return out;
    for (std::size_t code = 0; code < dictionary_.size(); ++code) {
        const std::string_view text = dictionary_[code];
        const auto begins = [&](const std::string& prefix) { return text.starts_with(prefix); };
        if (std::any_of(texts.prefixes.begin(), texts.prefixes.end(), begins)) out.set(code);
    }
    return out;
}

void TextColumn::select(const Condition& condition, Bitset& out) const {
    const auto& texts = std::get<Texts>(condition);
    const Bitset hit = hits(texts);
    ByteSet sure, maybe;
    if (texts.null) sure.add(kNullBin);
    if (is_narrow()) {
        for (std::size_t code = 0; code < dictionary_.size(); ++code) {
            if (hit.test(code) != texts.negated) sure.add(code);
        }
        select_rows(lane(), sure, maybe, [](std::size_t) { return false; }, out);
        return;
    }
    std::array<std::uint32_t, kMaxBins> hits_in{};
    const auto words = hit.words();
    for (std::size_t w = 0; w < words.size(); ++w) {
        for (std::uint64_t left = words[w]; left != 0; left &= left - 1) {
            const std::size_t code = 64 * w + static_cast<std::size_t>(std::countr_zero(left));
            if (code < bin_of_.size()) ++hits_in[bin_of_[code]];  // texts of a call that failed have no bin, and no rows
        }
    }
    for (std::size_t b = 0; b < kMaxBins; ++b) {
        if (hits_in[b] != 0 && hits_in[b] != bins_[b].texts) {
            maybe.add(b);
        } else if ((hits_in[b] != 0) != texts.negated) {
            sure.add(b);
        }
    }
    codes_.with_width([&](auto codes) {
        const auto pass = [&, negated = texts.negated](std::size_t row) { return hit.test(codes[row]) != negated; };
        select_rows(lane(), sure, maybe, pass, out, pass);
    });
}

std::size_t TextColumn::memory_bytes() const {
    return dictionary_.memory_bytes() + codes_.memory_bytes() + lane_.capacity() + bin_of_.capacity() +
           pending_.capacity() * sizeof(std::uint32_t) + sizeof(*this);
}

void TextColumn::save(store::Writer& writer, const std::string& prefix) const {
    writer.put_int(prefix + ".width", static_cast<std::int64_t>(codes_.width()));
    codes_.save(writer, prefix + ".codes");
    if (!booleans_) dictionary_.save(writer, prefix);
}

std::unique_ptr<TextColumn> TextColumn::load(bool booleans, const store::Reader& reader, const std::string& prefix,
                                             std::size_t rows) {
    auto out = std::make_unique<TextColumn>(booleans);
    if (!booleans) out->dictionary_ = Dictionary::load(reader, prefix);
    const std::string name = prefix + ".codes";
    out->codes_ = CodeArray::load(reader, name, rows, load_width(reader, prefix, out->dictionary_.size()));
    for (std::size_t row = 0; row < rows; ++row) {
        const std::uint32_t code = out->codes_[row];
        if (code >= out->dictionary_.size() && code != out->null_code()) {
            reader.fail(name, "row " + std::to_string(row) + " names a text that is not in the dictionary");
        }
    }
    if (!out->is_narrow()) {
        out->lane_.assign(rows, kNullBin);
        out->choose_bins();
        out->fill_lane();
    }
    return out;
}

}  // namespace residua::filter
