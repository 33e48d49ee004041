// SPDX-License-Identifier: Apache-2.0
// Inverted lists: k-means cuts space into cells, every row stands in the list of its nearest centroid, and a
// search reads the lists of the centroids nearest to the query. Codes are of the vectors or, where the codec
// gains from it, of what is left of them after the centroid is taken off (residuals): with c the centroid,
//     ip, cosine:  <q, x>          = <q, c> + <q, r>
//     l2:          -|q - x|^2 / 2  = -|q - c|^2 / 2 + <q, r> - (<c, r> + |r|^2 / 2)
// so that one prepared query serves all lists: the first term is the pool's offset for the list, the last one,
// of l2, is part of the row's code. Until it is trained the index scans its rows exactly.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "index/ivf_lists.hpp"
#include "index/table_index.hpp"
#include "train/nearest.hpp"

namespace residua::index {

// How well the lists fit the rows: what training saw, and what has come since.
struct IvfFit {
    double trained_error = 0;      // mean squared distance to the centroid, of rows that k-means had not seen
    double trained_imbalance = 1;  // rows that a search of one list reads, over their number in lists of one size
    double added_error = 0;        // sum over the rows added since
    std::uint64_t added = 0;
};

class IvfIndex final : public TableIndex {
public:
    static constexpr const char* kKind = "ivf_index";
    static constexpr std::size_t kMaxLists = std::size_t{1} << 22;

    // nlist: 0 automatic; kept for the caller, like the recipe of the codec and the seed.
    IvfIndex(std::size_t dim, Metric metric, store::VectorMode mode, bool wants_codec, std::string codec_recipe = {},
             std::size_t nlist = 0, std::uint64_t seed = 0);
    static std::shared_ptr<IvfIndex> load(const store::Reader& reader);

    // What training made: centroids of the vectors as the metric sees them, row-major, and a codec, of the
    // vectors or of residuals (whose metric is ip). Puts all rows into lists; once only.
    struct Training {
        std::vector<float> centroids;
        std::shared_ptr<const codec::Codec> codec;
        bool residual = false;
        double error = 0;  // IvfFit::trained_error
    };
    void train(Training training, int num_threads);

    // A fitted codec that the caller will train with; kept and saved until then.
    void set_waiting(std::shared_ptr<const codec::Codec> codec);
    std::shared_ptr<const codec::Codec> waiting() const;

    bool is_trained() const;
    bool is_residual() const;
    std::size_t wanted_nlist() const { return wanted_nlist_; }
    std::size_t nlist() const;  // 0 until it is trained
    std::uint64_t seed() const { return seed_; }
    std::size_t default_nprobe() const;
    IvfFit fit() const;
    double imbalance() const;
    std::vector<std::uint32_t> list_sizes() const;
    std::vector<float> centroids() const;
    // From now on the rows that are here count as those of training.
    void take_as_trained();
    // The list of every id.
    std::vector<std::uint32_t> lists_of(const IdList& ids) const;

    SearchResult search(ConstMatrix queries, const SearchParams& params) const override;
    SearchResult search_codes(const std::uint8_t* codes, std::size_t n, const SearchParams& params) const override;

protected:
    const char* kind() const override { return kKind; }
    bool takes_metric_of(const codec::Codec& codec) const override;
    Commit prepare_codec(const codec::Codec& codec, ConstMatrix x, int num_threads) override;
    Commit prepare_rows(ConstMatrix x, const store::AddPlan& plan, std::span<const std::uint32_t> lists,
                        int num_threads) override;
    // Codes of residuals, where the index has these; under l2 the codes hold the term of the list.
    Commit prepare_codes(const std::uint8_t* codes, const store::AddPlan& plan,
                         std::span<const std::uint32_t> lists) override;
    std::vector<std::uint8_t> codes_of(std::span<const std::uint32_t> rows) const override;
    void before_erase(std::span<const std::uint32_t> rows) override;
    void keep_rows(std::span<const std::uint32_t> keep) override;
    std::vector<float> decoded(std::span<const std::uint32_t> rows) const override;
    RowLists range_of_codes(ConstMatrix queries, float threshold, const Bitset* allowed, int num_threads) const override;
    bool scans_codes() const override { return true; }
    CodesNow codes_now() const override;
    void add_memory(std::map<std::string, std::size_t>& parts) const override;
    void save_parts(store::Writer& out) const override;

private:
    void set_centroids(std::vector<float> centroids);
    // Entries of rows numbers[i] for x[i], by list, and their codes in that order; distances are added up.
    struct Coded {
        std::vector<IvfLists::Entry> entries;
        std::vector<std::uint8_t> codes;
        double error = 0;
    };
    // given: their lists; empty: the nearest ones.
    Coded code_rows(const codec::Codec* codec, ConstMatrix x, std::span<const std::uint32_t> numbers,
                    std::span<const std::uint32_t> given, int num_threads) const;
    void check_lists(std::span<const std::uint32_t> lists, std::size_t n) const;
    Commit place_all(const codec::Codec* codec, ConstMatrix x, int num_threads);
    void take_residual(const float* x, std::uint32_t list, float* out, float& term) const;
    double current_imbalance() const;

    // ivf_search.cpp
    static constexpr double kProbesPerRoot = 2.0;  // lists read by default, per square root of their number
    struct Slots;
    struct Probes;
    struct Keep;
    Slots allowed_slots(const Filter* filter) const;
    std::size_t nprobe_of(const SearchParams& params) const;
    double scarcity(const Slots& slots, std::span<const std::uint32_t> near) const;
    // queries as the metric sees them, here and below. At least nprobe lists with rows to find, and k rows.
    Probes choose_lists(ConstMatrix queries, const SearchParams& params, std::size_t k, const Slots& slots) const;
    void set_terms(ConstMatrix queries, Probes& probes) const;
    // Codes of residuals under l2 that take in no term: every list scores what it leaves of the query.
    bool scores_by_list() const { return residual_ && codec_ != nullptr && codec_->metric() == Metric::l2; }
    std::unique_ptr<codec::Scorer> prepare_for_list(ConstMatrix queries, std::span<const std::uint32_t> members,
                                                    std::size_t list) const;
    void scan_lists(const codec::Scorer& scorer, ConstMatrix queries, const Probes& probes, std::size_t q_begin, std::size_t q_end,
                    std::size_t first_rank, std::size_t last_rank, const Bitset* allowed, TopK* pools) const;
    std::vector<TopK> scan_probes(const codec::Scorer& scorer, ConstMatrix queries, const Probes& probes, Keep keep,
                                  const Bitset* allowed, const TieOrder* order, int num_threads) const;
    RowLists scan_on_device(CodeDevice& device, const codec::Scorer& scorer, const Probes& probes, Keep keep,
                            const Bitset* allowed, int num_threads) const;
    RowLists rows_in(const Probes& probes, const Slots& slots, std::size_t begin, std::size_t end) const;
    RowLists best_of_lists(const codec::Scorer* scorer, ConstMatrix queries, const Probes& probes, const Slots& slots,
                           std::size_t k, Keep keep, bool exact_last, const SearchParams& params) const;
    template <class Prepare>
    SearchResult search_lists(ConstMatrix queries, const SearchParams& params, Prepare prepare) const;
    std::vector<float> through_codec(ConstMatrix queries, int num_threads) const;

    std::size_t wanted_nlist_;
    std::uint64_t seed_;
    bool residual_ = false;
    std::shared_ptr<const codec::Codec> waiting_;
    std::vector<float> centroids_;       // nlist x dim; empty until trained
    std::vector<float> centroid_norms_;  // squared
    train::NearestCentroids nearest_;                // of rows
    std::unique_ptr<train::NearestCentroids> probing_;  // of queries, by product; null: as of rows
    IvfLists lists_;
    IvfFit fit_;
};

}  // namespace residua::index
