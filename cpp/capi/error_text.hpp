// SPDX-License-Identifier: Apache-2.0
// Exceptions end here: each becomes a status and this thread's text.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include <residua/residua.h>

#include "core/error.hpp"

namespace residua::capi {

const char* last_text() noexcept;
void set_text(const char* text) noexcept;
residua_status status_of(ErrorKind kind) noexcept;

inline residua_status failed(residua_status status, const char* text) noexcept {
    set_text(text);
    return status;
}

// Runs the body of an interface function.
template <class Body>
residua_status guarded(Body&& body) noexcept {
    try {
        std::forward<Body>(body)();
        return RESIDUA_OK;
    } catch (const Error& e) {
        return failed(status_of(e.kind()), e.what());
    } catch (const std::bad_alloc&) {
        return failed(RESIDUA_OUT_OF_MEMORY, "out of memory");
    } catch (const std::length_error&) {
        return failed(RESIDUA_OUT_OF_MEMORY, "out of memory: the sizes given exceed what can be addressed");
    } catch (const std::exception& e) {
        return failed(RESIDUA_INTERNAL, e.what());
    } catch (...) {
        return failed(RESIDUA_INTERNAL, "an unknown exception");
    }
}

// Throws unless the pointer is there.
inline void need(const void* pointer, const char* name) {
    if (pointer == nullptr) {
        throw Error(ErrorKind::value, std::string(name) + " is NULL, expected a valid pointer");
    }
}

}  // namespace residua::capi
