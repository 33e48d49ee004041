// SPDX-License-Identifier: Apache-2.0
// What the searches of all indexes share: filters, exact scores, ids of the results.
#include <algorithm>
#include <mutex>

#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "filter/lane.hpp"
#include "index/exact_scan.hpp"
#include "index/table_index.hpp"
#include "kernel/dispatch.hpp"

namespace residua::index {

std::vector<std::uint32_t> TableIndex::rows_of(const IdList& ids, bool skip_missing) const {
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

IdList TableIndex::ids_of(std::span<const std::uint32_t> rows) const {
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

// Live row i, counted in order of insertion, is set where allows(i).
template <class Allows>
void TableIndex::set_live_rows(std::size_t given, Allows allows, Bitset& out) const {
    if (given != ids_.size()) {
        throw Error(ErrorKind::shape, "filter: a mask needs one value per row of the index, expected " +
                                          std::to_string(ids_.size()) + ", got " + std::to_string(given));
    }
    std::size_t i = 0;
    for (std::uint32_t r = 0; r < ids_.rows(); ++r) {
        if (ids_.is_live(r) && allows(i++)) out.set(r);
    }
}

namespace {

// A bit per byte that is not zero.
void pack_mask(std::span<const std::uint8_t> mask, Bitset& out) {
    static const filter::ByteSet kSet = [] {
        filter::ByteSet bytes;
        for (std::size_t byte = 1; byte < 256; ++byte) bytes.add(byte);
        return bytes;
    }();
    kernel::active().sets.members(mask.data(), mask.size(), kSet.table(), out.words().data());
}

}  // namespace

std::shared_ptr<const Bitset> TableIndex::allowed_rows(const Filter* filter) const {
    const bool filtered = filter != nullptr && !std::holds_alternative<std::monostate>(*filter);
    if (!filtered && ids_.size() == ids_.rows()) return nullptr;
    if (filtered && std::holds_alternative<filter::ExprPtr>(*filter)) {
        const auto selection = columns_.select(*std::get<filter::ExprPtr>(*filter), ids_.erased());
        return {selection, &selection->rows};
    }
    auto out = std::make_shared<Bitset>(ids_.rows());
    if (!filtered) {
        for (std::uint32_t r : ids_.live_rows()) out->set(r);
    } else if (const auto* ids = std::get_if<IdList>(filter)) {
        for (std::uint32_t r : rows_of(*ids, true)) out->set(r);
    } else if (const auto* mask = std::get_if<std::vector<std::uint8_t>>(filter); mask && mask->size() == ids_.rows() && ids_.size() == ids_.rows()) {
        pack_mask(*mask, *out);
    } else if (mask != nullptr) {
        set_live_rows(mask->size(), [&](std::size_t i) { return (*mask)[i] != 0; }, *out);
    } else {
        const auto bits = std::get<RowBits>(*filter);
        set_live_rows(bits.rows, [&](std::size_t i) { return (bits.bytes[i / 8] >> (i % 8) & 1) != 0; }, *out);
    }
    return out;
}

void TableIndex::check(const SearchParams& params) const {
    if (params.scoring == Scoring::symmetric && !wants_codec_) {
        throw Error(ErrorKind::unsupported, "symmetric scoring needs a codec; this index scans float vectors");
    }
    if (params.device != nullptr) check_device(*params.device);
    if (params.rerank > 0 && mode_ == store::VectorMode::none) {
        throw Error(ErrorKind::value, "rerank needs kept vectors, and this index was made with vectors='none'");
    }
}

void TableIndex::check_device(const CodeDevice& device) const {
    if (!scans_codes()) {
        throw Error(ErrorKind::unsupported, device.name() + " cannot search this kind of index; it can search FlatIndex and IVFIndex");
    }
    if (!wants_codec_) {
        throw Error(ErrorKind::unsupported, device.name() + " scans codes, and this index has float vectors alone: make it with codec=…, "
                                                            "such as FloatCodec(dim), whose codes are the vectors");
    }
}

CodesNow TableIndex::device_codes(const CodeDevice& device) const {
    check_device(device);
    if (codec_ == nullptr) {
        throw Error(ErrorKind::not_trained, device.name() + " scans codes, and the codec of this index is not fitted yet: call train(x) "
                                                            "or add more rows, or search on the CPU, index.to('cpu')");
    }
    return codes_now();
}

void TableIndex::bring_codes(CodeDevice& device, int num_threads) const {
    check_device(device);
    std::shared_lock lock(mutex_);
    if (codec_ != nullptr) device.hold(codes_now(), num_threads);
}

std::size_t TableIndex::candidates(const SearchParams& params, std::size_t k, std::size_t n) const {
    if (!settles(params)) return k;
    const std::size_t wanted =
        params.rerank == kAutoRerank ? codec_->candidates(k, n) : std::min(n, static_cast<std::size_t>(params.rerank));
    return std::max(k, wanted);
}

RowLists TableIndex::settle_exactly(ConstMatrix queries, RowLists candidates, std::size_t k, int num_threads) const {
    const std::vector<float> q = codec::copies_for_metric(queries, dim_, metric_);
    return settle_seen({q.data(), queries.rows, dim_}, std::move(candidates), k, num_threads);
}

RowLists TableIndex::settle_seen(ConstMatrix queries, RowLists candidates, std::size_t k, int num_threads) const {
    return exact_top_k_among(vectors().view(), metric_, queries, std::move(candidates), k, tie_order(), num_threads);
}

SearchResult TableIndex::scan_vectors(ConstMatrix queries, const SearchParams& params) const {
    const auto allowed = allowed_rows(params.filter);
    store::RowSource rows = vectors().view();
    rows.allowed = allowed.get();
    const std::vector<float> q = codec::copies_for_metric(queries, dim_, metric_);
    SearchResult out;
    out.plan = "exact";
    out.matches = out.visited = allowed ? allowed->count() : ids_.rows();
    return finish(exact_top_k(rows, metric_, {q.data(), queries.rows, dim_}, std::min(params.k, ids_.rows()), tie_order(),
                              params.num_threads),
                  std::move(out));
}

std::unique_ptr<codec::Scorer> TableIndex::prepare_symmetric(ConstMatrix queries, int num_threads) const {
    std::vector<std::uint8_t> codes(queries.rows * codec_->code_bytes());
    codec_->encode(queries, codes.data(), num_threads, codec::Effort::scaled);
    return codec_->prepare_codes(codes.data(), queries.rows, num_threads);
}

SearchResult TableIndex::finish(RowLists hits, SearchResult out) const {
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

SearchResult TableIndex::range_search(ConstMatrix queries, float threshold, const Filter* filter,
                                      int num_threads) const {
    std::shared_lock lock(mutex_);
    const auto allowed = allowed_rows(filter);
    SearchResult out;
    out.matches = out.visited = allowed ? allowed->count() : ids_.rows();
    if (vectors().empty_mode()) {
        out.plan = "codes";
        return finish(range_of_codes(queries, threshold, allowed.get(), num_threads), std::move(out));
    }
    store::RowSource rows = vectors().view();
    rows.allowed = allowed.get();
    const std::vector<float> q = codec::copies_for_metric(queries, dim_, metric_);
    out.plan = "exact";
    return finish(exact_range(rows, metric_, {q.data(), queries.rows, dim_}, threshold, tie_order(), num_threads),
                  std::move(out));
}

}  // namespace residua::index
