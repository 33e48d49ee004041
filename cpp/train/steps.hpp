// SPDX-License-Identifier: Apache-2.0
// Steps of uniform mid-rise quantizers, fitted to a sample: for every group of dims and every number
// of bits the one step that minimises the squared error.
#pragma once

#include <cstddef>
#include <vector>

#include "core/matrix.hpp"

namespace residua::train {

inline constexpr int kMaxBits = 8;

struct StepFit {
    std::size_t groups = 0;
    std::vector<float> step;         // kMaxBits x groups; row b - 1 is for b bits; positive
    std::vector<double> distortion;  // (kMaxBits + 1) x groups; row b: squared error per vector at b bits
};

// y: n x (groups * group_dims) transformed vectors, n >= 1. The result does not depend on num_threads.
StepFit fit_steps(ConstMatrix y, std::size_t group_dims, int num_threads);

}  // namespace residua::train
