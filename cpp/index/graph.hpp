// SPDX-License-Identifier: Apache-2.0
// A directed graph over rows, of at most `degree` neighbours each, and the rows at which walks start.
//
// One writer, any number of readers without locks. A list is written entry by entry with atomic stores, so
// a reader may see parts of the old and of the new one: all of them are rows, and a walk works with
// either. Rows at or past the size of a reader's view are not his yet, and he passes over them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/grow_array.hpp"

namespace residua::index {

inline constexpr std::uint32_t kNoRow = 0xFFFFFFFFu;  // ends a list that is not full
inline constexpr std::size_t kMaxDegree = 256;

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t) &&
              std::atomic<std::uint32_t>::is_always_lock_free);

// Lists lie in arrays of plain numbers, which files show and arrays copy.
inline std::uint32_t load_row(const std::uint32_t* at) {
    return reinterpret_cast<const std::atomic<std::uint32_t>*>(at)->load(std::memory_order_relaxed);
}
inline void store_row(std::uint32_t* at, std::uint32_t row) {
    reinterpret_cast<std::atomic<std::uint32_t>*>(at)->store(row, std::memory_order_relaxed);
}

struct GraphView {
    std::size_t n = 0;
    std::size_t degree = 0;
    const std::uint32_t* edges = nullptr;  // n lists of `degree` places
    std::shared_ptr<const std::vector<std::uint32_t>> entries;
    std::shared_ptr<const void> owner;

    const std::uint32_t* list(std::uint32_t row) const { return edges + row * degree; }
};

class Graph {
public:
    explicit Graph(std::size_t degree) : degree_(degree) {}
    // A loaded graph; the caller has validated it.
    Graph(std::size_t degree, GrowArray<std::uint32_t> edges, std::vector<std::uint32_t> entries);

    std::size_t size() const { return degree_ == 0 ? 0 : edges_.size() / degree_; }
    std::size_t degree() const { return degree_; }
    std::span<const std::uint32_t> entries() const { return *entries_; }
    std::span<const std::uint32_t> edges() const { return edges_.span(); }
    std::size_t memory_bytes() const { return edges_.memory_bytes() + entries_->capacity() * sizeof(std::uint32_t); }
    bool is_shown() const { return edges_.is_shown(); }
    GraphView view() const { return {size(), degree_, edges_.data(), entries_, edges_.view().owner}; }

    void reserve(std::size_t n) { edges_.reserve(n * degree_); }
    // New rows have no neighbours.
    void grow(std::size_t n) { edges_.resize(n * degree_, kNoRow); }
    // Forgets rows from n on, in a block that no reader of them knows.
    void cut(std::size_t n) { edges_.renew(n * degree_); }
    // Makes the lists its own, for set_list().
    void edit() { edges_.reserve(edges_.size()); }
    std::size_t count(std::uint32_t row) const;
    std::span<const std::uint32_t> neighbours(std::uint32_t row) const {
        return {edges_.data() + row * degree_, count(row)};
    }
    // Different threads may set different lists.
    void set_list(std::uint32_t row, std::span<const std::uint32_t> rows);

    // From begin_changes() on, what lists were is remembered until one of the others is called.
    void begin_changes();
    // Rows whose lists were set since then, and the new ones.
    std::vector<std::uint32_t> changed_rows() const;
    void keep_changes() noexcept { log_.reset(); }
    void undo_changes();
    // Lists of the rows `keep`, renumbered in their order; edges to other rows vanish.
    Graph renumbered(std::span<const std::uint32_t> keep) const;
    void set_entries(std::vector<std::uint32_t> entries) {
        entries_ = std::make_shared<const std::vector<std::uint32_t>>(std::move(entries));
    }

private:
    struct Log;

    std::size_t degree_;
    GrowArray<std::uint32_t> edges_;
    std::shared_ptr<const std::vector<std::uint32_t>> entries_ = std::make_shared<const std::vector<std::uint32_t>>();
    std::shared_ptr<Log> log_;
};

}  // namespace residua::index
