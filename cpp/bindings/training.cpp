// SPDX-License-Identifier: Apache-2.0
// What fits written in Python take from cpp/train.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "core/parallel.hpp"
#include "train/kmeans.hpp"
#include "train/nearest.hpp"
#include "train/residual.hpp"

namespace residua::bindings {
namespace {

py::tuple kmeans(const Array<float>& x, std::size_t k, int iterations, bool spherical, std::size_t max_rows,
                 std::uint64_t seed, int num_threads, const std::optional<Array<float>>& start) {
    const ConstMatrix rows = matrix(x);
    train::KMeansOptions o;
    o.k = k;
    o.iterations = iterations;
    o.spherical = spherical;
    o.max_rows = max_rows;
    o.seed = seed;
    o.num_threads = resolve_num_threads(num_threads);
    if (start) o.start = matrix(*start);
    if (rows.rows == 0 || k == 0 || (start && (o.start.rows != k || o.start.cols != rows.cols))) {
        throw Error(ErrorKind::shape, "k-means needs a row, a centroid, and, to go on, k centroids of as many dims");
    }
    train::KMeans fit;
    {
        py::gil_scoped_release release;
        fit = train::kmeans(rows, o);
    }
    return py::make_tuple(to_numpy(std::move(fit.centroids), {static_cast<py::ssize_t>(k), x.shape(1)}),
                          to_numpy(std::move(fit.sizes), {static_cast<py::ssize_t>(k)}), fit.error, fit.iterations);
}

py::tuple nearest_centroids(const Array<float>& x, const Array<float>& centroids, std::size_t m, bool product,
                            int num_threads) {
    const ConstMatrix rows = matrix(x), c = matrix(centroids);
    if (m < 1 || m > c.rows || rows.cols != c.cols) {
        throw Error(ErrorKind::shape, "expected 1 <= m <= centroids, of as many dims as the rows");
    }
    py::array_t<std::uint32_t> which({rows.rows, m});
    py::array_t<float> values({rows.rows, m});
    std::uint32_t* out = which.mutable_data();
    float* v = values.mutable_data();
    {
        py::gil_scoped_release release;
        const train::NearestCentroids nearest(c, product ? train::Nearness::product : train::Nearness::distance);
        nearest.assign_top(rows, m, out, v, resolve_num_threads(num_threads));
    }
    return py::make_tuple(which, values);
}

py::array_t<float> train_residual(const Array<float>& x, std::size_t n_codebooks, std::size_t beam, std::uint64_t seed,
                                  int num_threads, const std::function<void(int, int)>& progress) {
    train::ResidualOptions o;
    o.n_codebooks = n_codebooks;
    o.beam = beam;
    o.seed = seed;
    o.num_threads = resolve_num_threads(num_threads);
    o.progress = progress;  // takes the GIL by itself
    const ConstMatrix rows = matrix(x);
    std::vector<float> books;
    {
        py::gil_scoped_release release;
        books = train::train_residual(rows, o);
    }
    return to_numpy(std::move(books), {static_cast<py::ssize_t>(n_codebooks * train::kCodewords), x.shape(1)});
}

}  // namespace

void register_training(py::module_& m) {
    m.def("kmeans", &kmeans, py::arg("x"), py::arg("k"), py::arg("iterations") = 25, py::arg("spherical") = false,
          py::arg("max_rows") = 0, py::arg("seed") = 0, py::arg("num_threads") = 1, py::arg("start") = py::none());
    m.def("nearest_centroids", &nearest_centroids, py::arg("x"), py::arg("centroids"), py::arg("m"),
          py::arg("product"), py::arg("num_threads"));
    m.def("train_residual", &train_residual, py::arg("x"), py::arg("n_codebooks"), py::arg("beam"), py::arg("seed"),
          py::arg("num_threads"), py::arg("progress"));
}

}  // namespace residua::bindings
