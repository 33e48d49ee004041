// SPDX-License-Identifier: Apache-2.0
#include "cuda/linear_query.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "core/parallel.hpp"

namespace residua::cuda {
namespace {

constexpr float kCoarseMax = 127;
constexpr std::size_t kGroup = kernel::kGroupDims;

// Bits of the dims of a group.
int group_bits(const LinearLayout& layout, std::size_t group) {
    int bits = 0;
    for (std::uint32_t t = 0; t < layout.planes; ++t) bits += group < layout.covered[t] ? 1 : 0;
    return bits;
}

// The step is the one of several that keeps the bound closest: small ones cut off the largest weights, large ones
// round all the others more.
void choose_coarse(const codec::LinearQuery& q, const std::vector<float>& halves, std::int8_t* coarse, LinearBound& bound) {
    std::int32_t largest = 0;
    for (const std::int16_t w : q.weights) largest = std::max(largest, std::abs(std::int32_t{w}));
    const auto rounded = [](std::int16_t w, float step) {
        return std::clamp(std::nearbyint(static_cast<float>(w) / step), -kCoarseMax, kCoarseMax);
    };
    // Weights that fit are taken as they are, and then nothing is missed.
    float step = 1;
    if (largest > static_cast<std::int32_t>(kCoarseMax)) {
        double least = std::numeric_limits<double>::infinity();
        for (const float range : {1.0f, 0.85f, 0.7f, 0.55f}) {
            const float trial = range * static_cast<float>(largest) / kCoarseMax;
            double missed = 0;
            for (std::size_t i = 0; i < q.weights.size(); ++i) {
                missed += static_cast<double>(halves[i] * std::fabs(static_cast<float>(q.weights[i]) - trial * rounded(q.weights[i], trial)));
            }
            if (missed >= least) break;
            least = missed;
            step = trial;
        }
    }
    double missed = 0, centre = 0, magnitude = 0;
    const double unit = static_cast<double>(q.unit);
    for (std::size_t i = 0; i < q.weights.size(); ++i) {
        const float c = rounded(q.weights[i], step);
        coarse[i] = static_cast<std::int8_t>(c);
        const double taken = static_cast<double>(step) * static_cast<double>(c), half = static_cast<double>(halves[i]);
        const double rest = q.rests.empty() ? 0.0 : std::fabs(q.rest_unit * q.rests[i]);
        missed += half * (unit * std::fabs(static_cast<double>(q.weights[i]) - taken) + rest);
        centre += half * taken;
        magnitude += half * (unit * (std::fabs(static_cast<double>(q.weights[i])) + std::fabs(taken)) + rest);
    }
    // Covers the rounding of step * S + upper and of the exact score: the sums that they round are below 2 magnitudes.
    constexpr double kRounding = 1e-6;
    const double offset = static_cast<double>(q.offset);
    bound.step = static_cast<float>(unit * static_cast<double>(step));
    bound.upper = static_cast<float>(missed - unit * centre + offset + kRounding * (2 * magnitude + std::fabs(offset)));
    bound.constant = q.constant;
}

}  // namespace

LinearLayout linear_layout(const codec::LinearForm& form) {
    LinearLayout out;
    out.planes = form.layout.planes;
    out.groups = form.layout.groups[0];
    std::uint32_t next = 0;
    for (std::uint32_t t = out.planes; t-- > 0;) {
        out.first[t] = next;
        out.covered[t] = form.layout.groups[t];
        next += form.layout.groups[t];
    }
    out.words = (next + 3) / 4 * 4;
    return out;
}

LinearQueries linear_queries(const codec::Scorer& scorer, std::size_t first, std::size_t last, const LinearLayout& layout,
                             int num_threads) {
    LinearQueries out;
    out.n = last - first;
    out.dims = layout.groups * kGroup;
    out.coarse.resize(out.n * out.dims);
    out.weights.resize(out.n * out.dims);
    out.bounds.resize(out.n);
    out.terms.resize(out.n);
    std::vector<float> halves(out.dims);
    for (std::size_t i = 0; i < out.dims; ++i) halves[i] = 0.5f * static_cast<float>((1 << group_bits(layout, i / kGroup)) - 1);
    if (out.n == 0) return out;
    const auto some = scorer.linear_query(first);
    if (!some) throw Error(ErrorKind::unsupported, "scores of these queries are not linear in bits");
    if (!some->rests.empty()) out.rests.resize(out.n * out.dims);
    parallel_for(out.n, 16, num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; ++i) {
            codec::LinearQuery q = *scorer.linear_query(first + i);
            q.weights.resize(out.dims);
            if (!q.rests.empty()) q.rests.resize(out.dims);
            choose_coarse(q, halves, out.coarse.data() + i * out.dims, out.bounds[i]);
            std::copy(q.weights.begin(), q.weights.end(), out.weights.begin() + static_cast<std::ptrdiff_t>(i * out.dims));
            std::copy(q.rests.begin(), q.rests.end(), out.rests.begin() + static_cast<std::ptrdiff_t>(q.rests.empty() ? 0 : i * out.dims));
            out.terms[i] = {q.sum_offset, q.rest_offset, q.rest_unit, q.unit, q.offset, q.constant, q.rests.empty() ? 0u : 1u};
        }
    });
    return out;
}

BitTiles bit_tiles(const LinearQueries& queries, const LinearLayout& layout, bool pair) {
    BitTiles out;
    out.planes = 8 + static_cast<int>(layout.planes) - 1;
    out.slots = pair && out.planes <= 8 ? 2 : 1;
    const std::size_t units = layout.units() + (layout.has_half() ? 1 : 0);
    out.tile_words = units * kWarp * 4;
    const std::size_t n_tiles = (queries.n + out.slots - 1) / out.slots;
    out.fragments.assign(n_tiles * out.tile_words, 0);
    std::vector<std::uint32_t> rows(16 * units * kUnitWords);  // bits of a tile's rows, as words of a code
    for (std::size_t tile = 0; tile < n_tiles; ++tile) {
        std::fill(rows.begin(), rows.end(), 0u);
        for (std::size_t slot = 0; slot < out.slots && tile * out.slots + slot < queries.n; ++slot) {
            const std::int8_t* coarse = queries.coarse.data() + (tile * out.slots + slot) * queries.dims;
            for (std::uint32_t t = 0; t < layout.planes; ++t) {
                for (std::uint32_t d = 0; d < layout.covered[t] * kGroup; ++d) {
                    const auto weight = static_cast<std::uint32_t>(std::int32_t{coarse[d]} * (1 << t));
                    const std::size_t word = layout.first[t] + d / kGroup;
                    for (int bit = 0; bit < out.planes; ++bit) {
                        const std::size_t row = slot * 8 + static_cast<std::size_t>(bit);
                        rows[row * units * kUnitWords + word] |= (weight >> bit & 1u) << bit_of_dim(d % kGroup);
                    }
                }
            }
        }
        for (std::uint32_t unit = 0; unit < units; ++unit) {
            const bool half = unit == layout.units();
            for (std::uint32_t lane = 0; lane < kWarp; ++lane) {
                const std::uint32_t g = lane / 4, t = lane % 4;
                std::uint32_t* to = out.fragments.data() + tile * out.tile_words + (unit * kWarp + lane) * 4;
                const auto word = [&](std::uint32_t row, std::uint32_t h) {
                    if (half) return h == 0 ? rows[row * units * kUnitWords + unit * kUnitWords + t] : 0u;
                    return rows[row * units * kUnitWords + unit_word(unit, t, h)];
                };
                to[0] = word(g, 0);
                to[1] = word(g + 8, 0);
                to[2] = word(g, 1);
                to[3] = word(g + 8, 1);
            }
        }
    }
    return out;
}

ByteTiles byte_tiles(const LinearQueries& queries, std::size_t tile, int num_threads) {
    constexpr std::size_t kDepth = 2 * kGroup;
    ByteTiles out;
    out.steps = (queries.dims + kDepth - 1) / kDepth;
    out.fragments.resize((queries.n + tile - 1) / tile * tile * out.steps * kDepth);
    const auto place = [&](std::size_t q, std::size_t step) {
        std::int8_t levels[kDepth];  // weights in the order of spread()
        for (std::uint32_t d = 0; d < kDepth; ++d) {
            const std::size_t dim = step * kDepth + d;
            levels[d / kGroup * kGroup + byte_of_dim(d % kGroup)] = dim < queries.dims ? queries.coarse[q * queries.dims + dim] : std::int8_t{0};
        }
        std::int8_t* to = out.fragments.data() + (q / 16 * out.steps + step) * 16 * kDepth;
        for (std::uint32_t i = 0; i < 16; ++i) {
            const std::uint32_t t = i / 4, h = i / 2 % 2, half = i % 2;
            // Words 0 and 2 of a lane are of query g, 1 and 3 of g + 8.
            const std::size_t lane = q % 8 * 4 + t, word = 2 * half + q % 16 / 8;
            std::copy_n(levels + depth_byte(t, h, half), 4, to + ((h * kWarp + lane) * 4 + word) * 4);
        }
    };
    parallel_for(queries.n, 64, num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t q = begin; q < end; ++q) {
            for (std::size_t step = 0; step < out.steps; ++step) place(q, step);
        }
    });
    return out;
}

}  // namespace residua::cuda
