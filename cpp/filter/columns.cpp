// SPDX-License-Identifier: Apache-2.0
#include "filter/columns.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "filter/dictionary.hpp"
#include "filter/ordered_column.hpp"
#include "filter/tag_column.hpp"
#include "filter/text_column.hpp"

namespace residua::filter {
namespace {

std::string prefix_of(std::size_t column) { return "columns." + std::to_string(column); }

// Two bytes per row, in which 16 results fit; small tables keep more.
std::size_t cache_limit(std::size_t rows) { return std::max<std::size_t>(std::size_t{1} << 20, 2 * rows); }

void check_fields(std::span<const Field> fields) {
    if (fields.size() > kMaxColumns) {
        throw Error(ErrorKind::value, "columns: at most " + std::to_string(kMaxColumns) + " are supported, got " +
                                          std::to_string(fields.size()));
    }
    for (std::size_t i = 0; i < fields.size(); ++i) {
        const std::string& name = fields[i].name;
        if (name.empty() || name.size() > kMaxColumnNameBytes) {
            throw Error(ErrorKind::value, "columns: a name must have 1 to " + std::to_string(kMaxColumnNameBytes) +
                                              " bytes, got " + std::to_string(name.size()));
        }
        for (std::size_t j = 0; j < i; ++j) {
            if (fields[j].name == name) throw Error(ErrorKind::value, "columns: '" + name + "' is named twice");
        }
    }
}

// Copies the texts that cells show.
template <class C>
void own_texts(C& cells) {
    auto owner = std::make_shared<std::vector<std::string>>(cells.texts.begin(), cells.texts.end());
    cells.texts.assign(owner->begin(), owner->end());
    cells.owner = std::move(owner);
}

std::size_t entries_of(const Cells& cells) {
    if (const auto* c = std::get_if<NumberCells<std::int64_t>>(&cells)) return c->values.size();
    if (const auto* c = std::get_if<NumberCells<double>>(&cells)) return c->values.size();
    if (const auto* c = std::get_if<TextCells>(&cells)) return c->codes.size();
    if (const auto* c = std::get_if<TagCells>(&cells)) return c->offsets.size() - 1;
    return 0;
}

}  // namespace

std::unique_ptr<Column> make_column(Kind kind) {
    switch (kind) {
        case Kind::integer:
        case Kind::datetime: return std::make_unique<OrderedColumn<std::int64_t>>();
        case Kind::real: return std::make_unique<OrderedColumn<double>>();
        case Kind::tags: return std::make_unique<TagColumn>();
        case Kind::boolean: return std::make_unique<TextColumn>(true);
        case Kind::category:
        case Kind::text: break;
    }
    return std::make_unique<TextColumn>(false);
}

std::unique_ptr<Column> load_column(Kind kind, const store::Reader& reader, const std::string& prefix, std::size_t rows) {
    switch (kind) {
        case Kind::integer:
        case Kind::datetime: return OrderedColumn<std::int64_t>::load(reader, prefix, rows);
        case Kind::real: return OrderedColumn<double>::load(reader, prefix, rows);
        case Kind::tags: return TagColumn::load(reader, prefix, rows);
        case Kind::boolean: return TextColumn::load(true, reader, prefix, rows);
        case Kind::category:
        case Kind::text: break;
    }
    return TextColumn::load(false, reader, prefix, rows);
}

SelectionPtr SelectionCache::find(const std::string& key) {
    const std::lock_guard lock(mutex_);
    const auto at = by_key_.find(key);
    if (at == by_key_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, at->second);
    return at->second->selection;
}

void SelectionCache::add(const std::string& key, SelectionPtr selection, std::size_t limit_bytes) {
    const std::size_t bytes = selection->rows.words().size_bytes() + key.size() + sizeof(Entry) + 64;
    if (bytes > limit_bytes) return;
    const std::lock_guard lock(mutex_);
    if (by_key_.contains(key)) return;
    entries_.push_front({key, std::move(selection), bytes});
    try {
        by_key_.emplace(entries_.front().key, entries_.begin());
    } catch (...) {
        entries_.pop_front();
        throw;
    }
    bytes_ += bytes;
    while (bytes_ > limit_bytes) {
        bytes_ -= entries_.back().bytes;
        by_key_.erase(entries_.back().key);
        entries_.pop_back();
    }
}

void SelectionCache::clear() {
    const std::lock_guard lock(mutex_);
    by_key_.clear();
    entries_.clear();
    bytes_ = 0;
}

std::size_t SelectionCache::memory_bytes() const {
    const std::lock_guard lock(mutex_);
    return bytes_;
}

Columns::Columns(std::vector<Field> fields) : fields_(std::move(fields)) {
    check_fields(fields_);
    for (const Field& f : fields_) columns_.push_back(make_column(f.kind));
}

void Columns::check_zones(const Batch& batch) const {
    for (std::size_t c = 0; c < batch.size(); ++c) {
        const auto* times = std::get_if<NumberCells<std::int64_t>>(&batch[c]);
        if (times == nullptr || times->zone == Zone::unknown || fields_[c].zone == Zone::unknown) continue;
        if (times->zone == fields_[c].zone) continue;
        throw Error(ErrorKind::dtype, "columns: '" + fields_[c].name + "' holds times " +
                                          (fields_[c].zone == Zone::utc ? "with" : "without") +
                                          " a zone, and cannot take others too");
    }
}

void Columns::prepare(const Batch& batch, std::span<const std::uint32_t> rows, std::size_t n_new) {
    if (batch.size() != fields_.size()) throw Error(ErrorKind::shape, "columns: a batch needs cells for every column");
    for (const Cells& cells : batch) {
        if (!std::holds_alternative<std::monostate>(cells) && entries_of(cells) != rows.size()) {
            throw Error(ErrorKind::shape, "columns: " + std::to_string(entries_of(cells)) + " values for " +
                                              std::to_string(rows.size()) + " rows");
        }
    }
    check_zones(batch);
    for (std::size_t c = 0; c < columns_.size(); ++c) {
        if (n_new == 0 && std::holds_alternative<std::monostate>(batch[c])) continue;
        columns_[c]->prepare(batch[c], rows, n_new);
    }
}

void Columns::commit(const Batch& batch, std::span<const std::uint32_t> rows, std::size_t n_new) noexcept {
    for (std::size_t c = 0; c < columns_.size(); ++c) {
        if (n_new == 0 && std::holds_alternative<std::monostate>(batch[c])) continue;
        columns_[c]->commit(batch[c], rows, n_new);
        const auto* times = std::get_if<NumberCells<std::int64_t>>(&batch[c]);
        if (times != nullptr && times->zone != Zone::unknown) fields_[c].zone = times->zone;
    }
    rows_ += n_new;
    cache_->clear();
}

void Columns::compact(std::span<const std::uint32_t> keep) {
    for (const auto& column : columns_) column->compact(keep);
    rows_ = keep.size();
    cache_->clear();
}

Columns::Batch Columns::read(std::span<const std::uint32_t> rows) const {
    Batch out;
    for (std::size_t c = 0; c < columns_.size(); ++c) {
        out.push_back(columns_[c]->read(rows));
        if (auto* times = std::get_if<NumberCells<std::int64_t>>(&out.back())) times->zone = fields_[c].zone;
        if (auto* texts = std::get_if<TextCells>(&out.back())) own_texts(*texts);
        if (auto* tags = std::get_if<TagCells>(&out.back())) own_texts(*tags);
    }
    return out;
}

Bitset Columns::evaluate(const Filter& filter) const {
    if (filter.type == Filter::Type::condition) {
        Bitset out(rows_);
        columns_[filter.column]->select(filter.condition, out);
        return out;
    }
    const bool both = filter.type == Filter::Type::both;
    Bitset out = evaluate(filter.parts.front());
    const auto words = out.words();
    for (std::size_t i = 1; i < filter.parts.size(); ++i) {
        const Bitset part = evaluate(filter.parts[i]);
        const auto other = part.words();
        for (std::size_t w = 0; w < words.size(); ++w) words[w] = both ? words[w] & other[w] : words[w] | other[w];
    }
    return out;
}

SelectionPtr Columns::select(const Expr& expr, const Bitset& erased) const {
    const Filter filter = filter::bind(expr, fields_);
    if (SelectionPtr known = cache_->find(filter.key)) return known;
    auto out = std::make_shared<Selection>();
    out->rows = evaluate(filter);
    const auto words = out->rows.words();
    const auto gone = erased.words();
    for (std::size_t w = 0; w < std::min(words.size(), gone.size()); ++w) words[w] &= ~gone[w];
    out->count = out->rows.count();
    cache_->add(filter.key, out, cache_limit(rows_));
    return out;
}

std::size_t Columns::memory_bytes() const {
    std::size_t bytes = 0;
    for (const Field& f : fields_) bytes += sizeof(Field) + f.name.capacity();
    for (const auto& column : columns_) bytes += column->memory_bytes();
    return bytes;
}

void Columns::save(store::Writer& writer) const {
    if (empty()) return;
    writer.put_int("columns.count", static_cast<std::int64_t>(fields_.size()));
    for (std::size_t c = 0; c < fields_.size(); ++c) {
        writer.put_string(prefix_of(c) + ".name", fields_[c].name);
        writer.put_string(prefix_of(c) + ".type", to_string(fields_[c].kind));
        if (fields_[c].zone != Zone::unknown) writer.put_int(prefix_of(c) + ".zoned", fields_[c].zone == Zone::utc ? 1 : 0);
        columns_[c]->save(writer, prefix_of(c));
    }
}

Columns Columns::load(const store::Reader& reader, std::size_t rows) {
    Columns out;
    if (!reader.has_key("columns.count")) return out;
    const auto count = static_cast<std::size_t>(reader.get_int("columns.count", 1, kMaxColumns));
    for (std::size_t c = 0; c < count; ++c) {
        const std::string prefix = prefix_of(c);
        Field field;
        field.name = reader.get_string(prefix + ".name");
        if (!is_utf8(field.name)) reader.fail("meta", "key '" + prefix + ".name' is not UTF-8");
        try {
            field.kind = parse_kind(reader.get_string(prefix + ".type"));
            out.fields_.push_back(field);
            check_fields(out.fields_);
        } catch (const Error& e) {
            if (e.kind() == ErrorKind::value) reader.fail("meta", e.what());
            throw;
        }
        if (field.kind == Kind::datetime && reader.has_key(prefix + ".zoned")) {
            out.fields_.back().zone = reader.get_int(prefix + ".zoned", 0, 1) == 1 ? Zone::utc : Zone::none;
        }
        out.columns_.push_back(load_column(field.kind, reader, prefix, rows));
    }
    out.rows_ = rows;
    return out;
}

}  // namespace residua::filter
