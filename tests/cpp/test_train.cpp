// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "train/kmeans.hpp"
#include "train/nearest.hpp"

using namespace residua;
using namespace residua::train;

namespace {

std::vector<float> normal_rows(std::size_t n, std::size_t dim, unsigned seed, float middle = 0) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    std::vector<float> x(n * dim);
    for (float& v : x) v = middle + normal(rng);
    return x;
}

double squared(const float* a, const float* b, std::size_t dim) {
    double s = 0;
    for (std::size_t j = 0; j < dim; ++j) s += std::pow(static_cast<double>(a[j]) - static_cast<double>(b[j]), 2);
    return s;
}

double mean_error(ConstMatrix x, const std::vector<float>& centroids, std::size_t k) {
    double total = 0;
    for (std::size_t i = 0; i < x.rows; ++i) {
        double best = std::numeric_limits<double>::infinity();
        for (std::size_t c = 0; c < k; ++c) {
            best = std::min(best, squared(x.row(i), centroids.data() + c * x.cols, x.cols));
        }
        total += best;
    }
    return total / static_cast<double>(x.rows);
}

KMeansOptions options(std::size_t k, int iterations = 25) {
    KMeansOptions o;
    o.k = k;
    o.iterations = iterations;
    return o;
}

}  // namespace

TEST_CASE("nearest centroids: the nearest, of any number of rows, centroids and dims, also of strided rows") {
    for (const std::size_t dim : {1u, 3u, 8u, 50u, 384u}) {
        for (const std::size_t k : {1u, 5u, 16u, 100u, 257u}) {
            constexpr std::size_t kRows = 203;
            const auto values = normal_rows(kRows, dim + 5, 3);
            const auto centroids = normal_rows(k, dim, 4);
            const ConstMatrix x(values.data() + 2, kRows, dim, dim + 5), c(centroids.data(), k, dim);
            const NearestCentroids nearest(c);
            std::vector<std::uint32_t> one(kRows), many(kRows), top(kRows * std::min<std::size_t>(k, 4));
            std::vector<float> distances(top.size());
            nearest.assign(x, one.data());
            nearest.assign(x, many.data(), 3);
            CHECK(one == many);
            const std::size_t m = top.size() / kRows;
            nearest.assign_top(x, m, top.data(), distances.data(), 2);
            std::size_t wrong = 0;
            for (std::size_t i = 0; i < kRows; ++i) {
                std::vector<double> wanted(k);
                for (std::size_t j = 0; j < k; ++j) wanted[j] = squared(x.row(i), c.row(j), dim);
                std::vector<double> sorted = wanted;
                std::sort(sorted.begin(), sorted.end());
                const double slack = 1e-5 * (1 + sorted.back());
                wrong += wanted[one[i]] > sorted[0] + slack;
                for (std::size_t j = 0; j < m; ++j) {
                    wrong += wanted[top[i * m + j]] > sorted[j] + slack;
                    wrong += std::fabs(static_cast<double>(distances[i * m + j]) - wanted[top[i * m + j]]) > slack;
                }
            }
            CHECK(wrong == 0);
        }
    }
}

TEST_CASE("nearest centroids: of equal ones the first; products; data far from the origin") {
    const std::vector<float> c{1, 0, 3, 0, 1, 0, 3, 0}, x{1, 0, 4, 0};
    std::vector<std::uint32_t> out(2);
    NearestCentroids({c.data(), 4, 2}).assign({x.data(), 2, 2}, out.data());
    CHECK(out == std::vector<std::uint32_t>{0, 1});
    NearestCentroids({c.data(), 4, 2}, Nearness::product).assign({x.data(), 2, 2}, out.data());
    CHECK(out == std::vector<std::uint32_t>{1, 1});

    const auto far = normal_rows(300, 4, 5, 20'000.0f);
    const ConstMatrix rows(far.data(), 300, 4), centroids(far.data(), 40, 4);
    std::vector<std::uint32_t> found(300);
    NearestCentroids(centroids).assign(rows, found.data());
    for (std::size_t i = 0; i < 40; ++i) CHECK(squared(rows.row(i), centroids.row(found[i]), 4) == 0);
    std::vector<float> distances(300);
    label_distances(rows, centroids, found.data(), distances.data(), 2);
    for (std::size_t i = 0; i < 300; ++i) {
        CHECK(static_cast<double>(distances[i]) == doctest::Approx(squared(rows.row(i), centroids.row(found[i]), 4)));
    }
}

TEST_CASE("k-means finds separate clusters and reports their error") {
    constexpr std::size_t kClusters = 20, kRows = 2000, kDim = 6;
    auto x = normal_rows(kRows, kDim, 1);
    const auto centers = normal_rows(kClusters, kDim, 2);
    for (std::size_t i = 0; i < kRows; ++i) {
        for (std::size_t j = 0; j < kDim; ++j) {
            float& v = x[i * kDim + j];
            v = 0.01f * v + 20 * centers[i % kClusters * kDim + j];
        }
    }
    const ConstMatrix rows(x.data(), kRows, kDim);
    const KMeans fit = kmeans(rows, options(kClusters));
    CHECK(fit.error < 1e-3);
    CHECK(fit.error == doctest::Approx(mean_error(rows, fit.centroids, kClusters)).epsilon(1e-3));
    CHECK(fit.iterations < 25);
    for (const std::uint32_t size : fit.sizes) CHECK(size == kRows / kClusters);
}

TEST_CASE("k-means: more iterations lower the error, which is that of the centroids; a start goes on") {
    const auto x = normal_rows(3000, 5, 6);
    const ConstMatrix rows(x.data(), 3000, 5);
    const KMeans seeds = kmeans(rows, options(64, 0)), few = kmeans(rows, options(64, 3));
    CHECK(seeds.iterations == 0);
    CHECK(mean_error(rows, few.centroids, 64) < 0.9 * mean_error(rows, seeds.centroids, 64));
    KMeansOptions more = options(64, 10);
    more.start = {few.centroids.data(), 64, 5};
    const KMeans longer = kmeans(rows, more);
    CHECK(longer.error < few.error);
    CHECK(longer.error >= mean_error(rows, longer.centroids, 64));
}

TEST_CASE("k-means does not depend on threads, and depends on the seed") {
    const auto x = normal_rows(20'000, 7, 8);
    KMeansOptions o = options(50, 4);
    o.max_rows = 15'000;
    const KMeans one = kmeans({x.data(), 20'000, 7}, o);
    for (const int threads : {2, 5}) {
        o.num_threads = threads;
        const KMeans other = kmeans({x.data(), 20'000, 7}, o);
        CHECK(other.centroids == one.centroids);
        CHECK(other.sizes == one.sizes);
        CHECK(other.error == one.error);
    }
    o.seed = 1;
    CHECK(kmeans({x.data(), 20'000, 7}, o).centroids != one.centroids);
}

TEST_CASE("k-means: fewer distinct rows than centroids give each of them, and repeat them") {
    std::vector<float> x;
    for (std::size_t i = 0; i < 90; ++i) {
        for (const float v : {1.0f, 2.0f}) x.push_back(v * static_cast<float>(i % 3));
    }
    for (const std::size_t n : {90u, 3u, 1u}) {
        const KMeans fit = kmeans({x.data(), n, 2}, options(8));
        std::set<std::pair<float, float>> distinct;
        for (std::size_t c = 0; c < 8; ++c) distinct.insert({fit.centroids[2 * c], fit.centroids[2 * c + 1]});
        CHECK(distinct.size() == std::min<std::size_t>(n, 3));
        CHECK(fit.error < 1e-10);
        CHECK(std::count_if(fit.sizes.begin(), fit.sizes.end(), [](std::uint32_t s) { return s > 0; }) ==
              static_cast<std::ptrdiff_t>(distinct.size()));
    }
}

TEST_CASE("k-means repairs centroids without rows") {
    const auto x = normal_rows(1000, 3, 9);
    const ConstMatrix rows(x.data(), 1000, 3);
    const std::vector<float> start(30, 100.0f);  // ten centroids in one place, far from all rows
    KMeansOptions o = options(10, 8);
    o.start = {start.data(), 10, 3};
    const KMeans fit = kmeans(rows, o);
    for (const std::uint32_t size : fit.sizes) CHECK(size > 0);
    CHECK(fit.error < 1.4 * kmeans(rows, options(10, 8)).error);
}

TEST_CASE("spherical k-means: unit centroids by direction, whatever the lengths") {
    constexpr std::size_t kRows = 600;
    std::vector<float> x(kRows * 3, 0.0f);
    for (std::size_t i = 0; i < kRows; ++i) x[3 * i + i % 3] = 0.1f + static_cast<float>(i);
    KMeansOptions o = options(3);
    o.spherical = true;
    const KMeans fit = kmeans({x.data(), kRows, 3}, o);
    CHECK(fit.error < 1e-10);
    for (std::size_t c = 0; c < 3; ++c) {
        CHECK(fit.sizes[c] == kRows / 3);
        CHECK(std::hypot(fit.centroids[3 * c], fit.centroids[3 * c + 1], fit.centroids[3 * c + 2]) ==
              doctest::Approx(1.0));
    }
}

TEST_CASE("k-means reports progress, and stops when asked to") {
    const auto x = normal_rows(5000, 4, 10);
    KMeansOptions o = options(100, 6);
    std::vector<int> done;
    o.progress = [&](int i, int total) {
        CHECK(total == 6);
        done.push_back(i);
    };
    kmeans({x.data(), 5000, 4}, o);
    CHECK(done == std::vector<int>{1, 2, 3, 4, 5, 6});
    o.progress = [](int i, int) {
        if (i == 2) throw Interrupted();
    };
    CHECK_THROWS_AS(kmeans({x.data(), 5000, 4}, o), Interrupted);
    o = options(256, 1'000'000);
    const auto many = normal_rows(40'000, 16, 11);
    set_interrupt_hook([] { return true; });
    CHECK_THROWS_AS(kmeans({many.data(), 40'000, 16}, o), Interrupted);
    set_interrupt_hook(nullptr);
}
