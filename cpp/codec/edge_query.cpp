// SPDX-License-Identifier: Apache-2.0
#include "codec/edge_query.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/error.hpp"
#include "kernel/dispatch.hpp"

namespace residua::codec {

using namespace kernel;

namespace {

// sums[x] = none + the sum of the weights, one per dim of a strip, whose bits are set in x; the first dim is the
// most significant bit.
template <class Sum, class Weight>
void subset_sums(const Weight* weights, Sum none, Sum (&sums)[kernel::kStripBytes]) {
    sums[0] = none;
    std::size_t dim = 4;
    for (std::size_t bit = 1; bit < kernel::kStripBytes; bit *= 2) {
        const Sum weight = weights[--dim];
        for (std::size_t x = 0; x < bit; ++x) sums[bit + x] = sums[x] + weight;
    }
}

class TableEdgeScorer final : public EdgeScorer {
public:
    TableEdgeScorer(const PlaneLayout& layout, std::vector<EdgeQuery> queries)
        : scores_(active().edges.scores), layout_(layout), queries_(std::move(queries)) {}

    std::size_t size() const override { return queries_.size(); }
    std::uint32_t scores(const std::uint8_t* unit, std::size_t query, float threshold, float* out) const override {
        return scores_(layout_, unit, queries_[query].scan(), threshold, out);
    }

private:
    decltype(EdgeKernels::scores) scores_;
    PlaneLayout layout_;
    std::vector<EdgeQuery> queries_;
};

}  // namespace

EdgeQuery::EdgeQuery(const PlaneLayout& layout, std::span<const float> weights, float constant)
    : constant_(constant) {
    constexpr std::size_t kDims = 4, kEntries = kStripBytes;
    const std::size_t strips = layout.groups[0] * kGroupStrips;
    if (weights.size() > strips * kDims) {
        throw Error(ErrorKind::shape, "a layout of " + std::to_string(strips * kDims) + " dims got " +
                                          std::to_string(weights.size()) + " weights");
    }
    AlignedVector<float> w(strips * kDims, 0.0f);
    std::copy(weights.begin(), weights.end(), w.begin());
    float range = 0.0f;
    for (std::size_t s = 0; s < strips; ++s) {
        const float* v = w.data() + kDims * s;
        range = std::max(range, std::fabs(v[0]) + std::fabs(v[1]) + std::fabs(v[2]) + std::fabs(v[3]));
    }
    if (!std::isfinite(range)) throw Error(ErrorKind::non_finite, "a query weight is infinite or NaN");
    const auto top = static_cast<float>(edge_entry_max(layout));
    unit_ = range / top;
    if (unit_ < std::numeric_limits<float>::min()) unit_ = 0.0f;
    const float inverse = unit_ == 0.0f ? 0.0f : top / range;
    tables_.assign(strips * kEntries, 0);
    // Sums over strips; a plane takes them where its groups end.
    double sum = 0, offset = 0;
    std::uint32_t t = layout.planes;
    for (std::size_t s = 0; s < strips; ++s) {
        const float* v = w.data() + kDims * s;
        float minimum = 0.0f;
        for (std::size_t i = 0; i < kDims; ++i) minimum += std::min(v[i], 0.0f);
        float subset[kEntries];
        subset_sums(v, -minimum, subset);
        std::uint8_t* table = tables_.data() + s * kEntries;
        for (std::size_t x = 0; x < kEntries; ++x) {
            const auto entry = static_cast<std::int32_t>(subset[x] * inverse + 0.5f);
            table[x] = static_cast<std::uint8_t>(std::min(entry, static_cast<std::int32_t>(top)));
        }
        const double half = 0.5 * (static_cast<double>(v[0]) + v[1] + v[2] + v[3]);
        sum += static_cast<double>(minimum) - half;
        while (t > 0 && s + 1 == layout.groups[t - 1] * kGroupStrips) offset += std::ldexp(sum, static_cast<int>(--t));
    }
    offset_ = static_cast<float>(offset);
}

std::unique_ptr<EdgeScorer> edge_scorer(const PlaneLayout& layout, std::vector<EdgeQuery> queries) {
    return std::make_unique<TableEdgeScorer>(layout, std::move(queries));
}

}  // namespace residua::codec
