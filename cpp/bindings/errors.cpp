// SPDX-License-Identifier: Apache-2.0
// The one mapping from typed C++ errors to Python exceptions. The exception classes themselves are
// defined in python/residua/errors.py, where users read about them.
#include <pybind11/pybind11.h>

#include <cstring>

#include "bindings/register.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"

namespace py = pybind11;

namespace residua::bindings {
namespace {

const char* class_name(ErrorKind kind) {
    switch (kind) {
        case ErrorKind::value: return "InvalidValueError";
        case ErrorKind::shape: return "ShapeError";
        case ErrorKind::dtype: return "DtypeError";
        case ErrorKind::non_finite: return "NonFiniteError";
        case ErrorKind::not_trained: return "NotTrainedError";
        case ErrorKind::duplicate_id: return "DuplicateIdError";
        case ErrorKind::unknown_id: return "UnknownIdError";
        case ErrorKind::out_of_range: return "OutOfRangeError";
        case ErrorKind::corrupt_file: return "CorruptFileError";
        case ErrorKind::unsupported: return "UnsupportedError";
        case ErrorKind::out_of_memory: return "OutOfMemoryError";
        case ErrorKind::io: return "FileError";
    }
    return "ResiduaError";
}

void raise(const Error& e) {
    py::object cls = py::module_::import("residua.errors").attr(class_name(e.kind()));
    // A message may quote bytes of a damaged file or of a path, which need not be UTF-8.
    auto text = py::reinterpret_steal<py::object>(
        PyUnicode_DecodeUTF8(e.what(), static_cast<Py_ssize_t>(std::strlen(e.what())), "replace"));
    if (e.kind() == ErrorKind::io && e.os_errno() != 0) {
        PyErr_SetObject(cls.ptr(), py::make_tuple(e.os_errno(), text).ptr());
    } else {
        PyErr_SetObject(cls.ptr(), text.ptr());
    }
}

bool signal_pending() {
    py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;  // sets the Python error, usually KeyboardInterrupt
}

}  // namespace

void register_errors(py::module_&) {
    set_interrupt_hook(&signal_pending);
    py::register_exception_translator([](std::exception_ptr p) {
        try {
            if (p) std::rethrow_exception(p);
        } catch (const Interrupted&) {
            if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
        } catch (const Error& e) {
            raise(e);
        }
    });
}

}  // namespace residua::bindings
