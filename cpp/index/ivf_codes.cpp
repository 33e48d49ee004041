// SPDX-License-Identifier: Apache-2.0
// Lists and codes of an IvfIndex that come and go as they are.
#include <algorithm>
#include <mutex>
#include <numeric>
#include <string>

#include "core/error.hpp"
#include "index/ivf_index.hpp"

namespace residua::index {

std::vector<float> IvfIndex::centroids() const {
    std::shared_lock lock(mutex_);
    return centroids_;
}

void IvfIndex::take_as_trained() {
    std::unique_lock lock(mutex_);
    const double error = fit_.added > 0 ? fit_.added_error / static_cast<double>(fit_.added) : fit_.trained_error;
    fit_ = {error, current_imbalance(), 0.0, 0};
}

std::vector<std::uint32_t> IvfIndex::lists_of(const IdList& ids) const {
    std::shared_lock lock(mutex_);
    std::vector<std::uint32_t> list_of_row(ids_.rows());
    for (std::uint32_t l = 0; l < lists_.size(); ++l) {
        const std::size_t first = lists_[l].first_place();
        for (std::size_t p = first; p < first + lists_[l].n; ++p) list_of_row[lists_.rows()[p]] = l;
    }
    std::vector<std::uint32_t> out;
    for (std::uint32_t row : rows_of(ids, false)) out.push_back(list_of_row[row]);
    return out;
}

void IvfIndex::check_lists(std::span<const std::uint32_t> lists, std::size_t n) const {
    if (lists.size() != n) throw Error(ErrorKind::shape, "expected one list per row");
    for (std::uint32_t l : lists) {
        if (l >= lists_.size()) {
            throw Error(ErrorKind::value, "there is no list " + std::to_string(l) + "; the index has " +
                                              std::to_string(lists_.size()));
        }
    }
}

// Rows of the index are told apart by place; places without a row come last.
CodesNow IvfIndex::codes_now() const {
    if (scores_by_list()) {
        throw Error(ErrorKind::unsupported, "devices score codes of residuals under l2 only where they hold a term of their list, as recurrent "
                                            "codes trained with the lists do; search this index on the CPU");
    }
    CodesNow out{codec_, {lists_.codes(), lists_.places()}, lists_.stamp(), {}};
    out.ranks = [this] {
        const TieOrder* order = tie_order();
        const std::vector<std::uint32_t> of_rows = order != nullptr ? ranks_of(ids_.rows(), *order) : std::vector<std::uint32_t>();
        std::vector<std::uint32_t> place(ids_.rows(), IvfLists::kNoRow), ranks(lists_.places());
        for (std::uint32_t p = 0; p < ranks.size(); ++p) {
            const std::uint32_t row = lists_.rows()[p];
            if (row != IvfLists::kNoRow) place[order != nullptr ? of_rows[row] : row] = p;
        }
        std::uint32_t next = 0;
        for (const std::uint32_t p : place) {
            if (p != IvfLists::kNoRow) ranks[p] = next++;
        }
        for (std::uint32_t p = 0; p < ranks.size(); ++p) {
            if (lists_.rows()[p] == IvfLists::kNoRow) ranks[p] = next++;
        }
        return ranks;
    };
    return out;
}

std::vector<std::uint8_t> IvfIndex::codes_of(std::span<const std::uint32_t> rows) const {
    std::vector<std::uint32_t> lists;
    return lists_.gather(*codec_, rows, lists);
}

TableIndex::Commit IvfIndex::prepare_codes(const std::uint8_t* codes, const store::AddPlan& plan,
                                           std::span<const std::uint32_t> lists) {
    if (lists.empty() && plan.n_new > 0) {
        throw Error(ErrorKind::unsupported, "codes do not say which list they belong to; add vectors");
    }
    check_lists(lists, plan.n_new);
    const std::size_t bytes = codec_->code_bytes();
    std::vector<std::uint32_t> order(plan.n_new), more(lists_.size());
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return lists[a] < lists[b]; });
    std::vector<IvfLists::Entry> entries;
    std::vector<std::uint8_t> sorted(plan.n_new * bytes);
    for (std::size_t i = 0; i < order.size(); ++i) {
        entries.push_back({lists[order[i]], plan.rows[order[i]]});
        ++more[entries.back().list];
        std::copy_n(codes + order[i] * bytes, bytes, sorted.data() + i * bytes);
    }
    lists_.reserve(codec_.get(), more);
    return [this, entries = std::move(entries), sorted = std::move(sorted)] {
        lists_.append(codec_.get(), entries, sorted.data());
    };
}

}  // namespace residua::index
