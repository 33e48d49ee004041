// SPDX-License-Identifier: Apache-2.0
// Scores of single kept vectors, for walks over graphs without codes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/row_scorer.hpp"
#include "core/matrix.hpp"
#include "core/metric.hpp"
#include "kernel/float_kernels.hpp"
#include "store/row_source.hpp"

namespace residua::index {

class FloatRows final : public codec::RowScorer {
public:
    // Queries as the metric sees them; the rows stay valid.
    FloatRows(const store::RowSource& rows, Metric metric, std::vector<float> queries);
    // `codes` is not looked at.
    void score(const std::uint8_t* codes, const std::uint32_t* rows, std::size_t n, std::size_t query,
               float* out) const override;
    void prefetch(const std::uint8_t* codes, const std::uint32_t* rows, std::size_t n) const override;

private:
    float score_of(const float* query, std::uint32_t row) const;

    store::RowSource rows_;
    Metric metric_;
    std::vector<float> queries_;
    const kernel::FloatKernels& kernels_;
};

}  // namespace residua::index
