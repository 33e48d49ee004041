// SPDX-License-Identifier: Apache-2.0
// Sets of texts: the numbers of a row's tags one row after the other, and postings by tag. Rows that
// came or changed after the postings were made are looked at one by one, until they are many.
#pragma once

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
    // Tags of all rows after the call, ready to be swapped in.
    struct Next {
        CodeArray codes;
        store::SharedArray<std::uint32_t> offsets;
        Bitset nulls;
        Bitset changed;
    };
    void append(const TagCells* cells, std::size_t n_new);
    void rewrite(const TagCells& cells, std::span<const std::uint32_t> rows, std::size_t n_new);
    void check_total(std::size_t total) const;
    void make_postings();
    void make_postings_if_stale() noexcept;
    void check_rows_one_by_one(const Bitset& wanted, Bitset& out) const;

    Dictionary dictionary_;
    CodeArray codes_;
    store::SharedArray<std::uint32_t> offsets_;  // size() + 1, once there are rows
    Bitset nulls_;                               // of all rows; such rows have no tags
    Postings postings_;
    Bitset changed_;                             // rows whose postings no longer hold
    std::size_t n_changed_ = 0;

    std::vector<std::uint32_t> pending_;         // codes here of the texts of the call that is prepared
    Next next_;
};

}  // namespace residua::filter
