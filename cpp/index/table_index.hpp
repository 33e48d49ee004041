// SPDX-License-Identifier: Apache-2.0
// What every index of vectors is made of beside its way of searching: ids, kept vectors, typed columns, a
// codec that may come later, and one lock. Rows stand in order of insertion; a removed row keeps its place until
// compact(). Any number of searches run at once; changes wait for them and exclude each other.
//
// A class on top holds the codes, and whatever guides its search, and says through the hooks below how
// these follow the rows.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

#include "codec/codec.hpp"
#include "core/bitset.hpp"
#include "core/fair_mutex.hpp"
#include "core/matrix.hpp"
#include "core/metric.hpp"
#include "core/top_k.hpp"
#include "filter/columns.hpp"
#include "index/code_device.hpp"
#include "index/codec_versions.hpp"
#include "index/index.hpp"
#include "index/settle.hpp"
#include "store/container.hpp"
#include "store/id_map.hpp"
#include "store/vector_store.hpp"

namespace residua::index {

class TableIndex : public Index {
public:
    std::size_t dim() const override { return dim_; }
    Metric metric() const override { return metric_; }
    store::VectorMode mode() const { return mode_; }
    bool awaits_codec() const;
    const std::string& codec_recipe() const { return codec_recipe_; }
    std::size_t size() const override;
    std::shared_ptr<const codec::Codec> codec() const;
    // The live vectors as kept, for fitting; none where none are kept.
    std::vector<float> staged_vectors() const;

    // Ids of the given vectors, in order; ids == nullptr: automatic ones. With upsert existing ids are
    // replaced in place. `columns` has cells for each column, or is null: new rows then hold null, and
    // replaced ones what they held. All or nothing.
    // lists: where an index of lists puts the rows, one per row, or the neighbours of all rows in an empty graph;
    // empty: where they belong.
    IdList add(ConstMatrix x, const IdList* ids, bool upsert, int num_threads,
               const filter::Columns::Batch* columns = nullptr, std::span<const std::uint32_t> lists = {});

    // Of an index that is empty; once only.
    void declare_columns(std::vector<filter::Field> fields);
    std::vector<filter::Field> fields() const;
    void set_columns(const IdList& ids, const filter::Columns::Batch& columns);
    filter::Columns::Batch columns(const IdList& ids) const;

    // The same for row codes of the index's codec; needs a codec and mode none.
    IdList add_codes(const std::uint8_t* codes, std::size_t n, const IdList* ids,
                     std::span<const std::uint32_t> lists = {});
    // Row codes of the ids, ids.size() x code_bytes.
    std::vector<std::uint8_t> codes(const IdList& ids) const;
    // Rows to come are encoded by `codec`, whose codes queries read as they read those that are here.
    void replace_codec(std::shared_ptr<const codec::Codec> codec);
    // Fingerprints of the codecs that encoded the ids.
    std::vector<std::string> codec_versions(const IdList& ids) const;
    // All ids, in order of insertion.
    IdList all_ids() const;

    // What the caller found to be good settings; kept and saved as it is, never read here.
    std::string tuning() const;
    void set_tuning(std::string text);

    // Copies the codes to the device, which searches would do otherwise; throws for an index that no device can scan.
    void bring_codes(CodeDevice& device, int num_threads) const;

    virtual SearchResult search_codes(const std::uint8_t* codes, std::size_t n, const SearchParams& params) const = 0;
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
    virtual const char* kind() const = 0;  // of the file
    void save(const std::string& path) const;
    // Shows the index to a writer of its kind; no change happens until the returned object is gone.
    [[nodiscard]] std::shared_ptr<const void> write(store::Writer& out) const;

protected:
    // wants_codec: a codec will follow, and until then rows are kept as float32.
    // codec_recipe: how the caller will make that codec; kept and saved as it is, never read here.
    TableIndex(std::size_t dim, Metric metric, store::VectorMode mode, bool wants_codec, std::string codec_recipe);

    // Puts in place what was prepared; must not fail.
    using Commit = std::function<void()>;

    // Hooks. The lock is held: shared in const ones, exclusive in the others. An index that prepares aside
    // does without it in the hooks that say so; its own searches may run meanwhile, other changes do not.
    virtual bool prepares_aside() const { return false; }
    // All that can fail when the staged rows x, of which removed ones need no code, get `codec`. Aside.
    virtual Commit prepare_codec(const codec::Codec& codec, ConstMatrix x, int num_threads) = 0;
    // All that can fail when the rows x go where the plan says; there is a codec, or none is wanted. Aside.
    virtual Commit prepare_rows(ConstMatrix x, const store::AddPlan& plan, std::span<const std::uint32_t> lists,
                                int num_threads) = 0;
    // The same for row codes, all of new rows.
    virtual Commit prepare_codes(const std::uint8_t* codes, const store::AddPlan& plan,
                                 std::span<const std::uint32_t> lists) = 0;
    // Row codes of live rows.
    virtual std::vector<std::uint8_t> codes_of(std::span<const std::uint32_t> rows) const = 0;
    // Before the ids of live rows, each given once, are erased.
    virtual void before_erase(std::span<const std::uint32_t>) {}
    // After rows were erased, and before keep_rows(). Aside.
    virtual void after_erase(int) {}
    virtual void before_compact(int) {}
    // Row keep[i], which is live, becomes row i, and the others vanish; before ids and vectors follow.
    virtual void keep_rows(std::span<const std::uint32_t> keep) = 0;
    // Live rows, decoded from their codes; row-major.
    virtual std::vector<float> decoded(std::span<const std::uint32_t> rows) const = 0;
    // Whether the codec was fitted for what this index scores with it.
    virtual bool takes_metric_of(const codec::Codec& codec) const { return codec.metric() == metric_; }
    // Per query all allowed rows whose code score is at least the threshold, best first.
    virtual RowLists range_of_codes(ConstMatrix queries, float threshold, const Bitset* allowed,
                                    int num_threads) const = 0;
    // Whether searches go over all codes, or those of lists, which a device can do; and the codes, once there are any.
    virtual bool scans_codes() const { return false; }
    virtual CodesNow codes_now() const { return {}; }
    virtual void add_memory(std::map<std::string, std::size_t>& parts) const = 0;
    virtual void save_parts(store::Writer& out) const = 0;

    // For loading: the constructor's arguments, and the table itself. Throw corrupt_file.
    struct Header {
        std::size_t dim = 0;
        Metric metric{};
        store::VectorMode mode{};
        bool wants_codec = false;
        std::string codec_recipe;
    };
    template <class Make>
    static auto read_header(const store::Reader& in, Make make);
    void load_table(const store::Reader& in);

    // Encodes all rows; once only.
    void take_codec(std::shared_ptr<const codec::Codec> codec, int num_threads);
    // The lock is held, or will be taken, when the change becomes visible.
    void take_codec_under(std::shared_ptr<const codec::Codec> codec, int num_threads, std::unique_lock<FairMutex>& lock);

    void check(const SearchParams& params) const;  // refuses what this index cannot serve
    void check_device(const CodeDevice& device) const;
    // What a device scans; throws where there is nothing yet.
    CodesNow device_codes(const CodeDevice& device) const;
    std::vector<std::uint32_t> rows_of(const IdList& ids, bool skip_missing) const;
    IdList ids_of(std::span<const std::uint32_t> rows) const;
    const store::VectorStore& vectors() const { return staging_ ? *staging_ : vectors_; }
    // The rows that are live and pass the filter; nullptr when that is every row.
    std::shared_ptr<const Bitset> allowed_rows(const Filter* filter) const;
    const TieOrder* tie_order() const { return ids_.is_monotone() ? nullptr : &ids_; }
    // Whether a search of codes ends with exact scores, and of how many candidates for k of n rows.
    bool settles(const SearchParams& params) const { return params.rerank != 0 && !vectors_.empty_mode(); }
    std::size_t candidates(const SearchParams& params, std::size_t k, std::size_t n) const;
    // The best of every query's candidates by the kept vectors.
    RowLists settle_exactly(ConstMatrix queries, RowLists candidates, std::size_t k, int num_threads) const;
    // The same for queries that are as the metric sees them already.
    RowLists settle_seen(ConstMatrix queries, RowLists candidates, std::size_t k, int num_threads) const;
    // All rows are scored by the kept vectors.
    SearchResult scan_vectors(ConstMatrix queries, const SearchParams& params) const;
    std::unique_ptr<codec::Scorer> prepare_symmetric(ConstMatrix queries, int num_threads) const;
    // Rows become ids while the lock is held; afterwards other rows may stand in their places.
    SearchResult finish(RowLists hits, SearchResult out) const;

    std::size_t dim_;
    Metric metric_;
    store::VectorMode mode_;
    bool wants_codec_;
    std::string codec_recipe_;
    std::string tuning_;
    mutable std::mutex writing_;  // one change at a time; taken before the lock
    mutable FairMutex mutex_;
    std::shared_ptr<const codec::Codec> codec_;
    store::IdMap ids_;
    filter::Columns columns_;
    CodecVersions versions_;
    store::VectorStore vectors_;
    std::unique_ptr<store::VectorStore> staging_;  // float32 rows, until the codec comes

private:
    std::unique_lock<FairMutex> lock_unless_aside();
    store::AddPlan plan_add(const IdList* ids, std::size_t n, bool upsert,
                            std::vector<std::string_view>& texts) const;
    std::size_t erase(std::vector<std::uint32_t> rows);
    void drop_erased_rows();
    template <class Allows>
    void set_live_rows(std::size_t given, Allows allows, Bitset& out) const;
};

template <class Make>
auto TableIndex::read_header(const store::Reader& in, Make make) {
    Header h;
    h.dim = static_cast<std::size_t>(in.get_int("dim", 1, 65'536));
    try {
        h.metric = parse_metric(in.get_string("metric"));
        h.mode = store::parse_vector_mode(in.get_string("vectors"));
        h.wants_codec = in.get_int("wants_codec", 0, 1) == 1;
        h.codec_recipe = in.get_string("codec_recipe");
        return make(std::move(h));
    } catch (const Error& e) {
        if (e.kind() == ErrorKind::value) in.fail("meta", e.what());
        throw;
    }
}

}  // namespace residua::index
