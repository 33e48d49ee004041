// SPDX-License-Identifier: Apache-2.0
#include "index/code_device.hpp"

#include <algorithm>
#include <numeric>

#include "core/error.hpp"

namespace residua::index {

void check_kept(const CodeDevice& device, std::size_t keep) {
    if (keep <= device.most_kept()) return;
    throw Error(ErrorKind::unsupported, device.name() + " keeps at most " + std::to_string(device.most_kept()) +
                                            " rows per query, and this search asks for " + std::to_string(keep) +
                                            ", with the candidates of its re-ranking: lower k or rerank, or search the "
                                            "index on the CPU, index.to('cpu')");
}

std::vector<std::uint32_t> ranks_of(std::size_t n, const TieOrder& order) {
    std::vector<std::uint32_t> rows(n), ranks(n);
    std::iota(rows.begin(), rows.end(), 0u);
    std::stable_sort(rows.begin(), rows.end(), [&](auto a, auto b) { return order.before(a, b); });
    for (std::uint32_t i = 0; i < n; ++i) ranks[rows[i]] = i;
    return ranks;
}

}  // namespace residua::index
