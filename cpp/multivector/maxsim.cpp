// SPDX-License-Identifier: Apache-2.0
#include "multivector/maxsim.hpp"

#include <algorithm>

#include "core/matrix_checks.hpp"
#include "core/metric.hpp"
#include "kernel/dispatch.hpp"
#include "kernel/matmul.hpp"

namespace residua::multivector {
namespace {

using kernel::kPanelRows;

constexpr std::size_t kChunkTokens = 48;  // document tokens that stay in the first-level cache

// Query tokens stand in panels: a document's tokens pass by as they lie, and the largest product of every query
// token is kept in a lane of its own.
class FloatScorer final : public TokenScorer {
public:
    FloatScorer(const TokenSets& queries, const TokenSets& documents, const Bitset* removed)
        : TokenScorer({documents.offsets, documents.n, removed}, queries.total()),
          panels_({static_cast<const float*>(queries.data), queries.total(), queries.dim}),
          documents_(documents) {}

    void best(std::size_t document, TokenScratch& s, float* scores, std::int64_t* tokens) const override {
        const bool where = tokens != nullptr;
        const std::size_t lanes = panels_.padded_rows(), dim = documents_.dim;
        const std::size_t begin = documents_.begin(document), count = documents_.count(document);
        s.best.assign(lanes, kWorstScore);
        if (where) s.at.assign(lanes, 0.0f);
        for (std::size_t t = 0; t < count; t += kChunkTokens) {
            const std::size_t n = std::min(kChunkTokens, count - t);
            const float* rows = as_floats(documents_, begin + t, n, s.rows);
            const float check = kernel::active().tokens.best_rows(rows, dim, n, panels_.data(), lanes / kPanelRows,
                                                                  dim, static_cast<float>(t), s.best.data(),
                                                                  where ? s.at.data() : nullptr);
            if (check == 0.0f) continue;
            if (const auto bad = first_non_finite_row({rows, n, dim})) {
                s.note(document, t + *bad);
                break;
            }
        }
        std::copy_n(s.best.data(), query_tokens(), scores);
        for (std::size_t t = 0; where && t < query_tokens(); ++t) tokens[t] = static_cast<std::int64_t>(s.at[t]);
    }

private:
    kernel::PackedPanels panels_;
    TokenSets documents_;
};

}  // namespace

std::unique_ptr<TokenScorer> float_scorer(const TokenSets& queries, const TokenSets& documents,
                                          const Bitset* removed) {
    return std::make_unique<FloatScorer>(queries, documents, removed);
}

}  // namespace residua::multivector
