// SPDX-License-Identifier: Apache-2.0
// Hashing of ids into open-addressing tables of row numbers.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/checksum.hpp"

namespace residua::store {

inline constexpr std::uint32_t kEmptySlot = 0xFFFFFFFFu;  // above kMaxRows

// Slots for n entries: a power of two, at most three quarters full.
constexpr std::size_t table_size(std::size_t n) { return std::bit_ceil(n + n / 3 + 2); }

// Finaliser of MurmurHash3: every bit of the id reaches every bit of the hash.
constexpr std::uint64_t hash_id(std::int64_t id) noexcept {
    auto h = static_cast<std::uint64_t>(id);
    h = (h ^ (h >> 33)) * 0xFF51AFD7ED558CCDull;
    h = (h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53ull;
    return h ^ (h >> 33);
}

inline std::uint64_t hash_id(std::string_view id) noexcept { return xxh64(id.data(), id.size()); }

}  // namespace residua::store
