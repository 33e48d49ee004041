// SPDX-License-Identifier: Apache-2.0
#include "bindings/cuda_arrays.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <utility>

#include "bindings/cuda_register.hpp"
#include "bindings/dlpack.hpp"
#include "core/error.hpp"

namespace residua::bindings {
namespace {

using cuda::Context;
using cuda::SharedContext;

struct ElementType {
    const char* name;
    const char* typestr;  // of __cuda_array_interface__, little endian
    dlpack::Type type;
};
constexpr std::array kTypes{
    ElementType{"float32", "<f4", {dlpack::kFloat, 32, 1}}, ElementType{"float16", "<f2", {dlpack::kFloat, 16, 1}},
    ElementType{"float64", "<f8", {dlpack::kFloat, 64, 1}}, ElementType{"bfloat16", "<V2", {dlpack::kBfloat, 16, 1}},
    ElementType{"int8", "|i1", {dlpack::kInt, 8, 1}},       ElementType{"int32", "<i4", {dlpack::kInt, 32, 1}},
    ElementType{"int64", "<i8", {dlpack::kInt, 64, 1}},     ElementType{"uint8", "|u1", {dlpack::kUnsigned, 8, 1}},
    ElementType{"uint32", "<u4", {dlpack::kUnsigned, 32, 1}}, ElementType{"bool", "|b1", {dlpack::kBool, 8, 1}},
};

std::size_t bytes_of(const ElementType& t) { return t.type.bits / 8u; }

template <class Fits>
const ElementType& element_type(const char* name, const std::string& given, Fits fits) {
    const auto found = std::find_if(kTypes.begin(), kTypes.end(), fits);
    if (found != kTypes.end()) return *found;
    throw Error(ErrorKind::dtype, std::string(name) + ": elements of type " + given + " on the device are not accepted; expected float32, "
                                                                                      "float16, bfloat16, float64, int8, …, uint8 or bool");
}

std::vector<std::ptrdiff_t> c_strides(const std::vector<std::size_t>& shape, std::size_t item_bytes) {
    std::vector<std::ptrdiff_t> out(shape.size());
    auto step = static_cast<std::ptrdiff_t>(item_bytes);
    for (std::size_t i = shape.size(); i-- > 0;) {
        out[i] = step;
        step *= static_cast<std::ptrdiff_t>(shape[i]);
    }
    return out;
}

// Let go with the GIL held.
std::shared_ptr<const void> keep(const py::object& object) {
    return {object.inc_ref().ptr(), [](const void* p) {
                const py::gil_scoped_acquire gil;
                py::handle(static_cast<PyObject*>(const_cast<void*>(p))).dec_ref();
            }};
}

bool has(const py::object& object, const char* attribute) { return py::hasattr(py::type::of(object), attribute); }

// (type, number) of __dlpack_device__, or type 0 where there is none.
dlpack::Device dlpack_device(const py::object& array) {
    if (!has(array, "__dlpack__") || !has(array, "__dlpack_device__")) return {0, 0};
    const auto pair = array.attr("__dlpack_device__")().cast<py::tuple>();
    return {py::int_(py::object(pair[0])).cast<std::int32_t>(), pair[1].cast<std::int32_t>()};
}

bool is_cuda(dlpack::Device device) { return device.type == dlpack::kCuda || device.type == dlpack::kCudaManaged; }

void check_device(int device, const SharedContext& context, const char* name) {
    if (device == context.device()) return;
    throw Error(ErrorKind::value, std::string(name) + " is on cuda:" + std::to_string(device) + ", and what it is for on cuda:" +
                                      std::to_string(context.device()) + "; move it there");
}

DeviceView view_of_capsule(const py::object& array, SharedContext& context, const char* name) {
    const py::object object = array.attr("__dlpack__")(py::arg("stream") = static_cast<std::int64_t>(context.stream()));
    auto* managed = static_cast<dlpack::Managed*>(PyCapsule_GetPointer(object.ptr(), "dltensor"));
    if (managed == nullptr) throw py::error_already_set();
    PyCapsule_SetName(object.ptr(), "used_dltensor");
    DeviceView out;
    out.owner = {managed, [](const void* p) {
                     auto* m = static_cast<dlpack::Managed*>(const_cast<void*>(p));
                     const py::gil_scoped_acquire gil;
                     if (m->deleter != nullptr) m->deleter(m);
                 }};
    const dlpack::Tensor& t = managed->tensor;
    const ElementType& type = element_type(name, "DLPack " + std::to_string(t.type.code) + "/" + std::to_string(t.type.bits), [&](const ElementType& e) {
        return e.type.code == t.type.code && e.type.bits == t.type.bits && e.type.lanes == t.type.lanes;
    });
    out.dtype = type.name;
    out.item_bytes = bytes_of(type);
    out.data = static_cast<const std::uint8_t*>(t.data) + t.byte_offset;
    for (std::int32_t i = 0; i < t.n_axes; ++i) out.shape.push_back(static_cast<std::size_t>(t.shape[i]));
    out.strides = c_strides(out.shape, out.item_bytes);
    for (std::int32_t i = 0; i < t.n_axes && t.strides != nullptr; ++i) {
        out.strides[static_cast<std::size_t>(i)] = t.strides[i] * static_cast<std::ptrdiff_t>(out.item_bytes);
    }
    return out;
}

DeviceView view_of_interface(const py::object& array, SharedContext& context, const char* name) {
    const auto interface = array.attr("__cuda_array_interface__").cast<py::dict>();
    const auto typestr = interface["typestr"].cast<std::string>();
    const ElementType& type = element_type(name, typestr, [&](const ElementType& e) { return typestr == e.typestr; });
    if (interface.contains("mask") && !interface["mask"].is_none()) {
        throw Error(ErrorKind::value, std::string(name) + ": masked arrays are not accepted");
    }
    DeviceView out;
    out.dtype = type.name;
    out.item_bytes = bytes_of(type);
    out.data = reinterpret_cast<const void*>(interface["data"].cast<py::tuple>()[0].cast<std::uintptr_t>());
    out.shape = interface["shape"].cast<std::vector<std::size_t>>();
    // Managed memory, and that of no elements, belongs to no device.
    const int device = cuda::device_of(out.data);
    if (device >= 0 && out.size() > 0) check_device(device, context, name);
    out.strides = c_strides(out.shape, out.item_bytes);
    if (interface.contains("strides") && !interface["strides"].is_none()) {
        out.strides = interface["strides"].cast<std::vector<std::ptrdiff_t>>();
    }
    out.owner = keep(array);
    if (interface.contains("stream") && !interface["stream"].is_none()) {
        const auto stream = interface["stream"].cast<cuda::StreamHandle>();
        without_gil([&] { context.use([&](Context& c) { c.wait_for(stream); }); });
    }
    return out;
}

}  // namespace

std::size_t DeviceView::size() const {
    std::size_t n = 1;
    for (const std::size_t side : shape) n *= side;
    return n;
}

bool DeviceView::is_contiguous() const {
    const auto c = c_strides(shape, item_bytes);
    if (size() == 0) return true;
    for (std::size_t i = 0; i < shape.size(); ++i) {
        if (shape[i] != 1 && strides[i] != c[i]) return false;
    }
    return true;
}

bool is_on_device(const py::object& array) {
    if (is_cuda(dlpack_device(array))) return true;
    // Of a tensor of the host the attribute is a property that raises AttributeError.
    return py::hasattr(array, "__cuda_array_interface__");
}

std::optional<DeviceView> view_on_device(const py::object& array, SharedContext& context, const char* name) {
    const dlpack::Device device = dlpack_device(array);
    if (!is_cuda(device)) {
        if (!py::hasattr(array, "__cuda_array_interface__")) return std::nullopt;
        return view_of_interface(array, context, name);
    }
    check_device(device.number, context, name);
    return view_of_capsule(array, context, name);
}

py::array copy_to_host(const DeviceView& view, SharedContext& context) {
    std::size_t span = view.size() == 0 ? 0 : view.item_bytes;
    for (std::size_t i = 0; i < view.shape.size() && span > 0; ++i) {
        if (view.strides[i] < 0) throw Error(ErrorKind::value, "arrays on the device that run backwards are not accepted; make a copy first");
        span += (view.shape[i] - 1) * static_cast<std::size_t>(view.strides[i]);
    }
    auto bytes = std::make_unique<std::vector<std::uint8_t>>(span);
    without_gil([&] { context.use([&](Context& c) { c.copy_out(bytes->data(), view.data, span); }); });
    const py::capsule owner(bytes.get(), [](void* p) { delete static_cast<std::vector<std::uint8_t>*>(p); });
    const std::uint8_t* data = bytes.release()->data();
    const bool bfloat = view.dtype == "bfloat16";
    const py::array shown(py::dtype(bfloat ? "uint16" : view.dtype), std::vector<py::ssize_t>(view.shape.begin(), view.shape.end()),
                          std::vector<py::ssize_t>(view.strides.begin(), view.strides.end()), data, owner);
    if (!bfloat) return shown;
    const py::object wide = shown.attr("astype")("uint32").attr("__lshift__")(py::module_::import("numpy").attr("uint32")(16));
    return wide.attr("view")("float32");
}

OwnedArray::OwnedArray(std::shared_ptr<SharedContext> context, std::vector<std::size_t> shape, std::string dtype, std::size_t item_bytes)
    : context_(std::move(context)), shape_(std::move(shape)), dtype_(std::move(dtype)), item_bytes_(item_bytes), bytes_(item_bytes) {
    for (const std::size_t side : shape_) bytes_ *= side;
    data_ = context_->use([&](Context& c) { return c.allocate(bytes_, "an array"); });
}

OwnedArray::~OwnedArray() {
    try {
        context_->use([&](Context& c) {
            if (lent_) c.synchronize_all();
            c.release(data_);
        });
    } catch (const Error&) {  // the driver is gone already, and the memory with it
    }
}

namespace {

std::shared_ptr<OwnedArray> to_device(std::shared_ptr<SharedContext> context, const py::array& array) {
    const auto source = py::array::ensure(array, py::array::c_style);
    const auto name = py::str(source.dtype().attr("name")).cast<std::string>();
    const ElementType& type = element_type("array", name, [&](const ElementType& e) { return name == e.name; });
    std::vector<std::size_t> shape(source.shape(), source.shape() + source.ndim());
    const void* from = source.data();
    return without_gil([&] {
        std::shared_ptr<OwnedArray> out(new OwnedArray(context, std::move(shape), type.name, bytes_of(type)), &delete_without_gil<OwnedArray>);
        context->use([&](Context& c) { c.copy_in(out->data(), from, out->bytes()); });
        return out;
    });
}

const ElementType& type_of(const OwnedArray& array) {
    return element_type("array", array.dtype(), [&](const ElementType& e) { return array.dtype() == e.name; });
}

py::array to_numpy_array(const std::shared_ptr<OwnedArray>& array) {
    DeviceView view;
    view.data = array->data();
    view.shape = array->shape();
    view.strides = c_strides(view.shape, array->item_bytes());
    view.dtype = array->dtype();
    view.item_bytes = array->item_bytes();
    view.owner = array;
    return copy_to_host(view, array->context());
}

py::dict interface_of(OwnedArray& array) {
    array.lend();
    py::dict d;
    d["shape"] = py::tuple(py::cast(array.shape()));
    d["typestr"] = type_of(array).typestr;
    d["data"] = py::make_tuple(reinterpret_cast<std::uintptr_t>(array.data()), false);
    d["strides"] = py::none();
    d["version"] = 3;
    d["stream"] = array.context().stream() == 0 ? py::object(py::none()) : py::object(py::int_(array.context().stream()));
    return d;
}

// What a capsule of ours points to.
struct Lent {
    dlpack::Managed managed{};
    std::vector<std::int64_t> shape;
    std::shared_ptr<OwnedArray> array;
};

void end_of_capsule(PyObject* capsule) {
    if (PyCapsule_IsValid(capsule, "dltensor") == 0) return;  // somebody took it
    auto* managed = static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule, "dltensor"));
    managed->deleter(managed);
}

// stream: the reader's, as DLPack counts: None or 1 the legacy default stream, -1 none.
py::object dlpack_of(const std::shared_ptr<OwnedArray>& array, const py::object& stream, const py::object&, const py::object& device,
                     const py::object& copy) {
    SharedContext& context = array->context();
    if ((!device.is_none() && !device.equal(py::make_tuple(static_cast<int>(dlpack::kCuda), context.device()))) ||
        (!copy.is_none() && copy.cast<bool>())) {
        throw py::buffer_error("an array on the device is shown where it is; copy it with to_numpy()");
    }
    const auto reader = stream.is_none() ? 1 : stream.cast<std::int64_t>();
    if (reader != -1) {
        without_gil([&] { context.use([&](Context& c) { c.let_wait(static_cast<cuda::StreamHandle>(reader)); }); });
    }
    array->lend();
    auto lent = std::make_unique<Lent>();
    lent->array = array;
    lent->shape.assign(array->shape().begin(), array->shape().end());
    lent->managed.tensor = {array->data(), {dlpack::kCuda, context.device()}, static_cast<std::int32_t>(lent->shape.size()), type_of(*array).type,
                            lent->shape.data(), nullptr, 0};
    lent->managed.context = lent.get();
    lent->managed.deleter = [](dlpack::Managed* m) { delete static_cast<Lent*>(m->context); };
    PyObject* capsule = PyCapsule_New(&lent->managed, "dltensor", &end_of_capsule);
    if (capsule == nullptr) throw py::error_already_set();
    lent.release();
    return py::reinterpret_steal<py::object>(capsule);
}

}  // namespace

void register_cuda_arrays(py::module_& m) {
    py::class_<OwnedArray, std::shared_ptr<OwnedArray>>(m, "Array")
        .def_property_readonly("shape", [](const OwnedArray& a) { return py::tuple(py::cast(a.shape())); })
        .def_property_readonly("dtype", &OwnedArray::dtype)
        .def_property_readonly("nbytes", &OwnedArray::bytes)
        .def_property_readonly("device", [](const OwnedArray& a) { return a.context().device(); })
        .def("to_numpy", &to_numpy_array)
        .def_property_readonly("__cuda_array_interface__", &interface_of)
        .def("__dlpack__", &dlpack_of, py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
             py::arg("dl_device") = py::none(), py::arg("copy") = py::none())
        .def("__dlpack_device__", [](const OwnedArray& a) { return py::make_tuple(static_cast<int>(dlpack::kCuda), a.context().device()); });
    m.def("to_device", &to_device, py::arg("context"), py::arg("array"));
    m.def("is_on_device", &is_on_device, py::arg("array"));
    m.def("to_host",
          [](const py::object& array, SharedContext& context, const char* name) -> py::object {
              const auto view = view_on_device(array, context, name);
              return view ? py::object(copy_to_host(*view, context)) : py::none();
          },
          py::arg("array"), py::arg("context"), py::arg("name"));
}

}  // namespace residua::bindings
