// SPDX-License-Identifier: Apache-2.0
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "bindings/results.hpp"
#include "core/matrix_checks.hpp"
#include "core/progress.hpp"
#include "index/hnsw_index.hpp"

namespace residua::bindings {
namespace {

using index::HNSWIndex;
using index::SearchParams;
using index::SearchResult;
using index::TableIndex;

py::dict costs_to_python(const index::PlanCosts& costs) {
    py::dict d;
    const auto values = costs.values();
    for (std::size_t i = 0; i < values.size(); ++i) d[index::PlanCosts::names()[i]] = values[i];
    return d;
}

// A whole number in the range, as Python's int exactly.
bool is_count(const py::handle& h, long long most, long long& out) {
    if (!PyLong_CheckExact(h.ptr())) return false;
    int overflow = 0;
    out = PyLong_AsLongLongAndOverflow(h.ptr(), &overflow);
    return overflow == 0 && out >= 1 && out <= most;
}

// The usual search by one query, without what batches need: (ids, scores, count, stats), one-dimensional. None where
// there is more to look at, or to refuse: search() does.
py::object search_one(const HNSWIndex& index, const py::handle& q, const py::handle& k, const py::handle& ef,
                      const py::handle& num_threads) {
    using Row = py::array_t<float, py::array::c_style>;
    constexpr long long kMost = (1LL << 31) - 1;
    long long count = 0, beam = 0, threads = 0;
    if (!Row::check_(q) || !is_count(k, kMost, count) || !(ef.is_none() || is_count(ef, kMost, beam)) ||
        !(num_threads.is_none() || is_count(num_threads, 4096, threads))) {
        return py::none();
    }
    const auto row = py::reinterpret_borrow<py::array>(q);
    if (row.ndim() != 1 || static_cast<std::size_t>(row.shape(0)) != index.dim()) return py::none();
    const ConstMatrix query(static_cast<const float*>(row.data()), 1, index.dim());
    if (first_non_finite_row(query) || (index.metric() == Metric::cosine && first_zero_row(query))) return py::none();
    SearchParams params;
    params.k = static_cast<std::size_t>(count);
    params.ef = static_cast<std::size_t>(beam);
    SearchResult r;
    const bool is_usual = without_gil([&] {
        if (params.k > index.size() || !index.tuning().empty()) return false;
        r = index.search(query, params);
        return r.ids.size() >= params.k;
    });
    if (!is_usual) return py::none();
    const auto n = static_cast<py::ssize_t>(params.k);
    IdSlots ids(r.ids, {n});
    Array<float> scores(n);
    for (std::size_t i = 0; i < params.k; ++i) {
        ids.set(i, i);
        scores.mutable_data()[i] = public_score(index.metric(), r.scores[i]);
    }
    return py::make_tuple(ids.take(), std::move(scores), n, stats_of(r));
}

}  // namespace

void register_hnsw_index(py::module_& m) {
    py::class_<HNSWIndex, TableIndex, std::shared_ptr<HNSWIndex>>(m, "HNSWIndex")
        .def(py::init([](std::size_t dim, const std::string& metric, const std::string& vectors, bool wants_codec,
                         const std::string& codec_recipe, std::size_t m_links, std::size_t ef_construction,
                         std::uint64_t seed, bool turbo) {
                 return std::make_shared<HNSWIndex>(dim, parse_metric(metric), store::parse_vector_mode(vectors),
                                                    wants_codec, codec_recipe,
                                                    index::GraphParams{m_links, ef_construction, seed, turbo});
             }),
             py::arg("dim"), py::arg("metric"), py::arg("vectors"), py::arg("wants_codec"), py::arg("codec_recipe"),
             py::arg("M"), py::arg("ef_construction"), py::arg("seed"), py::arg("turbo"))
        .def("set_codec", [](HNSWIndex& i, std::shared_ptr<const codec::Codec> c, int num_threads, const Progress& progress) {
                 py::gil_scoped_release release;
                 const ProgressScope scope(progress);
                 i.set_codec(std::move(c), num_threads);
             }, py::arg("codec"), py::arg("num_threads"), py::arg("progress") = py::none())
        .def("search_one", &search_one, py::arg("q"), py::arg("k"), py::arg("ef"), py::arg("num_threads"))
        .def_property_readonly("M", [](const HNSWIndex& i) { return i.params().m; })
        .def_property_readonly("turbo", [](const HNSWIndex& i) { return i.params().turbo; })
        .def_property_readonly("ef_construction", [](const HNSWIndex& i) { return i.params().ef_construction; })
        .def_property_readonly("costs", [](const HNSWIndex& i) { return costs_to_python(without_gil([&] { return i.costs(); })); })
        .def("calibrate", [](HNSWIndex& i) { return costs_to_python(without_gil([&] { return i.calibrate(); })); })
        .def("shape", [](const HNSWIndex& i) {
            const HNSWIndex::Shape s = without_gil([&] { return i.shape(); });
            py::dict d;
            d["edges"] = s.edges;
            d["entries"] = s.entries;
            d["unreachable"] = s.unreachable;
            d["to_removed"] = s.to_removed;
            return d;
        });
}

}  // namespace residua::bindings
