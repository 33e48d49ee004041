// SPDX-License-Identifier: Apache-2.0
// Exhaustive search: every row is scored, on codes or on the kept vectors, then the best candidates
// are settled exactly.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "codec/codec.hpp"
#include "index/row_codes.hpp"
#include "index/table_index.hpp"

namespace residua::index {

class FlatIndex final : public TableIndex {
public:
    static constexpr const char* kKind = "flat_index";

    FlatIndex(std::size_t dim, Metric metric, store::VectorMode mode, bool wants_codec, std::string codec_recipe = {});
    static std::shared_ptr<FlatIndex> load(const store::Reader& reader);

    // Encodes all rows; once only.
    void set_codec(std::shared_ptr<const codec::Codec> codec, int num_threads) { take_codec(std::move(codec), num_threads); }

    SearchResult search(ConstMatrix queries, const SearchParams& params) const override;
    SearchResult search_codes(const std::uint8_t* codes, std::size_t n, const SearchParams& params) const override;

protected:
    const char* kind() const override { return kKind; }
    Commit prepare_codec(const codec::Codec& codec, ConstMatrix x, int num_threads) override;
    Commit prepare_rows(ConstMatrix x, const store::AddPlan& plan, std::span<const std::uint32_t> lists,
                        int num_threads) override;
    Commit prepare_codes(const std::uint8_t* codes, const store::AddPlan& plan,
                         std::span<const std::uint32_t> lists) override;
    std::vector<std::uint8_t> codes_of(std::span<const std::uint32_t> rows) const override;
    void keep_rows(std::span<const std::uint32_t> keep) override;
    std::vector<float> decoded(std::span<const std::uint32_t> rows) const override;
    RowLists range_of_codes(ConstMatrix queries, float threshold, const Bitset* allowed, int num_threads) const override;
    bool scans_codes() const override { return true; }
    CodesNow codes_now() const override;
    void add_memory(std::map<std::string, std::size_t>& parts) const override;
    void save_parts(store::Writer& out) const override;

private:
    // Scorers of queries [begin, end).
    using Prepare = std::function<std::unique_ptr<codec::Scorer>(std::size_t begin, std::size_t end)>;
    SearchResult scan_codes(ConstMatrix queries, const SearchParams& params, const Prepare& prepare) const;
    RowLists scan_on_device(std::size_t n_queries, const SearchParams& params, const Prepare& prepare, std::size_t keep,
                            const Bitset* allowed) const;
    // The best of every query's candidates by the decoded codes.
    RowLists settle_decoded(ConstMatrix queries, RowLists candidates, std::size_t k, int num_threads) const;
    std::vector<TopK> scan(const codec::Scorer& scorer, std::size_t keep, const Bitset* allowed, int num_threads) const;

    // Search by prefixes of the dims (flat_index_funnel.cpp).
    SearchResult search_funnel(ConstMatrix queries, const SearchParams& params) const;
    void check_funnel(const SearchParams& params) const;
    std::optional<store::RowSource> scanned_rows() const;
    RowLists choose(ConstMatrix queries, const FunnelStage& stage, const Bitset* allowed, int num_threads) const;
    RowLists choose_again(ConstMatrix queries, const FunnelStage& stage, RowLists candidates, int num_threads) const;
    // The best of every query's candidates by scores of codes.
    RowLists settle_by(const codec::Scorer& scorer, RowLists candidates, std::size_t keep, int num_threads) const;

    RowCodes codes_;
};

}  // namespace residua::index
