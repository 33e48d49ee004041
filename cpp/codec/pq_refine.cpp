// SPDX-License-Identifier: Apache-2.0
// Codes by coordinate descent on e^T W e, e being what a code lacks of its row: the numbers of the other sub-spaces kept,
// the best codeword c of a sub-space has the largest <c, t> - c^T W c / 2 with t = (W e) + W c_now within it.
#include <vector>

#include "codec/pq_codec.hpp"

namespace residua::codec {
namespace {

float dot(const float* a, const float* b, std::size_t n) {
    float sum = 0;
    for (std::size_t j = 0; j < n; ++j) sum += a[j] * b[j];
    return sum;
}

// By how much e^T W e shrinks when `step` is taken off e, given W e; both within one sub-space.
float gain(ConstMatrix weights, const float* step, const float* weighed) {
    float sum = 2 * dot(step, weighed, weights.rows);
    for (std::size_t j = 0; j < weights.rows; ++j) sum -= step[j] * dot(weights.row(j), step, weights.rows);
    return sum;
}

}  // namespace

void PqCodec::prepare_refinement() {
    const ConstMatrix weights(p_.error_weights.data(), dims_, dims_);
    weigh_.pack(weights);
    const std::size_t values = layout_.values();
    word_bias_.resize(p_.n_subspaces * values);
    for (std::size_t m = 0; m < p_.n_subspaces; ++m) {
        const ConstMatrix words = codebook(m);
        for (std::size_t c = 0; c < values; ++c) {
            float sum = 0;
            for (std::size_t j = 0; j < words.cols; ++j) {
                sum += words.row(c)[j] * dot(weights.row(begin_of(m) + j) + begin_of(m), words.row(c), words.cols);
            }
            word_bias_[m * values + c] = -0.5f * sum;
        }
    }
}

void PqCodec::refine(ConstMatrix y, std::uint32_t* numbers, int sweeps) const {
    const std::size_t n = y.rows;
    std::vector<float> error(n * dims_), weighed(n * dims_), targets(n * subspace_dims()), step(subspace_dims());
    std::vector<std::uint32_t> found(n);
    for (std::size_t m = 0; m < p_.n_subspaces; ++m) {
        for (std::size_t i = 0; i < n; ++i) {
            const float* word = codebook(m).row(numbers[m * n + i]);
            for (std::size_t j = begin_of(m); j < begin_of(m + 1); ++j) {
                error[i * dims_ + j] = y.row(i)[j] - word[j - begin_of(m)];
            }
        }
    }
    weigh_.multiply({error.data(), n, dims_}, {weighed.data(), n, dims_});
    for (std::size_t turn = 0; turn < static_cast<std::size_t>(sweeps) * p_.n_subspaces; ++turn) {
        const std::size_t m = turn % p_.n_subspaces, first = begin_of(m);
        const ConstMatrix words = codebook(m);
        const std::size_t width = words.cols;
        // The rows of W that belong to the sub-space, and its own columns of them.
        const ConstMatrix rows(p_.error_weights.data() + first * dims_, width, dims_);
        const ConstMatrix own(rows.data + first, width, width, dims_);
        for (std::size_t i = 0; i < n; ++i) {
            const float* word = words.row(numbers[m * n + i]);
            for (std::size_t j = 0; j < width; ++j) {
                targets[i * width + j] = weighed[i * dims_ + first + j] + dot(own.row(j), word, width);
            }
        }
        panels_[m].nearest({targets.data(), n, width}, word_bias_.data() + m * layout_.values(), found.data());
        for (std::size_t i = 0; i < n; ++i) {
            std::uint32_t& number = numbers[m * n + i];
            if (found[i] == number) continue;
            for (std::size_t j = 0; j < width; ++j) step[j] = words.row(found[i])[j] - words.row(number)[j];
            float* w = weighed.data() + i * dims_;
            if (!(gain(own, step.data(), w + first) > 0)) continue;  // rounding alone told them apart
            number = found[i];
            for (std::size_t j = 0; j < width; ++j) {
                const float* row = rows.row(j);
                for (std::size_t k = 0; k < dims_; ++k) w[k] -= step[j] * row[k];
            }
        }
    }
}

}  // namespace residua::codec
