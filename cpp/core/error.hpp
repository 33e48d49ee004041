// SPDX-License-Identifier: Apache-2.0
// Typed errors. Each kind maps to exactly one Python exception (cpp/bindings/errors.cpp) and one C code.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace residua {

enum class ErrorKind {
    value,         // an argument is outside its range
    shape,         // wrong dimension or length
    dtype,         // wrong element type
    non_finite,    // NaN or infinity in vectors
    not_trained,   // a codec is used before fit
    duplicate_id,  // an id is given twice or exists already
    unknown_id,    // an id is not in the index
    out_of_range,  // a row number is not in the table
    corrupt_file,  // a file fails a check
    unsupported,   // a valid request that this object or version cannot serve
    out_of_memory, // a device has no room for what was asked; the host's own is std::bad_alloc
    io,            // the operating system refused; `os_errno` says why
};

class Error : public std::runtime_error {
public:
    Error(ErrorKind kind, const std::string& message, int os_errno = 0)
        : std::runtime_error(message), kind_(kind), os_errno_(os_errno) {}

    ErrorKind kind() const noexcept { return kind_; }
    int os_errno() const noexcept { return os_errno_; }

private:
    ErrorKind kind_;
    int os_errno_;
};

// Thrown out of parallel_for when the interrupt hook asks to stop (Ctrl-C).
class Interrupted : public std::exception {
public:
    const char* what() const noexcept override { return "interrupted"; }
};

}  // namespace residua
