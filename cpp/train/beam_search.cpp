// SPDX-License-Identifier: Apache-2.0
#include "train/beam_search.hpp"

#include <algorithm>
#include <limits>

#include "core/parallel.hpp"

namespace residua::train {
namespace {

struct Choice {
    float cost;
    std::uint32_t index;  // choice so far * kCodewords + codeword
};

// The `most` least of n costs, ascending, of equals the first; one at least, even where no cost is a number.
std::size_t least(const float* costs, std::size_t n, std::size_t most, Choice* out) {
    constexpr std::size_t kStep = 16;
    static_assert(kCodewords % kStep == 0);
    constexpr float kNone = std::numeric_limits<float>::max();
    std::size_t count = 0;
    float bound = kNone;
    for (std::size_t at = 0; at < n; at += kStep) {
        int any = 0;
        for (std::size_t j = 0; j < kStep; ++j) any |= costs[at + j] < bound ? 1 : 0;
        if (any == 0) continue;
        for (std::size_t j = at; j < at + kStep; ++j) {
            if (!(costs[j] < bound)) continue;
            std::size_t place = count < most ? count++ : most - 1;
            for (; place > 0 && costs[j] < out[place - 1].cost; --place) out[place] = out[place - 1];
            out[place] = {costs[j], static_cast<std::uint32_t>(j)};
            if (count == most) bound = out[most - 1].cost;
        }
    }
    if (count == 0) out[count++] = {kNone, 0};
    return count;
}

}  // namespace

void BeamSearch::append(ConstMatrix codewords, int num_threads) {
    Level level;
    level.panels.pack(codewords);
    level.norms.resize(kCodewords);
    for (std::size_t k = 0; k < kCodewords; ++k) {
        double norm = 0;
        for (std::size_t j = 0; j < dim_; ++j) norm += static_cast<double>(codewords.row(k)[j]) * codewords.row(k)[j];
        level.norms[k] = static_cast<float>(norm);
    }
    const std::size_t earlier = levels_.size() * kCodewords;
    level.products.resize(earlier * kCodewords);
    parallel_for(earlier, 64, num_threads, [&](std::size_t begin, std::size_t end, int) {
        float* out = level.products.data() + begin * kCodewords;
        level.panels.multiply({codewords_.data() + begin * dim_, end - begin, dim_}, {out, end - begin, kCodewords});
        for (std::size_t i = 0; i < (end - begin) * kCodewords; ++i) out[i] *= 2;
    });
    for (std::size_t k = 0; k < kCodewords; ++k) {
        codewords_.insert(codewords_.end(), codewords.row(k), codewords.row(k) + dim_);
    }
    levels_.push_back(std::move(level));
}

std::size_t BeamSearch::memory_bytes() const {
    std::size_t bytes = codewords_.size() * sizeof(float);
    for (const Level& level : levels_) {
        bytes += level.panels.memory_bytes() + (level.norms.size() + level.products.size()) * sizeof(float);
    }
    return bytes;
}

// Costs of every codeword after every choice so far: rows x max(width, 1) x kCodewords.
std::vector<float> BeamSearch::costs(const Level& level, ConstMatrix x, const Beams& beams) const {
    const std::size_t width = std::max<std::size_t>(beams.width, 1);
    std::vector<float> products(x.rows * kCodewords), out(x.rows * width * kCodewords);
    level.panels.multiply(x, {products.data(), x.rows, kCodewords});
    for (std::size_t i = 0; i < x.rows; ++i) {
        const float* p = products.data() + i * kCodewords;
        for (std::size_t w = 0; w < width; ++w) {
            const float before = beams.width == 0 ? 0.0f : beams.cost[i * beams.beam + w];
            float* cost = out.data() + (i * width + w) * kCodewords;
            for (std::size_t k = 0; k < kCodewords; ++k) cost[k] = before + (level.norms[k] - 2 * p[k]);
        }
    }
    // One earlier codebook for all rows after the other: its table stays in a near cache.
    for (std::size_t t = 0; t < beams.depth; ++t) {
        const float* table = level.products.data() + t * kCodewords * kCodewords;
        for (std::size_t i = 0; i < x.rows; ++i) {
            for (std::size_t w = 0; w < width; ++w) {
                const float* add = table + beams.path[(i * beams.beam + w) * kMaxCodebooks + t] * kCodewords;
                float* cost = out.data() + (i * width + w) * kCodewords;
                for (std::size_t k = 0; k < kCodewords; ++k) cost[k] += add[k];
            }
        }
    }
    return out;
}

void BeamSearch::extend(ConstMatrix x, Beams& beams) const {
    const std::size_t width = std::max<std::size_t>(beams.width, 1);
    const std::size_t next = std::min(beams.beam, width * kCodewords);
    const std::vector<float> all = costs(levels_[beams.depth], x, beams);
    std::vector<std::uint8_t> before(width * kMaxCodebooks);
    Choice chosen[kMaxBeam];
    for (std::size_t i = 0; i < x.rows; ++i) {
        std::uint8_t* path = beams.path.data() + i * beams.beam * kMaxCodebooks;
        std::copy_n(path, before.size(), before.begin());
        const std::size_t found = least(all.data() + i * width * kCodewords, width * kCodewords, next, chosen);
        for (std::size_t w = 0; w < next; ++w) {
            const Choice& c = chosen[std::min(w, found - 1)];
            std::copy_n(before.data() + c.index / kCodewords * kMaxCodebooks, beams.depth, path + w * kMaxCodebooks);
            path[w * kMaxCodebooks + beams.depth] = static_cast<std::uint8_t>(c.index % kCodewords);
            beams.cost[i * beams.beam + w] = c.cost;
        }
    }
    beams.width = next;
    ++beams.depth;
}

void BeamSearch::encode(ConstMatrix x, std::size_t beam, std::uint8_t* codes, std::size_t stride,
                        int num_threads) const {
    parallel_for(x.rows, kChunkRows, num_threads, [&](std::size_t begin, std::size_t end, int) {
        Beams beams(end - begin, beam);
        while (beams.depth < size()) extend(x.slice(begin, end), beams);
        for (std::size_t i = begin; i < end; ++i) std::copy_n(beams.best(i - begin), size(), codes + i * stride);
    });
}

}  // namespace residua::train
