// SPDX-License-Identifier: Apache-2.0
#include "index/graph.hpp"

#include <algorithm>
#include <mutex>
#include <utility>

namespace residua::index {

struct Graph::Log {
    std::size_t n = 0;
    std::shared_ptr<const std::vector<std::uint32_t>> entries;
    std::vector<std::uint8_t> seen;  // a byte per row: threads set different ones
    std::mutex mutex;
    std::vector<std::uint32_t> lists;  // row, then its places
};

Graph::Graph(std::size_t degree, GrowArray<std::uint32_t> edges, std::vector<std::uint32_t> entries)
    : degree_(degree), edges_(std::move(edges)) {
    set_entries(std::move(entries));
}

std::size_t Graph::count(std::uint32_t row) const {
    const std::uint32_t* list = edges_.data() + row * degree_;
    std::size_t n = 0;
    while (n < degree_ && list[n] != kNoRow) ++n;
    return n;
}

void Graph::set_list(std::uint32_t row, std::span<const std::uint32_t> rows) {
    std::uint32_t* list = edges_.edit() + row * degree_;
    if (log_ != nullptr && row < log_->n && log_->seen[row] == 0) {
        const std::lock_guard lock(log_->mutex);
        log_->lists.push_back(row);
        log_->lists.insert(log_->lists.end(), list, list + degree_);
        log_->seen[row] = 1;
    }
    for (std::size_t i = 0; i < degree_; ++i) store_row(list + i, i < rows.size() ? rows[i] : kNoRow);
}

void Graph::begin_changes() {
    edit();
    log_ = std::make_shared<Log>();
    log_->n = size();
    log_->entries = entries_;
    log_->seen.resize(log_->n);
}

std::vector<std::uint32_t> Graph::changed_rows() const {
    std::vector<std::uint32_t> rows;
    for (std::size_t i = 0; i < log_->lists.size(); i += degree_ + 1) rows.push_back(log_->lists[i]);
    std::sort(rows.begin(), rows.end());
    for (std::size_t r = log_->n; r < size(); ++r) rows.push_back(static_cast<std::uint32_t>(r));
    return rows;
}

void Graph::undo_changes() {
    if (log_ == nullptr) return;
    const auto log = std::move(log_);
    log_ = nullptr;
    for (std::size_t i = 0; i < log->lists.size(); i += degree_ + 1) {
        std::uint32_t* list = edges_.edit() + log->lists[i] * degree_;
        for (std::size_t j = 0; j < degree_; ++j) store_row(list + j, log->lists[i + 1 + j]);
    }
    entries_ = log->entries;
    if (size() > log->n) cut(log->n);
}

Graph Graph::renumbered(std::span<const std::uint32_t> keep) const {
    std::vector<std::uint32_t> place(size(), kNoRow);
    for (std::size_t i = 0; i < keep.size(); ++i) place[keep[i]] = static_cast<std::uint32_t>(i);
    Graph out(degree_);
    out.grow(keep.size());
    std::vector<std::uint32_t> list;
    const auto renumber = [&](std::span<const std::uint32_t> rows) {
        list.clear();
        for (const std::uint32_t r : rows) {
            if (place[r] != kNoRow) list.push_back(place[r]);
        }
    };
    for (std::size_t i = 0; i < keep.size(); ++i) {
        renumber(neighbours(keep[i]));
        out.set_list(static_cast<std::uint32_t>(i), list);
    }
    renumber(entries());
    out.set_entries(list);
    return out;
}

}  // namespace residua::index
