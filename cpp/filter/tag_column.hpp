// SPDX-License-Identifier: Apache-2.0
// Sets of texts: the numbers of a row's tags one row after the other, and postings by tag. Rows that
// came or changed after the postings were made are looked at one by one, until they are many; the tags
// of changed rows stand apart until then, as others would have to move.
#pragma once

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <vector>

#include "filter/code_array.hpp"
#include "filter/column.hpp"
#include "filter/dictionary.hpp"
#include "filter/postings.hpp"

namespace residua::filter {

class TagColumn final : public Column {
public:
    std::size_t size() const override { return offsets_.size() == 0 ? 0 : offsets_.size() - 1; }
    void prepare(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) override;
    void commit(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) noexcept override;
    void compact(std::span<const std::uint32_t> keep) override;
    Cells read(std::span<const std::uint32_t> rows) const override;
    void select(const Condition& condition, Bitset& out) const override;
    std::size_t memory_bytes() const override;
    void save(store::Writer& writer, const std::string& prefix) const override;
    static std::unique_ptr<TagColumn> load(const store::Reader& reader, const std::string& prefix, std::size_t rows);

private:
    // Entries of a row that changed in place, in moved_codes_.
    struct Place {
        std::size_t begin = 0;
        std::size_t count = 0;
    };
    using Moved = std::unordered_map<std::uint32_t, Place>;
    // Tags of all rows, none of them apart.
    struct Whole {
        CodeArray codes;
        store::SharedArray<std::uint32_t> offsets;
        Postings postings;
    };
    const Place* moved(std::size_t row) const;
    std::size_t count_of(std::size_t row) const;
    template <class Use>
    void for_each_tag(std::size_t row, Use use) const;
    // Changed rows that are worth putting back among the others.
    std::size_t many_moved() const { return std::max<std::size_t>(size() / 64, 2048); }
    void reserve_new(const TagCells* cells, std::span<const std::uint32_t> rows, std::size_t n_new);
    void reserve_changed(const TagCells& cells, std::span<const std::uint32_t> rows);
    Whole gather(const TagCells* cells = nullptr, std::span<const std::uint32_t> rows = {}, std::size_t n_new = 0) const;
    void append(const TagCells* cells, std::size_t n_new) noexcept;
    void move(const TagCells& cells, std::size_t i, std::uint32_t row) noexcept;
    void take(Whole whole) noexcept;
    void settle_if_many() noexcept;
    Postings make_postings(const CodeArray& codes, std::span<const std::uint32_t> offsets) const;
    void check_rows_one_by_one(const Bitset& wanted, Bitset& out) const;

    Dictionary dictionary_;
    CodeArray codes_;
    store::SharedArray<std::uint32_t> offsets_;  // size() + 1, once there are rows
    Bitset nulls_;                               // of all rows; such rows have no tags
    Postings postings_;
    Moved moved_;                                // rows whose postings, codes_ and offsets_ no longer hold
    std::vector<std::uint32_t> moved_codes_;

    // Of the call that is prepared: codes here of its texts, the cell of every new row, nodes for its rows
    // that are not in moved_, which rows are null where some are new, and all tags where many rows change.
    std::vector<std::uint32_t> pending_;
    std::vector<std::size_t> new_cells_;
    Moved new_moved_;
    Bitset next_nulls_;
    std::optional<Whole> next_;
};

}  // namespace residua::filter
