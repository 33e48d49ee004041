// SPDX-License-Identifier: Apache-2.0
// Codes that come and go as they are, ids, and settings that travel with an index.
#include <mutex>

#include "core/error.hpp"
#include "index/table_index.hpp"

namespace residua::index {

// texts: what the plan of string ids looks at.
store::AddPlan TableIndex::plan_add(const IdList* ids, std::size_t n, bool upsert,
                                    std::vector<std::string_view>& texts) const {
    if (ids == nullptr) return ids_.plan_auto(n);
    if (ids->kind == store::IdKind::integer) return ids_.plan_add(std::span<const std::int64_t>(ids->ints), upsert);
    texts.assign(ids->strings.begin(), ids->strings.end());
    return ids_.plan_add(std::span<const std::string_view>(texts), upsert);
}

IdList TableIndex::add_codes(const std::uint8_t* codes, std::size_t n, const IdList* ids,
                             std::span<const std::uint32_t> lists) {
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
    const Commit commit = prepare_codes(codes, plan, lists);
    ids_.reserve(plan);
    const filter::Columns::Batch nothing(columns_.fields().size());
    columns_.prepare(nothing, plan.rows, plan.n_new);
    versions_.reserve(plan.n_new);
    vectors_.append(ConstMatrix(nullptr, n, dim_), 1);
    commit();
    versions_.commit(plan.rows, plan.n_new);
    columns_.commit(nothing, plan.rows, plan.n_new);
    ids_.commit(plan);
    return ids_of(plan.rows);
}

std::vector<std::uint8_t> TableIndex::codes(const IdList& ids) const {
    std::shared_lock lock(mutex_);
    if (codec_ == nullptr) throw Error(ErrorKind::unsupported, "the index has no codes: its codec is missing or not trained");
    return codes_of(rows_of(ids, false));
}

void TableIndex::replace_codec(std::shared_ptr<const codec::Codec> codec) {
    const std::lock_guard writing(writing_);
    std::unique_lock lock(mutex_);
    if (codec_ == nullptr) throw Error(ErrorKind::unsupported, "the index has no trained codec that could be replaced");
    const std::string from = codec::fingerprint(*codec_), to = codec::fingerprint(*codec);
    if (!codec_->reads_codes_of(*codec)) {
        throw Error(ErrorKind::unsupported, "queries of codec " + from + ", which the index has, do not read codes of " + to +
                                                ": train it with compatible_with=index.codec");
    }
    versions_.replace(from, to, ids_.rows());
    codec_ = std::move(codec);
}

std::vector<std::string> TableIndex::codec_versions(const IdList& ids) const {
    std::shared_lock lock(mutex_);
    if (codec_ == nullptr) throw Error(ErrorKind::unsupported, "the index has no codes: its codec is missing or not trained");
    const std::vector<std::uint32_t> rows = rows_of(ids, false);
    std::vector<std::string> out;
    const std::string only = versions_.empty() ? codec::fingerprint(*codec_) : "";
    for (std::uint32_t r : rows) out.push_back(versions_.empty() ? only : versions_.of(r));
    return out;
}

IdList TableIndex::all_ids() const {
    std::shared_lock lock(mutex_);
    return ids_of(ids_.live_rows());
}

std::string TableIndex::tuning() const {
    std::shared_lock lock(mutex_);
    return tuning_;
}

void TableIndex::set_tuning(std::string text) {
    std::unique_lock lock(mutex_);
    tuning_ = std::move(text);
}

}  // namespace residua::index
