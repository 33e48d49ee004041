// SPDX-License-Identifier: Apache-2.0
#include "codec/row_scorer.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "codec/codec.hpp"
#include "core/half.hpp"
#include "core/prefetch.hpp"
#include "kernel/dispatch.hpp"

namespace residua::codec {
namespace {

class GatheringScorer final : public RowScorer {
public:
    GatheringScorer(const Codec& codec, std::unique_ptr<Scorer> scorer) : codec_(codec), scorer_(std::move(scorer)) {}

    void score(const std::uint8_t* codes, const std::uint32_t* rows, std::size_t n, std::size_t query,
               float* out) const override {
        const std::size_t row_bytes = codec_.row_bytes(), code_bytes = codec_.code_bytes();
        std::vector<std::uint8_t> gathered(kBlockRows * code_bytes);
        AlignedVector<std::uint8_t> block(codec_.block_bytes());
        for (std::size_t begin = 0; begin < n; begin += kBlockRows) {
            const std::size_t m = std::min(kBlockRows, n - begin);
            for (std::size_t i = 0; i < m; ++i) {
                codec_.from_rows(codes + rows[begin + i] * row_bytes, 1, gathered.data() + i * code_bytes);
            }
            codec_.pack_block(gathered.data(), m, block.data());
            scorer_->scores({block.data(), m}, 0, m, query, out + begin);
        }
    }

private:
    const Codec& codec_;
    std::unique_ptr<Scorer> scorer_;
};

class FieldScorer final : public RowScorer {
public:
    FieldScorer(const FieldForm& form, std::vector<FieldQuery> queries)
        : form_(form), queries_(std::move(queries)), kernels_(kernel::active().rows) {}

    void score(const std::uint8_t* codes, const std::uint32_t* rows, std::size_t n, std::size_t query,
               float* out) const override {
        constexpr std::size_t kBatch = 64;
        std::int32_t sums[kBatch];
        const FieldQuery& q = queries_[query];
        for (std::size_t begin = 0; begin < n; begin += kBatch) {
            const std::size_t m = std::min(kBatch, n - begin);
            kernels_.fields(form_.fields, codes, form_.row_bytes, rows + begin, m, q.weights.data(), sums);
            for (std::size_t i = 0; i < m; ++i) {
                const std::uint8_t* row = codes + rows[begin + i] * form_.row_bytes;
                float add;
                std::memcpy(&add, row + form_.add_at, sizeof add);
                const float inner = q.unit * static_cast<float>(sums[i]) + q.offset;
                out[begin + i] = scale_of(row) * inner + add + q.constant;
            }
        }
    }

    void prefetch(const std::uint8_t* codes, const std::uint32_t* rows, std::size_t n) const override {
        for (std::size_t i = 0; i < n; ++i) {
            const std::uint8_t* row = codes + rows[i] * form_.row_bytes;
            for (std::size_t b = 0; b < form_.row_bytes; b += kCacheLine) prefetch_line(row + b);
            prefetch_line(row + form_.row_bytes - 1);
        }
    }

private:
    float scale_of(const std::uint8_t* row) const {
        if (form_.half_scale) {
            std::uint16_t half;
            std::memcpy(&half, row + form_.scale_at, sizeof half);
            return float_from_half(half);
        }
        float scale;
        std::memcpy(&scale, row + form_.scale_at, sizeof scale);
        return scale;
    }

    FieldForm form_;
    std::vector<FieldQuery> queries_;
    const kernel::RowKernels& kernels_;
};

}  // namespace

std::unique_ptr<RowScorer> gathering_scorer(const Codec& codec, std::unique_ptr<Scorer> scorer) {
    return std::make_unique<GatheringScorer>(codec, std::move(scorer));
}

std::unique_ptr<RowScorer> field_scorer(const FieldForm& form, std::vector<FieldQuery> queries) {
    return std::make_unique<FieldScorer>(form, std::move(queries));
}

FieldQuery make_field_query(const FieldForm& form, std::span<const float> weights, std::span<const float> tops,
                            std::span<const std::vector<std::uint32_t>> places, float constant) {
    int limit = 127;
    for (std::uint32_t r = 0; r < form.fields.n_runs; ++r) {
        limit = std::min(limit, kernel::field_weight_max(form.fields.runs[r].width));
    }
    FieldQuery q;
    q.constant = constant;
    q.weights.resize(form.fields.weights());
    float largest = 0.0f;
    for (const float w : weights) largest = std::max(largest, std::fabs(w));
    const float unit = largest / static_cast<float>(limit);
    if (unit < std::numeric_limits<float>::min()) return q;
    q.unit = unit;
    const float inverse = static_cast<float>(limit) / largest;
    double centre = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const auto w = static_cast<std::int8_t>(std::nearbyint(weights[i] * inverse));
        for (const std::uint32_t place : places[i]) q.weights[place] = w;
        centre += static_cast<double>(w) * static_cast<double>(tops[i]) / 2;
    }
    q.offset = static_cast<float>(-static_cast<double>(unit) * centre);
    return q;
}

}  // namespace residua::codec
