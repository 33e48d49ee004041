// SPDX-License-Identifier: Apache-2.0
// Codebooks of residual quantization (Chen, Guan and Wang, Sensors 2010): each is k-means on what the sums of
// codewords chosen so far leave of the rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/matrix.hpp"
#include "train/beam_search.hpp"

namespace residua::train {

struct ResidualOptions {
    std::size_t n_codebooks = 8;  // 1 … kMaxCodebooks
    std::size_t beam = 4;         // 1 … kMaxBeam
    std::uint64_t seed = 0;
    int num_threads = 1;
    std::function<void(int done, int total)> progress;  // on the calling thread; what it throws ends the call
};

// Returns n_codebooks x kCodewords x x.cols. x has at least one row; k-means finds better codewords where few dims
// hold most of the variance, as principal components do. With fewer distinct rows than codewords these repeat.
// The result does not depend on the number of threads. Polls for interrupts: throws Interrupted.
std::vector<float> train_residual(ConstMatrix x, const ResidualOptions& options);

}  // namespace residua::train
