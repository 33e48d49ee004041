// SPDX-License-Identifier: Apache-2.0
// Opening a container: nothing in the file is believed before it has been compared with the bounds
// of what is there.
#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "core/checksum.hpp"
#include "store/container.hpp"
#include "store/file_bytes.hpp"
#include "store/file_layout.hpp"
#include "store/identify.hpp"

namespace residua::store {
namespace {

constexpr std::uint64_t kSmallSection = 64 * 1024;

[[noreturn]] void corrupt(const std::string& path, const std::string& where, const std::string& what) {
    throw Error(ErrorKind::corrupt_file, path + ": " + where + ": " + what);
}

std::string quoted(std::string_view name) { return "section '" + std::string(name) + "'"; }

std::string version_text(std::uint16_t major, std::uint16_t minor) {
    return std::to_string(major) + "." + std::to_string(minor);
}

FileHeader read_header(const FileBytes& file, const std::string& path) {
    unsigned char start[512] = {};
    const std::size_t got = static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), sizeof start));
    file.read(0, start, got);
    if (got < kMagic.size() || !std::equal(kMagic.begin(), kMagic.end(), start)) {
        corrupt(path, "header", identify({start, got}));
    }
    if (got < sizeof(FileHeader)) {
        corrupt(path, "header", "truncated: the file has " + std::to_string(got) + " bytes, its header alone has 64");
    }
    FileHeader header;
    std::memcpy(&header, start, sizeof header);
    // Magic, version and the checksum's place are the same in all versions, so that a newer file can
    // always be told from a damaged one.
    const bool intact = header.header_checksum == xxh64(&header, offsetof(FileHeader, header_checksum));
    if (header.major > kFormatMajor) {
        corrupt(path, "header", "format version " + version_text(header.major, header.minor) +
                                    " is newer than " + version_text(kFormatMajor, kFormatMinor) +
                                    ", which this release reads; " +
                                    (intact ? "upgrade residua to load it"
                                            : "the checksum does not match either, so the file may be damaged"));
    }
    if (!intact) corrupt(path, "header", "checksum mismatch, the file is damaged");
    if (header.major == 0) corrupt(path, "header", "format version 0 does not exist");
    if (header.file_bytes != file.size()) {
        corrupt(path, "header", std::string(file.size() < header.file_bytes ? "truncated" : "oversized") + ": written with " +
                                    std::to_string(header.file_bytes) + " bytes, the file has " +
                                    std::to_string(file.size()));
    }
    const auto zero = [](unsigned char c) { return c == 0; };
    if (!std::all_of(header.reserved.begin(), header.reserved.end(), zero)) {
        corrupt(path, "header", "reserved bytes are not zero");
    }
    return header;
}

std::vector<TableEntry> read_table(const FileBytes& file, const FileHeader& header, const std::string& path) {
    const std::string where = "section table";
    if (header.section_count == 0 || header.section_count > kMaxSections ||
        header.section_count * sizeof(TableEntry) > file.size() - sizeof(FileHeader)) {
        corrupt(path, where, std::to_string(header.section_count) + " sections do not fit");
    }
    std::vector<TableEntry> table(header.section_count);
    const std::size_t bytes = table.size() * sizeof(TableEntry);
    file.read(sizeof(FileHeader), table.data(), bytes);
    if (xxh64(table.data(), bytes) != header.table_checksum) corrupt(path, where, "checksum mismatch, the file is damaged");
    // The layout has one solution: each section begins at the first multiple of 64 after its
    // predecessor, the file ends after the last. So sections neither overlap nor leave gaps.
    std::uint64_t expected = sizeof(FileHeader) + bytes;
    for (std::size_t i = 0; i < table.size(); ++i) {
        const TableEntry& entry = table[i];
        const auto end = std::find(entry.name.begin(), entry.name.end(), '\0');
        const bool named = end != entry.name.begin() && std::all_of(entry.name.begin(), end, is_name_char) &&
                           std::all_of(end, entry.name.end(), [](char c) { return c == '\0'; });
        if (!named) corrupt(path, where, "entry " + std::to_string(i) + " has no valid name");
        const std::string name(entry.name.begin(), end);
        if (entry.offset != expected) {
            corrupt(path, quoted(name), "begins at byte " + std::to_string(entry.offset) + ", expected " +
                                            std::to_string(expected));
        }
        if (entry.offset > file.size() || entry.bytes > file.size() - entry.offset) {
            corrupt(path, quoted(name), "its " + std::to_string(entry.bytes) + " bytes reach past the end of the file");
        }
        expected = align_up(entry.offset + entry.bytes);
    }
    if (expected != file.size()) {
        corrupt(path, where, "the sections end at byte " + std::to_string(expected) + ", the file at " +
                                 std::to_string(file.size()));
    }
    return table;
}

Meta decode_meta(const Reader& reader, std::span<const std::byte> bytes) {
    std::size_t at = 0;
    const auto take = [&](std::size_t n) {
        if (n > bytes.size() - at) reader.fail(kMetaName, "ends within an entry");
        at += n;
        return bytes.data() + at - n;
    };
    const auto text = [&](std::size_t n) {
        const auto* p = reinterpret_cast<const char*>(take(n));
        return std::string(p, p + n);
    };
    std::uint64_t count = 0;
    std::memcpy(&count, take(sizeof count), sizeof count);
    Meta meta;
    for (std::uint64_t i = 0; i < count; ++i) {
        MetaEntry entry;
        std::memcpy(&entry, take(sizeof entry), sizeof entry);
        std::string key = text(entry.key_bytes);
        if (key.empty() || (!meta.empty() && key <= meta.rbegin()->first)) {
            reader.fail(kMetaName, "keys are empty or not in ascending order");
        }
        const bool number = entry.type == static_cast<std::uint8_t>(MetaType::integer) ||
                            entry.type == static_cast<std::uint8_t>(MetaType::real);
        if (entry.zero != 0 || entry.type > static_cast<std::uint8_t>(MetaType::bytes) ||
            (number && entry.value_bytes != 8)) {
            reader.fail(kMetaName, "key '" + key + "' has a malformed value");
        }
        MetaValue value;
        switch (static_cast<MetaType>(entry.type)) {
            case MetaType::integer: {
                std::int64_t v;
                std::memcpy(&v, take(8), 8);
                value = v;
                break;
            }
            case MetaType::real: {
                double v;
                std::memcpy(&v, take(8), 8);
                value = v;
                break;
            }
            case MetaType::string: value = text(entry.value_bytes); break;
            case MetaType::bytes: {
                const auto* p = reinterpret_cast<const std::uint8_t*>(take(entry.value_bytes));
                value = std::vector<std::uint8_t>(p, p + entry.value_bytes);
                break;
            }
        }
        meta.emplace_hint(meta.end(), std::move(key), std::move(value));
    }
    if (at != bytes.size()) reader.fail(kMetaName, "has bytes after its last entry");
    return meta;
}

}  // namespace

struct Reader::Section {
    std::uint64_t checksum = 0;
    std::span<const std::byte> bytes;
    std::shared_ptr<const void> owner;
    bool verified = false;
};

struct Reader::Image {
    std::string path;
    std::uint16_t major = 0;
    std::uint16_t minor = 0;
    bool mapped = false;
    std::vector<std::string> order;
    std::map<std::string, Section, std::less<>> sections;

    Image(const FileBytes& file, std::string name, Verify verify) : path(std::move(name)), mapped(file.is_mapped()) {
        const FileHeader header = read_header(file, path);
        major = header.major;
        minor = header.minor;
        for (const TableEntry& entry : read_table(file, header, path)) add(file, entry, verify);
    }

    void add(const FileBytes& file, const TableEntry& entry, Verify verify) {
        std::string name(entry.name.begin(), std::find(entry.name.begin(), entry.name.end(), '\0'));
        if (sections.contains(name)) corrupt(path, "section table", "two sections are named '" + name + "'");
        unsigned char padding[kCacheLine] = {};
        const std::uint64_t end = entry.offset + entry.bytes;
        const auto n_padding = static_cast<std::size_t>(align_up(end) - end);
        file.read(end, padding, n_padding);
        if (std::any_of(padding, padding + n_padding, [](unsigned char c) { return c != 0; })) {
            corrupt(path, quoted(name), "the padding after it is not zero");
        }
        Section section;
        section.checksum = entry.checksum;
        std::tie(section.bytes, section.owner) = file.section(entry.offset, static_cast<std::size_t>(entry.bytes));
        section.verified = !mapped || verify == Verify::full || entry.bytes <= kSmallSection;
        if (section.verified && xxh64(section.bytes.data(), section.bytes.size()) != section.checksum) {
            corrupt(path, quoted(name), "checksum mismatch, the file is damaged");
        }
        order.push_back(name);
        sections.emplace(std::move(name), std::move(section));
    }
};

Reader Reader::open(const std::string& path, OpenOptions options) {
    const auto file = options.mmap ? FileBytes::map(path) : FileBytes::open(path);
    return {std::make_shared<const Image>(*file, path, options.verify), ""};
}

Reader Reader::from_bytes(std::span<const std::uint8_t> bytes) {
    return {std::make_shared<const Image>(*FileBytes::show(bytes), "<bytes>", Verify::full), ""};
}

Reader::Reader(std::shared_ptr<const Image> image, std::string prefix)
    : image_(std::move(image)), prefix_(std::move(prefix)) {
    meta_ = std::make_shared<const Meta>(decode_meta(*this, section(kMetaName)));
}

const std::string& Reader::kind() const { return get_string(kKindKey); }
std::uint16_t Reader::version_major() const { return image_->major; }
std::uint16_t Reader::version_minor() const { return image_->minor; }
bool Reader::is_mapped() const { return image_->mapped; }
const std::string& Reader::path() const { return image_->path; }

std::vector<std::string> Reader::names() const {
    std::vector<std::string> names;
    for (const std::string& name : image_->order) {
        if (name.starts_with(prefix_)) names.push_back(name.substr(prefix_.size()));
    }
    return names;
}

bool Reader::has(std::string_view name) const { return image_->sections.contains(prefix_ + std::string(name)); }

const Reader::Section& Reader::at(std::string_view name) const {
    const auto found = image_->sections.find(prefix_ + std::string(name));
    if (found == image_->sections.end()) fail(name, "is missing");
    return found->second;
}

std::span<const std::byte> Reader::section(std::string_view name) const { return at(name).bytes; }

std::shared_ptr<const void> Reader::keep_alive(std::string_view name) const { return at(name).owner; }

void Reader::verify(std::string_view name) const {
    const Section& s = at(name);
    if (!s.verified && xxh64(s.bytes.data(), s.bytes.size()) != s.checksum) {
        fail(name, "checksum mismatch, the file is damaged");
    }
}

void Reader::check_multiple(std::string_view name, std::size_t bytes, std::size_t element) const {
    if (bytes % element != 0) {
        fail(name, "has " + std::to_string(bytes) + " bytes, not a multiple of " + std::to_string(element));
    }
}

void Reader::check_count(std::string_view name, std::size_t count, std::size_t expected) const {
    if (count != expected) {
        fail(name, "has " + std::to_string(count) + " elements, expected " + std::to_string(expected));
    }
}

bool Reader::has_key(std::string_view key) const { return meta_->contains(key); }

template <class T>
const T& Reader::typed(std::string_view key, const char* expected) const {
    const auto found = meta_->find(key);
    if (found == meta_->end()) fail(kMetaName, "key '" + std::string(key) + "' is missing");
    const T* value = std::get_if<T>(&found->second);
    if (value == nullptr) {
        static constexpr const char* kTypes[] = {"an integer", "a double", "a string", "bytes"};
        fail(kMetaName, "key '" + std::string(key) + "' is " + kTypes[found->second.index()] + ", expected " + expected);
    }
    return *value;
}

std::int64_t Reader::get_int(std::string_view key) const { return typed<std::int64_t>(key, "an integer"); }

std::int64_t Reader::get_int(std::string_view key, std::int64_t low, std::int64_t high) const {
    const std::int64_t value = get_int(key);
    if (value < low || value > high) {
        fail(kMetaName, "key '" + std::string(key) + "' is " + std::to_string(value) + ", expected " +
                            std::to_string(low) + " to " + std::to_string(high));
    }
    return value;
}

double Reader::get_double(std::string_view key) const { return typed<double>(key, "a double"); }
const std::string& Reader::get_string(std::string_view key) const { return typed<std::string>(key, "a string"); }

const std::vector<std::uint8_t>& Reader::get_bytes(std::string_view key) const {
    return typed<std::vector<std::uint8_t>>(key, "bytes");
}

bool Reader::has_nested(std::string_view prefix) const { return has(std::string(prefix) + "." + kMetaName); }

Reader Reader::nested(std::string_view prefix) const { return {image_, prefix_ + std::string(prefix) + "."}; }

void Reader::fail(std::string_view name, const std::string& what) const {
    corrupt(image_->path, quoted(prefix_ + std::string(name)), what);
}

}  // namespace residua::store
