// SPDX-License-Identifier: Apache-2.0
// The typed columns of a table, and the filters on them. Rows are those of the id map: appended,
// changed in place, and dropped by compact(). Not locked: the index that owns it lets changes exclude
// everything else. select() may run on any number of threads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/bitset.hpp"
#include "filter/bind.hpp"
#include "filter/column.hpp"
#include "filter/expr.hpp"
#include "store/container.hpp"

namespace residua::filter {

// Rows that a filter lets through, and how many they are.
struct Selection {
    Bitset rows;
    std::size_t count = 0;
};
using SelectionPtr = std::shared_ptr<const Selection>;

// The latest results by key, within a number of bytes.
class SelectionCache {
public:
    SelectionPtr find(const std::string& key);
    void add(const std::string& key, SelectionPtr selection, std::size_t limit_bytes);
    void clear();
    std::size_t memory_bytes() const;

private:
    struct Entry {
        std::string key;
        SelectionPtr selection;
        std::size_t bytes;
    };
    mutable std::mutex mutex_;
    std::list<Entry> entries_;  // latest first
    std::unordered_map<std::string_view, std::list<Entry>::iterator> by_key_;
    std::size_t bytes_ = 0;
};

inline constexpr std::size_t kMaxColumns = 256;
inline constexpr std::size_t kMaxColumnNameBytes = 255;

class Columns {
public:
    Columns() = default;
    // Throws value for names that are empty, too long, or twice.
    explicit Columns(std::vector<Field> fields);

    bool empty() const { return fields_.empty(); }
    std::span<const Field> fields() const { return fields_; }
    std::size_t rows() const { return rows_; }

    // A batch has cells for each field, or monostate, all for the same number of rows. prepare() does
    // all that can fail before n_new rows are appended and cells[i] go to rows[i]; commit() does that.
    // Rows that are new and that no cell names hold null; others keep what they have.
    using Batch = std::vector<Cells>;
    void prepare(const Batch& batch, std::span<const std::uint32_t> rows, std::size_t n_new);
    void commit(const Batch& batch, std::span<const std::uint32_t> rows, std::size_t n_new) noexcept;
    void compact(std::span<const std::uint32_t> keep);
    // To be called when rows are erased: results that are kept may hold them.
    void forget_results() noexcept { cache_->clear(); }

    // A copy, texts included.
    Batch read(std::span<const std::uint32_t> rows) const;

    // The rows that match and are not erased. Equal filters are evaluated once until the next change.
    SelectionPtr select(const Expr& expr, const Bitset& erased) const;

    std::size_t memory_bytes() const;
    std::size_t cache_bytes() const { return cache_->memory_bytes(); }

    // Keys and sections "columns.*"; nothing without columns.
    void save(store::Writer& writer) const;
    static Columns load(const store::Reader& reader, std::size_t rows);

private:
    void check_zones(const Batch& batch) const;
    Bitset evaluate(const Filter& filter) const;

    std::vector<Field> fields_;
    std::vector<std::unique_ptr<Column>> columns_;
    std::size_t rows_ = 0;
    std::unique_ptr<SelectionCache> cache_ = std::make_unique<SelectionCache>();
};

}  // namespace residua::filter
