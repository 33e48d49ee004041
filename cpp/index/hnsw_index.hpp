// SPDX-License-Identifier: Apache-2.0
// Search by a walk over a graph of near rows, on codes or on the kept vectors, whose best rows are
// settled exactly. A filter is answered by the cheapest of several plans (index/plan.hpp).
//
// The graph is the lowest layer of HNSW (Malkov and Yashunin, 2020). Walks enter it by the best of about
// sqrt(n) rows spread over the index, whose codes are scored at once, in place of the upper layers.
// Rows are added, and the graph is repaired, beside running searches; these wait only while a change becomes visible,
// rows are removed or the table is compacted.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "codec/codec.hpp"
#include "core/grow_array.hpp"
#include "index/code_units.hpp"
#include "index/edge_store.hpp"
#include "index/graph.hpp"
#include "index/graph_build.hpp"
#include "index/graph_search.hpp"
#include "index/plan.hpp"
#include "index/table_index.hpp"

namespace residua::index {

struct GraphParams {
    std::size_t m = 16;  // M: lists hold 2 M rows
    std::size_t ef_construction = 200;
    std::uint64_t seed = 0;
    bool turbo = false;  // neighbours' codes beside every list, which walks then read
};

class ExactChoice;

class HNSWIndex final : public TableIndex {
public:
    static constexpr const char* kKind = "hnsw_index";
    static constexpr std::size_t kDefaultEf = 64;

    HNSWIndex(std::size_t dim, Metric metric, store::VectorMode mode, bool wants_codec, std::string codec_recipe,
              const GraphParams& params);
    static std::shared_ptr<HNSWIndex> load(const store::Reader& reader);

    const GraphParams& params() const { return params_; }
    // Encodes and links all rows; once only.
    void set_codec(std::shared_ptr<const codec::Codec> codec, int num_threads) { take_codec(std::move(codec), num_threads); }

    SearchResult search(ConstMatrix queries, const SearchParams& params) const override;
    SearchResult search_codes(const std::uint8_t* codes, std::size_t n, const SearchParams& params) const override;

    // What plans are chosen by: the automatic units of cost, or those that calibrate() measured last.
    PlanCosts costs() const;
    // Measures on one thread, with the rows that are here.
    PlanCosts calibrate();

    // What a graph must be, for tests: throws corrupt_file where it is not.
    struct Shape {
        std::size_t edges = 0;
        std::size_t entries = 0;
        std::size_t unreachable = 0;  // live rows
        std::size_t to_removed = 0;   // edges
    };
    Shape shape() const;

protected:
    const char* kind() const override { return kKind; }
    bool prepares_aside() const override { return true; }
    Commit prepare_codec(const codec::Codec& codec, ConstMatrix x, int num_threads) override;
    Commit prepare_rows(ConstMatrix x, const store::AddPlan& plan, std::span<const std::uint32_t> lists,
                        int num_threads) override;
    Commit prepare_codes(const std::uint8_t* codes, const store::AddPlan& plan,
                         std::span<const std::uint32_t> lists) override;
    std::vector<float> decoded(std::span<const std::uint32_t> rows) const override;
    void before_erase(std::span<const std::uint32_t> rows) override;
    void after_erase(int num_threads) override;
    void before_compact(int num_threads) override;
    void keep_rows(std::span<const std::uint32_t> keep) override;
    std::vector<std::uint8_t> codes_of(std::span<const std::uint32_t> rows) const override;
    RowLists range_of_codes(ConstMatrix queries, float threshold, const Bitset* allowed, int num_threads) const override;
    void add_memory(std::map<std::string, std::size_t>& parts) const override;
    void save_parts(store::Writer& out) const override;

private:
    // What searches see; replaced as a whole.
    struct View {
        GraphView graph;
        GrowArray<std::uint8_t>::View codes;
        EdgeView edges;                       // turbo
        GrowArray<std::uint8_t>::View units;  // turbo
    };
    struct Change;  // a change in preparation
    struct Scorers;  // of a batch of queries (hnsw_scorers.hpp)
    class Scratches;
    class PlannedSearch;
    using TakeWalk = std::function<void(std::size_t query, const WalkScratch&)>;

    // Searching (hnsw_search.cpp).
    SearchResult search_with(ConstMatrix queries, Scorers& scorers, const SearchParams& params) const;
    std::unique_ptr<codec::RowScorer> float_scorer(ConstMatrix queries) const;
    void prepare_scorers(ConstMatrix queries, const SearchParams& params, Scorers& scorers) const;
    // Of a walk that keeps ef rows: how many of them are settled.
    std::size_t candidates_of_walk(const SearchParams& params, std::size_t k, std::size_t ef, std::size_t matches) const;
    // With `allowed`, the `keep` best of these that a walk meets are in the scratch's `found`.
    void walk_plainly(const View& v, Scorers& scorers, std::span<const std::uint32_t> queries, std::size_t beam,
                      std::size_t keep, const Bitset* allowed, int num_threads, const TakeWalk& take,
                      const ExactChoice* choice = nullptr) const;
    // The `keep` best of `rows` by their codes.
    std::vector<ScoredRow> scan_rows(const View& v, const codec::RowScorer& scorer, std::span<const std::uint32_t> rows,
                                     std::size_t query, std::size_t keep) const;
    // By scorers.last.
    SearchResult settle_hits(const View& v, RowLists hits, const Scorers& scorers, const SearchParams& params, SearchResult out) const;

    // The codes of `rows` in units of their own.
    AlignedVector<std::uint8_t> packed_codes(const View& v, std::span<const std::uint32_t> rows, int num_threads) const;

    // Searching with a filter (hnsw_plan.cpp).
    // Scans of what a filter leaves read all codes once more, in units; only an index with columns pays for these.
    bool keeps_units() const { return params_.turbo && !columns_.empty(); }
    PlanCosts costs_of(const View& v) const;
    PlanCosts measure() const;
    SearchResult search_planned(ConstMatrix queries, Scorers& scorers, const SearchParams& params) const;
    std::unique_ptr<WalkScratch> take_scratch() const;
    void give_scratch(std::unique_ptr<WalkScratch> scratch) const;
    std::shared_ptr<const View> view() const;

    // Changing (hnsw_change.cpp).
    void publish();
    BuildParams build_params(int num_threads) const;
    void link(const codec::Codec* codec, ConstMatrix x, std::span<const std::uint32_t> rows, std::span<const std::uint32_t> moved,
              int num_threads);
    // Takes `lists` for the neighbours of all rows, which hold x, in place of finding them.
    void take_lists(ConstMatrix x, std::span<const std::uint32_t> lists, int num_threads);
    void old_vector(std::uint32_t row, float* out) const;
    std::unique_ptr<BuildSpace> make_space(const codec::Codec* codec, ConstMatrix x, std::span<const std::uint32_t> rows,
                                           std::size_t n, int num_threads);
    void repair(int num_threads);
    // Records of all that the change wrote, and units of the rows that have new codes, where the layout has them.
    void prepare_edges(const codec::Codec& codec, Change& change, std::span<const std::uint32_t> recoded, int num_threads);
    EdgeStore::CodeOf code_of(const codec::Codec& codec) const;

    GraphParams params_;
    Graph graph_;
    GrowArray<std::uint8_t> codes_;  // in row form
    EdgeStore edges_;                // turbo, once there is a codec
    CodeUnits units_;                // the same, for filters by columns
    Bitset live_;
    Placement placement_;
    std::atomic<std::size_t> unrepaired_{0};  // rows removed since the last repair
    std::optional<PlanCosts> costs_;
    std::size_t unchecked_ = 0;   // rows added since connect() last ran

    mutable std::mutex view_mutex_;
    std::shared_ptr<const View> view_;
    mutable std::mutex scratch_mutex_;
    mutable std::vector<std::unique_ptr<WalkScratch>> scratch_;
};

}  // namespace residua::index
