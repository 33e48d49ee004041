// SPDX-License-Identifier: Apache-2.0
// The id map in a file: keys and sections "ids.*" (docs/format.md).
#include <algorithm>
#include <bit>
#include <limits>

#include "store/id_hash.hpp"
#include "store/id_map.hpp"

namespace residua::store {
namespace {

constexpr std::int64_t kLargestId = std::numeric_limits<std::int64_t>::max();
constexpr auto kRowLimit = static_cast<std::int64_t>(kMaxRows);

}  // namespace

void IdMap::save(Writer& writer) const {
    writer.put_string("ids.kind", kind_ == IdKind::none ? "none" : kind_ == IdKind::integer ? "int" : "str");
    writer.put_int("ids.rows", static_cast<std::int64_t>(n_rows_));
    writer.put_int("ids.n_erased", static_cast<std::int64_t>(n_erased_));
    writer.put_int("ids.max", max_id_);
    if (kind_ == IdKind::integer && consecutive_) {
        writer.put_int("ids.first", first_);
    } else if (kind_ == IdKind::integer) {
        writer.put("ids.values", std::span<const std::int64_t>(ints_));
    } else if (kind_ == IdKind::string) {
        writer.put("ids.offsets", std::span<const std::uint64_t>(offsets_));
        writer.put("ids.bytes", std::span<const char>(arena_));
    }
    if (n_erased_ > 0) {
        const auto words = erased_.words();
        std::vector<std::uint64_t> all((n_rows_ + 63) / 64);
        std::copy(words.begin(), words.end(), all.begin());
        writer.put_copy("ids.erased", std::span<const std::uint64_t>(all));
    }
}

IdMap IdMap::load(const Reader& reader) {
    IdMap map;
    const std::string& kind = reader.get_string("ids.kind");
    if (kind != "none" && kind != "int" && kind != "str") {
        reader.fail("meta", "key 'ids.kind' is '" + kind + "', expected 'none', 'int' or 'str'");
    }
    map.kind_ = kind == "int" ? IdKind::integer : kind == "str" ? IdKind::string : IdKind::none;
    map.n_rows_ = static_cast<std::size_t>(reader.get_int("ids.rows", 0, map.kind_ == IdKind::none ? 0 : kRowLimit));
    map.max_id_ = reader.get_int("ids.max", -1, kLargestId);
    map.load_erased(reader);
    if (map.kind_ == IdKind::integer) map.load_integers(reader);
    if (map.kind_ == IdKind::string) map.load_strings(reader);
    if (map.consecutive_) return map;
    map.monotone_ = false;  // makes before() compare the ids themselves
    map.monotone_ = map.rows_ascend();
    if (map.monotone_) return map;
    // Built one by one: an id that is there already has no place.
    map.table_.assign(table_size(map.size()), kEmptySlot);
    for (std::uint32_t row = 0; row < map.n_rows_; ++row) {
        if (!map.is_live(row)) continue;
        const bool known = map.kind_ == IdKind::integer ? map.find(map.int_id(row)).has_value()
                                                        : map.find(map.string_id(row)).has_value();
        if (known) {
            reader.fail(map.kind_ == IdKind::integer ? "ids.values" : "ids.bytes",
                        "id " + map.id_text(row) + " appears twice");
        }
        map.insert_row(map.table_, row);
    }
    return map;
}

void IdMap::load_integers(const Reader& reader) {
    const auto rows = static_cast<std::int64_t>(n_rows_);
    if (reader.has_key("ids.first")) {
        first_ = reader.get_int("ids.first", 0, kLargestId - std::max<std::int64_t>(rows - 1, 0));
        if (rows > 0 && max_id_ < first_ + rows - 1) reader.fail("meta", "key 'ids.max' is below an id");
        return;
    }
    reader.verify("ids.values");
    const auto values = reader.array<std::int64_t>("ids.values", n_rows_);
    for (const std::int64_t id : values) {
        if (id < 0 || id > max_id_) reader.fail("ids.values", "id " + std::to_string(id) + " is out of range");
    }
    ints_.assign(values.begin(), values.end());
    consecutive_ = false;
}

void IdMap::load_strings(const Reader& reader) {
    reader.verify("ids.offsets");
    reader.verify("ids.bytes");
    const auto offsets = reader.array<std::uint64_t>("ids.offsets", n_rows_ + 1);
    const auto bytes = reader.array<char>("ids.bytes");
    for (std::size_t i = 0; i < n_rows_; ++i) {
        if (offsets[i + 1] < offsets[i] || offsets[i + 1] - offsets[i] > kMaxIdBytes) {
            reader.fail("ids.offsets", "offsets do not ascend by at most " + std::to_string(kMaxIdBytes));
        }
    }
    if (offsets.front() != 0 || offsets.back() != bytes.size()) {
        reader.fail("ids.offsets", "offsets do not span section 'ids.bytes'");
    }
    offsets_.assign(offsets.begin(), offsets.end());
    arena_.assign(bytes.begin(), bytes.end());
    consecutive_ = false;
}

void IdMap::load_erased(const Reader& reader) {
    n_erased_ = static_cast<std::size_t>(reader.get_int("ids.n_erased", 0, static_cast<std::int64_t>(n_rows_)));
    if (n_erased_ == 0) return;
    reader.verify("ids.erased");
    const auto words = reader.array<std::uint64_t>("ids.erased", (n_rows_ + 63) / 64);
    erased_.resize(n_rows_);
    std::copy(words.begin(), words.end(), erased_.words().begin());
    const bool past_end = n_rows_ % 64 != 0 && (words.back() >> (n_rows_ % 64)) != 0;
    if (past_end || erased_.count() != n_erased_) reader.fail("ids.erased", "its bits do not match the rows");
}

}  // namespace residua::store
