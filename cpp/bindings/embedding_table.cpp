// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "core/parallel.hpp"
#include "index/embedding_table.hpp"

namespace residua::bindings {
namespace {

using index::EmbeddingTable;

py::array_t<float> rows_of(const EmbeddingTable& t, std::size_t count) {
    return py::array_t<float>({count, t.codec()->dim()});
}

py::array_t<float> gather(const EmbeddingTable& t, const Array<std::int64_t>& rows, int num_threads) {
    const std::span<const std::int64_t> ids(rows.data(), static_cast<std::size_t>(rows.size()));
    auto out = rows_of(t, ids.size());
    float* x = out.mutable_data();
    py::gil_scoped_release release;
    t.gather(ids, x, resolve_num_threads(num_threads));
    return out;
}

py::array_t<float> slice(const EmbeddingTable& t, std::int64_t begin, std::int64_t step, std::size_t count,
                         int num_threads) {
    auto out = rows_of(t, count);
    float* x = out.mutable_data();
    py::gil_scoped_release release;
    t.slice(begin, step, count, x, resolve_num_threads(num_threads));
    return out;
}

}  // namespace

void register_embedding_table(py::module_& m) {
    py::class_<EmbeddingTable, std::shared_ptr<EmbeddingTable>>(m, "EmbeddingTable")
        .def(py::init([](std::shared_ptr<const codec::Codec> c, const Array<float>& x, int num_threads) {
                 const ConstMatrix rows = matrix(x);
                 py::gil_scoped_release release;
                 return std::make_shared<EmbeddingTable>(std::move(c), rows, resolve_num_threads(num_threads));
             }),
             py::arg("codec"), py::arg("x"), py::arg("num_threads"))
        .def_property_readonly("codec", [](const EmbeddingTable& t) { return t.codec(); })
        .def("__len__", &EmbeddingTable::size)
        .def("gather", &gather, py::arg("rows"), py::arg("num_threads"))
        .def("slice", &slice, py::arg("begin"), py::arg("step"), py::arg("count"), py::arg("num_threads"))
        .def("memory", &EmbeddingTable::memory)
        .def("save", &EmbeddingTable::save, py::arg("path"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace residua::bindings
