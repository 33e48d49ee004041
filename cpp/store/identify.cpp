// SPDX-License-Identifier: Apache-2.0
#include "store/identify.hpp"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "store/file_layout.hpp"

namespace residua::store {
namespace {

using namespace std::string_view_literals;

struct Known {
    std::string_view start;
    const char* what;
};

constexpr Known kKnown[] = {
    {"version https://git-lfs"sv, "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"},
    {"\x93NUMPY"sv, "a NumPy .npy array; read it with numpy.load"},
    {"PK\x03\x04"sv, "a ZIP archive (a NumPy .npz or a PyTorch checkpoint, perhaps)"},
    {"PK\x05\x06"sv, "an empty ZIP archive"},
    {"\x89HDF\r\n"sv, "an HDF5 file"},
    {"PAR1"sv, "a Parquet file"},
    {"\x1f\x8b"sv, "a gzip-compressed file; decompress it first"},
    {"\x28\xb5\x2f\xfd"sv, "a Zstandard-compressed file; decompress it first"},
    {"SQLite format 3"sv, "an SQLite database"},
};

bool is_pickle(std::string_view s) { return s.size() >= 2 && s[0] == '\x80' && s[1] >= 2 && s[1] <= 5; }

// FAISS writes a four-letter code starting with I, then the dimension as int32.
bool is_faiss(std::string_view s) {
    if (s.size() < 8 || s[0] != 'I') return false;
    std::int32_t dim;
    std::memcpy(&dim, s.data() + 4, sizeof dim);
    const auto letter = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
    return std::all_of(s.begin(), s.begin() + 4, letter) && dim > 0 && dim < (1 << 24);
}

// UTF-8 without control characters; the last character may be cut off.
bool is_text(std::string_view s) {
    int following = 0;
    for (const char c : s) {
        const auto u = static_cast<unsigned char>(c);
        if (following > 0) {
            if ((u & 0xC0) != 0x80) return false;
            --following;
        } else if (u < 0x80) {
            if (u == 0x7F || (u < 0x20 && c != '\n' && c != '\r' && c != '\t' && c != '\f')) return false;
        } else {
            if (u < 0xC2 || u > 0xF4) return false;
            following = u < 0xE0 ? 1 : u < 0xF0 ? 2 : 3;
        }
    }
    return true;
}

}  // namespace

std::string identify(std::span<const unsigned char> start) {
    const std::string_view s(reinterpret_cast<const char*>(start.data()), start.size());
    if (s.empty()) return "the file is empty";
    const std::string_view magic(reinterpret_cast<const char*>(kMagic.data()), kMagic.size());
    const std::string prefix = "not a Residua file but ";
    if (magic.starts_with(s)) return "truncated: only " + std::to_string(s.size()) + " bytes are left";
    if (s.starts_with(magic.substr(0, 4))) {
        return "the signature is damaged, as by a transfer in text mode; copy the file again in binary mode";
    }
    for (const Known& known : kKnown) {
        if (s.starts_with(known.start)) return prefix + known.what;
    }
    if (is_pickle(s)) return prefix + "a Python pickle, which Residua never reads";
    if (is_faiss(s)) return prefix + "a FAISS index; convert it with residua.from_faiss";
    if (is_text(s)) return prefix + "a text file";
    static constexpr char kHex[] = "0123456789abcdef";
    std::string bytes;
    for (const unsigned char c : start.first(std::min<std::size_t>(start.size(), 8))) {
        bytes += {' ', kHex[c >> 4], kHex[c & 15]};
    }
    return "not a Residua file: it begins with" + bytes;
}

}  // namespace residua::store
