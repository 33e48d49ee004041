// SPDX-License-Identifier: Apache-2.0
// NumPy arrays as views, and native buffers as NumPy arrays without a copy. The Python layer
// converts and validates user input; what arrives here is C-contiguous and of the exact type. And calls without
// the interpreter's lock.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "core/error.hpp"
#include "core/matrix.hpp"

namespace residua::bindings {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
MatrixView<const T> matrix(const Array<T>& a) {
    if (a.ndim() != 2) throw Error(ErrorKind::shape, "expected a 2-D array, got " + std::to_string(a.ndim()) + "-D");
    return {a.data(), static_cast<std::size_t>(a.shape(0)), static_cast<std::size_t>(a.shape(1))};
}

// For what takes the lock of an index: whoever holds it asks for the interpreter when it looks for Ctrl-C.
template <class Call>
auto without_gil(const Call& call) {
    const py::gil_scoped_release release;
    return call();
}

// The same for a member without arguments.
template <class Of, class Value>
auto getter_without_gil(Value (Of::*get)() const) {
    return [get](const Of& of) { return without_gil([&] { return (of.*get)(); }); };
}

// Moves a vector into a NumPy array that owns it.
template <class Vec>
py::array_t<typename Vec::value_type> to_numpy(Vec&& v, std::vector<py::ssize_t> shape) {
    using T = typename std::decay_t<Vec>::value_type;
    auto* owner = new std::decay_t<Vec>(std::forward<Vec>(v));
    py::capsule free(owner, [](void* p) { delete static_cast<std::decay_t<Vec>*>(p); });
    return py::array_t<T>(std::move(shape), owner->data(), free);
}

}  // namespace residua::bindings
