// SPDX-License-Identifier: Apache-2.0
#include "multivector/token_scorer.hpp"

#include <algorithm>
#include <string>

#include "core/error.hpp"
#include "core/metric.hpp"
#include "core/parallel.hpp"
#include "core/top_k.hpp"

namespace residua::multivector {
namespace {

constexpr std::size_t kDocumentGrain = 4;

void throw_first_bad(std::span<const TokenScratch> scratch) {
    TokenScratch first;
    for (const TokenScratch& s : scratch) first.note(s.bad_document, s.bad_token);
    if (first.bad_document == TokenScratch::kAllFine) return;
    throw Error(ErrorKind::non_finite, "doc_tokens: document " + std::to_string(first.bad_document) + ", token " +
                                           std::to_string(first.bad_token) +
                                           " contains NaN or infinity; float16 holds at most 65504");
}

// use(i, document, scratch) for the documents chosen; those with tokens have been scored into the scratch.
template <class Use>
void for_each_document(const TokenScorer& scorer, const DocumentNumbers& chosen, bool where, int num_threads,
                       Use use) {
    if (chosen) check_numbers(*chosen, scorer.places().n);
    const int threads = std::max(1, num_threads);
    const std::size_t n = chosen ? chosen->size() : scorer.places().n;
    std::vector<TokenScratch> scratch(static_cast<std::size_t>(threads));
    parallel_for(n, kDocumentGrain, threads, [&](std::size_t begin, std::size_t end, int worker) {
        TokenScratch& s = scratch[static_cast<std::size_t>(worker)];
        s.scores.resize(scorer.query_tokens());
        s.tokens.resize(where ? scorer.query_tokens() : 0);
        for (std::size_t i = begin; i < end; ++i) {
            const std::size_t document = chosen ? static_cast<std::size_t>((*chosen)[i]) : i;
            const bool scored = scorer.places().count(document) != 0;
            if (scored) scorer.best(document, s, s.scores.data(), where ? s.tokens.data() : nullptr);
            use(i, scored, s);
        }
    });
    throw_first_bad(scratch);
}

float sum_of(const float* scores, std::size_t n) {
    double sum = 0;
    for (std::size_t t = 0; t < n; ++t) sum += static_cast<double>(scores[t]);
    return static_cast<float>(sum);
}

// The candidates of one query, once each.
class DistinctCandidates {
public:
    explicit DistinctCandidates(std::size_t n_documents) : n_(n_documents) {}

    std::span<const std::int64_t> of(const Candidates& c, std::size_t query) {
        kept_.clear();
        if (c.offsets == nullptr) {
            for (std::size_t i = 0; i < n_; ++i) kept_.push_back(static_cast<std::int64_t>(i));
            return kept_;
        }
        if (seen_.size() != n_) seen_.resize(n_);
        for (std::int64_t at = c.offsets[query]; at < c.offsets[query + 1]; ++at) {
            const auto document = static_cast<std::size_t>(c.numbers[at]);
            if (!seen_.test(document)) kept_.push_back(c.numbers[at]);
            seen_.set(document);
        }
        for (const std::int64_t document : kept_) seen_.reset(static_cast<std::size_t>(document));
        return kept_;
    }

private:
    std::size_t n_;
    Bitset seen_;
    std::vector<std::int64_t> kept_;
};

// One query against its candidates, on one or more threads.
class QueryRanker {
public:
    QueryRanker(std::size_t k, int num_threads)
        : k_(k), scratch_(static_cast<std::size_t>(std::max(1, num_threads))) {}

    std::vector<ScoredRow> rank(const TokenScorer& scorer, std::span<const std::int64_t> candidates) {
        std::vector<TopK> top(scratch_.size(), TopK(std::min(k_, candidates.size())));
        parallel_for(candidates.size(), kDocumentGrain, static_cast<int>(scratch_.size()),
                     [&](std::size_t begin, std::size_t end, int worker) {
                         const auto w = static_cast<std::size_t>(worker);
                         score(scorer, candidates.subspan(begin, end - begin), scratch_[w], top[w]);
                     });
        throw_first_bad(scratch_);
        for (std::size_t w = 1; w < top.size(); ++w) top[0].merge(top[w]);
        return top[0].take_sorted();
    }

private:
    static void score(const TokenScorer& scorer, std::span<const std::int64_t> candidates, TokenScratch& s,
                      TopK& top) {
        s.scores.resize(scorer.query_tokens());
        for (const std::int64_t number : candidates) {
            const auto document = static_cast<std::size_t>(number);
            if (scorer.places().count(document) == 0) continue;
            scorer.best(document, s, s.scores.data(), nullptr);
            top.push(sum_of(s.scores.data(), s.scores.size()), static_cast<std::uint32_t>(document));
        }
    }

    std::size_t k_;
    std::vector<TokenScratch> scratch_;
};

std::size_t most_candidates(const Candidates& c, std::size_t nq, std::size_t n_documents) {
    if (c.offsets == nullptr) return n_documents;
    std::size_t most = 0;
    for (std::size_t i = 0; i < nq; ++i) {
        most = std::max(most, static_cast<std::size_t>(c.offsets[i + 1] - c.offsets[i]));
    }
    return std::min(most, n_documents);
}

}  // namespace

void check_numbers(std::span<const std::int64_t> numbers, std::size_t n) {
    for (const std::int64_t number : numbers) {
        if (number < 0 || static_cast<std::size_t>(number) >= n) {
            throw Error(ErrorKind::out_of_range, "documents: " + std::to_string(number) + " is not one of the " +
                                                     std::to_string(n) + " documents");
        }
    }
}

std::vector<float> maxsim(const TokenScorer& scorer, const TokenSets& queries, const DocumentNumbers& chosen,
                          int num_threads) {
    const std::size_t n = chosen ? chosen->size() : scorer.places().n;
    std::vector<float> out(queries.n * n);
    for_each_document(scorer, chosen, false, num_threads, [&](std::size_t i, bool scored, const TokenScratch& s) {
        for (std::size_t q = 0; q < queries.n; ++q) {
            out[q * n + i] = scored ? sum_of(s.scores.data() + queries.begin(q), queries.count(q)) : kWorstScore;
        }
    });
    return out;
}

BestTokens best_tokens(const TokenScorer& scorer, const DocumentNumbers& chosen, int num_threads) {
    const std::size_t n = chosen ? chosen->size() : scorer.places().n;
    const std::size_t query_tokens = scorer.query_tokens();
    BestTokens out{std::vector<float>(query_tokens * n), std::vector<std::int64_t>(query_tokens * n)};
    for_each_document(scorer, chosen, true, num_threads, [&](std::size_t i, bool scored, const TokenScratch& s) {
        for (std::size_t t = 0; t < query_tokens; ++t) {
            out.scores[t * n + i] = scored ? s.scores[t] : kWorstScore;
            out.tokens[t * n + i] = scored ? s.tokens[t] : -1;
        }
    });
    return out;
}

Ranking rank(const TokenSets& queries, const DocumentPlaces& places, const Candidates& candidates, std::size_t k,
             const MakeScorer& make_scorer, int num_threads) {
    if (candidates.offsets != nullptr) {
        check_numbers({candidates.numbers, static_cast<std::size_t>(candidates.offsets[queries.n])}, places.n);
    }
    Ranking out;
    out.width = std::min(k, most_candidates(candidates, queries.n, places.n));
    out.numbers.assign(queries.n * out.width, -1);
    out.scores.assign(queries.n * out.width, kWorstScore);
    out.counts.assign(queries.n, 0);
    // Threads share the queries, or the candidates of one query where queries are few.
    const int threads = std::max(1, num_threads);
    const bool by_query = queries.n >= static_cast<std::size_t>(threads);
    const int outer = by_query ? threads : 1, inner = by_query ? 1 : threads;
    std::vector<QueryRanker> rankers(static_cast<std::size_t>(outer), QueryRanker(k, inner));
    std::vector<DistinctCandidates> distinct(static_cast<std::size_t>(outer), DistinctCandidates(places.n));
    parallel_for(queries.n, 1, outer, [&](std::size_t begin, std::size_t end, int worker) {
        const auto w = static_cast<std::size_t>(worker);
        for (std::size_t i = begin; i < end; ++i) {
            const std::int64_t ends[2] = {0, queries.offsets[i + 1] - queries.offsets[i]};
            TokenSets query = queries;
            query.data = static_cast<const std::uint8_t*>(queries.data) +
                         queries.begin(i) * queries.dim * type_bytes(queries.type);
            query.offsets = ends;
            query.n = 1;
            const auto scorer = make_scorer(query);
            const auto best = rankers[w].rank(*scorer, distinct[w].of(candidates, i));
            for (std::size_t j = 0; j < best.size(); ++j) {
                out.numbers[i * out.width + j] = best[j].row;
                out.scores[i * out.width + j] = best[j].score;
            }
            out.counts[i] = static_cast<std::int64_t>(best.size());
        }
    });
    return out;
}

}  // namespace residua::multivector
