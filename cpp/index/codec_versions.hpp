// SPDX-License-Identifier: Apache-2.0
// Which codec encoded each row, where an index has had several that queries read alike. Versions are named by
// fingerprint; nothing is kept until a codec is replaced.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "store/container.hpp"

namespace residua::index {

class CodecVersions {
public:
    bool empty() const { return names_.empty(); }
    std::size_t memory_bytes() const { return rows_.capacity(); }

    // Rows that are here, `count` of them, are of `from` where no codec was replaced before.
    void replace(const std::string& from, const std::string& to, std::size_t count) {
        CodecVersions next = *this;
        if (next.empty()) {
            next.names_.push_back(from);
            next.rows_.assign(count, 0);
        }
        const auto found = std::find(next.names_.begin(), next.names_.end(), to);
        if (found == next.names_.end() && next.names_.size() == kMost) {
            throw Error(ErrorKind::unsupported, "an index keeps rows of at most 256 codecs apart");
        }
        next.current_ = static_cast<std::uint8_t>(found - next.names_.begin());
        if (found == next.names_.end()) next.names_.push_back(to);
        *this = std::move(next);
    }

    void reserve(std::size_t n_new) {
        if (!empty()) rows_.reserve(rows_.size() + n_new);
    }
    // Rows that are written now, `n_new` of them behind all others; after reserve(n_new).
    void commit(std::span<const std::uint32_t> rows, std::size_t n_new) {
        if (empty()) return;
        rows_.resize(rows_.size() + n_new);
        for (std::uint32_t r : rows) rows_[r] = current_;
    }
    // Row keep[i] becomes row i.
    void compact(std::span<const std::uint32_t> keep) {
        if (empty()) return;
        for (std::size_t i = 0; i < keep.size(); ++i) rows_[i] = rows_[keep[i]];
        rows_.resize(keep.size());
    }

    const std::string& of(std::uint32_t row) const { return names_[rows_[row]]; }

    void save(store::Writer& out) const {
        if (empty()) return;
        std::string names;
        for (const std::string& name : names_) names += (names.empty() ? "" : " ") + name;
        out.put_string("codec_versions", names);
        out.put<std::uint8_t>("row_versions", rows_);
    }
    static bool stands_in(const store::Reader& in) { return in.has_key("codec_versions"); }
    // current: fingerprint of the codec of the file.
    static CodecVersions load(const store::Reader& in, std::size_t count, const std::string& current) {
        CodecVersions out;
        const std::string& names = in.get_string("codec_versions");
        for (std::size_t begin = 0; begin < names.size();) {
            const std::size_t end = std::min(names.find(' ', begin), names.size());
            out.names_.push_back(names.substr(begin, end - begin));
            begin = end + 1;
        }
        const auto rows = in.array<std::uint8_t>("row_versions", count);
        out.rows_.assign(rows.begin(), rows.end());
        const auto found = std::find(out.names_.begin(), out.names_.end(), current);
        if (found == out.names_.end() || out.names_.size() > kMost) {
            in.fail("meta", "codec_versions does not name the codec");
        }
        out.current_ = static_cast<std::uint8_t>(found - out.names_.begin());
        for (std::uint8_t r : rows) {
            if (r >= out.names_.size()) in.fail("row_versions", "a row of a codec that is not named");
        }
        return out;
    }

private:
    static constexpr std::size_t kMost = 256;
    std::vector<std::string> names_;
    std::vector<std::uint8_t> rows_;
    std::uint8_t current_ = 0;
};

}  // namespace residua::index
