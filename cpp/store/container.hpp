// SPDX-License-Identifier: Apache-2.0
// The one file format of codecs and indexes: named, checksummed, 64-byte aligned sections, and a
// section "meta" of small typed values. docs/format.md specifies every byte.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "core/aligned.hpp"
#include "core/error.hpp"

namespace residua::store {

inline constexpr std::uint16_t kFormatMajor = 1;
inline constexpr std::uint16_t kFormatMinor = 0;
inline constexpr std::size_t kMaxNameBytes = 40;    // prefixes of nested containers included
inline constexpr std::size_t kMaxSections = 4096;

using MetaValue = std::variant<std::int64_t, double, std::string, std::vector<std::uint8_t>>;
using Meta = std::map<std::string, MetaValue, std::less<>>;

// Collects sections, then writes them in one go. Equal content gives equal bytes.
class Writer {
public:
    explicit Writer(std::string kind);

    // Shows `bytes` bytes that must live, unchanged, until the container is written.
    void put(std::string name, const void* data, std::size_t bytes);
    template <class T>
        requires std::is_trivially_copyable_v<T>
    void put(std::string name, std::span<const T> values) {
        put(std::move(name), values.data(), values.size_bytes());
    }
    // Takes bytes over, for what is built while saving.
    void put_owned(std::string name, std::vector<std::uint8_t> bytes);
    template <class T>
        requires std::is_trivially_copyable_v<T>
    void put_copy(std::string name, std::span<const T> values) {
        const auto* p = reinterpret_cast<const std::uint8_t*>(values.data());
        put_owned(std::move(name), {p, p + values.size_bytes()});
    }

    // Small typed values, kept in section "meta" in ascending order of key.
    void put_int(std::string key, std::int64_t value);
    void put_double(std::string key, double value);
    void put_string(std::string key, std::string value);
    void put_bytes(std::string key, std::vector<std::uint8_t> value);

    // Adds every section of `inner` as "prefix.name", its meta (with its kind) as "prefix.meta".
    void nest(const std::string& prefix, const Writer& inner);

    const std::string& kind() const { return kind_; }

    std::vector<std::uint8_t> to_bytes() const;

    // Replaces the file at `path` as one step: a reader sees the old file or the new one, also after
    // a crash. Throws ErrorKind::io and leaves the old file as it was.
    void write_file(const std::string& path) const;

private:
    struct Part {
        std::string name;
        const void* data;
        std::size_t bytes;
        std::shared_ptr<const std::vector<std::uint8_t>> owned;
    };
    void add(Part part);
    void set(std::string key, MetaValue value);
    std::vector<Part> all_parts() const;  // "meta" first

    std::string kind_;
    Meta meta_;
    std::vector<Part> parts_;
};

enum class Verify : std::uint8_t {
    quick,  // mapped files: header, section table, padding, and sections up to 64 KiB
    full,   // every byte
};

struct OpenOptions {
    bool mmap = false;              // without it the file is read and everything is verified
    Verify verify = Verify::quick;
};

// An opened container. Cheap to copy; spans stay valid while a Reader or a keep_alive() lives. Every
// accessor throws ErrorKind::corrupt_file, naming section and key, when the file does not hold what
// is asked for.
class Reader {
public:
    static Reader open(const std::string& path, OpenOptions options = {});
    static Reader from_bytes(std::span<const std::uint8_t> bytes);

    const std::string& kind() const;
    std::uint16_t version_major() const;
    std::uint16_t version_minor() const;
    bool is_mapped() const;
    const std::string& path() const;  // "<bytes>" for from_bytes

    // What is in this (nested) container, without the prefix, in file order.
    std::vector<std::string> names() const;
    bool has(std::string_view name) const;
    // Starts at a multiple of 64 bytes, in the file and in memory.
    std::span<const std::byte> section(std::string_view name) const;
    template <class T>
        requires std::is_trivially_copyable_v<T>
    std::span<const T> array(std::string_view name) const {
        const auto bytes = section(name);
        check_multiple(name, bytes.size(), sizeof(T));
        return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
    }
    // The same, of exactly `count` elements.
    template <class T>
        requires std::is_trivially_copyable_v<T>
    std::span<const T> array(std::string_view name, std::size_t count) const {
        const auto values = array<T>(name);
        check_count(name, values.size(), count);
        return values;
    }
    // Compares the checksum of a section that a quick open has left alone.
    void verify(std::string_view name) const;

    bool has_key(std::string_view key) const;
    std::int64_t get_int(std::string_view key) const;
    // The same, within [low, high].
    std::int64_t get_int(std::string_view key, std::int64_t low, std::int64_t high) const;
    double get_double(std::string_view key) const;
    const std::string& get_string(std::string_view key) const;
    const std::vector<std::uint8_t>& get_bytes(std::string_view key) const;

    bool has_nested(std::string_view prefix) const;
    Reader nested(std::string_view prefix) const;

    // Owner of one section's memory (its heap block, or the whole mapping), for spans that live on.
    std::shared_ptr<const void> keep_alive(std::string_view name) const;

    // Throws ErrorKind::corrupt_file: "<path>: section 'name': what".
    [[noreturn]] void fail(std::string_view name, const std::string& what) const;

private:
    struct Image;
    struct Section;
    Reader(std::shared_ptr<const Image> image, std::string prefix);
    const Section& at(std::string_view name) const;
    void check_multiple(std::string_view name, std::size_t bytes, std::size_t element) const;
    void check_count(std::string_view name, std::size_t count, std::size_t expected) const;
    template <class T>
    const T& typed(std::string_view key, const char* expected) const;

    std::shared_ptr<const Image> image_;
    std::string prefix_;  // "" or "a." or "a.b."
    std::shared_ptr<const Meta> meta_;
};

}  // namespace residua::store
