// SPDX-License-Identifier: Apache-2.0
#include "bindings/columns.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <unordered_map>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "core/error.hpp"
#include "filter/dictionary.hpp"
#include "filter/expr.hpp"

namespace residua::bindings {
namespace {

using namespace filter;

// None, NaN, NaT and pandas.NA.
bool is_null(PyObject* o) {
    if (o == Py_None) return true;
    if (PyFloat_Check(o)) return std::isnan(PyFloat_AS_DOUBLE(o));
    const char* name = Py_TYPE(o)->tp_name;
    return std::strstr(name, "NAType") != nullptr || std::strstr(name, "NaTType") != nullptr;
}

// Distinct texts of a call, in order of appearance.
class Texts {
public:
    Texts(const Field& field, std::span<const Field> fields) : field_(field), fields_(fields) {}

    std::uint32_t number(PyObject* o, std::size_t row) {
        if (!PyUnicode_Check(o)) refuse(o, row, field_.kind == Kind::tags ? "tags that are str" : "str or None");
        Py_ssize_t size = 0;
        const char* bytes = PyUnicode_AsUTF8AndSize(o, &size);
        if (bytes == nullptr) {
            PyErr_Clear();
            throw Error(ErrorKind::value, at(row) + " holds half of a surrogate pair, which UTF-8 cannot store");
        }
        const std::string_view text(bytes, static_cast<std::size_t>(size));
        const auto [place, is_new] = numbers_.try_emplace(text, static_cast<std::uint32_t>(texts.size()));
        if (is_new) {
            if (text.size() > kMaxTextBytes) {
                throw Error(ErrorKind::value, at(row) + " has " + std::to_string(text.size()) + " bytes, at most " +
                                                  std::to_string(kMaxTextBytes) + " are allowed");
            }
            texts.push_back(text);
        }
        return place->second;
    }
    [[noreturn]] void refuse(PyObject* o, std::size_t row, const char* expected) const {
        throw Error(ErrorKind::dtype, at(row) + " is of type " + Py_TYPE(o)->tp_name + ", but the column is " +
                                          to_string(field_.kind) + ": expected " + expected + "; the columns are " +
                                          list_fields(fields_));
    }

    std::vector<std::string_view> texts;

private:
    std::string at(std::size_t row) const { return "columns: row " + std::to_string(row) + " of '" + field_.name + "'"; }

    const Field& field_;
    std::span<const Field> fields_;
    std::unordered_map<std::string_view, std::uint32_t> numbers_;
};

Cells to_texts(const py::list& values, const Field& field, std::span<const Field> fields) {
    Texts texts(field, fields);
    TextCells out;
    out.codes.reserve(values.size());
    for (std::size_t row = 0; row < values.size(); ++row) {
        PyObject* o = PyList_GET_ITEM(values.ptr(), static_cast<Py_ssize_t>(row));
        out.codes.push_back(is_null(o) ? kNullCode : texts.number(o, row));
    }
    out.texts = std::move(texts.texts);
    return out;
}

Cells to_tags(const py::list& values, const Field& field, std::span<const Field> fields) {
    Texts texts(field, fields);
    TagCells out;
    out.offsets.push_back(0);
    for (std::size_t row = 0; row < values.size(); ++row) {
        PyObject* o = PyList_GET_ITEM(values.ptr(), static_cast<Py_ssize_t>(row));
        out.nulls.push_back(is_null(o) ? 1 : 0);
        if (!is_null(o)) {
            if (!PyList_Check(o) && !PyTuple_Check(o)) texts.refuse(o, row, "a list of str, or None");
            const std::size_t begin = out.codes.size();
            for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(o); ++i) {
                const std::uint32_t code = texts.number(PySequence_Fast_GET_ITEM(o, i), row);
                if (std::find(out.codes.begin() + static_cast<std::ptrdiff_t>(begin), out.codes.end(), code) == out.codes.end()) {
                    out.codes.push_back(code);
                }
            }
        }
        out.offsets.push_back(out.codes.size());
    }
    out.texts = std::move(texts.texts);
    return out;
}

Cells to_bools(const Array<std::uint8_t>& values) {
    TextCells out{{"false", "true"}, {}, nullptr};
    out.codes.reserve(static_cast<std::size_t>(values.size()));
    for (py::ssize_t i = 0; i < values.size(); ++i) {
        out.codes.push_back(values.data()[i] <= 1 ? values.data()[i] : kNullCode);
    }
    return out;
}

Cells to_integers(const py::tuple& cells) {
    const auto values = cells[0].cast<Array<std::int64_t>>();
    NumberCells<std::int64_t> out;
    out.values.assign(values.data(), values.data() + values.size());
    if (!cells[1].is_none()) {
        const auto nulls = cells[1].cast<Array<std::uint8_t>>();
        if (nulls.size() != values.size()) throw Error(ErrorKind::shape, "columns: as many nulls as values are needed");
        out.nulls.assign(nulls.data(), nulls.data() + nulls.size());
    }
    if (!cells[2].is_none()) out.zone = cells[2].cast<bool>() ? Zone::utc : Zone::none;
    return out;
}

Cells to_floats(const Array<double>& values) {
    NumberCells<double> out;
    out.values.assign(values.data(), values.data() + values.size());
    return out;
}

template <class T>
py::array_t<T> copy(const std::vector<T>& v) {
    return py::array_t<T>(static_cast<py::ssize_t>(v.size()), v.data());
}

py::object texts_to_python(const TextCells& cells, bool booleans) {
    if (booleans) {
        std::vector<std::uint8_t> out;
        for (const std::uint32_t code : cells.codes) {
            out.push_back(code == kNullCode ? std::uint8_t{255} : static_cast<std::uint8_t>(cells.texts[code] == "true"));
        }
        return copy(out);
    }
    py::list out(cells.codes.size());
    std::vector<py::str> texts(cells.texts.begin(), cells.texts.end());
    for (std::size_t i = 0; i < cells.codes.size(); ++i) {
        out[i] = cells.codes[i] == kNullCode ? py::object(py::none()) : py::object(texts[cells.codes[i]]);
    }
    return out;
}

py::object tags_to_python(const TagCells& cells) {
    std::vector<py::str> texts(cells.texts.begin(), cells.texts.end());
    py::list out(cells.nulls.size());
    for (std::size_t i = 0; i < cells.nulls.size(); ++i) {
        if (cells.nulls[i] != 0) {
            out[i] = py::none();
            continue;
        }
        py::list tags;
        for (std::size_t j = cells.offsets[i]; j < cells.offsets[i + 1]; ++j) tags.append(texts[cells.codes[j]]);
        out[i] = tags;
    }
    return out;
}

// None, bool, int, float, str; ("big", floor, ceil), ("time", micros, zoned), ("text", str, micros, zoned).
Literal to_literal(const py::handle& value) {
    if (value.is_none()) return Null{};
    if (py::isinstance<py::bool_>(value)) return value.cast<bool>();
    if (py::isinstance<py::int_>(value)) return Number::of(value.cast<std::int64_t>());
    if (py::isinstance<py::float_>(value)) return Number::of(value.cast<double>());
    if (py::isinstance<py::str>(value)) return Text{value.cast<std::string>(), std::nullopt};
    const auto parts = value.cast<py::tuple>();
    const auto what = parts[0].cast<std::string>();
    if (what == "big") return Number{std::nullopt, parts[1].cast<double>(), parts[2].cast<double>()};
    if (what == "time") return Time{parts[1].cast<std::int64_t>(), parts[2].cast<bool>()};
    return Text{parts[1].cast<std::string>(), Time{parts[2].cast<std::int64_t>(), parts[3].cast<bool>()}};
}

// A value as Python has it: most of them without a call; `convert` (residua._literals.as_literal) knows the others.
Literal literal_of(PyObject* o, const py::function& convert) {
    constexpr Py_ssize_t kTimeLength = 10;  // of 2024-05-31, the shortest text that spells a time
    if (PyBool_Check(o)) return o == Py_True;
    if (PyLong_CheckExact(o)) {
        int overflow = 0;
        const long long value = PyLong_AsLongLongAndOverflow(o, &overflow);
        if (overflow == 0) return Number::of(static_cast<std::int64_t>(value));
    } else if (PyFloat_CheckExact(o)) {
        const double value = PyFloat_AS_DOUBLE(o);
        if (!std::isnan(value)) return Number::of(value);
    } else if (PyUnicode_CheckExact(o) && (PyUnicode_GET_LENGTH(o) < kTimeLength || PyUnicode_READ_CHAR(o, 4) != '-')) {
        Py_ssize_t size = 0;
        if (const char* bytes = PyUnicode_AsUTF8AndSize(o, &size)) return Text{std::string(bytes, static_cast<std::size_t>(size)), std::nullopt};
        PyErr_Clear();
    }
    return to_literal(convert(py::reinterpret_borrow<py::object>(o)));
}

ExprPtr condition_on(std::string column, const std::string& op, const py::list& values, const py::function& convert) {
    constexpr Op kOps[] = {Op::equal,   Op::not_equal, Op::less,         Op::at_most,      Op::more,        Op::at_least,
                           Op::between, Op::is_in,     Op::contains_any, Op::contains_all, Op::starts_with, Op::is_null};
    std::vector<Literal> literals;
    literals.reserve(values.size());
    for (const auto& value : values) literals.push_back(literal_of(value.ptr(), convert));
    for (const Op known : kOps) {
        if (op == to_string(known)) return Expr::condition_on(std::move(column), known, std::move(literals));
    }
    return Expr::condition_on(std::move(column), Op::is_true);
}

void register_table(py::module_& m) {
    using SharedSelection = std::shared_ptr<Selection>;
    py::class_<Selection, SharedSelection>(m, "Selection")
        .def_readonly("count", &Selection::count)
        .def("mask", [](const Selection& s) {
            py::array_t<bool> out(static_cast<py::ssize_t>(s.rows.size()));
            for (std::size_t i = 0; i < s.rows.size(); ++i) out.mutable_data()[i] = s.rows.test(i);
            return out;
        });

    const auto change = [](Columns& t, const std::vector<std::uint32_t>& rows, std::size_t n_new, const py::object& cells) {
        Columns::Batch batch = to_batch(cells, t.fields());
        if (batch.empty()) batch.resize(t.fields().size());
        for (const std::uint32_t row : rows) {
            if (row >= t.rows() + n_new) throw Error(ErrorKind::out_of_range, "row " + std::to_string(row) + " is not in the table");
        }
        t.prepare(batch, rows, n_new);
        t.commit(batch, rows, n_new);
    };
    py::class_<Columns>(m, "Columns")
        .def(py::init([](const std::vector<std::pair<std::string, std::string>>& fields) { return Columns(to_fields(fields)); }),
             py::arg("fields"))
        .def_property_readonly("fields", [](const Columns& t) { return fields_to_python(t.fields()); })
        .def("__len__", &Columns::rows)
        .def("append",
             [change](Columns& t, std::size_t n, const py::object& cells) {
                 std::vector<std::uint32_t> rows(n);
                 for (std::size_t i = 0; i < n; ++i) rows[i] = static_cast<std::uint32_t>(t.rows() + i);
                 change(t, rows, n, cells);
             },
             py::arg("n"), py::arg("cells"))
        .def("put", [change](Columns& t, const std::vector<std::uint32_t>& rows, std::size_t n_new,
                             const py::object& cells) { change(t, rows, n_new, cells); },
             py::arg("rows"), py::arg("n_new"), py::arg("cells"))
        .def("compact", [](Columns& t, const std::vector<std::uint32_t>& keep) { t.compact(keep); }, py::arg("keep"))
        .def("read", [](const Columns& t, const std::vector<std::uint32_t>& rows) {
                 return batch_to_python(t.read(rows), t.fields());
             }, py::arg("rows"))
        .def("select", [](const Columns& t, const std::shared_ptr<Expr>& expr) {
                 py::gil_scoped_release release;
                 return std::const_pointer_cast<Selection>(t.select(*expr, Bitset()));
             }, py::arg("expr"))
        .def("forget_results", &Columns::forget_results)
        .def_property_readonly("memory_bytes", &Columns::memory_bytes)
        .def_property_readonly("cache_bytes", &Columns::cache_bytes)
        .def("to_bytes", [](const Columns& t) {
            store::Writer writer("columns");
            t.save(writer);
            const auto bytes = writer.to_bytes();
            return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        })
        .def_static("from_bytes", [](const py::bytes& data, std::size_t rows) {
            const auto view = static_cast<std::string_view>(data);
            const auto* p = reinterpret_cast<const std::uint8_t*>(view.data());
            return Columns::load(store::Reader::from_bytes({p, view.size()}), rows);
        }, py::arg("data"), py::arg("rows"));
}

}  // namespace

std::vector<Field> to_fields(const std::vector<std::pair<std::string, std::string>>& fields) {
    std::vector<Field> out;
    for (const auto& [name, kind] : fields) out.push_back({name, parse_kind(kind), Zone::unknown});
    return out;
}

py::list fields_to_python(std::span<const Field> fields) {
    py::list out;
    for (const Field& f : fields) out.append(py::make_tuple(f.name, to_string(f.kind)));
    return out;
}

Columns::Batch to_batch(const py::object& cells, std::span<const Field> fields) {
    Columns::Batch out;
    if (cells.is_none()) return out;
    const auto items = cells.cast<py::list>();
    if (items.size() != fields.size()) throw Error(ErrorKind::shape, "columns: cells for every column are needed");
    for (std::size_t c = 0; c < fields.size(); ++c) {
        const py::object item = items[c];
        out.emplace_back();
        if (item.is_none()) continue;
        switch (fields[c].kind) {
            case Kind::integer:
            case Kind::datetime: out.back() = to_integers(item.cast<py::tuple>()); break;
            case Kind::real: out.back() = to_floats(item.cast<Array<double>>()); break;
            case Kind::boolean: out.back() = to_bools(item.cast<Array<std::uint8_t>>()); break;
            case Kind::tags: out.back() = to_tags(item.cast<py::list>(), fields[c], fields); break;
            case Kind::category:
            case Kind::text: out.back() = to_texts(item.cast<py::list>(), fields[c], fields); break;
        }
    }
    return out;
}

py::list batch_to_python(const Columns::Batch& batch, std::span<const Field> fields) {
    py::list out;
    for (std::size_t c = 0; c < batch.size(); ++c) {
        if (const auto* whole = std::get_if<NumberCells<std::int64_t>>(&batch[c])) {
            py::object zoned = py::none();
            if (whole->zone != Zone::unknown) zoned = py::bool_(whole->zone == Zone::utc);
            out.append(py::make_tuple(copy(whole->values), copy(whole->nulls), zoned));
        } else if (const auto* real = std::get_if<NumberCells<double>>(&batch[c])) {
            out.append(copy(real->values));
        } else if (const auto* texts = std::get_if<TextCells>(&batch[c])) {
            out.append(texts_to_python(*texts, fields[c].kind == Kind::boolean));
        } else if (const auto* tags = std::get_if<TagCells>(&batch[c])) {
            out.append(tags_to_python(*tags));
        }
    }
    return out;
}

void register_columns(py::module_& m) {
    py::module_ f = m.def_submodule("columns", "Columns and filter expressions; private.");
    py::class_<Expr, std::shared_ptr<Expr>>(f, "Expr")
        .def_readonly("column", &Expr::column)
        .def_property_readonly("depth", [](const Expr& e) { return e.depth; });
    const auto shared = [](const ExprPtr& e) { return std::const_pointer_cast<Expr>(e); };
    f.def("condition", [shared](std::string column, const std::string& op, const py::list& values, const py::function& convert) {
              return shared(condition_on(std::move(column), op, values, convert));
          }, py::arg("column"), py::arg("op"), py::arg("values"), py::arg("convert"));
    f.def("all_of", [shared](const std::shared_ptr<Expr>& a, const std::shared_ptr<Expr>& b) { return shared(Expr::all_of(a, b)); },
          py::arg("a"), py::arg("b"));
    f.def("any_of", [shared](const std::shared_ptr<Expr>& a, const std::shared_ptr<Expr>& b) { return shared(Expr::any_of(a, b)); },
          py::arg("a"), py::arg("b"));
    f.def("not_of", [shared](const std::shared_ptr<Expr>& a) { return shared(Expr::not_of(a)); }, py::arg("a"));
    f.attr("MAX_TEXT_BYTES") = kMaxTextBytes;
    register_table(f);
}

}  // namespace residua::bindings
