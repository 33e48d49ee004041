// SPDX-License-Identifier: Apache-2.0
// User ids <-> rows. Ids are int64 from 0, or strings, never both. Consecutive ids cost nothing;
// ids that ascend with their rows cost themselves (found by bisection); any other order adds a hash
// table of row numbers. An erased row keeps its place until compact().
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/bitset.hpp"
#include "core/top_k.hpp"
#include "store/container.hpp"

namespace residua::store {

inline constexpr std::size_t kMaxRows = 0xFFFFFFFEu;
inline constexpr std::size_t kMaxIdBytes = 65535;

enum class IdKind : std::uint8_t { none = 0, integer = 1, string = 2 };

// A checked batch. Shows the ids it was made from, which must outlive it, and holds for the map as
// it was: commit() refuses a plan that another change has overtaken.
struct AddPlan {
    IdKind kind = IdKind::none;
    std::vector<std::uint32_t> rows;  // row of each given id; rows >= first_new_row are new, in order of the call
    std::uint32_t first_new_row = 0;
    std::size_t n_new = 0;

    bool is_new(std::size_t i) const { return rows[i] >= first_new_row; }

private:
    friend class IdMap;
    std::span<const std::int64_t> ints_;
    std::span<const std::string_view> strings_;
    std::int64_t first_auto_ = -1;  // automatic ids: first_auto_ + i
    std::uint64_t version_ = 0;

    std::int64_t int_at(std::size_t i) const {
        return first_auto_ >= 0 ? first_auto_ + static_cast<std::int64_t>(i) : ints_[i];
    }
};

class IdMap final : public TieOrder {
public:
    std::size_t rows() const { return n_rows_; }                // erased rows included
    std::size_t size() const { return n_rows_ - n_erased_; }    // live rows
    IdKind kind() const { return kind_; }
    // Largest integer id ever added, or -1; automatic ids continue above it, so none is used twice.
    std::int64_t max_id() const { return max_id_; }

    // Validation of a whole batch; nothing changes. Throws duplicate_id for an id that is twice in
    // the call, or (without upsert) in the map; value for a negative id, an id over kMaxIdBytes, or
    // ids of the other kind; unsupported for more than kMaxRows rows.
    AddPlan plan_add(std::span<const std::int64_t> ids, bool upsert = false) const;
    AddPlan plan_add(std::span<const std::string_view> ids, bool upsert = false) const;
    AddPlan plan_auto(std::size_t n) const;
    // All the allocations of commit(); after it commit() cannot throw.
    void reserve(const AddPlan& plan);
    void commit(const AddPlan& plan);

    std::optional<std::uint32_t> find(std::int64_t id) const;
    std::optional<std::uint32_t> find(std::string_view id) const;
    bool is_live(std::uint32_t row) const { return row < n_rows_ && !erased_.holds(row); }
    void erase_row(std::uint32_t row);  // throws unknown_id when the row is not live

    std::int64_t int_id(std::uint32_t row) const { return consecutive_ ? first_ + row : ints_[row]; }
    std::string_view string_id(std::uint32_t row) const {
        return {arena_.data() + offsets_[row], static_cast<std::size_t>(offsets_[row + 1] - offsets_[row])};
    }
    // Erased rows; perhaps shorter than rows().
    const Bitset& erased() const { return erased_; }
    // For messages: 7 or 'abc'.
    std::string id_text(std::uint32_t row) const;

    // The live rows, ascending: what compact() keeps.
    std::vector<std::uint32_t> live_rows() const;
    // Row keep[i] becomes row i; `keep` ascends and holds live rows only; all others vanish.
    void compact(std::span<const std::uint32_t> keep);
    // Automatic ids go on after `id`, or after the largest id that is here.
    void lower_max_id(std::int64_t id);

    // Ids ascend with rows, so that ties need no TieOrder.
    bool is_monotone() const { return monotone_; }
    bool before(std::uint32_t row_a, std::uint32_t row_b) const override;

    std::size_t memory_bytes() const;

    // Keys and sections "ids.*". The Writer shows this map until it is written.
    void save(Writer& writer) const;
    static IdMap load(const Reader& reader);

private:
    template <class Id>
    AddPlan plan(std::span<const Id> ids, bool upsert) const;
    template <class Id>
    Id id_at(std::uint32_t row) const;
    template <class Id>
    std::optional<std::uint32_t> lookup(Id id) const;
    void check_kind(IdKind kind) const;
    void check_rows(std::size_t n_new) const;
    void check_version(const AddPlan& plan) const;
    bool continues_range(const AddPlan& plan) const;
    bool keeps_order(const AddPlan& plan) const;
    bool rows_ascend() const;
    void spell_out();
    std::uint64_t hash_row(std::uint32_t row) const noexcept;
    std::vector<std::uint32_t> build_table(std::size_t capacity) const;
    void insert_row(std::vector<std::uint32_t>& table, std::uint32_t row) const noexcept;
    void remove_row(std::uint32_t row) noexcept;
    void load_integers(const Reader& reader);
    void load_strings(const Reader& reader);
    void load_erased(const Reader& reader);

    IdKind kind_ = IdKind::none;
    bool consecutive_ = true;   // integer: the id of row r is first_ + r
    bool monotone_ = true;      // ids ascend, erased ones included: no hash table
    std::int64_t first_ = 0;
    std::int64_t max_id_ = -1;
    std::size_t n_rows_ = 0;
    std::size_t n_erased_ = 0;
    std::uint64_t version_ = 0;
    std::vector<std::int64_t> ints_;
    std::vector<char> arena_;
    std::vector<std::uint64_t> offsets_;    // string: n_rows_ + 1
    std::vector<std::uint32_t> table_;      // open addressing, a power of two, linear probing
    Bitset erased_;                         // empty until the first erase
};

}  // namespace residua::store
