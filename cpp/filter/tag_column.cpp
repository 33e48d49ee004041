// SPDX-License-Identifier: Apache-2.0
#include "filter/tag_column.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "core/error.hpp"

namespace residua::filter {
namespace {

constexpr std::size_t kMaxEntries = 0xFFFFFFFFu;

std::size_t entries_of(const TagCells& cells, std::size_t i) { return cells.offsets[i + 1] - cells.offsets[i]; }

}  // namespace

void TagColumn::check_total(std::size_t total) const {
    if (total > kMaxEntries) throw Error(ErrorKind::unsupported, "columns: more than 2**32 - 1 tags in all rows together");
}

void TagColumn::prepare(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) {
    const auto* given = std::get_if<TagCells>(&cells);
    pending_.clear();
    if (given != nullptr) {
        // Wide enough before the dictionary grows, so that no failure leaves it with more texts than codes.
        const std::size_t width = CodeArray::width_for(dictionary_.size() + dictionary_.count_new(given->texts));
        codes_.prepare(codes_.size(), std::max(width, codes_.width()));
        pending_.reserve(given->texts.size());
        for (const std::string_view text : given->texts) pending_.push_back(dictionary_.add(text));
    }
    next_ = {};
    const bool only_new = std::all_of(rows.begin(), rows.end(), [&](std::uint32_t r) { return r >= size(); });
    if (given == nullptr || only_new) {
        append(given, n_new);
    } else {
        rewrite(*given, rows, n_new);
    }
}

// Room for rows at the end: nothing that is there moves.
void TagColumn::append(const TagCells* cells, std::size_t n_new) {
    const std::size_t total = codes_.size() + (cells == nullptr ? 0 : cells->codes.size());
    check_total(total);
    codes_.prepare(total, codes_.width());
    reserve(offsets_, size() + n_new + 1);
    next_.nulls = nulls_;
    next_.nulls.resize(size() + n_new, true);
}

// All rows anew, as those behind a row move when its tags become more or fewer.
void TagColumn::rewrite(const TagCells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) {
    const std::size_t n = size() + n_new;
    constexpr std::size_t kNone = ~std::size_t{0};
    std::vector<std::size_t> cell_of(n, kNone);
    for (std::size_t i = 0; i < rows.size(); ++i) cell_of[rows[i]] = i;
    const auto length = [&](std::size_t row) -> std::size_t {
        if (cell_of[row] != kNone) return entries_of(cells, cell_of[row]);
        return row < size() ? offsets_[row + 1] - offsets_[row] : 0;
    };
    std::size_t total = 0;
    for (std::size_t row = 0; row < n; ++row) total += length(row);
    check_total(total);
    next_.codes.prepare(total, codes_.width());
    next_.codes.resize(total);
    AlignedVector<std::uint32_t> offsets(1, 0);
    offsets.reserve(n + 1);
    next_.nulls = nulls_;
    next_.nulls.resize(n, true);
    next_.changed = changed_;
    next_.changed.resize(n);
    std::uint32_t at = 0;
    for (std::size_t row = 0; row < n; ++row) {
        const std::size_t cell = cell_of[row], count = length(row);
        for (std::size_t j = 0; j < count; ++j) {
            next_.codes.set(at++, cell != kNone ? pending_[cells.codes[cells.offsets[cell] + j]] : codes_[offsets_[row] + j]);
        }
        offsets.push_back(at);
        if (cell == kNone) continue;
        next_.changed.set(row);
        if (cells.nulls.empty() || cells.nulls[cell] == 0) next_.nulls.reset(row);
        else next_.nulls.set(row);
    }
    next_.offsets = store::SharedArray<std::uint32_t>(std::move(offsets));
}

void TagColumn::commit(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) noexcept {
    if (next_.offsets.size() > 0) {
        codes_ = std::move(next_.codes);
        offsets_ = std::move(next_.offsets);
        changed_ = std::move(next_.changed);
    } else {
        const auto* given = std::get_if<TagCells>(&cells);
        const std::size_t first = size();
        AlignedVector<std::uint32_t>& offsets = offsets_.edit();
        if (offsets.empty()) offsets.push_back(0);
        std::size_t at = codes_.size();
        codes_.resize(at + (given == nullptr ? 0 : given->codes.size()));
        for (std::size_t i = 0; i < n_new; ++i) {
            // New rows stand in the order of the call.
            if (given != nullptr && rows[i] == first + i) {
                for (std::size_t j = given->offsets[i]; j < given->offsets[i + 1]; ++j) codes_.set(at++, pending_[given->codes[j]]);
                if (given->nulls.empty() || given->nulls[i] == 0) next_.nulls.reset(first + i);
            }
            offsets.push_back(static_cast<std::uint32_t>(at));
        }
    }
    nulls_ = std::move(next_.nulls);
    next_ = {};
    make_postings_if_stale();
}

void TagColumn::make_postings() {
    const CodeArray& codes = codes_;
    postings_ = Postings::make(dictionary_.size(), offsets_.span(), [&](std::size_t i) { return codes[i]; });
    changed_ = Bitset();
}

// Without memory for them the old ones stay, and more rows are looked at one by one.
void TagColumn::make_postings_if_stale() noexcept {
    n_changed_ = changed_.count();
    const std::size_t limit = std::max<std::size_t>(size() / 16, 2048);
    if (size() - postings_.rows() + n_changed_ <= limit) return;
    try {
        make_postings();
        n_changed_ = 0;
    } catch (const std::bad_alloc&) {
    }
}

void TagColumn::compact(std::span<const std::uint32_t> keep) {
    TagColumn kept;
    const TagCells cells = std::get<TagCells>(read(keep));
    std::vector<std::uint32_t> rows(keep.size());
    for (std::uint32_t i = 0; i < rows.size(); ++i) rows[i] = i;
    kept.prepare(cells, rows, keep.size());
    kept.commit(cells, rows, keep.size());
    *this = std::move(kept);
}

Cells TagColumn::read(std::span<const std::uint32_t> rows) const {
    TagCells out;
    std::vector<std::uint32_t> number(dictionary_.size(), kNullCode);
    out.offsets.push_back(0);
    for (const std::uint32_t row : rows) {
        for (std::size_t i = offsets_[row]; i < offsets_[row + 1]; ++i) {
            const std::uint32_t code = codes_[i];
            if (number[code] == kNullCode) {
                number[code] = static_cast<std::uint32_t>(out.texts.size());
                out.texts.push_back(dictionary_[code]);
            }
            out.codes.push_back(number[code]);
        }
        out.offsets.push_back(out.codes.size());
        out.nulls.push_back(nulls_.test(row) ? 1 : 0);
    }
    return out;
}

void TagColumn::check_rows_one_by_one(const Bitset& wanted, Bitset& out) const {
    const auto check = [&](std::size_t row) {
        bool hit = false;
        for (std::size_t i = offsets_[row]; i < offsets_[row + 1]; ++i) hit |= wanted.test(codes_[i]);
        if (hit) out.set(row);
        else out.reset(row);
    };
    if (n_changed_ > 0) {
        for (std::size_t row = 0; row < std::min(changed_.size(), postings_.rows()); ++row) {
            if (changed_.test(row)) check(row);
        }
    }
    for (std::size_t row = postings_.rows(); row < size(); ++row) check(row);
}

void TagColumn::select(const Condition& condition, Bitset& out) const {
    const auto& texts = std::get<Texts>(condition);
    Bitset wanted(dictionary_.size());
    for (const std::string& value : texts.values) {
        const auto code = dictionary_.find(value);
        if (!code) continue;
        wanted.set(*code);
        postings_.add_rows(*code, out);
    }
    check_rows_one_by_one(wanted, out);
    const auto words = out.words();
    const auto nulls = nulls_.words();
    for (std::size_t w = 0; w < words.size(); ++w) {
        if (texts.negated) words[w] = ~words[w];
        words[w] = texts.null ? words[w] | nulls[w] : words[w] & ~nulls[w];
    }
    if (size() % 64 != 0) words.back() &= (std::uint64_t{1} << size() % 64) - 1;
}

std::size_t TagColumn::memory_bytes() const {
    return dictionary_.memory_bytes() + codes_.memory_bytes() + offsets_.memory_bytes() + postings_.memory_bytes() +
           nulls_.words().size_bytes() + changed_.words().size_bytes() + pending_.capacity() * sizeof(std::uint32_t) +
           sizeof(*this);
}

void TagColumn::save(store::Writer& writer, const std::string& prefix) const {
    writer.put_int(prefix + ".width", static_cast<std::int64_t>(codes_.width()));
    codes_.save(writer, prefix + ".codes");
    writer.put<std::uint32_t>(prefix + ".offsets", offsets_.span());
    dictionary_.save(writer, prefix);
    if (nulls_.count() > 0) writer.put<std::uint64_t>(prefix + ".nulls", nulls_.words());
}

std::unique_ptr<TagColumn> TagColumn::load(const store::Reader& reader, const std::string& prefix, std::size_t rows) {
    const std::string offsets_name = prefix + ".offsets", codes_name = prefix + ".codes", nulls_name = prefix + ".nulls";
    auto out = std::make_unique<TagColumn>();
    out->dictionary_ = Dictionary::load(reader, prefix);
    reader.verify(offsets_name);
    const auto offsets = rows == 0 ? reader.array<std::uint32_t>(offsets_name) : reader.array<std::uint32_t>(offsets_name, rows + 1);
    if (offsets.size() > rows + 1) reader.fail(offsets_name, "holds more rows than the index");
    for (std::size_t row = 0; row < rows; ++row) {
        if (offsets[row] > offsets[row + 1]) reader.fail(offsets_name, "its offsets do not ascend");
    }
    if (!offsets.empty() && offsets.front() != 0) reader.fail(offsets_name, "its offsets do not begin with 0");
    out->offsets_ = store::SharedArray<std::uint32_t>(offsets, reader.keep_alive(offsets_name));
    const std::size_t entries = offsets.empty() ? 0 : offsets.back();
    out->codes_ = CodeArray::load(reader, codes_name, entries, load_width(reader, prefix, out->dictionary_.size()));
    for (std::size_t i = 0; i < entries; ++i) {
        if (out->codes_[i] >= out->dictionary_.size()) reader.fail(codes_name, "names a tag that is not in the dictionary");
    }
    out->nulls_.resize(rows);
    if (reader.has(nulls_name)) {
        reader.verify(nulls_name);
        const auto words = reader.array<std::uint64_t>(nulls_name, (rows + 63) / 64);
        if (rows % 64 != 0 && words.back() >> (rows % 64) != 0) reader.fail(nulls_name, "has bits past the last row");
        std::copy(words.begin(), words.end(), out->nulls_.words().begin());
        for (std::size_t row = 0; row < rows; ++row) {
            if (out->nulls_.test(row) && offsets[row] != offsets[row + 1]) reader.fail(nulls_name, "a null row has tags");
        }
    }
    if (rows > 0) out->make_postings();
    return out;
}

}  // namespace residua::filter
