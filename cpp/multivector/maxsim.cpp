// SPDX-License-Identifier: Apache-2.0
#include "multivector/maxsim.hpp"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "core/aligned.hpp"
#include "core/error.hpp"
#include "core/matrix_checks.hpp"
#include "core/parallel.hpp"
#include "kernel/dispatch.hpp"

namespace residua::multivector {
namespace {

using kernel::kPanelRows;

constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr std::size_t kChunkTokens = 48;  // document tokens that stay in the first-level cache
constexpr std::size_t kDocumentGrain = 4;
constexpr std::size_t kAllFine = std::numeric_limits<std::size_t>::max();

// Query tokens as panels: a document's tokens then pass by as they lie, and the largest product of every query
// token is kept in a lane of its own.
struct QueryPanels {
    AlignedVector<float> panels;
    std::size_t dim, count;  // panels

    explicit QueryPanels(const TokenSets& queries) : dim(queries.dim) {
        const std::size_t tokens = queries.total();
        count = (tokens + kPanelRows - 1) / kPanelRows;
        panels.resize(count * kPanelRows * dim);
        const auto* x = static_cast<const float*>(queries.data);
        for (std::size_t t = 0; t < tokens; t += kPanelRows) {
            kernel::active().floats.pack_panel_f32(x + t * dim, dim, std::min(kPanelRows, tokens - t), dim,
                                                   panels.data() + t * dim);
        }
    }
};

struct Scratch {
    AlignedVector<float> rows;  // a chunk of tokens as float32
    AlignedVector<float> best;  // one per query token, in panels
    AlignedVector<float> at;
    std::size_t bad_document = kAllFine, bad_token = 0;  // the first one

    void note(std::size_t document, std::size_t token) {
        if (document < bad_document) {
            bad_document = document;
            bad_token = token;
        }
    }
};

// n tokens from `first` on as float32 rows, where they lie if they are that already.
const float* chunk(const TokenSets& documents, const float* token_scale, std::size_t first, std::size_t n,
                   Scratch& s) {
    const std::size_t at = first * documents.dim, values = n * documents.dim;
    if (documents.type == TokenType::f32 && token_scale == nullptr) {
        return static_cast<const float*>(documents.data) + at;
    }
    s.rows.resize(kChunkTokens * documents.dim);
    if (documents.type == TokenType::f16) {
        kernel::active().floats.f16_to_f32(static_cast<const std::uint16_t*>(documents.data) + at, s.rows.data(),
                                           values);
    } else if (documents.type == TokenType::i8) {
        const auto* x = static_cast<const std::int8_t*>(documents.data) + at;
        for (std::size_t i = 0; i < values; ++i) s.rows[i] = static_cast<float>(x[i]);
    } else {
        std::copy_n(static_cast<const float*>(documents.data) + at, values, s.rows.data());
    }
    for (std::size_t t = 0; t < n && token_scale != nullptr; ++t) {
        float* row = s.rows.data() + t * documents.dim;
        for (std::size_t i = 0; i < documents.dim; ++i) row[i] *= token_scale[first + t];
    }
    return s.rows.data();
}

// One lane of `best` per query token; with Where, the number of the token in the lane of `at`.
template <bool Where>
void scan_document(const QueryPanels& q, const TokenSets& documents, const float* token_scale, std::size_t document,
                   Scratch& s) {
    const kernel::TokenKernels& kernels = kernel::active().tokens;
    const std::size_t dim = q.dim, begin = documents.begin(document), tokens = documents.count(document);
    s.best.assign(q.count * kPanelRows, kNone);
    if (Where) s.at.assign(q.count * kPanelRows, 0.0f);
    for (std::size_t t0 = 0; t0 < tokens; t0 += kChunkTokens) {
        const std::size_t n = std::min(kChunkTokens, tokens - t0);
        const float* rows = chunk(documents, token_scale, begin + t0, n, s);
        const float check = kernels.best_rows(rows, dim, n, q.panels.data(), q.count, dim, static_cast<float>(t0),
                                              s.best.data(), Where ? s.at.data() : nullptr);
        if (check == 0.0f) continue;
        if (const auto bad = first_non_finite_row({rows, n, dim})) return s.note(document, t0 + *bad);
    }
}

template <class Use>
void for_each_document(std::size_t count, int num_threads, Use use) {
    const int threads = std::max(1, num_threads);
    std::vector<Scratch> scratch(static_cast<std::size_t>(threads));
    parallel_for(count, kDocumentGrain, threads, [&](std::size_t begin, std::size_t end, int worker) {
        for (std::size_t i = begin; i < end; ++i) use(i, scratch[static_cast<std::size_t>(worker)]);
    });
    Scratch first;
    for (const Scratch& s : scratch) first.note(s.bad_document, s.bad_token);
    if (first.bad_document == kAllFine) return;
    throw Error(ErrorKind::non_finite, "doc_tokens: document " + std::to_string(first.bad_document) + ", token " +
                                           std::to_string(first.bad_token) +
                                           " contains NaN or infinity; float16 holds at most 65504");
}

}  // namespace

void maxsim(const TokenSets& queries, const TokenSets& documents, const float* token_scale,
            const DocumentChoice& chosen, float* out, int num_threads) {
    const QueryPanels panels(queries);
    for_each_document(chosen.count, num_threads, [&](std::size_t i, Scratch& s) {
        scan_document<false>(panels, documents, token_scale, chosen[i], s);
        for (std::size_t q = 0; q < queries.n; ++q) {
            double sum = 0;
            for (std::size_t t = 0; t < queries.count(q); ++t) {
                sum += static_cast<double>(s.best[queries.begin(q) + t]);
            }
            out[q * chosen.count + i] = static_cast<float>(sum);
        }
    });
}

void best_tokens(const TokenSets& query, const TokenSets& documents, const float* token_scale,
                 const DocumentChoice& chosen, float* scores, std::int64_t* tokens, int num_threads) {
    const QueryPanels panels(query);
    for_each_document(chosen.count, num_threads, [&](std::size_t i, Scratch& s) {
        const bool empty = documents.count(chosen[i]) == 0;
        scan_document<true>(panels, documents, token_scale, chosen[i], s);
        for (std::size_t t = 0; t < query.total(); ++t) {
            scores[t * chosen.count + i] = s.best[t];
            tokens[t * chosen.count + i] = empty ? -1 : static_cast<std::int64_t>(s.at[t]);
        }
    });
}

}  // namespace residua::multivector
