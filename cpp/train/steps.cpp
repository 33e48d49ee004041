// SPDX-License-Identifier: Apache-2.0
#include "train/steps.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/parallel.hpp"

namespace residua::train {
namespace {

// Steps that minimise the squared error for a unit Gaussian (Max, 1960); the search starts there.
constexpr std::array<double, kMaxBits> kGaussianStep = {1.596, 0.996, 0.586, 0.335, 0.188, 0.104, 0.0569, 0.0308};
constexpr int kSearchEachSide = 5;
constexpr double kSearchRatio = 1.1;
constexpr std::size_t kRowsThatShowTails = 2000;

double squared_error(const std::vector<float>& values, float step, int bits) {
    const float half = static_cast<float>(1 << (bits - 1));
    const float top = static_cast<float>((1 << bits) - 1);
    const float inverse = 1.0f / step;
    double total = 0;
    constexpr std::size_t kRun = 512;  // float32 sums of this length lose nothing that matters
    for (std::size_t i = 0; i < values.size(); i += kRun) {
        float sum = 0;
        for (std::size_t j = i; j < std::min(values.size(), i + kRun); ++j) {
            const float level = std::min(std::max(values[j] * inverse + half, 0.0f), top);
            const float e = values[j] - step * (static_cast<float>(static_cast<int>(level)) + 0.5f - half);
            sum += e * e;
        }
        total += static_cast<double>(sum);
    }
    return total;
}

}  // namespace

StepFit fit_steps(ConstMatrix y, std::size_t group_dims, int num_threads) {
    const std::size_t groups = y.cols / group_dims;
    StepFit out{groups, std::vector<float>(kMaxBits * groups), std::vector<double>((kMaxBits + 1) * groups)};

    std::vector<double> energy(groups, 0.0);
    for (std::size_t r = 0; r < y.rows; ++r) {
        for (std::size_t g = 0; g < groups; ++g) {
            float sum = 0;
            for (std::size_t j = 0; j < group_dims; ++j) {
                const float v = y.row(r)[g * group_dims + j];
                sum += v * v;
            }
            energy[g] += static_cast<double>(sum);
        }
    }
    const double n = static_cast<double>(y.rows);
    const double per_value = n * static_cast<double>(group_dims);
    // Groups without spread get a small step all the same: later vectors may differ from the sample.
    const double largest = std::sqrt(*std::max_element(energy.begin(), energy.end()) / per_value);
    const double floor = std::max(largest * 1e-4, 1e-20);

    parallel_for(groups, 1, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> values(y.rows * group_dims);
        for (std::size_t g = begin; g < end; ++g) {
            for (std::size_t r = 0; r < y.rows; ++r) {
                std::copy_n(y.row(r) + g * group_dims, group_dims, values.data() + r * group_dims);
            }
            const double sigma = std::max(std::sqrt(energy[g] / per_value), floor);
            out.distortion[g] = energy[g] / n;
            for (int bits = 1; bits <= kMaxBits; ++bits) {
                double best = std::numeric_limits<double>::infinity();
                // A small sample does not show its tails: fine codes then keep the Gaussian range,
                // because the clipping of later vectors would be their largest error.
                const int tightest = bits >= 5 && y.rows < kRowsThatShowTails ? 0 : -kSearchEachSide;
                for (int s = tightest; s <= kSearchEachSide; ++s) {
                    const double start = sigma * kGaussianStep[static_cast<std::size_t>(bits - 1)];
                    const auto step = static_cast<float>(start * std::pow(kSearchRatio, s));
                    const double error = squared_error(values, step, bits);
                    if (error < best) {
                        best = error;
                        out.step[static_cast<std::size_t>(bits - 1) * groups + g] = step;
                    }
                }
                out.distortion[static_cast<std::size_t>(bits) * groups + g] = best / n;
            }
        }
    });
    return out;
}

}  // namespace residua::train
