// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "core/parallel.hpp"
#include "index/ivf_index.hpp"

namespace residua::bindings {
namespace {

using index::IvfIndex;
using index::TableIndex;

void train(IvfIndex& index, const Array<float>& centroids, std::shared_ptr<const codec::Codec> codec, bool residual,
           double error, int num_threads) {
    IvfIndex::Training training;
    training.centroids.assign(centroids.data(), centroids.data() + centroids.size());
    training.codec = std::move(codec);
    training.residual = residual;
    training.error = error;
    py::gil_scoped_release release;
    index.train(std::move(training), resolve_num_threads(num_threads));
}

py::dict fit_of(const IvfIndex& index) {
    const auto [fit, imbalance] = without_gil([&] { return std::pair(index.fit(), index.imbalance()); });
    py::dict d;
    d["trained_error"] = fit.trained_error;
    d["trained_imbalance"] = fit.trained_imbalance;
    d["added_error"] = fit.added > 0 ? fit.added_error / static_cast<double>(fit.added) : 0.0;
    d["added"] = fit.added;
    d["imbalance"] = imbalance;
    return d;
}

}  // namespace

void register_ivf_index(py::module_& m) {
    py::class_<IvfIndex, TableIndex, std::shared_ptr<IvfIndex>>(m, "IVFIndex")
        .def(py::init([](std::size_t dim, const std::string& metric, const std::string& vectors, bool wants_codec,
                         const std::string& codec_recipe, std::size_t nlist, std::uint64_t seed) {
                 return std::make_shared<IvfIndex>(dim, parse_metric(metric), store::parse_vector_mode(vectors),
                                                   wants_codec, codec_recipe, nlist, seed);
             }),
             py::arg("dim"), py::arg("metric"), py::arg("vectors"), py::arg("wants_codec"), py::arg("codec_recipe"),
             py::arg("nlist"), py::arg("seed"))
        .def("train", &train, py::arg("centroids"), py::arg("codec"), py::arg("residual"), py::arg("error"),
             py::arg("num_threads"))
        .def("set_waiting", &IvfIndex::set_waiting, py::arg("codec"), py::call_guard<py::gil_scoped_release>())
        .def_property_readonly("waiting", getter_without_gil(&IvfIndex::waiting))
        .def_property_readonly("is_trained", getter_without_gil(&IvfIndex::is_trained))
        .def_property_readonly("is_residual", getter_without_gil(&IvfIndex::is_residual))
        .def_property_readonly("wanted_nlist", &IvfIndex::wanted_nlist)
        .def_property_readonly("nlist", getter_without_gil(&IvfIndex::nlist))
        .def_property_readonly("seed", &IvfIndex::seed)
        .def_property_readonly("default_nprobe", getter_without_gil(&IvfIndex::default_nprobe))
        .def_property_readonly("fit", &fit_of)
        .def("centroids",
             [](const IvfIndex& index) {
                 auto c = without_gil([&] { return index.centroids(); });
                 const auto n = static_cast<py::ssize_t>(c.size() / index.dim());
                 return to_numpy(std::move(c), {n, static_cast<py::ssize_t>(index.dim())});
             })
        .def("take_as_trained", &IvfIndex::take_as_trained, py::call_guard<py::gil_scoped_release>())
        .def("lists_of",
             [](const IvfIndex& index, const Array<std::int64_t>& ids) {
                 index::IdList given;
                 given.ints.assign(ids.data(), ids.data() + ids.size());
                 auto lists = without_gil([&] { return index.lists_of(given); });
                 const auto n = static_cast<py::ssize_t>(lists.size());
                 return to_numpy(std::move(lists), {n});
             },
             py::arg("ids"))
        .def("list_sizes", [](const IvfIndex& index) {
            auto sizes = without_gil([&] { return index.list_sizes(); });
            const auto n = static_cast<py::ssize_t>(sizes.size());
            return to_numpy(std::move(sizes), {n});
        });
}

}  // namespace residua::bindings
