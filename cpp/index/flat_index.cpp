// SPDX-License-Identifier: Apache-2.0
#include "index/flat_index.hpp"

#include <algorithm>
#include <mutex>

#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "index/code_scan.hpp"
#include "index/exact_scan.hpp"

namespace residua::index {

FlatIndex::FlatIndex(std::size_t dim, Metric metric, store::VectorMode mode, bool wants_codec, std::string codec_recipe)
    : TableIndex(dim, metric, mode, wants_codec, std::move(codec_recipe)) {}

TableIndex::Commit FlatIndex::prepare_codec(const codec::Codec& codec, ConstMatrix x, int num_threads) {
    std::vector<std::uint8_t> codes(x.rows * codec.code_bytes());
    codec.encode(x, codes.data(), num_threads, codec::Effort::rounded);
    codes_.reserve(codec, x.rows);
    return [this, &codec, n = x.rows, codes = std::move(codes)] { codes_.append(codec, 0, codes.data(), n); };
}

TableIndex::Commit FlatIndex::prepare_rows(ConstMatrix x, const store::AddPlan& plan, std::span<const std::uint32_t>,
                                           int num_threads) {
    if (codec_ == nullptr) return [] {};
    const std::size_t bytes = codec_->code_bytes();
    std::vector<std::uint8_t> codes(x.rows * bytes);
    codec_->encode(x, codes.data(), num_threads, codec::Effort::rounded);
    codes_.reserve(*codec_, ids_.rows() + plan.n_new);
    // Codes of the new rows move to the front, in order; the others follow.
    std::vector<std::uint8_t> replaced;
    std::size_t n_new = 0;
    for (std::size_t i = 0; i < x.rows && plan.n_new < x.rows; ++i) {
        const std::uint8_t* code = codes.data() + i * bytes;
        if (plan.is_new(i)) {
            std::copy_n(code, bytes, codes.data() + n_new++ * bytes);
        } else {
            replaced.insert(replaced.end(), code, code + bytes);
        }
    }
    return [this, &plan, bytes, codes = std::move(codes), replaced = std::move(replaced)] {
        codes_.append(*codec_, ids_.rows(), codes.data(), plan.n_new);
        const std::uint8_t* code = replaced.data();
        for (std::uint32_t row : plan.rows) {
            if (row >= plan.first_new_row) continue;
            codes_.write(*codec_, row, code);
            code += bytes;
        }
    };
}

std::vector<std::uint8_t> FlatIndex::codes_of(std::span<const std::uint32_t> rows) const {
    return codes_.gather(*codec_, rows);
}

TableIndex::Commit FlatIndex::prepare_codes(const std::uint8_t* codes, const store::AddPlan& plan,
                                            std::span<const std::uint32_t>) {
    codes_.reserve(*codec_, ids_.rows() + plan.n_new);
    return [this, &plan, codes] { codes_.append(*codec_, ids_.rows(), codes, plan.n_new); };
}

void FlatIndex::keep_rows(std::span<const std::uint32_t> keep) {
    if (codec_) codes_.compact(*codec_, keep);
}

std::vector<float> FlatIndex::decoded(std::span<const std::uint32_t> rows) const {
    std::vector<float> out(rows.size() * dim_);
    codec_->decode(codes_.gather(*codec_, rows).data(), rows.size(), out.data(), 1);
    return out;
}

void FlatIndex::add_memory(std::map<std::string, std::size_t>& parts) const {
    parts["codes"] = codes_.memory_bytes();
}

void FlatIndex::save_parts(store::Writer& out) const {
    if (codec_) codes_.save(out);
}

std::shared_ptr<FlatIndex> FlatIndex::load(const store::Reader& in) {
    auto out = read_header(in, [](Header h) {
        return std::make_shared<FlatIndex>(h.dim, h.metric, h.mode, h.wants_codec, std::move(h.codec_recipe));
    });
    out->load_table(in);
    if (out->codec_) out->codes_.load(in, *out->codec_, out->ids_.rows());
    return out;
}

SearchResult FlatIndex::search(ConstMatrix queries, const SearchParams& params) const {
    check(params);
    std::shared_lock lock(mutex_);
    if (!params.funnel.empty()) return search_funnel(queries, params);
    if (codec_ == nullptr && params.device == nullptr) return scan_vectors(queries, params);
    return scan_codes(queries, params, [&](std::size_t begin, std::size_t end) {
        const ConstMatrix part = queries.slice(begin, end);
        return params.scoring == Scoring::symmetric ? prepare_symmetric(part, params.num_threads)
                                                    : codec_->prepare(part, params.num_threads);
    });
}

SearchResult FlatIndex::search_codes(const std::uint8_t* codes, std::size_t n, const SearchParams& params) const {
    std::shared_lock lock(mutex_);
    SearchParams p = params;
    p.scoring = Scoring::symmetric;
    std::vector<float> decoded(p.rerank != 0 ? n * dim_ : 0);
    if (p.rerank != 0) codec_->decode(codes, n, decoded.data(), p.num_threads);
    return scan_codes({decoded.data(), n, dim_}, p, [&](std::size_t begin, std::size_t end) {
        return codec_->prepare_codes(codes + begin * codec_->code_bytes(), end - begin, p.num_threads);
    });
}

SearchResult FlatIndex::scan_codes(ConstMatrix queries, const SearchParams& params, const Prepare& prepare) const {
    if (params.device != nullptr) device_codes(*params.device);
    const auto allowed = allowed_rows(params.filter);
    const std::size_t n = allowed ? allowed->count() : ids_.rows();
    const std::size_t k = std::min(params.k, n);
    const bool exact_last = settles(params);
    // Symmetric scores are of the codes as they are.
    const bool decoded_last = !exact_last && params.scoring == Scoring::asymmetric && codec_->settles_decoded();
    const std::size_t wanted = decoded_last ? std::min(n, k + k / 8 + 16) : candidates(params, k, n);
    RowLists hits;
    if (params.device != nullptr) {
        hits = scan_on_device(queries.rows, params, prepare, wanted, allowed.get());
    } else {
        for (TopK& pool : scan(*prepare(0, queries.rows), wanted, allowed.get(), params.num_threads)) {
            hits.push_back(exact_last || decoded_last ? pool.take() : pool.take_sorted());
        }
    }

    SearchResult out;
    out.plan = exact_last ? "codes+rerank" : "codes";
    out.matches = out.visited = n;
    out.reranked = exact_last ? wanted : 0;
    out.counts_bits = !exact_last && params.scoring == Scoring::symmetric && codec_->counts_bits();
    if (exact_last) hits = settle_exactly(queries, std::move(hits), k, params.num_threads);
    if (decoded_last) hits = settle_decoded(queries, std::move(hits), k, params.num_threads);
    return finish(std::move(hits), std::move(out));
}

CodesNow FlatIndex::codes_now() const {
    CodesNow out{codec_, {codes_.data(), ids_.rows()}, codes_.stamp(), {}};
    if (const TieOrder* order = tie_order()) out.ranks = [order, n = ids_.rows()] { return ranks_of(n, *order); };
    return out;
}

RowLists FlatIndex::scan_on_device(std::size_t n_queries, const SearchParams& params, const Prepare& prepare, std::size_t keep,
                                   const Bitset* allowed) const {
    if (keep == 0) return RowLists(n_queries);
    check_kept(*params.device, keep);
    const CodesNow codes = codes_now();
    RowLists out;
    for (std::size_t q = 0; q < n_queries; q += kDeviceQueries) {
        const auto scorer = prepare(q, std::min(n_queries, q + kDeviceQueries));
        for (auto& rows : params.device->best(codes, *scorer, keep, allowed, params.num_threads)) out.push_back(std::move(rows));
    }
    return out;
}

std::vector<TopK> FlatIndex::scan(const codec::Scorer& scorer, std::size_t keep, const Bitset* allowed,
                                  int num_threads) const {
    return scan_blocks(scorer, {codes_.data(), ids_.rows()}, codec_->block_bytes(), keep, allowed, tie_order(), num_threads);
}

RowLists FlatIndex::settle_decoded(ConstMatrix queries, RowLists candidates, std::size_t k, int num_threads) const {
    const std::vector<float> q = codec::copies_for_metric(queries, dim_, metric_);
    // Decoded codes are unit vectors under cosine, and codes of others have the length they have.
    const Metric metric = metric_ == Metric::cosine ? Metric::ip : metric_;
    parallel_for(candidates.size(), 8, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> x;
        std::vector<std::uint32_t> rows;
        for (std::size_t i = begin; i < end; ++i) {
            rows.clear();
            for (const ScoredRow& r : candidates[i]) rows.push_back(r.row);
            std::sort(rows.begin(), rows.end());
            x = decoded(rows);
            store::RowSource source;
            source.data = x.data();
            source.n = rows.size();
            source.dim = dim_;
            source.stride_bytes = dim_ * sizeof(float);
            RowLists one(1);
            for (std::uint32_t j = 0; j < rows.size(); ++j) one[0].push_back({0.0f, j});
            one = exact_top_k_among(source, metric, {q.data() + i * dim_, 1, dim_}, std::move(one), rows.size(), nullptr, 1);
            TopK best(k, tie_order());
            for (const ScoredRow& r : one[0]) best.push(r.score, rows[r.row]);
            candidates[i] = best.take_sorted();
        }
    });
    return candidates;
}

RowLists FlatIndex::range_of_codes(ConstMatrix queries, float threshold, const Bitset* allowed,
                                   int num_threads) const {
    RowLists hits(queries.rows);
    const auto scorer = codec_->prepare(queries, num_threads);
    const codec::BlockView view{codes_.data(), ids_.rows()};
    parallel_for(queries.rows, 1, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> scores(ids_.rows());
        for (std::size_t q = begin; q < end; ++q) {
            scorer->scores(view, 0, ids_.rows(), q, scores.data());
            TopK found(ids_.rows(), tie_order());
            for (std::uint32_t r = 0; r < ids_.rows(); ++r) {
                if (scores[r] >= threshold && (allowed == nullptr || allowed->test(r))) found.push(scores[r], r);
            }
            hits[q] = found.take_sorted();
        }
    });
    return hits;
}

}  // namespace residua::index
