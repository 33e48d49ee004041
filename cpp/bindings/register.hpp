// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>

namespace residua::bindings {

void register_errors(pybind11::module_& m);
void register_kernels(pybind11::module_& m);
void register_store(pybind11::module_& m);
void register_columns(pybind11::module_& m);
void register_training(pybind11::module_& m);
void register_codecs(pybind11::module_& m);
void register_index(pybind11::module_& m);
void register_ivf_index(pybind11::module_& m);
void register_hnsw_index(pybind11::module_& m);
void register_embedding_table(pybind11::module_& m);
void register_multivector(pybind11::module_& m);
void register_files(pybind11::module_& m);
void register_bit_kernels(pybind11::module_& kernels);
void register_plane_kernels(pybind11::module_& kernels);
void register_set_kernels(pybind11::module_& kernels);
void register_byte_kernels(pybind11::module_& kernels);
void register_lookup_kernels(pybind11::module_& kernels);
void register_float_kernels(pybind11::module_& k);
void register_exact_search(pybind11::module_& m);

}  // namespace residua::bindings
