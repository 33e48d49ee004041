// SPDX-License-Identifier: Apache-2.0
// Codes that come and go as they are, and scores of decoded codes.
#include <algorithm>
#include <mutex>
#include <numeric>

#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "index/exact_scan.hpp"
#include "index/flat_index.hpp"

namespace residua::index {

using codec::kBlockRows;

// texts: what the plan of string ids looks at.
store::AddPlan FlatIndex::plan_add(const IdList* ids, std::size_t n, bool upsert,
                                   std::vector<std::string_view>& texts) const {
    if (ids == nullptr) return ids_.plan_auto(n);
    if (ids->kind == store::IdKind::integer) return ids_.plan_add(std::span<const std::int64_t>(ids->ints), upsert);
    texts.assign(ids->strings.begin(), ids->strings.end());
    return ids_.plan_add(std::span<const std::string_view>(texts), upsert);
}

IdList FlatIndex::add_codes(const std::uint8_t* codes, std::size_t n, const IdList* ids) {
    std::unique_lock lock(mutex_);
    if (codec_ == nullptr) throw Error(ErrorKind::unsupported, "codes need an index whose codec is trained");
    if (!vectors_.empty_mode()) {
        throw Error(ErrorKind::unsupported, std::string("this index keeps vectors ('") + store::to_string(mode_) +
                                                "'), which codes do not hold; make it with vectors='none'");
    }
    for (std::size_t i = 0; i < n; ++i) {
        if (codec_->is_code(codes + i * codec_->code_bytes())) continue;
        throw Error(ErrorKind::value, "codes: row " + std::to_string(i) + " is no code of this codec");
    }
    std::vector<std::string_view> texts;
    const store::AddPlan plan = plan_add(ids, n, false, texts);
    codes_.edit(blocks(vectors_.size() + n) * codec_->block_bytes());
    ids_.reserve(plan);
    append_codes(codes, n);
    vectors_.append(ConstMatrix(nullptr, n, dim_), 1);
    ids_.commit(plan);
    return ids_of(plan.rows);
}

std::vector<std::uint8_t> FlatIndex::unpack(std::span<const std::uint32_t> rows) const {
    std::vector<std::uint8_t> out(rows.size() * codec_->code_bytes());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        codec_->unpack_row(codes_.data() + rows[i] / kBlockRows * codec_->block_bytes(), rows[i] % kBlockRows,
                           out.data() + i * codec_->code_bytes());
    }
    return out;
}

std::vector<std::uint8_t> FlatIndex::codes_of(const IdList& ids) const {
    std::shared_lock lock(mutex_);
    if (codec_ == nullptr) throw Error(ErrorKind::unsupported, "the index has no codes: its codec is missing or not trained");
    return unpack(rows_of(ids, false));
}

IdList FlatIndex::all_ids() const {
    std::shared_lock lock(mutex_);
    return ids_of(ids_.live_rows());
}

std::string FlatIndex::tuning() const {
    std::shared_lock lock(mutex_);
    return tuning_;
}

void FlatIndex::set_tuning(std::string text) {
    std::unique_lock lock(mutex_);
    tuning_ = std::move(text);
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
            x.resize(rows.size() * dim_);
            codec_->decode(unpack(rows).data(), rows.size(), x.data(), 1);
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

}  // namespace residua::index
