// SPDX-License-Identifier: Apache-2.0
// k-means on the device against the CPU.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.hpp"
#include "cuda/kmeans.hpp"
#include "scan_test.hpp"
#include "train/nearest.hpp"

namespace {

using namespace residua;
using namespace residua::cuda;

// Rows around `k` middles.
std::vector<float> clusters(std::size_t n, std::size_t dim, std::size_t k, float spread, float middle = 0) {
    const std::vector<float> centers = scan_test::normal_values(k * dim, 1);
    std::vector<float> x = scan_test::normal_values(n * dim, 2);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = middle + centers[i / dim % k * dim + i % dim] + spread * x[i];
    return x;
}

train::KMeansOptions options(std::size_t k, bool spherical = false) {
    train::KMeansOptions o;
    o.k = k;
    o.spherical = spherical;
    o.seed = 4;
    return o;
}

}  // namespace

TEST_CASE("k-means engine: labels, distances and sums are those of the CPU") {
    const std::size_t n = 501, dim = 37, k = 70;
    for (const float middle : {0.0f, 50.0f}) {
        const std::vector<float> x = clusters(n, dim, 9, 0.5f, middle), c = clusters(k, dim, 9, 0.5f, middle);
        const ConstMatrix rows(x.data(), n, dim), centroids(c.data(), k, dim);
        Context context(0);
        DeviceKMeans engine(context);
        engine.hold(rows);
        for (const train::Nearness nearness : {train::Nearness::distance, train::Nearness::product}) {
            std::vector<std::uint32_t> found(n), expected(n);
            engine.assign(centroids, nearness, found.data());
            train::NearestCentroids(centroids, nearness).assign(rows, expected.data());
            CHECK(found == expected);
            std::vector<float> distances(n), true_distances(n);
            engine.distances(centroids, found.data(), distances.data());
            train::label_distances(rows, centroids, found.data(), true_distances.data(), 1);
            for (std::size_t i = 0; i < n; ++i) REQUIRE(distances[i] == doctest::Approx(true_distances[i]).epsilon(1e-5));
            const train::LabelSums sums = engine.sums(found.data(), k);
            std::vector<double> values(k * dim, 0.0);
            for (std::size_t i = 0; i < n * dim; ++i) values[found[i / dim] * dim + i % dim] += static_cast<double>(x[i]);
            CHECK(sums.values == values);  // in the order of the rows
            for (std::size_t i = 0; i < k; ++i) REQUIRE(sums.sizes[i] == static_cast<std::uint32_t>(std::count(found.begin(), found.end(), i)));
        }
    }
}

TEST_CASE("k-means engine: equal rows are at no distance, equal centroids yield to the first") {
    const std::vector<float> x = clusters(40, 5, 40, 1.0f);
    std::vector<float> twice = x;
    twice.insert(twice.end(), x.begin(), x.end());
    Context context(0);
    DeviceKMeans engine(context);
    engine.hold({x.data(), 40, 5});
    std::vector<std::uint32_t> labels(40);
    engine.assign({twice.data(), 80, 5}, train::Nearness::distance, labels.data());
    std::vector<float> distances(40);
    engine.distances({twice.data(), 80, 5}, labels.data(), distances.data());
    for (std::uint32_t i = 0; i < 40; ++i) {
        CHECK(labels[i] == i);
        CHECK(distances[i] == 0.0f);
    }
}

TEST_CASE("k-means on the device ends where the CPU ends, in every run") {
    for (const bool spherical : {false, true}) {
        const std::vector<float> x = clusters(300, 12, 7, 0.1f, 3.0f);
        const ConstMatrix rows(x.data(), 300, 12);
        Context context(0);
        const train::KMeans cpu = train::kmeans(rows, options(7, spherical)), found = kmeans(context, rows, options(7, spherical)),
                            again = kmeans(context, rows, options(7, spherical));
        CHECK(found.sizes == cpu.sizes);
        CHECK(found.iterations == cpu.iterations);
        CHECK(found.error == doctest::Approx(cpu.error).epsilon(1e-4));
        for (std::size_t i = 0; i < found.centroids.size(); ++i) REQUIRE(found.centroids[i] == doctest::Approx(cpu.centroids[i]).epsilon(1e-5));
        CHECK(found.centroids == again.centroids);
        CHECK(context.used() == 0);
    }
}

TEST_CASE("k-means on the device: many rows of few centroids, more centroids than rows, no room") {
    const std::vector<float> x = clusters(9000, 3, 2, 0.01f);
    Context context(0);
    train::KMeansOptions short_run = options(2);
    short_run.iterations = 1;
    const train::KMeans two = kmeans(context, {x.data(), 9000, 3}, short_run);
    CHECK(two.sizes == std::vector<std::uint32_t>{4500, 4500});
    const train::KMeans all = kmeans(context, {x.data(), 10, 3}, options(16));
    CHECK(all.error == doctest::Approx(0.0));
    Context small(0, 10'000);
    CHECK_THROWS_AS(kmeans(small, {x.data(), 9000, 3}, options(2)), Error);
    CHECK(small.used() == 0);
}
