// SPDX-License-Identifier: Apache-2.0
// overhead INDEX QUERIES K: ns per call of one query through residua.h and through the C++ library,
// in turns, so that both meet the same disturbances. Prints both medians and the median difference.
#include <residua/residua.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "index/index.hpp"

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kBatches = 401;
constexpr int kCalls = 200;

template <class Call>
double ns_per_call(std::size_t n_queries, Call call) {
    const auto start = Clock::now();
    for (int i = 0; i < kCalls; ++i) call(static_cast<std::size_t>(i) % n_queries);
    return std::chrono::duration<double, std::nano>(Clock::now() - start).count() / kCalls;
}

double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
    return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
    residua_index* c = nullptr;
    if (argc != 4 || residua_index_load(argv[1], 0, &c) != RESIDUA_OK) {
        std::fprintf(stderr, "usage: overhead INDEX QUERIES K; %s\n", residua_last_error());
        return 1;
    }
    const auto cpp = residua::index::read_index(residua::store::Reader::open(argv[1]));
    std::ifstream file(argv[2], std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    const auto* queries = reinterpret_cast<const float*>(bytes.data());
    const std::size_t dim = cpp->dim();
    const std::size_t n = bytes.size() / sizeof(float) / dim;
    const std::size_t k = std::strtoul(argv[3], nullptr, 10);
    if (n == 0 || k == 0) return 1;

    residua_search_options options{};
    options.size = sizeof options;
    options.num_threads = 1;
    std::vector<std::int64_t> ids(k);
    std::vector<float> scores(k);
    std::int64_t count = 0;
    std::size_t found = 0;
    bool failed = false;
    std::vector<double> through_c, through_cpp, difference;
    for (int b = 0; b < kBatches; ++b) {
        const auto call_cpp = [&](std::size_t i) {
            residua::index::SearchParams params;
            params.k = k;
            found += cpp->search({queries + i * dim, 1, dim}, params).ids.ints.size();
        };
        const auto call_c = [&](std::size_t i) {
            failed |= residua_index_search(c, queries + i * dim, 1, dim, k, &options, ids.data(), scores.data(), &count) !=
                      RESIDUA_OK;
            found += static_cast<std::size_t>(count);
        };
        // The second of a pair finds warmer caches: take turns.
        double a = 0, z = 0;
        if (b % 2 == 0) a = ns_per_call(n, call_c);
        z = ns_per_call(n, call_cpp);
        if (b % 2 != 0) a = ns_per_call(n, call_c);
        through_c.push_back(a);
        through_cpp.push_back(z);
        difference.push_back(a - z);
    }
    residua_index_free(c);
    if (failed || found == 0) return 1;
    std::printf("%.0f %.0f %.0f\n", median(through_c), median(through_cpp), median(difference));
    return 0;
}
