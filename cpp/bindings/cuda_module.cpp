// SPDX-License-Identifier: Apache-2.0
// The native module residua._cuda: private; python/residua/cuda.py says what of it is public. residua._core comes
// first: it registers the classes that those of this module derive from.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/cuda_arrays.hpp"
#include "bindings/cuda_register.hpp"
#include "bindings/register.hpp"
#include "cuda/index_device.hpp"
#include "cuda/shared_context.hpp"

#ifndef RESIDUA_VERSION
#define RESIDUA_VERSION "0+unknown"
#endif

namespace residua::bindings {
namespace {

using cuda::IndexDevice;
using cuda::SharedContext;

py::dict info_of(const cuda::DeviceInfo& info) {
    py::dict d;
    d["name"] = info.name;
    d["compute_capability"] = py::make_tuple(info.major, info.minor);
    d["multiprocessors"] = info.multiprocessors;
    d["memory_bytes"] = info.memory_bytes;
    d["free_bytes"] = info.free_bytes;
    d["l2_bytes"] = info.l2_bytes;
    d["shared_bytes"] = info.shared_bytes;
    return d;
}

void register_devices(py::module_& m) {
    m.def("is_emulated", &cuda::is_emulated);
    m.def("device_count", [] {
        std::string reason;
        const int n = without_gil([&] { return cuda::device_count(&reason); });
        return py::make_tuple(n, reason);
    });
    m.def("device_info",
          [](int device) {
              return info_of(without_gil([&] {
                  const cuda::KeptDevice kept;
                  return cuda::device_info(device);
              }));
          },
          py::arg("device"));
    py::class_<SharedContext, std::shared_ptr<SharedContext>>(m, "Context")
        .def(py::init([](int device, std::size_t memory_limit, cuda::StreamHandle stream) {
                 return without_gil([&] { return std::make_shared<SharedContext>(device, memory_limit, stream); });
             }),
             py::arg("device"), py::arg("memory_limit"), py::arg("stream"))
        .def_property_readonly("device", &SharedContext::device)
        .def_property_readonly("stream", &SharedContext::stream)
        .def_property_readonly("memory_limit", &SharedContext::limit)
        .def_property_readonly("used",
                               [](SharedContext& c) {
                                   return without_gil([&] { return c.use([](cuda::Context& context) { return context.used(); }); });
                               })
        .def_property_readonly("peak",
                               [](SharedContext& c) {
                                   return without_gil([&] { return c.use([](cuda::Context& context) { return context.peak(); }); });
                               })
        .def("reset_peak", [](SharedContext& c) { without_gil([&] { c.use([](cuda::Context& context) { context.reset_peak(); }); }); });
}

}  // namespace
}  // namespace residua::bindings

PYBIND11_MODULE(_cuda, m, pybind11::mod_gil_not_used()) {
    namespace py = pybind11;
    using namespace residua::bindings;
    py::module_::import("residua._core");
    m.attr("__version__") = RESIDUA_VERSION;
    register_errors(m);
    register_devices(m);
    register_cuda_arrays(m);
    register_cuda_multivector(m);
    register_cuda_training(m);
    py::class_<IndexDevice, residua::index::CodeDevice, std::shared_ptr<IndexDevice>>(m, "IndexDevice")
        .def(py::init([](std::shared_ptr<SharedContext> context) {
                 return std::shared_ptr<IndexDevice>(new IndexDevice(std::move(context)), &delete_without_gil<IndexDevice>);
             }),
             py::arg("context"));
}
