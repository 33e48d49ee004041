// SPDX-License-Identifier: Apache-2.0
#include "filter/tag_column.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "core/error.hpp"

namespace residua::filter {
namespace {

constexpr std::size_t kMaxEntries = 0xFFFFFFFFu;
constexpr std::size_t kNone = ~std::size_t{0};

std::size_t entries_of(const TagCells& cells, std::size_t i) { return cells.offsets[i + 1] - cells.offsets[i]; }
bool is_null(const TagCells& cells, std::size_t i) { return !cells.nulls.empty() && cells.nulls[i] != 0; }

void check_total(std::size_t total) {
    if (total > kMaxEntries) throw Error(ErrorKind::unsupported, "columns: more than 2**32 - 1 tags in all rows together");
}

}  // namespace

const TagColumn::Place* TagColumn::moved(std::size_t row) const {
    if (moved_.empty()) return nullptr;
    const auto at = moved_.find(static_cast<std::uint32_t>(row));
    return at == moved_.end() ? nullptr : &at->second;
}

std::size_t TagColumn::count_of(std::size_t row) const {
    const Place* place = moved(row);
    return place != nullptr ? place->count : offsets_[row + 1] - offsets_[row];
}

template <class Use>
void TagColumn::for_each_tag(std::size_t row, Use use) const {
    if (const Place* place = moved(row)) {
        for (std::size_t i = 0; i < place->count; ++i) use(moved_codes_[place->begin + i]);
        return;
    }
    for (std::size_t i = offsets_[row]; i < offsets_[row + 1]; ++i) use(codes_[i]);
}

void TagColumn::prepare(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) {
    const auto* given = std::get_if<TagCells>(&cells);
    pending_.clear();
    if (given != nullptr) {
        // Wide enough before the dictionary grows, so that no failure leaves it with more texts than codes.
        const std::size_t width = CodeArray::width_for(dictionary_.size() + dictionary_.count_new(given->texts));
        if (width > codes_.width()) codes_.prepare(codes_.size(), width);
        pending_.reserve(given->texts.size());
        for (const std::string_view text : given->texts) pending_.push_back(dictionary_.add(text));
    }
    next_.reset();
    new_moved_.clear();
    const auto is_old = [&](std::uint32_t row) { return row < size(); };
    const auto n_changed = given == nullptr ? 0 : static_cast<std::size_t>(std::count_if(rows.begin(), rows.end(), is_old));
    if (n_new > 0) {
        next_nulls_ = nulls_;
        next_nulls_.resize(size() + n_new, true);
    }
    if (n_changed > many_moved()) {
        next_ = gather(given, rows, n_new);
        return;
    }
    if (n_new > 0) reserve_new(given, rows, n_new);
    if (n_changed > 0) reserve_changed(*given, rows);
}

// Room for rows at the end: nothing that is there moves.
void TagColumn::reserve_new(const TagCells* cells, std::span<const std::uint32_t> rows, std::size_t n_new) {
    new_cells_.assign(n_new, kNone);
    std::size_t total = codes_.size();
    for (std::size_t i = 0; cells != nullptr && i < rows.size(); ++i) {
        if (rows[i] < size()) continue;
        new_cells_[rows[i] - size()] = i;
        total += entries_of(*cells, i);
    }
    check_total(total);
    codes_.prepare(total, codes_.width());
    reserve(offsets_, size() + n_new + 1);
}

// Room in which all that is moved fits without an allocation.
void TagColumn::reserve_changed(const TagCells& cells, std::span<const std::uint32_t> rows) {
    std::size_t total = moved_codes_.size();
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (rows[i] >= size()) continue;
        total += entries_of(cells, i);
        if (moved(rows[i]) == nullptr) new_moved_.try_emplace(rows[i]);
    }
    check_total(total);
    moved_.reserve(moved_.size() + new_moved_.size());
    if (total > moved_codes_.capacity()) moved_codes_.reserve(std::max(total, 2 * moved_codes_.capacity()));
}

// The tags of all rows, with those of `cells` in `rows`, some of them new.
TagColumn::Whole TagColumn::gather(const TagCells* cells, std::span<const std::uint32_t> rows, std::size_t n_new) const {
    const std::size_t n = size() + n_new;
    std::vector<std::size_t> cell_of(n, kNone);
    for (std::size_t i = 0; i < rows.size(); ++i) cell_of[rows[i]] = i;
    AlignedVector<std::uint32_t> offsets(1, 0);
    offsets.reserve(n + 1);
    std::size_t total = 0;
    for (std::size_t row = 0; row < n; ++row) {
        total += cell_of[row] != kNone ? entries_of(*cells, cell_of[row]) : row < size() ? count_of(row) : 0;
        check_total(total);
        offsets.push_back(static_cast<std::uint32_t>(total));
    }
    Whole out;
    out.codes.prepare(total, codes_.width());
    out.codes.resize(total);
    std::size_t at = 0;
    for (std::size_t row = 0; row < n; ++row) {
        if (const std::size_t cell = cell_of[row]; cell != kNone) {
            for (std::size_t j = cells->offsets[cell]; j < cells->offsets[cell + 1]; ++j) out.codes.set(at++, pending_[cells->codes[j]]);
        } else if (row < size()) {
            for_each_tag(row, [&](std::uint32_t code) { out.codes.set(at++, code); });
        }
    }
    out.offsets = store::SharedArray<std::uint32_t>(std::move(offsets));
    out.postings = make_postings(out.codes, out.offsets.span());
    return out;
}

void TagColumn::take(Whole whole) noexcept {
    codes_ = std::move(whole.codes);
    offsets_ = std::move(whole.offsets);
    postings_ = std::move(whole.postings);
    moved_ = Moved();
    moved_codes_ = std::vector<std::uint32_t>();
}

void TagColumn::commit(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) noexcept {
    const auto* given = std::get_if<TagCells>(&cells);
    const std::size_t first = size();
    if (n_new > 0) nulls_ = std::move(next_nulls_);
    if (next_) {
        take(*std::move(next_));
        next_.reset();
    } else {
        if (n_new > 0) append(given, n_new);
        for (std::size_t i = 0; given != nullptr && i < rows.size(); ++i) {
            if (rows[i] < first) move(*given, i, rows[i]);
        }
    }
    for (std::size_t i = 0; given != nullptr && i < rows.size(); ++i) {
        if (is_null(*given, i)) nulls_.set(rows[i]);
        else nulls_.reset(rows[i]);
    }
    settle_if_many();
}

void TagColumn::append(const TagCells* cells, std::size_t n_new) noexcept {
    AlignedVector<std::uint32_t>& offsets = offsets_.edit();
    if (offsets.empty()) offsets.push_back(0);
    std::size_t at = codes_.size(), total = at;
    for (const std::size_t cell : new_cells_) total += cell == kNone ? 0 : entries_of(*cells, cell);
    codes_.resize(total);
    for (std::size_t i = 0; i < n_new; ++i) {
        if (const std::size_t cell = new_cells_[i]; cell != kNone) {
            for (std::size_t j = cells->offsets[cell]; j < cells->offsets[cell + 1]; ++j) codes_.set(at++, pending_[cells->codes[j]]);
        }
        offsets.push_back(static_cast<std::uint32_t>(at));
    }
}

void TagColumn::move(const TagCells& cells, std::size_t i, std::uint32_t row) noexcept {
    const Place place{moved_codes_.size(), entries_of(cells, i)};
    for (std::size_t j = cells.offsets[i]; j < cells.offsets[i + 1]; ++j) moved_codes_.push_back(pending_[cells.codes[j]]);
    auto at = moved_.find(row);
    if (at == moved_.end()) at = moved_.insert(new_moved_.extract(row)).position;
    at->second = place;
}

Postings TagColumn::make_postings(const CodeArray& codes, std::span<const std::uint32_t> offsets) const {
    return Postings::make(dictionary_.size(), offsets, [&](std::size_t i) { return codes[i]; });
}

// Without memory for it more rows are looked at one by one.
void TagColumn::settle_if_many() noexcept {
    const bool few_moved = moved_.size() <= many_moved() && moved_codes_.size() <= codes_.size() / 4 + 4 * many_moved();
    if (few_moved && size() - postings_.rows() <= crowded(size())) return;
    try {
        if (moved_.empty()) postings_ = make_postings(codes_, offsets_.span());
        else take(gather());
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
        for_each_tag(row, [&](std::uint32_t code) {
            if (number[code] == kNullCode) {
                number[code] = static_cast<std::uint32_t>(out.texts.size());
                out.texts.push_back(dictionary_[code]);
            }
            out.codes.push_back(number[code]);
        });
        out.offsets.push_back(out.codes.size());
        out.nulls.push_back(nulls_.test(row) ? 1 : 0);
    }
    return out;
}

void TagColumn::check_rows_one_by_one(const Bitset& wanted, Bitset& out) const {
    const auto check = [&](std::size_t row) {
        bool hit = false;
        for_each_tag(row, [&](std::uint32_t code) { hit |= wanted.test(code); });
        if (hit) out.set(row);
        else out.reset(row);
    };
    for (const auto& [row, place] : moved_) {
        if (row < postings_.rows()) check(row);
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
           nulls_.words().size_bytes() + (pending_.capacity() + moved_codes_.capacity()) * sizeof(std::uint32_t) +
           moved_.size() * (sizeof(Moved::value_type) + 2 * sizeof(void*)) + moved_.bucket_count() * sizeof(void*) +
           new_cells_.capacity() * sizeof(std::size_t) + sizeof(*this);
}

void TagColumn::save(store::Writer& writer, const std::string& prefix) const {
    writer.put_int(prefix + ".width", static_cast<std::int64_t>(codes_.width()));
    if (moved_.empty()) {
        codes_.save(writer, prefix + ".codes");
        writer.put<std::uint32_t>(prefix + ".offsets", offsets_.span());
    } else {
        const Whole whole = gather();
        writer.put_copy<std::uint8_t>(prefix + ".codes", {whole.codes.bytes(), whole.codes.size() * whole.codes.width()});
        writer.put_copy<std::uint32_t>(prefix + ".offsets", whole.offsets.span());
    }
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
    if (rows > 0) out->postings_ = out->make_postings(out->codes_, out->offsets_.span());
    return out;
}

}  // namespace residua::filter
