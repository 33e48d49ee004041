// SPDX-License-Identifier: Apache-2.0
// The fixed structures of a container file, as they lie on disk. docs/format.md is their
// specification; Writer and Reader share them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "store/container.hpp"

namespace residua::store {

// Not ASCII, CR LF, end-of-text, LF: a transfer in text mode cannot leave it whole.
inline constexpr std::array<unsigned char, 8> kMagic = {0x89, 'R', 'S', 'D', '\r', '\n', 0x1A, '\n'};

struct FileHeader {
    std::array<unsigned char, 8> magic;
    std::uint16_t major;
    std::uint16_t minor;
    std::uint32_t section_count;
    std::uint64_t file_bytes;
    std::uint64_t table_checksum;
    std::array<unsigned char, 24> reserved;
    std::uint64_t header_checksum;  // of the 56 bytes before it
};
static_assert(sizeof(FileHeader) == 64 && offsetof(FileHeader, header_checksum) == 56);

struct TableEntry {
    std::array<char, kMaxNameBytes> name;  // filled up with zeros
    std::uint64_t offset;
    std::uint64_t bytes;
    std::uint64_t checksum;
};
static_assert(sizeof(TableEntry) == 64);

enum class MetaType : std::uint8_t { integer = 0, real = 1, string = 2, bytes = 3 };

struct MetaEntry {  // followed by the key, then the value
    std::uint8_t type;
    std::uint8_t zero;
    std::uint16_t key_bytes;
    std::uint32_t value_bytes;
};
static_assert(sizeof(MetaEntry) == 8);

inline constexpr char kMetaName[] = "meta";
inline constexpr char kKindKey[] = "kind";

constexpr std::uint64_t align_up(std::uint64_t n) {
    return (n + kCacheLine - 1) / kCacheLine * kCacheLine;
}

constexpr bool is_name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

}  // namespace residua::store
