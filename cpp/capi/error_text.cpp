// SPDX-License-Identifier: Apache-2.0
#include "capi/error_text.hpp"

#include <string>

namespace residua::capi {
namespace {

thread_local std::string t_text;
thread_local const char* t_shown = "";

}  // namespace

const char* last_text() noexcept { return t_shown; }

void set_text(const char* text) noexcept {
    try {
        t_text = text;
        t_shown = t_text.c_str();
    } catch (...) {
        t_shown = "out of memory while an error was described";
    }
}

residua_status status_of(ErrorKind kind) noexcept {
    switch (kind) {
        case ErrorKind::value:
        case ErrorKind::out_of_range: return RESIDUA_INVALID_VALUE;
        case ErrorKind::shape: return RESIDUA_SHAPE;
        case ErrorKind::dtype: return RESIDUA_DTYPE;
        case ErrorKind::non_finite: return RESIDUA_NON_FINITE;
        case ErrorKind::not_trained: return RESIDUA_NOT_TRAINED;
        case ErrorKind::duplicate_id: return RESIDUA_DUPLICATE_ID;
        case ErrorKind::unknown_id: return RESIDUA_UNKNOWN_ID;
        case ErrorKind::corrupt_file: return RESIDUA_CORRUPT_FILE;
        case ErrorKind::out_of_memory: return RESIDUA_OUT_OF_MEMORY;
        case ErrorKind::unsupported: return RESIDUA_UNSUPPORTED;
        case ErrorKind::io: return RESIDUA_IO;
    }
    return RESIDUA_INTERNAL;
}

}  // namespace residua::capi
