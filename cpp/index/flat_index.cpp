// SPDX-License-Identifier: Apache-2.0
#include "index/flat_index.hpp"

#include <algorithm>
#include <mutex>
#include <numeric>

#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "index/exact_scan.hpp"

namespace residua::index {
namespace {

using codec::kBlockRows;
using store::VectorMode;

VectorMode kept_mode(VectorMode mode, bool wants_codec) {
    // Without a codec the vectors are what is scanned: "auto" keeps them as they are.
    return mode == VectorMode::automatic && !wants_codec ? VectorMode::float32 : mode;
}

}  // namespace

FlatIndex::FlatIndex(std::size_t dim, Metric metric, VectorMode mode, bool wants_codec, std::string codec_recipe)
    : dim_(dim),
      metric_(metric),
      mode_(mode),
      wants_codec_(wants_codec),
      codec_recipe_(std::move(codec_recipe)),
      vectors_(kept_mode(mode, wants_codec), dim, metric) {
    if (!wants_codec && mode == VectorMode::none) {
        throw Error(ErrorKind::value, "vectors='none' needs a codec: without one there is nothing to search");
    }
    if (wants_codec) staging_ = std::make_unique<store::VectorStore>(VectorMode::float32, dim, metric);
}

std::size_t FlatIndex::size() const {
    std::shared_lock lock(mutex_);
    return ids_.size();
}

bool FlatIndex::awaits_codec() const {
    std::shared_lock lock(mutex_);
    return wants_codec_ && codec_ == nullptr;
}

std::shared_ptr<const codec::Codec> FlatIndex::codec() const {
    std::shared_lock lock(mutex_);
    return codec_;
}

void FlatIndex::set_codec(std::shared_ptr<const codec::Codec> codec, int num_threads) {
    std::unique_lock lock(mutex_);
    if (!wants_codec_ || codec_ != nullptr) throw Error(ErrorKind::value, "the index has its codec already, or was made without one");
    if (codec->dim() != dim_) {
        throw Error(ErrorKind::shape, "the codec has " + std::to_string(codec->dim()) + " dims, the index " +
                                          std::to_string(dim_));
    }
    if (codec->metric() != metric_) {
        throw Error(ErrorKind::value, std::string("the codec is fitted for metric '") + to_string(codec->metric()) +
                                          "', the index uses '" + to_string(metric_) + "'");
    }
    const store::RowSource rows = staging_->view();
    const ConstMatrix x(static_cast<const float*>(rows.data), rows.n, dim_);
    store::VectorStore kept(kept_mode(mode_, true), dim_, metric_);
    kept.append(x, num_threads);
    std::vector<std::uint8_t> codes(x.rows * codec->code_bytes());
    codec->encode(x, codes.data(), num_threads, codec::Effort::rounded);
    codec_ = std::move(codec);
    try {
        append_codes(codes.data(), x.rows);
    } catch (...) {
        codec_.reset();
        throw;
    }
    vectors_ = std::move(kept);
    staging_.reset();
}

std::vector<float> FlatIndex::staged_vectors() const {
    std::shared_lock lock(mutex_);
    std::vector<float> out;
    if (!staging_) return out;
    for (std::uint32_t row : ids_.live_rows()) {
        out.resize(out.size() + dim_);
        staging_->get(row, out.data() + out.size() - dim_);
    }
    return out;
}

// Codes of rows vectors().size() … + n - 1 at the end of codes_; the last block may be partly filled.
void FlatIndex::append_codes(const std::uint8_t* codes, std::size_t n) {
    const std::size_t bytes = codec_->code_bytes();
    const std::size_t first = staging_ ? 0 : vectors_.size();
    AlignedVector<std::uint8_t>& store = codes_.edit(blocks(first + n) * codec_->block_bytes());
    store.resize(blocks(first + n) * codec_->block_bytes());
    std::vector<std::uint8_t> rows(kBlockRows * bytes);
    for (std::size_t r = first; r < first + n;) {
        const std::size_t in_block = r % kBlockRows;
        const std::size_t take = std::min(kBlockRows - in_block, first + n - r);
        std::uint8_t* block = store.data() + r / kBlockRows * codec_->block_bytes();
        for (std::size_t j = 0; j < in_block; ++j) codec_->unpack_row(block, j, rows.data() + j * bytes);
        std::copy_n(codes + (r - first) * bytes, take * bytes, rows.data() + in_block * bytes);
        codec_->pack_block(rows.data(), in_block + take, block);
        r += take;
    }
}

void FlatIndex::write_code(std::uint32_t row, const std::uint8_t* code) {
    const std::size_t bytes = codec_->code_bytes();
    std::uint8_t* block = codes_.edit().data() + row / kBlockRows * codec_->block_bytes();
    std::vector<std::uint8_t> rows(kBlockRows * bytes);
    for (std::size_t j = 0; j < kBlockRows; ++j) codec_->unpack_row(block, j, rows.data() + j * bytes);
    std::copy_n(code, bytes, rows.data() + row % kBlockRows * bytes);
    codec_->pack_block(rows.data(), kBlockRows, block);
}

IdList FlatIndex::add(ConstMatrix x, const IdList* ids, bool upsert, int num_threads) {
    if (x.cols != dim_) {
        throw Error(ErrorKind::shape,
                    "vectors have " + std::to_string(x.cols) + " dims, the index " + std::to_string(dim_));
    }
    std::unique_lock lock(mutex_);
    std::vector<std::string_view> texts;
    const store::AddPlan plan = plan_add(ids, x.rows, upsert, texts);
    store::VectorStore& kept = staging_ ? *staging_ : vectors_;
    // Everything that can fail comes first; from `append` on, only memory that is reserved is used.
    std::vector<std::uint8_t> codes;
    if (codec_) {
        codes.resize(x.rows * codec_->code_bytes());
        codec_->encode(x, codes.data(), num_threads, codec::Effort::rounded);
        const std::size_t total = blocks(kept.size() + plan.n_new) * codec_->block_bytes();
        codes_.edit(total);
    }
    std::vector<float> new_rows;
    const bool only_new = plan.n_new == x.rows;
    if (!only_new) new_rows.reserve(plan.n_new * dim_);
    std::vector<std::uint8_t> new_codes;
    if (codec_ && !only_new) new_codes.reserve(plan.n_new * codec_->code_bytes());
    for (std::size_t i = 0; i < x.rows && !only_new; ++i) {
        if (!plan.is_new(i)) continue;
        new_rows.insert(new_rows.end(), x.row(i), x.row(i) + dim_);
        if (codec_) {
            const std::uint8_t* c = codes.data() + i * codec_->code_bytes();
            new_codes.insert(new_codes.end(), c, c + codec_->code_bytes());
        }
    }
    kept.prepare(x, plan.n_new, num_threads);
    ids_.reserve(plan);

    const std::size_t old_rows = kept.size();
    if (codec_) append_codes(only_new ? codes.data() : new_codes.data(), plan.n_new);
    try {
        kept.append(only_new ? x : ConstMatrix(new_rows.data(), plan.n_new, dim_), num_threads);
    } catch (...) {
        kept.truncate(old_rows);
        throw;
    }
    for (std::size_t i = 0; i < x.rows && !only_new; ++i) {
        if (plan.is_new(i)) continue;
        kept.assign(plan.rows[i], x.row(i));
        if (codec_) write_code(plan.rows[i], codes.data() + i * codec_->code_bytes());
    }
    ids_.commit(plan);
    return ids_of(plan.rows);
}

std::vector<std::uint32_t> FlatIndex::rows_of(const IdList& ids, bool skip_missing) const {
    std::vector<std::uint32_t> rows;
    rows.reserve(ids.size());
    const auto look_up = [&](auto id, const std::string& text) {
        if (const auto row = ids_.find(id)) {
            rows.push_back(*row);
        } else if (!skip_missing) {
            throw Error(ErrorKind::unknown_id, "id " + text + " is not in the index");
        }
    };
    for (std::int64_t id : ids.ints) look_up(id, std::to_string(id));
    for (const std::string& id : ids.strings) look_up(std::string_view(id), "'" + id + "'");
    return rows;
}

IdList FlatIndex::ids_of(std::span<const std::uint32_t> rows) const {
    IdList out;
    out.kind = ids_.kind() == store::IdKind::string ? store::IdKind::string : store::IdKind::integer;
    for (std::uint32_t r : rows) {
        if (out.kind == store::IdKind::string) {
            out.strings.emplace_back(ids_.string_id(r));
        } else {
            out.ints.push_back(ids_.int_id(r));
        }
    }
    return out;
}

std::size_t FlatIndex::remove(const IdList& ids, bool ignore_missing) {
    std::unique_lock lock(mutex_);
    std::size_t removed = 0;
    for (std::uint32_t r : rows_of(ids, ignore_missing)) {
        if (!ids_.is_live(r)) continue;  // given twice
        ids_.erase_row(r);
        ++removed;
    }
    return removed;
}

void FlatIndex::take_back(const IdList& ids, std::int64_t max_id) {
    std::unique_lock lock(mutex_);
    for (std::uint32_t r : rows_of(ids, true)) {
        if (ids_.is_live(r)) ids_.erase_row(r);
    }
    drop_erased_rows();
    ids_.lower_max_id(max_id);
}

std::int64_t FlatIndex::max_id() const {
    std::shared_lock lock(mutex_);
    return ids_.max_id();
}

bool FlatIndex::contains(const IdList& ids) const {
    std::shared_lock lock(mutex_);
    return rows_of(ids, true).size() == ids.size();
}

store::IdKind FlatIndex::id_kind() const {
    std::shared_lock lock(mutex_);
    return ids_.kind();
}

std::vector<float> FlatIndex::get(const IdList& ids) const {
    std::shared_lock lock(mutex_);
    const std::vector<std::uint32_t> rows = rows_of(ids, false);
    std::vector<float> out(rows.size() * dim_);
    if (!vectors().empty_mode()) {
        for (std::size_t i = 0; i < rows.size(); ++i) vectors().get(rows[i], out.data() + i * dim_);
        return out;
    }
    const std::vector<std::uint8_t> codes = unpack(rows);
    codec_->decode(codes.data(), rows.size(), out.data(), 1);
    return out;
}

void FlatIndex::compact() {
    std::unique_lock lock(mutex_);
    drop_erased_rows();
}

void FlatIndex::drop_erased_rows() {
    const std::vector<std::uint32_t> keep = ids_.live_rows();
    if (keep.size() == ids_.rows()) return;
    if (codec_) {
        const std::size_t bytes = codec_->code_bytes();
        AlignedVector<std::uint8_t> packed(blocks(keep.size()) * codec_->block_bytes());
        std::vector<std::uint8_t> rows(kBlockRows * bytes);
        for (std::size_t b = 0; b < keep.size(); b += kBlockRows) {
            const std::size_t n = std::min(kBlockRows, keep.size() - b);
            for (std::size_t j = 0; j < n; ++j) {
                const std::uint32_t r = keep[b + j];
                codec_->unpack_row(codes_.data() + r / kBlockRows * codec_->block_bytes(), r % kBlockRows,
                                   rows.data() + j * bytes);
            }
            codec_->pack_block(rows.data(), n, packed.data() + b / kBlockRows * codec_->block_bytes());
        }
        codes_ = store::SharedArray<std::uint8_t>(std::move(packed));
    }
    (staging_ ? *staging_ : vectors_).compact(keep);
    ids_.compact(keep);
}

// Live row i, counted in order of insertion, is set where allows(i).
template <class Allows>
void FlatIndex::set_live_rows(std::size_t given, Allows allows, Bitset& out) const {
    if (given != ids_.size()) {
        throw Error(ErrorKind::shape, "filter: a mask needs one value per row of the index, expected " +
                                          std::to_string(ids_.size()) + ", got " + std::to_string(given));
    }
    std::size_t i = 0;
    for (std::uint32_t r = 0; r < ids_.rows(); ++r) {
        if (ids_.is_live(r) && allows(i++)) out.set(r);
    }
}

// The rows that are live and pass the filter; nullptr when that is every row.
std::unique_ptr<Bitset> FlatIndex::allowed_rows(const Filter* filter) const {
    const bool filtered = filter != nullptr && !std::holds_alternative<std::monostate>(*filter);
    if (!filtered && ids_.size() == ids_.rows()) return nullptr;
    auto out = std::make_unique<Bitset>(ids_.rows());
    if (!filtered) {
        for (std::uint32_t r : ids_.live_rows()) out->set(r);
    } else if (const auto* ids = std::get_if<IdList>(filter)) {
        for (std::uint32_t r : rows_of(*ids, true)) out->set(r);
    } else if (const auto* mask = std::get_if<std::vector<std::uint8_t>>(filter)) {
        set_live_rows(mask->size(), [&](std::size_t i) { return (*mask)[i] != 0; }, *out);
    } else {
        const auto bits = std::get<RowBits>(*filter);
        set_live_rows(bits.rows, [&](std::size_t i) { return (bits.bytes[i / 8] >> (i % 8) & 1) != 0; }, *out);
    }
    return out;
}

// Rows become ids while the lock is held; afterwards other rows may stand in their places.
SearchResult FlatIndex::finish(std::vector<std::vector<ScoredRow>> hits, SearchResult out) const {
    out.offsets.assign(1, 0);
    for (const auto& query_hits : hits) {
        for (const ScoredRow& h : query_hits) {
            out.rows.push_back(h.row);
            out.scores.push_back(h.score);
        }
        out.offsets.push_back(out.rows.size());
    }
    out.ids = ids_of(out.rows);
    return out;
}

void FlatIndex::check(const SearchParams& params) const {
    if (params.scoring == Scoring::symmetric && !wants_codec_) {
        throw Error(ErrorKind::unsupported, "symmetric scoring needs a codec; this index scans float vectors");
    }
    if (params.rerank > 0 && mode_ == VectorMode::none) {
        throw Error(ErrorKind::value, "rerank needs kept vectors, and this index was made with vectors='none'");
    }
}

SearchResult FlatIndex::search(ConstMatrix queries, const SearchParams& params) const {
    check(params);
    std::shared_lock lock(mutex_);
    if (!params.funnel.empty()) return search_funnel(queries, params);
    if (codec_ == nullptr) {
        const auto allowed = allowed_rows(params.filter);
        store::RowSource rows = vectors().view();
        rows.allowed = allowed.get();
        const std::vector<float> q = codec::copies_for_metric(queries, dim_, metric_);
        SearchResult out;
        out.plan = "exact";
        out.matches = out.visited = allowed ? allowed->count() : ids_.rows();
        return finish(exact_top_k(rows, metric_, {q.data(), queries.rows, dim_}, std::min(params.k, ids_.rows()),
                                  tie_order(), params.num_threads),
                      std::move(out));
    }
    if (params.scoring == Scoring::symmetric) {
        std::vector<std::uint8_t> codes(queries.rows * codec_->code_bytes());
        codec_->encode(queries, codes.data(), params.num_threads, codec::Effort::scaled);
        return scan_codes(*codec_->prepare_codes(codes.data(), queries.rows, params.num_threads), queries, params);
    }
    return scan_codes(*codec_->prepare(queries, params.num_threads), queries, params);
}

SearchResult FlatIndex::search_codes(const std::uint8_t* codes, std::size_t n, const SearchParams& params) const {
    std::shared_lock lock(mutex_);
    SearchParams p = params;
    p.scoring = Scoring::symmetric;
    std::vector<float> decoded(p.rerank != 0 ? n * dim_ : 0);
    if (p.rerank != 0) codec_->decode(codes, n, decoded.data(), p.num_threads);
    return scan_codes(*codec_->prepare_codes(codes, n, p.num_threads), {decoded.data(), n, dim_}, p);
}

SearchResult FlatIndex::scan_codes(const codec::Scorer& scorer, ConstMatrix queries,
                                   const SearchParams& params) const {
    const auto allowed = allowed_rows(params.filter);
    const std::size_t n = allowed ? allowed->count() : ids_.rows();
    const std::size_t k = std::min(params.k, n);
    const bool exact_last = params.rerank != 0 && !vectors_.empty_mode();
    // Symmetric scores are of the codes as they are.
    const bool decoded_last = !exact_last && params.scoring == Scoring::asymmetric && codec_->settles_decoded();
    std::size_t candidates = decoded_last ? std::min(n, k + k / 8 + 16) : k;
    if (exact_last) {
        candidates = params.rerank == kAutoRerank ? codec_->candidates(k, n)
                                                  : std::min(n, static_cast<std::size_t>(params.rerank));
        candidates = std::max(k, candidates);
    }
    std::vector<TopK> pools = scan(scorer, candidates, allowed.get(), params.num_threads);

    SearchResult out;
    out.plan = exact_last ? "codes+rerank" : "codes";
    out.matches = out.visited = n;
    out.reranked = exact_last ? candidates : 0;
    out.counts_bits = !exact_last && params.scoring == Scoring::symmetric && codec_->counts_bits();
    RowLists hits;
    for (TopK& pool : pools) hits.push_back(exact_last || decoded_last ? pool.take() : pool.take_sorted());
    if (exact_last) hits = settle_exactly(queries, std::move(hits), k, params.num_threads);
    if (decoded_last) hits = settle_decoded(queries, std::move(hits), k, params.num_threads);
    return finish(std::move(hits), std::move(out));
}

RowLists FlatIndex::settle_exactly(ConstMatrix queries, RowLists candidates, std::size_t k, int num_threads) const {
    const std::vector<float> q = codec::copies_for_metric(queries, dim_, metric_);
    return exact_top_k_among(vectors().view(), metric_, {q.data(), queries.rows, dim_}, std::move(candidates), k,
                             tie_order(), num_threads);
}

std::vector<TopK> FlatIndex::scan(const codec::Scorer& scorer, std::size_t candidates, const Bitset* allowed,
                                  int num_threads) const {
    const std::size_t nq = scorer.size();
    const std::size_t n = ids_.rows();
    std::vector<TopK> pools(nq, TopK(candidates, tie_order()));
    if (nq == 0 || n == 0 || candidates == 0) return pools;
    const codec::BlockView view{codes_.data(), n};

    // Rows in pieces that stay in the second-level cache while all queries of a task pass over them.
    constexpr std::size_t kPieceBytes = 256 * 1024;
    const std::size_t piece =
        std::max<std::size_t>(1, kPieceBytes / codec_->block_bytes()) * kBlockRows;
    const auto pass = [&](std::size_t row_begin, std::size_t row_end, std::size_t q_begin, std::size_t q_end,
                          TopK* out) {
        for (std::size_t r = row_begin; r < row_end; r += piece) {
            scorer.top_k(view, r, std::min(row_end, r + piece), allowed, q_begin, q_end, out);
        }
    };

    if (nq >= static_cast<std::size_t>(2 * num_threads) || num_threads == 1) {
        // Queries of a task share what is done once per piece; a task ends within a second, for interrupts.
        constexpr std::size_t kMaxPairs = std::size_t{1} << 28;
        // Several tasks per thread, so that a slow one does not keep the others waiting.
        const std::size_t tasks = num_threads == 1 ? 2 : static_cast<std::size_t>(num_threads) * 4;
        const std::size_t grain = std::clamp<std::size_t>(std::min(nq / tasks, kMaxPairs / n), 2, 512);
        parallel_for(nq, grain, num_threads,
                     [&](std::size_t begin, std::size_t end, int) { pass(0, n, begin, end, pools.data() + begin); });
        return pools;
    }
    // Few queries: threads share the rows. Below this a thread costs more than it saves.
    constexpr std::size_t kMinBytes = 1024 * 1024;
    const std::size_t by_size = std::max<std::size_t>(1, codes_.size() / kMinBytes);
    const std::size_t parts = std::min<std::size_t>(static_cast<std::size_t>(num_threads), by_size);
    const std::size_t part_rows = blocks((n + parts - 1) / parts) * kBlockRows;
    std::vector<std::vector<TopK>> partial(parts, pools);
    parallel_for(n, part_rows, num_threads, [&](std::size_t begin, std::size_t end, int) {
        pass(begin, end, 0, nq, partial[begin / part_rows].data());
    });
    for (const auto& part : partial) {
        for (std::size_t q = 0; q < nq; ++q) pools[q].merge(part[q]);
    }
    return pools;
}

SearchResult FlatIndex::range_search(ConstMatrix queries, float threshold, const Filter* filter,
                                     int num_threads) const {
    std::shared_lock lock(mutex_);
    const auto allowed = allowed_rows(filter);
    SearchResult out;
    out.matches = out.visited = allowed ? allowed->count() : ids_.rows();
    if (!vectors().empty_mode()) {
        store::RowSource rows = vectors().view();
        rows.allowed = allowed.get();
        const std::vector<float> q = codec::copies_for_metric(queries, dim_, metric_);
        out.plan = "exact";
        return finish(
            exact_range(rows, metric_, {q.data(), queries.rows, dim_}, threshold, tie_order(), num_threads),
            std::move(out));
    }
    out.plan = "codes";
    std::vector<std::vector<ScoredRow>> hits(queries.rows);
    const auto scorer = codec_->prepare(queries, num_threads);
    const codec::BlockView view{codes_.data(), ids_.rows()};
    parallel_for(queries.rows, 1, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> scores(ids_.rows());
        for (std::size_t q = begin; q < end; ++q) {
            scorer->scores(view, 0, ids_.rows(), q, scores.data());
            TopK found(ids_.rows(), tie_order());
            for (std::uint32_t r = 0; r < ids_.rows(); ++r) {
                if (scores[r] >= threshold && (!allowed || allowed->test(r))) found.push(scores[r], r);
            }
            hits[q] = found.take_sorted();
        }
    });
    return finish(std::move(hits), std::move(out));
}

}  // namespace residua::index
