// SPDX-License-Identifier: Apache-2.0
#include "store/id_map.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <utility>

#include "core/checksum.hpp"
#include "store/id_hash.hpp"

namespace residua::store {
namespace {

std::string text_of(std::int64_t id) { return std::to_string(id); }
std::string text_of(std::string_view id) { return std::string(1, '\'').append(id).append(1, '\''); }

void check_id(std::int64_t id, std::size_t position) {
    if (id < 0) {
        throw Error(ErrorKind::value, "ids must be integers from 0 to 2**63 - 1, got " + std::to_string(id) +
                                          " at position " + std::to_string(position));
    }
}

void check_id(std::string_view id, std::size_t position) {
    if (id.size() > kMaxIdBytes) {
        throw Error(ErrorKind::value, "an id has at most " + std::to_string(kMaxIdBytes) + " bytes in UTF-8, got " +
                                          std::to_string(id.size()) + " at position " + std::to_string(position));
    }
}

template <class Id>
constexpr IdKind kKindOf = std::is_same_v<Id, std::int64_t> ? IdKind::integer : IdKind::string;

// Throws for the first id that stands in the batch a second time.
template <class Id>
void check_batch(std::span<const Id> ids) {
    for (std::size_t i = 0; i < ids.size(); ++i) check_id(ids[i], i);
    const auto not_below = [](const Id& a, const Id& b) { return !(a < b); };
    if (std::adjacent_find(ids.begin(), ids.end(), not_below) == ids.end()) return;  // ascends strictly
    std::vector<std::uint32_t> seen(table_size(ids.size()), kEmptySlot);
    for (std::size_t i = 0; i < ids.size(); ++i) {
        std::size_t slot = hash_id(ids[i]) & (seen.size() - 1);
        for (; seen[slot] != kEmptySlot; slot = (slot + 1) & (seen.size() - 1)) {
            if (ids[seen[slot]] == ids[i]) {
                throw Error(ErrorKind::duplicate_id, "id " + text_of(ids[i]) + " is given twice in this call, at positions " +
                                                         std::to_string(seen[slot]) + " and " + std::to_string(i));
            }
        }
        seen[slot] = static_cast<std::uint32_t>(i);
    }
}

// Room for `n` elements, growing geometrically.
template <class T>
void reserve_for(std::vector<T>& v, std::size_t n) {
    if (n > v.capacity()) v.reserve(std::max(n, v.capacity() + v.capacity() / 2));
}

}  // namespace

template <>
std::int64_t IdMap::id_at(std::uint32_t row) const {
    return int_id(row);
}
template <>
std::string_view IdMap::id_at(std::uint32_t row) const {
    return string_id(row);
}

void IdMap::check_kind(IdKind kind) const {
    if (kind_ == IdKind::none || kind_ == kind) return;
    throw Error(ErrorKind::value, kind == IdKind::string
                                      ? "this index has integer ids; string ids cannot be mixed in"
                                      : "this index has string ids; give string ids for the new vectors, too");
}

void IdMap::check_rows(std::size_t n_new) const {
    if (n_new > kMaxRows - n_rows_) {
        throw Error(ErrorKind::unsupported, "an index holds at most " + std::to_string(kMaxRows) + " rows; it has " +
                                                std::to_string(n_rows_) + " and " + std::to_string(n_new) +
                                                " were to be added");
    }
}

template <class Id>
AddPlan IdMap::plan(std::span<const Id> ids, bool upsert) const {
    if (!ids.empty()) check_kind(kKindOf<Id>);
    // Only new rows count towards the limit, but positions in the batch must be 32-bit as well.
    if (ids.size() > kMaxRows) check_rows(ids.size());
    check_batch(ids);
    AddPlan plan;
    plan.kind = kKindOf<Id>;
    plan.first_new_row = static_cast<std::uint32_t>(n_rows_);
    plan.version_ = version_;
    plan.rows.resize(ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (const auto row = lookup(ids[i])) {
            if (!upsert) {
                throw Error(ErrorKind::duplicate_id,
                            "id " + text_of(ids[i]) + " is in the index already; pass upsert=True to replace its vector");
            }
            plan.rows[i] = *row;
        } else {
            check_rows(plan.n_new + 1);
            plan.rows[i] = static_cast<std::uint32_t>(n_rows_ + plan.n_new++);
        }
    }
    return plan;
}

AddPlan IdMap::plan_add(std::span<const std::int64_t> ids, bool upsert) const {
    AddPlan result = plan(ids, upsert);
    result.ints_ = ids;
    return result;
}

AddPlan IdMap::plan_add(std::span<const std::string_view> ids, bool upsert) const {
    AddPlan result = plan(ids, upsert);
    result.strings_ = ids;
    return result;
}

AddPlan IdMap::plan_auto(std::size_t n) const {
    if (n > 0) check_kind(IdKind::integer);
    check_rows(n);
    // Unsigned, because there are 2^63 ids above -1.
    const auto largest = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    if (n > largest - static_cast<std::uint64_t>(max_id_)) {
        throw Error(ErrorKind::value, "no automatic ids are left above " + std::to_string(max_id_) + "; give ids");
    }
    AddPlan plan;
    plan.kind = IdKind::integer;
    plan.first_new_row = static_cast<std::uint32_t>(n_rows_);
    plan.version_ = version_;
    plan.n_new = n;
    plan.first_auto_ = n > 0 ? max_id_ + 1 : 0;
    plan.rows.resize(n);
    std::iota(plan.rows.begin(), plan.rows.end(), plan.first_new_row);
    return plan;
}

void IdMap::check_version(const AddPlan& plan) const {
    if (plan.version_ != version_) throw Error(ErrorKind::value, "the ids have changed since this batch was planned");
}

bool IdMap::continues_range(const AddPlan& plan) const {
    if (!consecutive_) return false;
    std::int64_t expected = n_rows_ > 0 ? first_ + static_cast<std::int64_t>(n_rows_ - 1) : -1;
    bool started = n_rows_ > 0;
    for (std::size_t i = 0; i < plan.rows.size(); ++i) {
        if (!plan.is_new(i)) continue;
        const std::int64_t id = plan.int_at(i);
        if (started && id - 1 != expected) return false;
        expected = id;
        started = true;
    }
    return true;
}

bool IdMap::keeps_order(const AddPlan& plan) const {
    const auto ascends = [&]<class Id>(auto&& at, Id last, bool started) {
        for (std::size_t i = 0; i < plan.rows.size(); ++i) {
            if (!plan.is_new(i)) continue;
            const Id id = at(i);
            if (started && !(last < id)) return false;
            last = id;
            started = true;
        }
        return true;
    };
    const bool started = n_rows_ > 0;
    const auto last_row = static_cast<std::uint32_t>(started ? n_rows_ - 1 : 0);
    if (plan.kind == IdKind::integer) {
        return ascends([&](std::size_t i) { return plan.int_at(i); }, started ? int_id(last_row) : 0, started);
    }
    return ascends([&](std::size_t i) { return plan.strings_[i]; }, started ? string_id(last_row) : std::string_view(),
                   started);
}

// Consecutive ids become an array, with the same content.
void IdMap::spell_out() {
    std::vector<std::int64_t> ids(n_rows_);
    for (std::uint32_t row = 0; row < n_rows_; ++row) ids[row] = int_id(row);
    ints_ = std::move(ids);
    consecutive_ = false;
}

void IdMap::reserve(const AddPlan& plan) {
    check_version(plan);
    if (plan.n_new == 0) return;
    if (plan.kind == IdKind::integer) {
        if (continues_range(plan)) return;
        if (consecutive_) spell_out();
        reserve_for(ints_, n_rows_ + plan.n_new);
    } else {
        std::size_t bytes = arena_.size();
        for (std::size_t i = 0; i < plan.rows.size(); ++i) bytes += plan.is_new(i) ? plan.strings_[i].size() : 0;
        reserve_for(arena_, bytes);
        reserve_for(offsets_, n_rows_ + plan.n_new + 1);
        if (offsets_.empty()) offsets_.push_back(0);
    }
    const std::size_t n_live = size() + plan.n_new;
    if (monotone_ ? !keeps_order(plan) : table_size(n_live) > table_.size()) {
        table_ = build_table(n_live);
        monotone_ = false;
    }
}

void IdMap::commit(const AddPlan& plan) {
    reserve(plan);
    if (plan.n_new == 0) return;
    ++version_;
    kind_ = plan.kind;
    if (kind_ == IdKind::string) consecutive_ = false;
    const bool extends_range = plan.kind == IdKind::integer && continues_range(plan);
    for (std::size_t i = 0; i < plan.rows.size(); ++i) {
        if (!plan.is_new(i)) continue;
        if (plan.kind == IdKind::string) {
            const std::string_view id = plan.strings_[i];
            arena_.insert(arena_.end(), id.begin(), id.end());
            offsets_.push_back(arena_.size());
        } else {
            const std::int64_t id = plan.int_at(i);
            max_id_ = std::max(max_id_, id);
            if (!extends_range) ints_.push_back(id);
            if (extends_range && n_rows_ == 0) first_ = id;
        }
        if (!monotone_) insert_row(table_, plan.rows[i]);
        ++n_rows_;
    }
}

template <class Id>
std::optional<std::uint32_t> IdMap::lookup(Id id) const {
    if (kind_ != kKindOf<Id> || n_rows_ == 0) return std::nullopt;
    std::uint32_t row = 0;
    if (monotone_) {
        const auto last = static_cast<std::uint32_t>(n_rows_ - 1);
        if (id < id_at<Id>(0) || id_at<Id>(last) < id) return std::nullopt;
        if constexpr (kKindOf<Id> == IdKind::integer) {
            if (consecutive_) {
                row = static_cast<std::uint32_t>(id - first_);
                return is_live(row) ? std::optional(row) : std::nullopt;
            }
        }
        std::uint32_t end = last;  // the first row whose id is not below `id` lies in [row, end]
        while (row < end) {
            const std::uint32_t middle = row + (end - row) / 2;
            if (id_at<Id>(middle) < id) {
                row = middle + 1;
            } else {
                end = middle;
            }
        }
        return id_at<Id>(row) == id && is_live(row) ? std::optional(row) : std::nullopt;
    }
    const std::size_t mask = table_.size() - 1;
    for (std::size_t slot = hash_id(id) & mask; table_[slot] != kEmptySlot; slot = (slot + 1) & mask) {
        if (id_at<Id>(table_[slot]) == id) return table_[slot];
    }
    return std::nullopt;
}

std::optional<std::uint32_t> IdMap::find(std::int64_t id) const { return lookup(id); }
std::optional<std::uint32_t> IdMap::find(std::string_view id) const { return lookup(id); }

std::string IdMap::id_text(std::uint32_t row) const {
    return kind_ == IdKind::string ? text_of(string_id(row)) : text_of(int_id(row));
}

void IdMap::erase_row(std::uint32_t row) {
    if (!is_live(row)) throw Error(ErrorKind::unknown_id, "row " + std::to_string(row) + " is not in the index");
    if (erased_.size() < n_rows_) erased_.resize(n_rows_);
    if (!monotone_) remove_row(row);
    erased_.set(row);
    ++n_erased_;
    ++version_;
}

std::vector<std::uint32_t> IdMap::live_rows() const {
    std::vector<std::uint32_t> rows;
    rows.reserve(size());
    for (std::uint32_t row = 0; row < n_rows_; ++row) {
        if (is_live(row)) rows.push_back(row);
    }
    return rows;
}

bool IdMap::rows_ascend() const {
    for (std::uint32_t row = 1; row < n_rows_; ++row) {
        if (!before(row - 1, row)) return false;
    }
    return true;
}

void IdMap::compact(std::span<const std::uint32_t> keep) {
    for (std::size_t i = 0; i < keep.size(); ++i) {
        if (!is_live(keep[i]) || (i > 0 && keep[i] <= keep[i - 1])) {
            throw Error(ErrorKind::value, "rows to keep must be live and ascend");
        }
    }
    IdMap kept;
    kept.max_id_ = max_id_;
    kept.version_ = version_ + 1;
    kept.n_rows_ = keep.size();
    if (!keep.empty()) {
        kept.kind_ = kind_;
        kept.consecutive_ = false;
        if (kind_ == IdKind::string) {
            kept.offsets_.reserve(keep.size() + 1);
            kept.offsets_.push_back(0);
            std::size_t bytes = 0;
            for (const std::uint32_t row : keep) kept.offsets_.push_back(bytes += string_id(row).size());
            kept.arena_.reserve(bytes);
            for (const std::uint32_t row : keep) {
                const std::string_view id = string_id(row);
                kept.arena_.insert(kept.arena_.end(), id.begin(), id.end());
            }
        } else if (consecutive_ && keep.back() - keep.front() + 1 == keep.size()) {
            kept.consecutive_ = true;
            kept.first_ = int_id(keep.front());
        } else {
            kept.ints_.reserve(keep.size());
            for (const std::uint32_t row : keep) kept.ints_.push_back(int_id(row));
        }
        kept.monotone_ = false;  // makes before() compare the ids themselves
        kept.monotone_ = kept.consecutive_ || kept.rows_ascend();
        if (!kept.monotone_) kept.table_ = kept.build_table(kept.n_rows_);
    }
    *this = std::move(kept);
}

void IdMap::lower_max_id(std::int64_t id) {
    max_id_ = id;
    for (std::uint32_t row = 0; kind_ == IdKind::integer && row < n_rows_; ++row) max_id_ = std::max(max_id_, int_id(row));
}

bool IdMap::before(std::uint32_t row_a, std::uint32_t row_b) const {
    if (monotone_) return row_a < row_b;
    return kind_ == IdKind::string ? string_id(row_a) < string_id(row_b) : int_id(row_a) < int_id(row_b);
}

std::size_t IdMap::memory_bytes() const {
    return ints_.capacity() * sizeof(std::int64_t) + arena_.capacity() + offsets_.capacity() * sizeof(std::uint64_t) +
           table_.capacity() * sizeof(std::uint32_t) + erased_.words().size_bytes();
}

std::uint64_t IdMap::hash_row(std::uint32_t row) const noexcept {
    return kind_ == IdKind::string ? hash_id(string_id(row)) : hash_id(int_id(row));
}

std::vector<std::uint32_t> IdMap::build_table(std::size_t capacity) const {
    std::vector<std::uint32_t> table(table_size(capacity), kEmptySlot);
    for (std::uint32_t row = 0; row < n_rows_; ++row) {
        if (is_live(row)) insert_row(table, row);
    }
    return table;
}

void IdMap::insert_row(std::vector<std::uint32_t>& table, std::uint32_t row) const noexcept {
    const std::size_t mask = table.size() - 1;
    std::size_t slot = hash_row(row) & mask;
    while (table[slot] != kEmptySlot) slot = (slot + 1) & mask;
    table[slot] = row;
}

// Closes the gap by moving later members of the cluster back, so that no tombstones pile up.
void IdMap::remove_row(std::uint32_t row) noexcept {
    const std::size_t mask = table_.size() - 1;
    std::size_t gap = hash_row(row) & mask;
    while (table_[gap] != row) gap = (gap + 1) & mask;
    for (std::size_t slot = (gap + 1) & mask; table_[slot] != kEmptySlot; slot = (slot + 1) & mask) {
        const std::size_t home = hash_row(table_[slot]) & mask;
        // A member may move to the gap unless its home lies cyclically after the gap.
        if (((slot - home) & mask) >= ((slot - gap) & mask)) {
            table_[gap] = table_[slot];
            gap = slot;
        }
    }
    table_[gap] = kEmptySlot;
}

}  // namespace residua::store
