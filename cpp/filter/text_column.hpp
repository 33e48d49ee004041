// SPDX-License-Identifier: Apache-2.0
// Categories, texts and booleans: one number per row, into a dictionary. While there are at most 255
// texts the numbers are the lane themselves; afterwards the lane holds bins of several texts, and a
// text that many rows share has a bin of its own.
#pragma once

#include <array>
#include <vector>

#include "core/aligned.hpp"
#include "filter/code_array.hpp"
#include "filter/column.hpp"
#include "filter/dictionary.hpp"
#include "filter/lane.hpp"

namespace residua::filter {

class TextColumn final : public Column {
public:
    // booleans: the texts are "false" and "true", and no dictionary is saved.
    explicit TextColumn(bool booleans);

    std::size_t size() const override { return codes_.size(); }
    void prepare(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) override;
    void commit(const Cells& cells, std::span<const std::uint32_t> rows, std::size_t n_new) noexcept override;
    void compact(std::span<const std::uint32_t> keep) override;
    Cells read(std::span<const std::uint32_t> rows) const override;
    void select(const Condition& condition, Bitset& out) const override;
    std::size_t memory_bytes() const override;
    void save(store::Writer& writer, const std::string& prefix) const override;
    static std::unique_ptr<TextColumn> load(bool booleans, const store::Reader& reader, const std::string& prefix,
                                            std::size_t rows);

private:
    bool is_narrow() const { return codes_.width() == 1; }
    std::uint32_t null_code() const { return codes_.width() == 1 ? 0xFFu : codes_.width() == 2 ? 0xFFFFu : kNullCode; }
    std::span<const std::uint8_t> lane() const {
        return is_narrow() ? std::span(codes_.bytes(), codes_.size()) : std::span<const std::uint8_t>(lane_);
    }
    void put(std::size_t row, std::uint32_t code) noexcept;
    void widen(std::size_t n, std::size_t width);
    void bin_new_texts();
    void choose_bins();      // by how many rows each text has
    void fill_lane() noexcept;
    void rebin_if_crowded() noexcept;
    Bitset hits(const Texts& texts) const;

    struct Bin {
        std::uint32_t texts = 0;
        std::size_t rows = 0;
    };

    bool booleans_;
    Dictionary dictionary_;
    CodeArray codes_;
    // Of wide codes only.
    AlignedVector<std::uint8_t> lane_;
    std::vector<std::uint8_t> bin_of_;   // by code
    std::array<Bin, kMaxBins> bins_{};
    std::size_t first_shared_ = 0;       // bins below it belong to one frequent text each

    std::vector<std::uint32_t> pending_; // codes here of the texts of the call that is prepared
};

}  // namespace residua::filter
