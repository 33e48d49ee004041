// SPDX-License-Identifier: Apache-2.0
// Exact search over stored vectors. A float32 pass bounds every row's score from both sides; rows
// that the bound cannot rule out are scored again in float64 and rounded once. Scores and order are
// therefore a function of the query and the rows alone: the same for one query or a batch, for any
// thread count and instruction set, with ties settled by id.
//
// Cosine: queries arrive normalised, and the score is <q, x> * inv_norm. The bound assumes that
// norm(x) * inv_norm is at most 1.25, i.e. that inv_norm is what it says, and that rows without it
// have unit norm. With own_norm the norm is taken from the row, and a row of zeros scores 0. Scores are larger-is-better (l2: minus the squared distance).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/aligned.hpp"
#include "core/matrix.hpp"
#include "core/metric.hpp"
#include "core/top_k.hpp"
#include "kernel/float_kernels.hpp"
#include "store/row_source.hpp"

namespace residua::index {

// Per query the min(k, allowed rows) best, best first. num_threads 0: the default.
std::vector<std::vector<ScoredRow>> exact_top_k(const store::RowSource& source, Metric metric, ConstMatrix queries,
                                                std::size_t k, const TieOrder* order, int num_threads);

// Per query the rows that exact_top_k would return, in no order; their scores are lower bounds.
std::vector<std::vector<ScoredRow>> exact_choice(const store::RowSource& source, Metric metric, ConstMatrix queries,
                                                 std::size_t k, const TieOrder* order, int num_threads);

// The same two for lists of rows, one per query, whose scores are not looked at: re-ranking.
std::vector<std::vector<ScoredRow>> exact_top_k_among(const store::RowSource& source, Metric metric, ConstMatrix queries,
                                                      std::vector<std::vector<ScoredRow>> rows, std::size_t k,
                                                      const TieOrder* order, int num_threads);
std::vector<std::vector<ScoredRow>> exact_choice_among(const store::RowSource& source, Metric metric, ConstMatrix queries,
                                                       std::vector<std::vector<ScoredRow>> rows, std::size_t k,
                                                       const TieOrder* order, int num_threads);

// exact_top_k_among for one query after the other, beside other work.
class ExactChoice {
public:
    // Rows stay where they are meanwhile.
    ExactChoice(const store::RowSource& source, Metric metric, const TieOrder* order);
    ~ExactChoice();
    // Asks for a row that settle() will look at.
    void fetch(std::uint32_t row) const;
    // `rows` become the k best, best first. The query is as the metric sees it.
    void settle(const float* query, std::size_t k, std::vector<ScoredRow>& rows) const;

private:
    struct Parts;
    std::unique_ptr<const Parts> parts_;
    const TieOrder* order_;
};

// Per query all rows whose score is at least `threshold`, best first.
std::vector<std::vector<ScoredRow>> exact_range(const store::RowSource& source, Metric metric, ConstMatrix queries,
                                                float threshold, const TieOrder* order, int num_threads);

// The score of one row, as reported by the searches above.
class ExactScorer {
public:
    ExactScorer(const store::RowSource& source, Metric metric);
    float operator()(const float* query, std::uint32_t row) const;

private:
    double squared_norm(std::uint32_t row) const;

    const store::RowSource& source_;
    Metric metric_;
    const kernel::FloatKernels& kernels_;
    AlignedVector<float> zero_;  // with own_norm
};

}  // namespace residua::index
