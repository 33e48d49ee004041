// SPDX-License-Identifier: Apache-2.0
// The parts of the module residua._cuda, beside cuda_module.cpp itself.
#pragma once

#include <pybind11/pybind11.h>

namespace residua::bindings {

void register_cuda_arrays(pybind11::module_& m);
void register_cuda_multivector(pybind11::module_& m);
void register_cuda_training(pybind11::module_& m);

}  // namespace residua::bindings
