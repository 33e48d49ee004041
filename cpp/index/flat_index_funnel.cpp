// SPDX-License-Identifier: Apache-2.0
// Search by prefixes of the dims: few dims choose rows for more dims, all dims settle the last ones.
#include <algorithm>

#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "index/exact_scan.hpp"
#include "index/flat_index.hpp"

namespace residua::index {
namespace {

[[noreturn]] void refuse(std::size_t stage, const std::string& what) {
    throw Error(ErrorKind::value, "funnel: stage " + std::to_string(stage + 1) + " " + what);
}

std::string text(std::size_t n) { return std::to_string(n); }

}  // namespace

void FlatIndex::check_funnel(const SearchParams& params) const {
    if (params.scoring == Scoring::symmetric) {
        throw Error(ErrorKind::unsupported, "funnel works with asymmetric scoring only; got scoring='symmetric'");
    }
    if (params.device != nullptr) {
        throw Error(ErrorKind::unsupported, "a funnel runs on the CPU alone, and this index is on " + params.device->name() +
                                                ": leave funnel out, or search index.to('cpu')");
    }
    if (params.rerank > 0) {
        throw Error(ErrorKind::value, "funnel settles what its last stage keeps; leave rerank at None, or give False for "
                                      "code scores, got rerank=" + std::to_string(params.rerank));
    }
    const std::size_t dims = codec_ ? codec_->prefix_dims() : dim_;
    if (dims == 0) {
        throw Error(ErrorKind::unsupported,
                    "funnel needs dims that stand one after the other, and those of a " + codec_->kind() +
                        " do not; use codec=None, FloatCodec, ScalarCodec or BinaryCodec");
    }
    for (std::size_t s = 0; s < params.funnel.size(); ++s) {
        const FunnelStage& stage = params.funnel[s];
        if (stage.dims < 1 || stage.dims > dims) {
            refuse(s, "has " + text(stage.dims) + " dims, expected 1 to " + text(dims));
        }
        if (stage.keep < params.k) {
            refuse(s, "keeps " + text(stage.keep) + " rows, expected at least k = " + text(params.k));
        }
        if (s == 0) continue;
        const FunnelStage& before = params.funnel[s - 1];
        if (stage.dims <= before.dims) {
            refuse(s, "has " + text(stage.dims) + " dims, expected more than the " + text(before.dims) +
                          " of the stage before");
        }
        if (stage.keep > before.keep) {
            refuse(s, "keeps " + text(stage.keep) + " rows, expected at most the " + text(before.keep) +
                          " of the stage before");
        }
    }
}

// What is scanned, as rows of numbers; nothing where it is codes of another form.
std::optional<store::RowSource> FlatIndex::scanned_rows() const {
    if (codec_ == nullptr) return vectors().view();
    return codec_->rows({codes_.data(), ids_.rows()});
}

RowLists FlatIndex::choose(ConstMatrix queries, const FunnelStage& stage, const Bitset* allowed,
                           int num_threads) const {
    if (auto rows = scanned_rows()) {
        store::RowSource prefix = rows->prefix(stage.dims);
        prefix.allowed = allowed;
        const std::vector<float> q = codec::copies_for_metric(queries, stage.dims, metric_);
        return exact_choice(prefix, metric_, {q.data(), queries.rows, stage.dims}, stage.keep, tie_order(), num_threads);
    }
    const auto scorer = codec_->prepare_prefix(queries, stage.dims, num_threads);
    RowLists out;
    for (TopK& pool : scan(*scorer, stage.keep, allowed, num_threads)) out.push_back(pool.take());
    return out;
}

RowLists FlatIndex::choose_again(ConstMatrix queries, const FunnelStage& stage, RowLists candidates,
                                 int num_threads) const {
    if (const auto rows = scanned_rows()) {
        const std::vector<float> q = codec::copies_for_metric(queries, stage.dims, metric_);
        return exact_choice_among(rows->prefix(stage.dims), metric_, {q.data(), queries.rows, stage.dims},
                                  std::move(candidates), stage.keep, tie_order(), num_threads);
    }
    return settle_by(*codec_->prepare_prefix(queries, stage.dims, num_threads), std::move(candidates), stage.keep,
                     num_threads);
}

RowLists FlatIndex::settle_by(const codec::Scorer& scorer, RowLists candidates, std::size_t keep,
                              int num_threads) const {
    const codec::BlockView view{codes_.data(), ids_.rows()};
    return settle(std::move(candidates), keep, tie_order(), num_threads,
                  [&](std::size_t i, std::span<const std::uint32_t> which, float* out) {
                      scorer.scores_of(view, which, i, out);
                  });
}

SearchResult FlatIndex::search_funnel(ConstMatrix queries, const SearchParams& params) const {
    check_funnel(params);
    const auto allowed = allowed_rows(params.filter);
    const std::size_t n = allowed ? allowed->count() : ids_.rows();
    SearchResult out;
    out.plan = "funnel";
    out.matches = out.visited = n;
    out.stages.push_back(n);
    RowLists hits;
    for (std::size_t s = 0; s < params.funnel.size(); ++s) {
        const FunnelStage stage{params.funnel[s].dims, std::min(params.funnel[s].keep, n)};
        hits = s == 0 ? choose(queries, stage, allowed.get(), params.num_threads)
                      : choose_again(queries, stage, std::move(hits), params.num_threads);
        out.stages.push_back(stage.keep);
    }
    const std::size_t k = std::min(params.k, n);
    if (codec_ == nullptr || settles(params)) {
        out.reranked = out.stages.back();
        return finish(settle_exactly(queries, std::move(hits), k, params.num_threads), std::move(out));
    }
    return finish(settle_by(*codec_->prepare(queries, params.num_threads), std::move(hits), k, params.num_threads),
                  std::move(out));
}

}  // namespace residua::index
