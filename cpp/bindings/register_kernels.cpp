// SPDX-License-Identifier: Apache-2.0
// residua._core.kernels: every kernel of every instruction set, for tests, benchmarks and
// rz.show_config(). Each family registers itself (register_*_kernels).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/register.hpp"
#include "core/parallel.hpp"
#include "kernel/dispatch.hpp"

namespace py = pybind11;

namespace residua::bindings {

void register_kernels(py::module_& m) {
    py::module_ k = m.def_submodule("kernels", "Kernels by instruction set; private.");
    k.def("active", [] { return kernel::active().name; });
    k.def("available", [] {
        std::vector<std::string> names;
        for (const auto* t : kernel::available()) names.emplace_back(t->name);
        return names;
    });
    k.def("default_num_threads", &default_num_threads);
    register_bit_kernels(k);
    register_plane_kernels(k);
    register_byte_kernels(k);
    register_lookup_kernels(k);
    register_float_kernels(k);
    register_set_kernels(k);
}

}  // namespace residua::bindings
