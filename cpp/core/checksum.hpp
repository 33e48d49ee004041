// SPDX-License-Identifier: Apache-2.0
// XXH64, written from its specification (xxHash fast digest algorithm, version 0.1.1): a 64-bit
// checksum that runs at memory speed. It finds damage; it is no defence against forgery.
#pragma once

#include <cstddef>
#include <cstdint>

namespace residua {

std::uint64_t xxh64(const void* data, std::size_t bytes, std::uint64_t seed = 0) noexcept;

}  // namespace residua
