// SPDX-License-Identifier: Apache-2.0
// What every typed column of a table is asked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/bitset.hpp"
#include "filter/bind.hpp"
#include "filter/condition.hpp"
#include "store/container.hpp"

namespace residua::filter {

inline constexpr std::uint32_t kNullCode = 0xFFFFFFFFu;

// Values on their way into a column or out of it, one per row of a call. Texts that are shown must
// outlive the call; `owner` keeps those alive that nobody else does.
template <class T>
struct NumberCells {
    std::vector<T> values;             // of floats, NaN is null
    std::vector<std::uint8_t> nulls;   // 1 for null; empty when there is none
    Zone zone = Zone::unknown;         // of times
};
struct TextCells {
    std::vector<std::string_view> texts;  // distinct
    std::vector<std::uint32_t> codes;     // number of a text, or kNullCode
    std::shared_ptr<const std::vector<std::string>> owner;
};
struct TagCells {
    std::vector<std::string_view> texts;
    std::vector<std::uint32_t> codes;     // those of row i: [offsets[i], offsets[i + 1]), without repetition
    std::vector<std::size_t> offsets;
    std::vector<std::uint8_t> nulls;
    std::shared_ptr<const std::vector<std::string>> owner;
};
// monostate: the call does not name the column.
using Cells = std::variant<std::monostate, NumberCells<std::int64_t>, NumberCells<double>, TextCells, TagCells>;

class Column {
public:
    virtual ~Column() = default;

    virtual std::size_t size() const = 0;

    // All that can fail before `n_new` rows are appended and then cells[i] go to rows[i]. What the rows
    // hold stays the same. commit() must follow, or nothing at all.
    virtual void prepare(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) = 0;
    // New rows that no cell names hold null.
    virtual void commit(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) noexcept = 0;
    // Row keep[i] becomes row i; all others vanish.
    virtual void compact(std::span<const std::uint32_t> keep) = 0;

    virtual Cells read(std::span<const std::uint32_t> rows) const = 0;
    // Sets the bits of the rows that match; `out` is as long as the column, and zero.
    virtual void select(const Condition& condition, Bitset& out) const = 0;

    virtual std::size_t memory_bytes() const = 0;
    // Sections that begin with `prefix`; the Writer shows the column until it is written. Only values
    // are saved: what serves their search is made from them when they are loaded.
    virtual void save(store::Writer& writer, const std::string& prefix) const = 0;
};

std::unique_ptr<Column> make_column(Kind kind);
std::unique_ptr<Column> load_column(Kind kind, const store::Reader& reader, const std::string& prefix,
                                    std::size_t rows);

}  // namespace residua::filter
