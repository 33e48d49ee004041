// SPDX-License-Identifier: Apache-2.0
#include "core/random.hpp"

#include <algorithm>
#include <numeric>

namespace residua {

std::vector<std::size_t> permutation(std::size_t n, std::uint64_t seed) {
    std::vector<std::size_t> rows(n);
    std::iota(rows.begin(), rows.end(), std::size_t{0});
    Random rng(seed);
    for (std::size_t i = 0; i + 1 < n; ++i) std::swap(rows[i], rows[i + rng.below(n - i)]);
    return rows;
}

std::vector<std::size_t> sample_rows(std::size_t n, std::size_t count, std::uint64_t seed) {
    std::vector<std::size_t> rows = permutation(n, seed);
    if (count < n) rows.resize(count);
    std::sort(rows.begin(), rows.end());
    return rows;
}

}  // namespace residua
