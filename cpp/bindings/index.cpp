// SPDX-License-Identifier: Apache-2.0
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/arrays.hpp"
#include "bindings/columns.hpp"
#include "bindings/register.hpp"
#include "bindings/results.hpp"
#include "core/matrix_checks.hpp"
#include "core/parallel.hpp"
#include "core/progress.hpp"
#include "index/code_device.hpp"
#include "index/flat_index.hpp"
#include "index/index.hpp"

namespace residua::bindings {
namespace {

using index::Filter;
using index::FlatIndex;
using index::IdList;
using index::SearchParams;
using index::SearchResult;
using index::TableIndex;

// An int64 array, or a list of str.
IdList to_ids(const py::object& ids) {
    IdList out;
    if (py::isinstance<py::list>(ids)) {
        out.kind = store::IdKind::string;
        out.strings = ids.cast<std::vector<std::string>>();
    } else {
        const auto a = ids.cast<Array<std::int64_t>>();
        out.ints.assign(a.data(), a.data() + a.size());
    }
    return out;
}

// None, ids as above, a boolean mask, or an expression.
Filter to_filter(const py::object& filter) {
    if (filter.is_none()) return {};
    if (py::isinstance<filter::Expr>(filter)) return filter::ExprPtr(filter.cast<std::shared_ptr<filter::Expr>>());
    if (py::isinstance<py::array_t<bool>>(filter)) {
        const auto mask = filter.cast<Array<bool>>();
        return std::vector<std::uint8_t>(mask.data(), mask.data() + mask.size());
    }
    return to_ids(filter);
}

// A filter, or a pair: a list of filters, and which of them each query takes.
struct Filters {
    explicit Filters(const py::object& filter) {
        if (!py::isinstance<py::tuple>(filter)) {
            one = to_filter(filter);
            return;
        }
        const auto pair = filter.cast<py::tuple>();
        for (const auto f : pair[0].cast<py::list>()) many.push_back(to_filter(py::reinterpret_borrow<py::object>(f)));
        const auto of = pair[1].cast<Array<std::uint32_t>>();
        filter_of.assign(of.data(), of.data() + of.size());
    }
    void set(SearchParams& params) const {
        params.filter = &one;
        params.filters = many;
        params.filter_of = filter_of;
    }

    Filter one;
    std::vector<Filter> many;
    std::vector<std::uint32_t> filter_of;
};

SearchParams make_params(std::size_t k, const std::string& scoring, std::int64_t rerank, int num_threads) {
    SearchParams p;
    p.k = k;
    p.scoring = scoring == "symmetric" ? index::Scoring::symmetric : index::Scoring::asymmetric;
    p.rerank = rerank;
    p.num_threads = resolve_num_threads(num_threads);
    return p;
}

std::vector<std::uint32_t> to_lists(const py::object& lists) {
    if (lists.is_none()) return {};
    const auto a = lists.cast<Array<std::uint32_t>>();
    return {a.data(), a.data() + a.size()};
}

py::object add(TableIndex& index, const Array<float>& x, const py::object& ids, bool upsert, int num_threads,
               const py::object& columns, const py::object& lists, const Progress& progress) {
    const ConstMatrix rows = matrix(x);
    const IdList given = ids.is_none() ? IdList{} : to_ids(ids);
    const IdList* chosen = ids.is_none() ? nullptr : &given;
    const auto fields = without_gil([&] { return index.fields(); });
    const filter::Columns::Batch cells = to_batch(columns, fields);
    const std::vector<std::uint32_t> places = to_lists(lists);
    IdList added;
    {
        py::gil_scoped_release release;
        const ProgressScope scope(progress);  // takes the GIL by itself
        added = index.add(rows, chosen, upsert, resolve_num_threads(num_threads), columns.is_none() ? nullptr : &cells,
                          places);
    }
    return to_array(added);
}

py::tuple search(const TableIndex& index, const Array<float>& queries, std::size_t k, const std::string& scoring,
                 std::int64_t rerank, const py::object& filter, int num_threads,
                 const std::vector<std::pair<std::size_t, std::size_t>>& funnel, std::size_t nprobe, std::size_t ef,
                 const std::string& plan, index::CodeDevice* device) {
    const ConstMatrix q = matrix(queries);
    const Filters filters(filter);
    SearchParams params = make_params(k, scoring, rerank, num_threads);
    filters.set(params);
    params.plan = index::parse_plan(plan);
    for (const auto& [dims, keep] : funnel) params.funnel.push_back({dims, keep});
    params.ef = ef;
    params.nprobe = nprobe;
    params.device = device;
    SearchResult r;
    {
        py::gil_scoped_release release;
        r = index.search(q, params);
    }
    return to_python(index, r);
}

py::tuple search_codes(const TableIndex& index, const Array<std::uint8_t>& codes, std::size_t k, std::int64_t rerank,
                       const py::object& filter, int num_threads, std::size_t nprobe, std::size_t ef,
                       const std::string& plan, index::CodeDevice* device) {
    const auto queries = matrix(codes);
    const Filters filters(filter);
    SearchParams params = make_params(k, "symmetric", rerank, num_threads);
    filters.set(params);
    params.plan = index::parse_plan(plan);
    params.nprobe = nprobe;
    params.ef = ef;
    params.device = device;
    SearchResult r;
    {
        py::gil_scoped_release release;
        r = index.search_codes(queries.data, queries.rows, params);
    }
    return to_python(index, r);
}

py::tuple range_search(const TableIndex& index, const Array<float>& queries, float threshold, const py::object& filter,
                       int num_threads) {
    const ConstMatrix q = matrix(queries);
    const Filter rows = to_filter(filter);
    const float inside = index.metric() == Metric::l2 ? -threshold : threshold;
    SearchResult r;
    {
        py::gil_scoped_release release;
        r = index.range_search(q, inside, &rows, resolve_num_threads(num_threads));
    }
    for (float& s : r.scores) s = public_score(index.metric(), s);
    const auto n = static_cast<py::ssize_t>(r.scores.size());
    std::vector<std::int64_t> offsets(r.offsets.begin(), r.offsets.end());
    const auto n_offsets = static_cast<py::ssize_t>(offsets.size());
    return py::make_tuple(to_numpy(std::move(offsets), {n_offsets}), to_array(r.ids),
                          to_numpy(std::move(r.scores), {n}));
}

void set_columns(TableIndex& index, const py::object& ids, const py::list& columns) {
    const IdList given = to_ids(ids);
    const auto fields = without_gil([&] { return index.fields(); });
    const filter::Columns::Batch cells = to_batch(columns, fields);
    py::gil_scoped_release release;
    index.set_columns(given, cells);
}

py::list columns_of(const TableIndex& index, const py::object& ids) {
    const IdList given = to_ids(ids);
    filter::Columns::Batch cells;
    {
        py::gil_scoped_release release;
        cells = index.columns(given);
    }
    return batch_to_python(cells, without_gil([&] { return index.fields(); }));
}

std::size_t remove(TableIndex& index, const py::object& ids, bool ignore_missing) {
    const IdList given = to_ids(ids);
    py::gil_scoped_release release;
    return index.remove(given, ignore_missing);
}

py::object add_codes(TableIndex& index, const Array<std::uint8_t>& codes, const py::object& ids,
                     const py::object& lists) {
    const auto rows = matrix(codes);
    const std::vector<std::uint32_t> places = to_lists(lists);
    const IdList given = ids.is_none() ? IdList{} : to_ids(ids);
    IdList added;
    {
        py::gil_scoped_release release;
        added = index.add_codes(rows.data, rows.rows, ids.is_none() ? nullptr : &given, places);
    }
    return to_array(added);
}

py::array_t<std::uint8_t> codes_of(const TableIndex& index, const py::object& ids) {
    const IdList given = to_ids(ids);
    std::size_t bytes = 0;
    std::vector<std::uint8_t> codes = without_gil([&] {
        std::vector<std::uint8_t> out = index.codes(given);
        bytes = index.codec()->code_bytes();
        return out;
    });
    return to_numpy(std::move(codes), {static_cast<py::ssize_t>(given.size()), static_cast<py::ssize_t>(bytes)});
}

void take_back(TableIndex& index, const py::object& ids, std::int64_t max_id) {
    const IdList given = to_ids(ids);
    py::gil_scoped_release release;
    index.take_back(given, max_id);
}

py::array_t<float> get(const TableIndex& index, const py::object& ids) {
    const IdList given = to_ids(ids);
    std::vector<float> x;
    {
        py::gil_scoped_release release;
        x = index.get(given);
    }
    return to_numpy(std::move(x), {static_cast<py::ssize_t>(given.size()), static_cast<py::ssize_t>(index.dim())});
}

}  // namespace

void register_index(py::module_& m) {
    // What implements it is in residua._cuda.
    py::class_<index::CodeDevice, std::shared_ptr<index::CodeDevice>>(m, "CodeDevice")
        .def_property_readonly("name", &index::CodeDevice::name)
        .def_property_readonly("most_kept", &index::CodeDevice::most_kept)
        .def_property_readonly("memory_bytes", &index::CodeDevice::memory_bytes);

    py::class_<TableIndex, std::shared_ptr<TableIndex>>(m, "Index")
        .def_property_readonly("dim", &TableIndex::dim)
        .def_property_readonly("metric", [](const TableIndex& i) { return to_string(i.metric()); })
        .def_property_readonly("vectors", [](const TableIndex& i) { return store::to_string(i.mode()); })
        .def_property_readonly("awaits_codec", getter_without_gil(&TableIndex::awaits_codec))
        .def_property_readonly("codec_recipe", &TableIndex::codec_recipe)
        .def_property_readonly("id_kind",
                               [](const TableIndex& i) {
                                   const auto kind = without_gil([&] { return i.id_kind(); });
                                   return kind == store::IdKind::string    ? "str"
                                          : kind == store::IdKind::integer ? "int"
                                                                           : "none";
                               })
        .def_property_readonly("codec", getter_without_gil(&TableIndex::codec))
        .def("__len__", &TableIndex::size, py::call_guard<py::gil_scoped_release>())
        .def("staged_vectors",
             [](const TableIndex& i) {
                 auto v = without_gil([&] { return i.staged_vectors(); });
                 const auto n = static_cast<py::ssize_t>(v.size() / i.dim());
                 return to_numpy(std::move(v), {n, static_cast<py::ssize_t>(i.dim())});
             })
        .def("add", &add, py::arg("x"), py::arg("ids"), py::arg("upsert"), py::arg("num_threads"),
             py::arg("columns") = py::none(), py::arg("lists") = py::none(), py::arg("progress") = py::none())
        .def_property_readonly("fields", [](const TableIndex& i) { return fields_to_python(without_gil([&] { return i.fields(); })); })
        .def("declare_columns",
             [](TableIndex& i, const std::vector<std::pair<std::string, std::string>>& fields) {
                 without_gil([&] { i.declare_columns(to_fields(fields)); });
             },
             py::arg("fields"))
        .def("set_columns", &set_columns, py::arg("ids"), py::arg("columns"))
        .def("columns", &columns_of, py::arg("ids"))
        .def("bring_codes",
             [](const TableIndex& i, index::CodeDevice& device, int num_threads) {
                 without_gil([&] { i.bring_codes(device, resolve_num_threads(num_threads)); });
             },
             py::arg("device"), py::arg("num_threads"))
        .def("search", &search, py::arg("queries"), py::arg("k"), py::arg("scoring"), py::arg("rerank"),
             py::arg("filter"), py::arg("num_threads"), py::arg("funnel") = std::vector<std::pair<std::size_t, std::size_t>>{},
             py::arg("nprobe") = std::size_t{0}, py::arg("ef") = std::size_t{0}, py::arg("plan") = "auto",
             py::arg("device") = py::none())
        .def("search_codes", &search_codes, py::arg("codes"), py::arg("k"), py::arg("rerank"), py::arg("filter"),
             py::arg("num_threads"), py::arg("nprobe") = std::size_t{0}, py::arg("ef") = std::size_t{0}, py::arg("plan") = "auto",
             py::arg("device") = py::none())
        .def("range_search", &range_search, py::arg("queries"), py::arg("threshold"), py::arg("filter"),
             py::arg("num_threads"))
        .def("remove", &remove, py::arg("ids"), py::arg("ignore_missing"))
        .def("add_codes", &add_codes, py::arg("codes"), py::arg("ids"), py::arg("lists") = py::none())
        .def("codes_of", &codes_of, py::arg("ids"))
        .def("replace_codec",
             [](TableIndex& i, std::shared_ptr<const codec::Codec> c) {
                 without_gil([&] { i.replace_codec(std::move(c)); });
             },
             py::arg("codec"))
        .def("codec_versions",
             [](const TableIndex& i, const py::object& ids) {
                 const IdList given = to_ids(ids);
                 return without_gil([&] { return i.codec_versions(given); });
             },
             py::arg("ids"))
        .def("all_ids", [](const TableIndex& i) { return to_array(without_gil([&] { return i.all_ids(); })); })
        .def_property("tuning", getter_without_gil(&TableIndex::tuning),
                      [](TableIndex& i, std::string text) { without_gil([&] { i.set_tuning(std::move(text)); }); })
        .def("take_back", &take_back, py::arg("ids"), py::arg("max_id"))
        .def_property_readonly("max_id", getter_without_gil(&TableIndex::max_id))
        .def("get", &get, py::arg("ids"))
        .def("contains", [](const TableIndex& i, const py::object& ids) {
                 const IdList given = to_ids(ids);
                 return without_gil([&] { return i.contains(given); });
             },
             py::arg("ids"))
        .def("compact", &TableIndex::compact, py::call_guard<py::gil_scoped_release>())
        .def("memory", &TableIndex::memory, py::call_guard<py::gil_scoped_release>())
        .def("save", &TableIndex::save, py::arg("path"), py::call_guard<py::gil_scoped_release>());

    py::class_<FlatIndex, TableIndex, std::shared_ptr<FlatIndex>>(m, "FlatIndex")
        .def(py::init([](std::size_t dim, const std::string& metric, const std::string& vectors, bool wants_codec,
                         const std::string& codec_recipe) {
                 return std::make_shared<FlatIndex>(dim, parse_metric(metric), store::parse_vector_mode(vectors),
                                                    wants_codec, codec_recipe);
             }),
             py::arg("dim"), py::arg("metric"), py::arg("vectors"), py::arg("wants_codec"), py::arg("codec_recipe"))
        .def("set_codec", &FlatIndex::set_codec, py::arg("codec"), py::arg("num_threads"),
             py::call_guard<py::gil_scoped_release>());

    m.def(
        "first_non_finite",
        [](const Array<float>& x) -> py::ssize_t {
            const ConstMatrix rows = matrix(x);
            py::gil_scoped_release release;
            const auto r = first_non_finite_row(rows);
            return r ? static_cast<py::ssize_t>(*r) : -1;
        },
        py::arg("x"));
    m.def(
        "first_zero_row",
        [](const Array<float>& x) -> py::ssize_t {
            const ConstMatrix rows = matrix(x);
            py::gil_scoped_release release;
            const auto r = first_zero_row(rows);
            return r ? static_cast<py::ssize_t>(*r) : -1;
        },
        py::arg("x"));
}

}  // namespace residua::bindings
