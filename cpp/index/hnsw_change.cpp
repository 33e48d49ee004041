// SPDX-License-Identifier: Apache-2.0
// Changes of an HNSWIndex. The graph is changed beside running searches, list by list; a change that
// fails, or is interrupted, takes its lists back.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <shared_mutex>
#include <unordered_map>
#include <utility>

#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "core/progress.hpp"
#include "index/float_rows.hpp"
#include "index/hnsw_index.hpp"

namespace residua::index {
namespace {

// A change of this share of the rows is worth a byte copy of all of them.
constexpr std::size_t kDenseShare = 256;
// Rows that are added, or removed, before the graph is looked at as a whole.
constexpr std::size_t kCheckShare = 8;
constexpr std::size_t kRepairShare = 20;
constexpr std::size_t kLeast = 64;

// Row forms of the codes of x.
std::vector<std::uint8_t> encode_rows(const codec::Codec& codec, ConstMatrix x, int num_threads) {
    constexpr std::size_t kChunk = 4096;
    std::vector<std::uint8_t> rows(x.rows * codec.row_bytes());
    std::vector<std::uint8_t> codes(std::min(kChunk, x.rows) * codec.code_bytes());
    for (std::size_t begin = 0; begin < x.rows; begin += kChunk) {
        const std::size_t n = std::min(kChunk, x.rows - begin);
        codec.encode(x.slice(begin, begin + n), codes.data(), num_threads, codec::Effort::rounded);
        parallel_for(n, 64, num_threads, [&](std::size_t b, std::size_t e, int) {
            codec.to_rows(codes.data() + b * codec.code_bytes(), e - b, rows.data() + (begin + b) * codec.row_bytes());
        });
    }
    return rows;
}

// Tells how many of `total` rows have links, batch by batch; the end is the caller's to tell.
class LinkedRows {
public:
    explicit LinkedRows(std::size_t total) : total_(total) {}
    void after_batch() {
        done_ += GraphBuilder::kBatch;
        if (done_ < total_) ProgressScope::report(done_, total_);
    }

private:
    std::size_t total_, done_ = 0;
};

}  // namespace

// Undoes itself unless it is kept.
struct HNSWIndex::Change {
    explicit Change(HNSWIndex& owner) : index(owner), rows(owner.graph_.size()) { index.graph_.begin_changes(); }
    ~Change() {
        if (kept) return;
        index.graph_.undo_changes();
        if (index.graph_.size() > rows) index.graph_.cut(rows);
        if (codes_grown) index.codes_.renew(code_bytes);
        if (edges) index.edges_.discard(std::move(*edges));
        index.publish();
    }
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;

    // Records change places while nobody reads.
    void keep() noexcept {
        kept = true;
        index.graph_.keep_changes();
        if (edges) index.edges_.commit(std::move(*edges));
        if (units) index.units_.commit(*units);
    }

    HNSWIndex& index;
    std::size_t rows;
    bool kept = false;
    bool codes_grown = false;
    std::size_t code_bytes = 0;  // of all codes before the change
    std::optional<EdgeStore::Change> edges;
    std::optional<CodeUnits::Change> units;
    std::vector<std::uint8_t> moved_codes;
    std::unordered_map<std::uint32_t, std::size_t> moved_at;  // of a row's code among them
};

BuildParams HNSWIndex::build_params(int num_threads) const {
    BuildParams p;
    p.links = graph_.degree();
    // Rows of a batch see each other exactly, and distances settle what codes would leave open: half as many
    // candidates give the recall of HNSW.
    p.ef = std::max<std::size_t>(params_.ef_construction / 2, params_.m);
    p.seed = params_.seed;
    p.num_threads = resolve_num_threads(num_threads);
    return p;
}

void HNSWIndex::old_vector(std::uint32_t row, float* out) const {
    if (!vectors_.empty_mode()) {
        vectors_.get(row, out);
        return;
    }
    const std::uint32_t rows[] = {row};
    codec_->decode(codes_of(rows).data(), 1, out, 1);
}

// Rows of x come first in `rows`; all others are read from the index.
std::unique_ptr<BuildSpace> HNSWIndex::make_space(const codec::Codec* codec, ConstMatrix x,
                                                  std::span<const std::uint32_t> rows, std::size_t n, int num_threads) {
    auto given = std::make_shared<std::unordered_map<std::uint32_t, std::uint32_t>>();
    const bool all_given = !rows.empty() && rows.size() == n && std::is_sorted(rows.begin(), rows.end());
    for (std::size_t i = 0; i < rows.size() && !all_given; ++i) given->emplace(rows[i], static_cast<std::uint32_t>(i));
    const auto vector = [this, x, given, all_given](std::uint32_t row, float* out) {
        const auto it = all_given ? given->end() : given->find(row);
        if (all_given || it != given->end()) {
            std::copy_n(x.row(all_given ? row : it->second), dim_, out);
        } else {
            old_vector(row, out);
        }
    };
    if (rows.size() * kDenseShare >= n || rows.empty()) {
        return std::make_unique<DenseSpace>(placement_, n, vector, num_threads);
    }
    const auto walk_to = [this, codec, vector, given, x](std::uint32_t row, const GraphView& graph, std::size_t ef,
                                                         WalkScratch& scratch) {
        std::vector<float> query(dim_);
        vector(row, query.data());
        const ConstMatrix q(query.data(), 1, dim_);
        std::unique_ptr<codec::RowScorer> scorer;
        if (codec != nullptr) {
            scorer = codec->prepare_rows(q, 1);
        } else {
            scorer = std::make_unique<FloatRows>(vectors_.view(), metric_, codec::copies_for_metric(q, dim_, metric_));
        }
        // Without codes, rows of the change are not where searches read them yet.
        std::vector<float> other(dim_);
        const FloatRows own({other.data(), store::RowType::f32, 1, dim_, dim_ * sizeof(float)}, metric_,
                            codec::copies_for_metric(q, dim_, metric_));
        const auto score = [&](const std::uint32_t* r, std::size_t m, float* out) {
            if (codec != nullptr) {
                scorer->score(codes_.data(), r, m, 0, out);
                return;
            }
            for (std::size_t i = 0; i < m; ++i) {
                if (const auto it = given->find(r[i]); it != given->end()) {
                    constexpr std::uint32_t kFirst = 0;
                    codec::copy_for_metric(x.row(it->second), dim_, metric_, other.data());
                    own.score(nullptr, &kFirst, 1, 0, out + i);
                } else {
                    scorer->score(nullptr, r + i, 1, 0, out + i);
                }
            }
        };
            walk(RowHop(graph, score, FetchNothing{}, kWalkSeeds), graph.n, ef, scratch, [](float, std::uint32_t) {});
    };
    return std::make_unique<SparseSpace>(placement_, vector, walk_to);
}

// Links `rows`, which hold x in this order; `moved` ascend and are among them.
void HNSWIndex::link(const codec::Codec* codec, ConstMatrix x, std::span<const std::uint32_t> rows,
                     std::span<const std::uint32_t> moved, int num_threads) {
    if (rows.empty()) return;
    std::vector<std::uint32_t> order(rows.begin(), rows.end());
    std::sort(order.begin(), order.end());
    const std::size_t n = std::max<std::size_t>(graph_.size(), order.back() + std::size_t{1});
    const auto space = make_space(codec, x, rows, n, num_threads);
    GraphBuilder builder(graph_, *space, build_params(num_threads));
    if (!moved.empty()) {
        Bitset staying = live_;
        staying.resize(graph_.size());
        for (const std::uint32_t r : moved) staying.reset(r);
        builder.repair(staying);
        unrepaired_ = 0;
    }
    LinkedRows linked(order.size());
    builder.insert(order, [&] {
        if (codec_ != nullptr) publish();
        linked.after_batch();
    });
    unchecked_ += rows.size();
    if (!moved.empty() || unchecked_ * kCheckShare > n || space->is_dense()) {
        Bitset live = live_;
        live.resize(n);
        for (const std::uint32_t r : rows) live.set(r);
        builder.connect(live);
        unchecked_ = 0;
    }
}

void HNSWIndex::take_lists(ConstMatrix x, std::span<const std::uint32_t> lists, int num_threads) {
    const std::size_t n = x.rows, degree = graph_.degree();
    if (graph_.size() > 0) throw Error(ErrorKind::value, "lists of neighbours are taken by an empty index only");
    if (lists.size() != n * degree) {
        throw Error(ErrorKind::shape, "lists of neighbours have " + std::to_string(lists.size()) + " places, expected " +
                                          std::to_string(n) + " x " + std::to_string(degree));
    }
    graph_.grow(n);
    for (std::uint32_t r = 0; r < n; ++r) {
        const auto list = lists.subspan(r * degree, degree);
        std::size_t count = 0;
        while (count < degree && list[count] != kNoRow) ++count;
        if (std::any_of(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(count),
                        [&](std::uint32_t other) { return other >= n || other == r; })) {
            throw Error(ErrorKind::value, "row " + std::to_string(r) + " has a neighbour that cannot be");
        }
        graph_.set_list(r, list.first(count));
    }
    std::vector<std::uint32_t> all(n);
    std::iota(all.begin(), all.end(), 0u);
    const auto space = make_space(codec_.get(), x, all, n, num_threads);
    GraphBuilder builder(graph_, *space, build_params(num_threads));
    builder.renew_entries(all);
    builder.connect(Bitset(n, true));
}

TableIndex::Commit HNSWIndex::prepare_codec(const codec::Codec& codec, ConstMatrix x, int num_threads) {
    auto change = std::make_shared<Change>(*this);
    placement_ = make_placement(metric_, x, {});
    const std::vector<std::uint8_t> codes = encode_rows(codec, x, num_threads);
    change->codes_grown = true;
    codes_.resize(codes.size(), 0);
    if (!codes.empty()) std::memcpy(codes_.edit(), codes.data(), codes.size());
    const std::vector<std::uint32_t> rows = ids_.live_rows();
    live_ = Bitset(x.rows);
    std::vector<std::uint32_t> all(x.rows);
    std::iota(all.begin(), all.end(), 0u);
    graph_.grow(x.rows);
    if (!rows.empty()) {
        // Every row of x has a place in the space; only the live ones get links.
        const auto space = make_space(&codec, x, all, x.rows, num_threads);
        GraphBuilder builder(graph_, *space, build_params(num_threads));
        LinkedRows linked(rows.size());
        builder.insert(rows, [&] { linked.after_batch(); });
        for (const std::uint32_t r : rows) live_.set(r);
        builder.connect(live_);
    }
    prepare_edges(codec, *change, all, num_threads);
    return [this, change] {
        change->keep();
        publish();
    };
}

TableIndex::Commit HNSWIndex::prepare_rows(ConstMatrix x, const store::AddPlan& plan, std::span<const std::uint32_t> lists,
                                           int num_threads) {
    if (x.rows == 0) return [] {};
    auto change = std::make_shared<Change>(*this);
    const std::size_t n = ids_.rows();
    placement_ = make_placement(metric_, x, placement_);
    std::vector<std::uint32_t> moved;
    for (const std::uint32_t r : plan.rows) {
        if (r < plan.first_new_row) moved.push_back(r);
    }
    std::sort(moved.begin(), moved.end());
    const std::size_t bytes = codec_ ? codec_->row_bytes() : 0;
    if (codec_) {
        std::vector<std::uint8_t> codes = encode_rows(*codec_, x, num_threads);
        change->code_bytes = n * bytes;
        change->codes_grown = true;
        codes_.resize((n + plan.n_new) * bytes, 0);
        for (std::size_t i = 0; i < x.rows; ++i) {
            if (plan.is_new(i)) std::memcpy(codes_.edit() + plan.rows[i] * bytes, codes.data() + i * bytes, bytes);
        }
        if (!moved.empty()) change->moved_codes = std::move(codes);
        for (std::size_t i = 0; i < x.rows && !moved.empty(); ++i) {
            if (!plan.is_new(i)) change->moved_at.emplace(plan.rows[i], i * bytes);
        }
    }
    if (lists.empty()) {
        link(codec_.get(), x, plan.rows, moved, num_threads);
    } else {
        take_lists(x, lists, num_threads);
    }
    if (codec_) prepare_edges(*codec_, *change, plan.rows, num_threads);
    return [this, change, bytes, &plan] {
        for (std::size_t i = 0; i < plan.rows.size() && !change->moved_codes.empty(); ++i) {
            if (plan.is_new(i)) continue;
            std::memcpy(codes_.edit() + plan.rows[i] * bytes, change->moved_codes.data() + i * bytes, bytes);
        }
        live_.resize(ids_.rows() + plan.n_new);
        for (const std::uint32_t r : plan.rows) live_.set(r);
        change->keep();
        publish();
    };
}

EdgeStore::CodeOf HNSWIndex::code_of(const codec::Codec& codec) const {
    return [this, &codec](std::uint32_t row, std::uint8_t* out) {
        codec.from_rows(codes_.data() + row * codec.row_bytes(), 1, out);
    };
}

void HNSWIndex::prepare_edges(const codec::Codec& codec, Change& change, std::span<const std::uint32_t> recoded,
                              int num_threads) {
    if (!params_.turbo) return;
    if (edges_.form().unit_rows == 0) edges_ = EdgeStore(codec);
    const auto stored = code_of(codec);
    const auto code = [&](std::uint32_t row, std::uint8_t* out) {
        const auto it = change.moved_at.find(row);
        if (it == change.moved_at.end()) return stored(row, out);
        codec.from_rows(change.moved_codes.data() + it->second, 1, out);
    };
    change.edges = edges_.prepare(codec, graph_, graph_.changed_rows(), code, num_threads);
    if (!keeps_units()) return;
    change.units = units_.prepare(codec, codes_.size() / codec.row_bytes(), recoded, code, num_threads);
}

TableIndex::Commit HNSWIndex::prepare_codes(const std::uint8_t*, const store::AddPlan&, std::span<const std::uint32_t>) {
    throw Error(ErrorKind::unsupported, "a graph is built from vectors; codes alone go into a FlatIndex or an IVFIndex");
}

void HNSWIndex::before_erase(std::span<const std::uint32_t> rows) {
    if (graph_.size() == 0) return;  // the codec is not here yet
    for (const std::uint32_t r : rows) live_.reset(r);
    unrepaired_ += rows.size();
}

void HNSWIndex::after_erase(int num_threads) {
    if (unrepaired_ * kRepairShare > graph_.size() && unrepaired_ > kLeast) repair(num_threads);
}

void HNSWIndex::before_compact(int num_threads) {
    if (unrepaired_ > 0) repair(num_threads);
}

// Interrupted, or out of memory: rows stay removed, and the graph stays as it was for another try.
void HNSWIndex::repair(int num_threads) {
    Change change(*this);
    if (live_.count() > 0) {
        const std::size_t n = graph_.size();
        const auto space = make_space(codec_.get(), {}, {}, n, num_threads);
        GraphBuilder builder(graph_, *space, build_params(num_threads));
        builder.repair(live_);
        builder.connect(live_);
    }
    if (codec_) prepare_edges(*codec_, change, {}, num_threads);
    unrepaired_ = unchecked_ = 0;
    const std::unique_lock lock(mutex_);
    change.keep();
    publish();
}

void HNSWIndex::keep_rows(std::span<const std::uint32_t> keep) {
    if (graph_.size() == 0) return;
    Graph graph = graph_.renumbered(keep);
    if (codec_) {
        const std::size_t bytes = codec_->row_bytes();
        GrowArray<std::uint8_t> codes;
        codes.resize(keep.size() * bytes, 0);
        for (std::size_t i = 0; i < keep.size(); ++i) {
            std::memcpy(codes.edit() + i * bytes, codes_.data() + keep[i] * bytes, bytes);
        }
        if (params_.turbo) {
            EdgeStore edges(*codec_);
            std::vector<std::uint32_t> all(keep.size());
            std::iota(all.begin(), all.end(), 0u);
            const auto code = [&](std::uint32_t row, std::uint8_t* out) {
                codec_->from_rows(codes.data() + row * bytes, 1, out);
            };
            edges.commit(edges.prepare(*codec_, graph, all, code, default_num_threads()));
            CodeUnits units;
            if (keeps_units()) units.commit(units.prepare(*codec_, all.size(), all, code, default_num_threads()));
            edges_ = std::move(edges);
            units_ = std::move(units);
        }
        codes_ = std::move(codes);
    }
    graph_ = std::move(graph);
    live_ = Bitset(keep.size(), true);
    publish();
}

}  // namespace residua::index
