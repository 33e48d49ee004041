// SPDX-License-Identifier: Apache-2.0
#include "index/graph.hpp"

#include <utility>

namespace residua::index {

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
    for (std::size_t i = 0; i < degree_; ++i) store_row(list + i, i < rows.size() ? rows[i] : kNoRow);
}

}  // namespace residua::index
