// SPDX-License-Identifier: Apache-2.0
// Distinct texts, numbered in order of appearance.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/container.hpp"

namespace residua::filter {

inline constexpr std::size_t kMaxTextBytes = 65535;

class Dictionary {
public:
    std::size_t size() const { return ends_.size(); }
    std::string_view operator[](std::size_t code) const {
        const std::uint64_t begin = code == 0 ? 0 : ends_[code - 1];
        return {bytes_.data() + begin, static_cast<std::size_t>(ends_[code] - begin)};
    }
    std::optional<std::uint32_t> find(std::string_view text) const;
    // How many of some distinct texts are not here.
    std::size_t count_new(std::span<const std::string_view> texts) const;
    // The number of a text, which is added where it is new. Throws value for one over kMaxTextBytes.
    std::uint32_t add(std::string_view text);

    std::size_t memory_bytes() const;

    // Sections "<prefix>.texts" and "<prefix>.ends". The Writer shows this until it is written.
    void save(store::Writer& writer, const std::string& prefix) const;
    static Dictionary load(const store::Reader& reader, const std::string& prefix);

private:
    std::size_t slot_of(std::string_view text) const;  // of the text, or where it would go
    void grow_table();

    std::vector<char> bytes_;
    std::vector<std::uint64_t> ends_;
    std::vector<std::uint32_t> table_;  // open addressing, a power of two, linear probing
};

// Whether bytes are UTF-8 as Python decodes it: shortest forms, no surrogates.
bool is_utf8(std::string_view bytes);

}  // namespace residua::filter
