// SPDX-License-Identifier: Apache-2.0
// The byte-set kernels of a named instruction set, for tests and benchmarks.
#include <pybind11/numpy.h>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "kernel/dispatch.hpp"

namespace residua::bindings {
namespace {

py::array_t<std::uint64_t> members(const std::string& isa, const py::array_t<std::uint8_t>& values,
                                   const py::array_t<std::uint8_t>& set) {
    if (set.size() != static_cast<py::ssize_t>(kernel::kByteSetBytes) || values.ndim() != 1) {
        throw Error(ErrorKind::shape, "expected a 1-D array and a set of 32 bytes");
    }
    py::array_t<std::uint64_t> out((values.size() + 63) / 64);
    kernel::by_name(isa).sets.members(values.data(), static_cast<std::size_t>(values.size()), set.data(),
                                      out.mutable_data());
    return out;
}

}  // namespace

void register_set_kernels(py::module_& k) {
    k.def("members", &members, py::arg("isa"), py::arg("values").noconvert(), py::arg("set").noconvert());
}

}  // namespace residua::bindings
