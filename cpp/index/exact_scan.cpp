// SPDX-License-Identifier: Apache-2.0
#include "index/exact_scan.hpp"

#include <bit>
#include <cmath>
#include <limits>

#include "core/parallel.hpp"
#include "index/bounded_scorer.hpp"
#include "index/candidate_pool.hpp"
#include "kernel/dispatch.hpp"

namespace residua::index {
namespace {

using kernel::FloatKernels;
using kernel::kPanelRows;
using kernel::kTileQueries;
using store::RowSource;
using store::RowType;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr std::size_t kMinBatch = 4;    // fewer queries are streamed: packing would cost more than it saves
constexpr std::size_t kPoolBytes = std::size_t{256} << 20;

template <class Fn>
void for_each_allowed(const RowSource& source, std::size_t begin, std::size_t end, Fn fn) {
    if (source.allowed == nullptr) {
        for (std::size_t r = begin; r < end; ++r) fn(r);
        return;
    }
    const auto words = source.allowed->words();
    end = std::min(end, source.allowed->size());
    for (std::size_t w = begin / 64; w * 64 < end; ++w) {
        for (std::uint64_t bits = words[w]; bits != 0; bits &= bits - 1) {
            const std::size_t r = w * 64 + static_cast<std::size_t>(std::countr_zero(bits));
            if (r >= begin && r < end) fn(r);
        }
    }
}

// One group of queries against ranges of rows.
template <class Pool>
class GroupScan {
public:
    GroupScan(const BoundedScorer& filter, ConstMatrix queries) : filter_(filter), queries_(queries) {
        for (std::size_t i = 0; i < queries.rows; ++i) bounds_.push_back(filter.query(queries.row(i)));
    }

    // Rows that a worker packs at a time: half of a second-level cache.
    static std::size_t block_rows(std::size_t dim) {
        const std::size_t rows = 256 * 1024 / (sizeof(float) * std::max<std::size_t>(1, dim));
        return std::clamp<std::size_t>(rows / kPanelRows, 1, 64) * kPanelRows;
    }

    class Scratch {
        friend class GroupScan;
        AlignedVector<float> panels, stage, scores, weight, bias, reach, panel_reach;
        std::vector<std::uint32_t> rows;
    };

    void scan(std::size_t begin, std::size_t end, std::vector<Pool>& pools, Scratch& s) const {
        if (queries_.rows < kMinBatch) {
            stream(begin, end, pools);
            return;
        }
        const std::size_t block = block_rows(queries_.cols);
        s.rows.clear();
        for_each_allowed(filter_.source(), begin, end, [&](std::size_t r) {
            s.rows.push_back(static_cast<std::uint32_t>(r));
            if (s.rows.size() == block) multiply_block(pools, s);
        });
        if (!s.rows.empty()) multiply_block(pools, s);
    }

private:
    void stream(std::size_t begin, std::size_t end, std::vector<Pool>& pools) const {
        const bool l2 = filter_.metric() == Metric::l2;
        for_each_allowed(filter_.source(), begin, end, [&](std::size_t r) {
            const RowBounds row = l2 ? RowBounds{} : filter_.row(r);
            for (std::size_t i = 0; i < queries_.rows; ++i) {
                offer_row(filter_, queries_.row(i), bounds_[i], row, r, pools[i]);
            }
        });
    }

    // Multiplies the rows gathered in s.rows with all queries, and empties it.
    void multiply_block(std::vector<Pool>& pools, Scratch& s) const {
        const std::size_t d = queries_.cols;
        const std::size_t width = (s.rows.size() + kPanelRows - 1) / kPanelRows * kPanelRows;
        pack(s, width);
        s.scores.resize(kTileQueries * width);
        for (std::size_t q0 = 0; q0 < queries_.rows; q0 += kTileQueries) {
            const std::size_t nq = std::min(kTileQueries, queries_.rows - q0);
            for (std::size_t p = 0; p < width; p += kPanelRows) {
                filter_.kernels().gemm_panel(queries_.row(q0), queries_.stride, nq, s.panels.data() + p * d, d,
                                             s.scores.data() + p, width);
            }
            for (std::size_t i = 0; i < nq; ++i) {
                offer(s, s.scores.data() + i * width, width, bounds_[q0 + i], pools[q0 + i]);
            }
        }
        s.rows.clear();
    }

    static void offer(const Scratch& s, const float* sums, std::size_t width, const QueryBounds& q, Pool& pool) {
        for (std::size_t p = 0; p < width; p += kPanelRows) {
            const float* sum = sums + p;
            const float* weight = s.weight.data() + p;
            const float* bias = s.bias.data() + p;
            const float limit = pool.threshold() + q.offset - q.floor - q.gain * s.panel_reach[p / kPanelRows];
            int passing = 0;  // counted without a branch, so that the loop becomes vector code
            for (std::size_t r = 0; r < kPanelRows; ++r) {
                passing += !(sum[r] * weight[r] + bias[r] < limit);
            }
            if (passing == 0) continue;
            for (std::size_t r = 0; r < kPanelRows && p + r < s.rows.size(); ++r) {
                const float score = sum[r] * weight[r] + bias[r] - q.offset;
                const float error = q.gain * s.reach[p + r] + q.floor;
                if (!(score + error < pool.threshold())) pool.push(score - error, score + error, s.rows[p + r]);
            }
        }
    }

    void pack(Scratch& s, std::size_t width) const {
        const RowSource& source = filter_.source();
        const std::size_t d = source.dim, n = s.rows.size();
        s.panels.resize(width * d);
        s.weight.resize(width);
        s.bias.resize(width);
        s.reach.resize(width);
        for (std::size_t i = 0; i < width; ++i) {
            // Padding scores minus infinity: offered only while the pool takes everything, and skipped there.
            const RowBounds b = i < n ? filter_.row(s.rows[i]) : RowBounds{0.0f, -kInf, 0.0f};
            s.weight[i] = b.weight;
            s.bias[i] = b.bias;
            s.reach[i] = b.reach;
        }
        s.panel_reach.resize(width / kPanelRows);
        for (std::size_t p = 0; p < n; p += kPanelRows) {
            s.panel_reach[p / kPanelRows] = *std::max_element(s.reach.begin() + p, s.reach.begin() + p + kPanelRows);
            pack_panel(s, p, std::min(kPanelRows, n - p), s.panels.data() + p * d);
        }
    }

    void pack_panel(Scratch& s, std::size_t p, std::size_t n, float* panel) const {
        const RowSource& source = filter_.source();
        const FloatKernels& kernels = filter_.kernels();
        const std::size_t d = source.dim, first = s.rows[p];
        const std::size_t stride = source.stride_bytes / store::row_type_bytes(source.type);
        const bool consecutive = s.rows[p + n - 1] - first == n - 1;
        if (consecutive && source.type == RowType::f32) {
            kernels.pack_panel_f32(row_as<float>(source, first), stride, n, d, panel);
            return;
        }
        if (consecutive && source.type == RowType::f16) {
            kernels.pack_panel_f16(row_as<std::uint16_t>(source, first), stride, n, d, panel);
            return;
        }
        if (consecutive && source.type == RowType::bf16) {
            kernels.pack_panel_bf16(row_as<std::uint16_t>(source, first), stride, n, d, panel);
            return;
        }
        s.stage.resize(kPanelRows * d);
        for (std::size_t i = 0; i < n; ++i) {
            float* out = s.stage.data() + i * d;
            const std::size_t r = s.rows[p + i];
            switch (source.type) {
                case RowType::f32: std::copy_n(row_as<float>(source, r), d, out); break;
                case RowType::f16: kernels.f16_to_f32(row_as<std::uint16_t>(source, r), out, d); break;
                case RowType::bf16: kernels.bf16_to_f32(row_as<std::uint16_t>(source, r), out, d); break;
                case RowType::i8: std::copy_n(row_as<std::int8_t>(source, r), d, out); break;
            }
        }
        kernels.pack_panel_f32(s.stage.data(), d, n, d, panel);
    }

    const BoundedScorer& filter_;
    ConstMatrix queries_;
    std::vector<QueryBounds> bounds_;
};

using Results = std::vector<std::vector<ScoredRow>>;

// Work is split over rows, each worker keeping its own pools, which are merged per query; or over
// queries where there are too few blocks of rows to go round. make_pool(query) starts a pool of at
// most about pool_bytes.
template <class Pool, class MakePool>
Results scan(const RowSource& source, ConstMatrix queries, Metric metric, int num_threads, std::size_t pool_bytes,
             MakePool make_pool) {
    using Scan = GroupScan<Pool>;
    Results out(queries.rows);
    if (source.n == 0 || queries.rows == 0) return out;
    const BoundedScorer filter(source, metric);
    const auto threads = static_cast<std::size_t>(resolve_num_threads(num_threads));
    const std::size_t grain = Scan::block_rows(source.dim) * 4;
    const std::size_t fitting = kPoolBytes / (threads * pool_bytes) / kTileQueries * kTileQueries;
    const std::size_t group = std::clamp<std::size_t>(fitting, kTileQueries, 512 * kTileQueries);
    auto make_pools = [&](ConstMatrix q) {
        std::vector<Pool> pools;
        pools.reserve(q.rows);
        for (std::size_t i = 0; i < q.rows; ++i) pools.push_back(make_pool(q.row(i)));
        return pools;
    };

    if (threads > 1 && source.n < grain * threads * 4 && queries.rows >= 2 * kTileQueries * threads) {
        const std::size_t chunk = std::min(group, (queries.rows + threads - 1) / threads);
        parallel_for(queries.rows, chunk, static_cast<int>(threads), [&](std::size_t begin, std::size_t end, int) {
            const ConstMatrix part = queries.slice(begin, end);
            std::vector<Pool> pools = make_pools(part);
            typename Scan::Scratch scratch;
            Scan(filter, part).scan(0, source.n, pools, scratch);
            for (std::size_t i = 0; i < part.rows; ++i) out[begin + i] = pools[i].finish();
        });
        return out;
    }

    std::vector<typename Scan::Scratch> scratch(threads);
    for (std::size_t q0 = 0; q0 < queries.rows; q0 += group) {
        const ConstMatrix part = queries.slice(q0, std::min(queries.rows, q0 + group));
        const Scan group_scan(filter, part);
        std::vector<std::vector<Pool>> pools(threads);
        parallel_for(source.n, grain, static_cast<int>(threads), [&](std::size_t begin, std::size_t end, int worker) {
            const auto w = static_cast<std::size_t>(worker);
            if (pools[w].empty()) pools[w] = make_pools(part);
            group_scan.scan(begin, end, pools[w], scratch[w]);
        });
        std::erase_if(pools, [](const std::vector<Pool>& p) { return p.empty(); });
        parallel_for(part.rows, 16, static_cast<int>(threads), [&](std::size_t begin, std::size_t end, int) {
            for (std::size_t i = begin; i < end; ++i) {
                for (std::size_t w = 1; w < pools.size(); ++w) pools[0][i].merge(pools[w][i]);
                out[q0 + i] = pools[0][i].finish();
            }
        });
    }
    return out;
}

}  // namespace

std::vector<std::vector<ScoredRow>> exact_top_k(const RowSource& source, Metric metric, ConstMatrix queries,
                                                std::size_t k, const TieOrder* order, int num_threads) {
    check_dim(source, queries);
    if (k == 0) return Results(queries.rows);
    k = std::min(k, source.n);
    const ExactScorer scorer(source, metric);
    const std::size_t bytes = std::min(TopKPool::capacity(k), source.n) * sizeof(Candidate) + k * sizeof(ScoredRow) + 1;
    return scan<TopKPool>(source, queries, metric, num_threads, bytes,
                          [&](const float* q) { return TopKPool(k, order, scorer, q); });
}

std::vector<std::vector<ScoredRow>> exact_choice(const RowSource& source, Metric metric, ConstMatrix queries,
                                                 std::size_t k, const TieOrder* order, int num_threads) {
    check_dim(source, queries);
    if (k == 0) return Results(queries.rows);
    k = std::min(k, source.n);
    const ExactScorer scorer(source, metric);
    const std::size_t bytes = std::min(TopKPool::capacity(k), source.n) * sizeof(Candidate) + 1;
    return scan<ChoicePool>(source, queries, metric, num_threads, bytes,
                            [&](const float* q) { return ChoicePool(k, order, scorer, q); });
}

std::vector<std::vector<ScoredRow>> exact_range(const RowSource& source, Metric metric, ConstMatrix queries,
                                                float threshold, const TieOrder* order, int num_threads) {
    check_dim(source, queries);
    const ExactScorer scorer(source, metric);
    return scan<RangePool>(source, queries, metric, num_threads, 4096 * sizeof(ScoredRow),
                           [&](const float* q) { return RangePool(threshold, order, scorer, q); });
}

ExactScorer::ExactScorer(const RowSource& source, Metric metric)
    : source_(source), metric_(metric), kernels_(kernel::active().floats) {
    if (source.own_norm && metric == Metric::cosine) zero_.assign(source.dim, 0.0f);
}

// The distance from zero, which takes any type of row.
double ExactScorer::squared_norm(std::uint32_t row) const {
    const float* zero = zero_.data();
    const std::size_t d = source_.dim;
    switch (source_.type) {
        case RowType::f32: return kernels_.exact_l2_f32(zero, row_as<float>(source_, row), d);
        case RowType::f16: return kernels_.exact_l2_f16(zero, row_as<std::uint16_t>(source_, row), d);
        case RowType::bf16: return kernels_.exact_l2_bf16(zero, row_as<std::uint16_t>(source_, row), d);
        case RowType::i8: break;
    }
    return kernels_.exact_l2_i8(zero, row_as<std::int8_t>(source_, row), scale_of(source_, row), d);
}

float ExactScorer::operator()(const float* query, std::uint32_t row) const {
    const std::size_t d = source_.dim;
    const float scale = scale_of(source_, row);
    const bool l2 = metric_ == Metric::l2;
    double sum = 0.0;
    switch (source_.type) {
        case RowType::f32:
            sum = (l2 ? kernels_.exact_l2_f32 : kernels_.exact_dot_f32)(query, row_as<float>(source_, row), d);
            break;
        case RowType::f16:
            sum = (l2 ? kernels_.exact_l2_f16 : kernels_.exact_dot_f16)(query, row_as<std::uint16_t>(source_, row), d);
            break;
        case RowType::bf16:
            sum = (l2 ? kernels_.exact_l2_bf16 : kernels_.exact_dot_bf16)(query, row_as<std::uint16_t>(source_, row),
                                                                          d);
            break;
        case RowType::i8:
            sum = l2 ? kernels_.exact_l2_i8(query, row_as<std::int8_t>(source_, row), scale, d)
                     : kernels_.exact_dot_i8(query, row_as<std::int8_t>(source_, row), d) * static_cast<double>(scale);
            break;
    }
    if (l2) return -static_cast<float>(sum);
    if (metric_ == Metric::cosine && source_.own_norm) {
        const double x2 = squared_norm(row);
        return x2 > 0 ? static_cast<float>(sum / std::sqrt(x2)) : 0.0f;
    }
    if (metric_ == Metric::cosine && source_.inv_norm != nullptr) sum *= static_cast<double>(source_.inv_norm[row]);
    return static_cast<float>(sum);
}

}  // namespace residua::index
