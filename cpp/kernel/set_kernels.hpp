// SPDX-License-Identifier: Apache-2.0
// Data sheet of the byte-set kernels: which bytes of an array belong to a set. Exact, equal bit for
// bit on every instruction set. No alignment required; nothing outside the array is read.
//
// A set is a table of 32 bytes, so that two shuffles look a byte up: byte x belongs to it when bit
// x / 16 % 8 of table[x / 128 * 16 + x % 16] is set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace residua::kernel {

inline constexpr std::size_t kByteSetBytes = 32;

struct SetKernels {
    // Bit i % 64 of out[i / 64] says whether values[i] is in the set; bits from n on are zero.
    // Writes (n + 63) / 64 words.
    void (*members)(const std::uint8_t* values, std::size_t n, const std::uint8_t* set, std::uint64_t* out);
};

}  // namespace residua::kernel
