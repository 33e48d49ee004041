// SPDX-License-Identifier: Apache-2.0
// The native module residua._core: private; the public names live in python/residua.
#include <pybind11/pybind11.h>

#include "bindings/register.hpp"

#ifndef RESIDUA_VERSION
#define RESIDUA_VERSION "0+unknown"
#endif

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
    m.attr("__version__") = RESIDUA_VERSION;
    m.attr("compiler") = __VERSION__;
    residua::bindings::register_errors(m);
    residua::bindings::register_kernels(m);
    residua::bindings::register_store(m);
    residua::bindings::register_training(m);
    residua::bindings::register_codecs(m);
    residua::bindings::register_columns(m);
    residua::bindings::register_index(m);
    residua::bindings::register_ivf_index(m);
    residua::bindings::register_hnsw_index(m);
    residua::bindings::register_embedding_table(m);
    residua::bindings::register_multivector(m);
    residua::bindings::register_files(m);
    residua::bindings::register_exact_search(m);
}
