// SPDX-License-Identifier: Apache-2.0
// Structs of the interface that may grow: the caller's first field says how much of one it knows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <type_traits>

#include "core/error.hpp"

namespace residua::capi {

// The size that the caller has set; `oldest` is that of the first version.
template <class T>
std::size_t checked_size(const T* given, std::size_t oldest, const char* name) {
    std::size_t size = 0;
    std::memcpy(&size, given, sizeof size);
    if (size < oldest || size > 4096) {
        throw Error(ErrorKind::value, std::string(name) + ".size is " + std::to_string(size) + ", expected sizeof(" +
                                          name + "), which is " + std::to_string(sizeof(T)) + " in this version");
    }
    return size;
}

// The struct as this version knows it. Fields that an older caller lacks are 0; what a newer caller
// has set, and this version does not know, is refused rather than ignored.
template <class T>
T read_sized(const T* given, std::size_t oldest, const char* name) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::size_t size = checked_size(given, oldest, name);
    const auto* bytes = reinterpret_cast<const unsigned char*>(given);
    for (std::size_t i = sizeof(T); i < size; ++i) {
        if (bytes[i] != 0) {
            throw Error(ErrorKind::unsupported, std::string(name) + " has fields that this version of residua does not know; "
                                                                    "leave them 0 or upgrade the library");
        }
    }
    T out{};
    std::memcpy(&out, given, std::min(size, sizeof(T)));
    return out;
}

// Fills as much of the caller's struct as both sides know; its size field stays.
template <class T>
void write_sized(const T& value, T* out, std::size_t oldest, const char* name) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::size_t size = checked_size(out, oldest, name);
    auto* bytes = reinterpret_cast<unsigned char*>(out);
    const std::size_t known = std::min(size, sizeof(T));
    std::memcpy(bytes + sizeof size, reinterpret_cast<const unsigned char*>(&value) + sizeof size, known - sizeof size);
    std::memset(bytes + known, 0, size - known);
}

}  // namespace residua::capi
