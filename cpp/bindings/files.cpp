// SPDX-License-Identifier: Apache-2.0
// residua._core.load, which knows every kind of file, and files that hold several objects under names.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "codec/codec.hpp"
#include "index/embedding_table.hpp"
#include "index/index.hpp"
#include "index/table_index.hpp"
#include "multivector/fd_encoder.hpp"
#include "multivector/token_store.hpp"

namespace residua::bindings {
namespace {

using codec::Codec;
using index::EmbeddingTable;
using index::TableIndex;
using multivector::FdEncoder;
using multivector::TokenStore;

constexpr const char* kArrayKind = "array";
constexpr const char* kPartsKey = "parts";      // names of a file of several objects, each followed by a line feed
constexpr const char* kText = "text.";          // prefixes of the keys of what is no object
constexpr const char* kInt = "int.";
constexpr const char* kFloat = "float.";

struct SavedArray {
    std::string dtype;
    std::vector<py::ssize_t> shape;
    std::vector<std::uint8_t> bytes;
};

using Loaded = std::variant<std::shared_ptr<index::Index>, std::shared_ptr<EmbeddingTable>, std::shared_ptr<FdEncoder>,
                            std::shared_ptr<TokenStore>, std::shared_ptr<const Codec>, SavedArray>;

// Of the element types that are saved; 0 for others.
std::size_t element_bytes(const std::string& dtype) {
    static constexpr std::pair<const char*, std::size_t> kTypes[] = {{"<f4", 4}, {"<f8", 8}, {"<i4", 4},
                                                                     {"<i8", 8}, {"|u1", 1}, {"|b1", 1}};
    for (const auto& [name, bytes] : kTypes) {
        if (dtype == name) return bytes;
    }
    return 0;
}

SavedArray read_array(const store::Reader& in) {
    SavedArray a;
    a.dtype = in.get_string("dtype");
    const std::size_t element = element_bytes(a.dtype);
    if (element == 0) in.fail("meta", "holds an array of unknown type");
    const auto shape = in.array<std::int64_t>("shape");
    in.verify("shape");
    const auto data = in.array<std::uint8_t>("data");
    in.verify("data");
    if (shape.size() > 8) in.fail("shape", "has too many axes");
    std::size_t product = 1;
    for (const std::int64_t n : shape) {
        if (n < 0 || (n > 0 && product > (std::size_t{1} << 50) / static_cast<std::size_t>(n))) {
            in.fail("shape", "is impossible");
        }
        product *= static_cast<std::size_t>(n);
        a.shape.push_back(static_cast<py::ssize_t>(n));
    }
    if (product * element != data.size()) in.fail("data", "does not match the shape");
    a.bytes.assign(data.begin(), data.end());
    return a;
}

Loaded read(const store::Reader& in) {
    if (index::holds_index(in)) return index::read_index(in);
    if (in.kind() == EmbeddingTable::kKind) return EmbeddingTable::load(in);
    if (in.kind() == FdEncoder::kKind) return FdEncoder::load(in);
    if (in.kind() == TokenStore::kKind) return TokenStore::load(in);
    return codec::read_codec(in);
}

py::object to_python(Loaded&& loaded) {
    if (auto* a = std::get_if<SavedArray>(&loaded)) {
        py::array out(py::dtype(a->dtype), a->shape);
        if (!a->bytes.empty()) std::copy(a->bytes.begin(), a->bytes.end(), static_cast<std::uint8_t*>(out.mutable_data()));
        return out;
    }
    // An index is cast as the class that it is.
    return std::visit(
        [](auto& native) -> py::object {
            if constexpr (std::is_same_v<std::decay_t<decltype(native)>, SavedArray>) {
                return py::none();
            } else {
                return py::cast(native);
            }
        },
        loaded);
}

store::Reader open(const std::string& path, bool mmap, const std::string& verify) {
    store::OpenOptions options;
    options.mmap = mmap;
    options.verify = verify == "full" ? store::Verify::full : store::Verify::quick;
    return store::Reader::open(path, options);
}

// --- Files of several objects ---

struct Part {
    std::string name;
    const void* object = nullptr;  // null for what has no locks
    std::string kind;
    // Shows the object, until what it returns is gone.
    std::function<std::shared_ptr<const void>(store::Writer&)> write;
};

void check_name(const std::string& name) {
    const bool fine = !name.empty() && name.size() <= 16 && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    });
    if (!fine) throw Error(ErrorKind::value, "names of parts are 1 to 16 characters of a-z, 0-9 and _, got '" + name + "'");
}

Part array_part(const py::array& given) {
    const py::array a = py::module_::import("numpy").attr("ascontiguousarray")(given).cast<py::array>();
    SavedArray saved;
    saved.dtype = a.dtype().attr("str").cast<std::string>();
    if (element_bytes(saved.dtype) == 0) throw Error(ErrorKind::dtype, "arrays of dtype " + saved.dtype + " are not saved");
    std::vector<std::int64_t> shape(given.shape(), given.shape() + given.ndim());
    const auto* bytes = static_cast<const std::uint8_t*>(a.data());
    saved.bytes.assign(bytes, bytes + a.nbytes());
    Part part;
    part.kind = kArrayKind;
    part.write = [saved = std::move(saved), shape = std::move(shape)](store::Writer& out) {
        out.put_string("dtype", saved.dtype);
        out.put_copy("shape", std::span<const std::int64_t>(shape));
        out.put_copy("data", std::span<const std::uint8_t>(saved.bytes));
        return std::shared_ptr<const void>();
    };
    return part;
}

template <class T>
Part part_of(std::shared_ptr<T> native, std::string kind) {
    Part part;
    part.object = native.get();
    part.kind = std::move(kind);
    part.write = [native](store::Writer& out) -> std::shared_ptr<const void> {
        if constexpr (std::is_void_v<decltype(native->write(out))>) {
            native->write(out);
            return nullptr;
        } else {
            return native->write(out);
        }
    };
    return part;
}

// Nothing but strings and numbers, which go to `out` at once, has no part.
std::optional<Part> to_part(const std::string& name, const py::handle& value, store::Writer& out) {
    check_name(name);
    if (py::isinstance<py::str>(value)) {
        out.put_string(kText + name, value.cast<std::string>());
        return std::nullopt;
    }
    if (py::isinstance<py::int_>(value)) {
        out.put_int(kInt + name, value.cast<std::int64_t>());
        return std::nullopt;
    }
    if (py::isinstance<py::float_>(value)) {
        out.put_double(kFloat + name, value.cast<double>());
        return std::nullopt;
    }
    std::optional<Part> part;
    if (py::isinstance<TableIndex>(value)) {
        const auto native = value.cast<std::shared_ptr<TableIndex>>();
        part = part_of(native, native->kind());
    } else if (py::isinstance<FdEncoder>(value)) {
        part = part_of(value.cast<std::shared_ptr<FdEncoder>>(), FdEncoder::kKind);
    } else if (py::isinstance<TokenStore>(value)) {
        part = part_of(value.cast<std::shared_ptr<TokenStore>>(), TokenStore::kKind);
    } else if (py::isinstance<Codec>(value)) {
        const auto native = value.cast<std::shared_ptr<Codec>>();
        part = part_of(native, native->kind());
    } else if (py::isinstance<py::array>(value)) {
        part = array_part(py::reinterpret_borrow<py::array>(value));
    } else {
        throw Error(ErrorKind::unsupported, "part '" + name + "' cannot be saved in a file with others");
    }
    part->name = name;
    return part;
}

void save_nested(const std::string& path, const std::string& kind, const py::dict& values) {
    store::Writer out(kind);
    std::vector<Part> parts;
    std::string names;
    for (const auto& [key, value] : values) {
        const auto name = key.cast<std::string>();
        if (auto part = to_part(name, value, out)) parts.push_back(std::move(*part));
        names += name + "\n";
    }
    out.put_string(kPartsKey, names);
    py::gil_scoped_release release;
    // Two threads that save the same objects take their locks in the same order.
    std::vector<const Part*> order;
    for (const Part& part : parts) order.push_back(&part);
    std::sort(order.begin(), order.end(), [](const Part* a, const Part* b) { return std::less<>()(a->object, b->object); });
    std::vector<std::shared_ptr<const void>> held;
    const void* last = nullptr;
    for (const Part* part : order) {
        if (part->object != nullptr && part->object == last) {
            throw Error(ErrorKind::value, "part '" + part->name + "' is given under two names");
        }
        last = part->object;
        store::Writer inner(part->kind);
        held.push_back(part->write(inner));
        out.nest(part->name, inner);
    }
    out.write_file(path);
}

Loaded read_part(const store::Reader& in) {
    if (in.kind() == kArrayKind) return read_array(in);
    return read(in);
}

struct LoadedParts {
    std::string kind;
    std::vector<std::pair<std::string, Loaded>> parts;
    std::vector<std::pair<std::string, std::variant<std::int64_t, double, std::string>>> values;
};

LoadedParts read_parts(const store::Reader& in) {
    LoadedParts out;
    out.kind = in.kind();
    const std::string& names = in.get_string(kPartsKey);
    for (std::size_t at = 0; at < names.size();) {
        const std::size_t end = names.find('\n', at);
        if (end == std::string::npos) in.fail("meta", "does not end the names of its parts");
        const std::string name = names.substr(at, end - at);
        at = end + 1;
        if (in.has_nested(name)) {
            out.parts.emplace_back(name, read_part(in.nested(name)));
            continue;
        }
        if (in.has_key(kText + name)) {
            out.values.emplace_back(name, in.get_string(kText + name));
        } else if (in.has_key(kInt + name)) {
            out.values.emplace_back(name, in.get_int(kInt + name));
        } else if (in.has_key(kFloat + name)) {
            out.values.emplace_back(name, in.get_double(kFloat + name));
        } else {
            in.fail("meta", "names part '" + name + "', which the file does not hold");
        }
    }
    return out;
}

py::dict to_python(LoadedParts&& loaded) {
    py::dict out;
    out["kind"] = loaded.kind;
    for (auto& [name, part] : loaded.parts) out[py::str(name)] = to_python(std::move(part));
    for (auto& [name, value] : loaded.values) out[py::str(name)] = py::cast(value);
    return out;
}

py::tuple load(const std::string& path, bool mmap, const std::string& verify) {
    std::variant<Loaded, LoadedParts> loaded;
    bool metric_is_free = false;
    {
        py::gil_scoped_release release;
        const store::Reader in = open(path, mmap, verify);
        if (in.has_key(kPartsKey)) {
            loaded = read_parts(in);
        } else {
            Loaded one = read(in);
            metric_is_free = std::holds_alternative<std::shared_ptr<const Codec>>(one) &&
                             in.has_key("metric_is_free") && in.get_int("metric_is_free", 0, 1) == 1;
            loaded = std::move(one);
        }
    }
    if (auto* parts = std::get_if<LoadedParts>(&loaded)) return py::make_tuple(to_python(std::move(*parts)), false);
    return py::make_tuple(to_python(std::move(std::get<Loaded>(loaded))), metric_is_free);
}

}  // namespace

void register_files(py::module_& m) {
    m.def("load", &load, py::arg("path"), py::arg("mmap"), py::arg("verify"));
    m.def("save_nested", &save_nested, py::arg("path"), py::arg("kind"), py::arg("parts"));
}

}  // namespace residua::bindings
