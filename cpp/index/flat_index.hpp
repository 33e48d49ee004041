// SPDX-License-Identifier: Apache-2.0
// Exhaustive search: every row is scored, on codes or on the kept vectors, then the best candidates
// are settled exactly. Rows stand in order of insertion; a removed row keeps its place until
// compact(). Any number of searches run at once; changes wait for them and exclude each other.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

#include "codec/codec.hpp"
#include "core/bitset.hpp"
#include "core/matrix.hpp"
#include "core/metric.hpp"
#include "core/top_k.hpp"
#include "index/index.hpp"
#include "index/settle.hpp"
#include "store/container.hpp"
#include "store/id_map.hpp"
#include "store/shared_array.hpp"
#include "store/vector_store.hpp"

namespace residua::index {

class FlatIndex final : public Index {
public:
    static constexpr const char* kKind = "flat_index";

    // wants_codec: a codec will follow (set_codec), and until then rows are kept as float32.
    // codec_recipe: how the caller will make that codec; kept and saved as it is, never read here.
    FlatIndex(std::size_t dim, Metric metric, store::VectorMode mode, bool wants_codec, std::string codec_recipe = {});

    std::size_t dim() const override { return dim_; }
    Metric metric() const override { return metric_; }
    store::VectorMode mode() const { return mode_; }
    bool awaits_codec() const;
    const std::string& codec_recipe() const { return codec_recipe_; }
    std::size_t size() const override;
    std::shared_ptr<const codec::Codec> codec() const;

    // Encodes all rows; once only.
    void set_codec(std::shared_ptr<const codec::Codec> codec, int num_threads);
    // The vectors of an index that still awaits its codec, for fitting one.
    std::vector<float> staged_vectors() const;

    // Ids of the given vectors, in order; ids == nullptr: automatic ones. With upsert existing ids are
    // replaced in place. All or nothing.
    IdList add(ConstMatrix x, const IdList* ids, bool upsert, int num_threads);

    // The same for row codes of the index's codec; needs a codec and mode none.
    IdList add_codes(const std::uint8_t* codes, std::size_t n, const IdList* ids);
    // Row codes of the ids, ids.size() x code_bytes.
    std::vector<std::uint8_t> codes_of(const IdList& ids) const;
    // All ids, in order of insertion.
    IdList all_ids() const;

    // What the caller found to be good settings; kept and saved as it is, never read here.
    std::string tuning() const;
    void set_tuning(std::string text);

    SearchResult search(ConstMatrix queries, const SearchParams& params) const override;
    SearchResult search_codes(const std::uint8_t* codes, std::size_t n, const SearchParams& params) const;
    // All rows whose score is at least `threshold` (larger is better), on the kept vectors where
    // there are any.
    SearchResult range_search(ConstMatrix queries, float threshold, const Filter* filter, int num_threads) const;

    // How many were there; an unknown id throws unknown_id before anything is removed, unless ignored.
    std::size_t remove(const IdList& ids, bool ignore_missing);
    // Undoes an add() of new ids: they vanish, and automatic ids go on where max_id() was before it.
    void take_back(const IdList& ids, std::int64_t max_id);
    std::int64_t max_id() const;
    // Vectors of the ids as kept, or decoded from their codes; row-major, ids.size() x dim.
    std::vector<float> get(const IdList& ids) const;
    bool contains(const IdList& ids) const;
    store::IdKind id_kind() const override;
    const store::IdMap& id_map() const override { return ids_; }
    void compact();

    std::map<std::string, std::size_t> memory() const;
    void save(const std::string& path) const;
    static std::shared_ptr<FlatIndex> load(const store::Reader& reader);

private:
    void drop_erased_rows();
    void check(const SearchParams& params) const;  // refuses what this index cannot serve
    std::vector<std::uint32_t> rows_of(const IdList& ids, bool skip_missing) const;
    IdList ids_of(std::span<const std::uint32_t> rows) const;
    void write_code(std::uint32_t row, const std::uint8_t* code);
    store::AddPlan plan_add(const IdList* ids, std::size_t n, bool upsert,
                            std::vector<std::string_view>& texts) const;
    std::vector<std::uint8_t> unpack(std::span<const std::uint32_t> rows) const;
    void append_codes(const std::uint8_t* codes, std::size_t n);
    std::size_t blocks(std::size_t rows) const { return (rows + codec::kBlockRows - 1) / codec::kBlockRows; }
    const store::VectorStore& vectors() const { return staging_ ? *staging_ : vectors_; }
    template <class Allows>
    void set_live_rows(std::size_t given, Allows allows, Bitset& out) const;
    std::unique_ptr<Bitset> allowed_rows(const Filter* filter) const;
    SearchResult finish(std::vector<std::vector<ScoredRow>> hits, SearchResult out) const;
    const TieOrder* tie_order() const { return ids_.is_monotone() ? nullptr : &ids_; }
    SearchResult scan_codes(const codec::Scorer& scorer, ConstMatrix queries, const SearchParams& params) const;

    // Search by prefixes of the dims (flat_index_funnel.cpp).
    SearchResult search_funnel(ConstMatrix queries, const SearchParams& params) const;
    void check_funnel(const SearchParams& params) const;
    std::optional<store::RowSource> scanned_rows() const;
    RowLists choose(ConstMatrix queries, const FunnelStage& stage, const Bitset* allowed, int num_threads) const;
    RowLists choose_again(ConstMatrix queries, const FunnelStage& stage, RowLists candidates, int num_threads) const;

    // The best of every query's candidates by the kept vectors, or by scores of codes.
    RowLists settle_exactly(ConstMatrix queries, RowLists candidates, std::size_t k, int num_threads) const;
    RowLists settle_by(const codec::Scorer& scorer, RowLists candidates, std::size_t keep, int num_threads) const;
    // The same by the decoded codes, of an index without vectors.
    RowLists settle_decoded(ConstMatrix queries, RowLists candidates, std::size_t k, int num_threads) const;
    std::vector<TopK> scan(const codec::Scorer& scorer, std::size_t candidates, const Bitset* allowed,
                           int num_threads) const;

    std::size_t dim_;
    Metric metric_;
    store::VectorMode mode_;
    bool wants_codec_;
    std::string codec_recipe_;
    std::string tuning_;
    mutable std::shared_mutex mutex_;
    std::shared_ptr<const codec::Codec> codec_;
    store::IdMap ids_;
    store::VectorStore vectors_;
    std::unique_ptr<store::VectorStore> staging_;  // float32 rows, until the codec comes
    store::SharedArray<std::uint8_t> codes_;       // blocks of the codec
};

}  // namespace residua::index
