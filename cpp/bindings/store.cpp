// SPDX-License-Identifier: Apache-2.0
// residua._core.store: the storage layer as its tests see it; private.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "core/checksum.hpp"
#include "core/half.hpp"
#include "store/container.hpp"
#include "store/id_map.hpp"
#include "store/vector_store.hpp"

namespace residua::bindings {
namespace {

using namespace residua::store;

py::bytes to_py(std::span<const std::uint8_t> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::uint8_t> to_span(const py::bytes& bytes) {
    const auto view = static_cast<std::string_view>(bytes);
    return {reinterpret_cast<const std::uint8_t*>(view.data()), view.size()};
}

OpenOptions options(bool mmap, const std::string& verify) {
    if (verify != "quick" && verify != "full") {
        throw Error(ErrorKind::value, "verify must be 'quick' or 'full', got '" + verify + "'");
    }
    return {mmap, verify == "full" ? Verify::full : Verify::quick};
}

template <class T>
py::bytes saved(const T& value, const char* kind) {
    Writer writer(kind);
    value.save(writer);
    return to_py(writer.to_bytes());
}

void register_container(py::module_& s) {
    py::class_<Writer>(s, "Writer")
        .def(py::init<std::string>(), py::arg("kind"))
        .def("put",
             [](Writer& w, std::string name, const py::bytes& bytes) { w.put_copy(std::move(name), to_span(bytes)); })
        .def("put_int", &Writer::put_int)
        .def("put_double", &Writer::put_double)
        .def("put_string", &Writer::put_string)
        .def("put_bytes",
             [](Writer& w, std::string key, const py::bytes& bytes) {
                 const auto span = to_span(bytes);
                 w.put_bytes(std::move(key), {span.begin(), span.end()});
             })
        .def("nest", &Writer::nest)
        .def("to_bytes", [](const Writer& w) { return to_py(w.to_bytes()); })
        .def("write_file", &Writer::write_file, py::call_guard<py::gil_scoped_release>());

    py::class_<Reader>(s, "Reader")
        .def_static(
            "open",
            [](const std::string& path, bool mmap, const std::string& verify) {
                py::gil_scoped_release release;
                return Reader::open(path, options(mmap, verify));
            },
            py::arg("path"), py::kw_only(), py::arg("mmap") = false, py::arg("verify") = "quick")
        .def_static("from_bytes", [](const py::bytes& bytes) { return Reader::from_bytes(to_span(bytes)); })
        .def_property_readonly("kind", &Reader::kind)
        .def_property_readonly("version", [](const Reader& r) { return py::make_tuple(r.version_major(), r.version_minor()); })
        .def_property_readonly("is_mapped", &Reader::is_mapped)
        .def("names", &Reader::names)
        .def("has", &Reader::has)
        .def("section",
             [](const Reader& r, const std::string& name) {
                 const auto bytes = r.section(name);
                 return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
             })
        .def("address", [](const Reader& r, const std::string& name) {
            return reinterpret_cast<std::uintptr_t>(r.section(name).data());
        })
        .def("int64s", [](const Reader& r, const std::string& name) {
            const auto values = r.array<std::int64_t>(name);
            return std::vector<std::int64_t>(values.begin(), values.end());
        })
        .def("verify", [](const Reader& r, const std::string& name) { r.verify(name); })
        .def("has_key", &Reader::has_key)
        .def("get_int", [](const Reader& r, const std::string& key) { return r.get_int(key); })
        .def("get_int_in", [](const Reader& r, const std::string& key, std::int64_t low, std::int64_t high) {
            return r.get_int(key, low, high);
        })
        .def("get_double", &Reader::get_double)
        .def("get_string", [](const Reader& r, const std::string& key) { return r.get_string(key); })
        .def("get_bytes", [](const Reader& r, const std::string& key) { return to_py(r.get_bytes(key)); })
        .def("has_nested", &Reader::has_nested)
        .def("nested", &Reader::nested);
}

AddPlan make_plan(const IdMap& map, const py::object& ids, bool upsert, std::vector<std::int64_t>& ints,
                  std::vector<std::string>& strings, std::vector<std::string_view>& views) {
    if (py::isinstance<py::int_>(ids)) return map.plan_auto(ids.cast<std::size_t>());
    const auto list = ids.cast<py::list>();
    if (!list.empty() && py::isinstance<py::str>(list[0])) {
        strings = ids.cast<std::vector<std::string>>();
        views.assign(strings.begin(), strings.end());
        return map.plan_add(std::span<const std::string_view>(views), upsert);
    }
    ints = ids.cast<std::vector<std::int64_t>>();
    return map.plan_add(std::span<const std::int64_t>(ints), upsert);
}

void register_id_map(py::module_& s) {
    py::class_<IdMap>(s, "IdMap")
        .def(py::init<>())
        .def(
            "add",
            [](IdMap& map, const py::object& ids, bool upsert) {
                std::vector<std::int64_t> ints;
                std::vector<std::string> strings;
                std::vector<std::string_view> views;
                const AddPlan plan = make_plan(map, ids, upsert, ints, strings, views);
                map.commit(plan);
                return plan.rows;
            },
            py::arg("ids"), py::kw_only(), py::arg("upsert") = false)
        .def("find",
             [](const IdMap& map, const py::object& id) {
                 return py::isinstance<py::str>(id) ? map.find(id.cast<std::string>()) : map.find(id.cast<std::int64_t>());
             })
        .def("erase_row", &IdMap::erase_row)
        .def("id_of",
             [](const IdMap& map, std::uint32_t row) -> py::object {
                 if (map.kind() == IdKind::string) return py::str(std::string(map.string_id(row)));
                 return py::int_(map.int_id(row));
             })
        .def("live_rows", &IdMap::live_rows)
        .def("compact", [](IdMap& map, const std::vector<std::uint32_t>& keep) { map.compact(keep); })
        .def("before", &IdMap::before)
        .def_property_readonly("is_monotone", &IdMap::is_monotone)
        .def_property_readonly("max_id", &IdMap::max_id)
        .def_property_readonly("rows", &IdMap::rows)
        .def_property_readonly("memory_bytes", &IdMap::memory_bytes)
        .def("__len__", &IdMap::size)
        .def("to_bytes", [](const IdMap& map) { return saved(map, "ids"); })
        .def_static("from_bytes", [](const py::bytes& bytes) { return IdMap::load(Reader::from_bytes(to_span(bytes))); });
}

void register_vector_store(py::module_& s) {
    const auto scalars = [](const float* values, std::size_t n) -> py::object {
        if (values == nullptr) return py::none();
        return py::array_t<float>(static_cast<py::ssize_t>(n), values);
    };
    py::class_<VectorStore>(s, "VectorStore")
        .def(py::init([](const std::string& mode, std::size_t dim, const std::string& metric) {
                 return VectorStore(parse_vector_mode(mode), dim, parse_metric(metric));
             }),
             py::arg("mode"), py::arg("dim"), py::arg("metric") = "cosine")
        .def(
            "append",
            [](VectorStore& v, const Array<float>& x, int num_threads) { v.append(matrix(x), num_threads); },
            py::arg("x"), py::arg("num_threads") = 1)
        // Every second column of a wider array: a row stride that is not the dim.
        .def("append_strided",
             [](VectorStore& v, const Array<float>& x, std::size_t dim) {
                 v.append({x.data(), static_cast<std::size_t>(x.shape(0)), dim, static_cast<std::size_t>(x.shape(1))});
             })
        .def("assign",
             [](VectorStore& v, std::size_t row, const Array<float>& x) {
                 if (static_cast<std::size_t>(x.size()) != v.dim()) throw Error(ErrorKind::shape, "wrong dim");
                 v.assign(row, x.data());
             })
        .def("get",
             [](const VectorStore& v, std::size_t row) {
                 std::vector<float> out(v.dim());
                 v.get(row, out.data());
                 return to_numpy(std::move(out), {static_cast<py::ssize_t>(v.dim())});
             })
        .def("truncate", &VectorStore::truncate)
        .def("compact", [](VectorStore& v, const std::vector<std::uint32_t>& keep) { v.compact(keep); })
        .def_property_readonly("row_type",
                               [](const VectorStore& v) {
                                   return v.row_type() == RowType::f32   ? "float32"
                                          : v.row_type() == RowType::f16 ? "float16"
                                                                         : "int8";
                               })
        .def_property_readonly("address",
                               [](const VectorStore& v) { return reinterpret_cast<std::uintptr_t>(v.view().data); })
        .def_property_readonly("row_scale",
                               [scalars](const VectorStore& v) { return scalars(v.view().row_scale, v.size()); })
        .def_property_readonly("inv_norm",
                               [scalars](const VectorStore& v) { return scalars(v.view().inv_norm, v.size()); })
        .def("memory",
             [](const VectorStore& v) {
                 const auto m = v.memory();
                 py::dict d;
                 d["rows"] = m.rows;
                 d["scalars"] = m.scalars;
                 d["file"] = m.file;
                 return d;
             })
        .def("__len__", &VectorStore::size)
        .def("to_bytes", [](const VectorStore& v) { return saved(v, "vectors"); })
        .def("write_file",
             [](const VectorStore& v, const std::string& path) {
                 Writer writer("vectors");
                 v.save(writer);
                 writer.write_file(path);
             })
        .def_static("from_bytes",
                    [](const py::bytes& bytes, std::size_t dim, const std::string& metric) {
                        return VectorStore::load(Reader::from_bytes(to_span(bytes)), dim, parse_metric(metric));
                    })
        .def_static(
            "open",
            [](const std::string& path, std::size_t dim, const std::string& metric, bool mmap) {
                return VectorStore::load(Reader::open(path, options(mmap, "quick")), dim, parse_metric(metric));
            },
            py::arg("path"), py::arg("dim"), py::arg("metric"), py::kw_only(), py::arg("mmap") = false);
}

}  // namespace

void register_store(py::module_& m) {
    py::module_ s = m.def_submodule("store", "Files, ids and kept vectors; private.");
    s.def(
        "xxh64", [](const py::bytes& data, std::uint64_t seed) { return xxh64(to_span(data).data(), to_span(data).size(), seed); },
        py::arg("data"), py::arg("seed") = 0);
    s.def("half_from_float", py::vectorize(&half_from_float));
    s.def("float_from_half", py::vectorize(&float_from_half));
    register_container(s);
    register_id_map(s);
    register_vector_store(s);
}

}  // namespace residua::bindings
