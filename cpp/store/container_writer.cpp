// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "core/checksum.hpp"
#include "store/atomic_file.hpp"
#include "store/container.hpp"
#include "store/file_layout.hpp"

namespace residua::store {
namespace {

void append(std::vector<std::uint8_t>& out, const void* data, std::size_t bytes) {
    const auto* p = static_cast<const std::uint8_t*>(data);
    out.insert(out.end(), p, p + bytes);
}

void append_value(std::vector<std::uint8_t>& out, const std::string& key, MetaType type, const void* data,
                  std::size_t bytes) {
    const MetaEntry entry{static_cast<std::uint8_t>(type), 0, static_cast<std::uint16_t>(key.size()),
                          static_cast<std::uint32_t>(bytes)};
    append(out, &entry, sizeof entry);
    append(out, key.data(), key.size());
    append(out, data, bytes);
}

std::vector<std::uint8_t> encode_meta(const Meta& meta) {
    std::vector<std::uint8_t> out;
    const auto count = static_cast<std::uint64_t>(meta.size());
    append(out, &count, sizeof count);
    for (const auto& [key, value] : meta) {
        if (const auto* i = std::get_if<std::int64_t>(&value)) {
            append_value(out, key, MetaType::integer, i, sizeof *i);
        } else if (const auto* d = std::get_if<double>(&value)) {
            append_value(out, key, MetaType::real, d, sizeof *d);
        } else if (const auto* s = std::get_if<std::string>(&value)) {
            append_value(out, key, MetaType::string, s->data(), s->size());
        } else {
            const auto& b = std::get<std::vector<std::uint8_t>>(value);
            append_value(out, key, MetaType::bytes, b.data(), b.size());
        }
    }
    return out;
}

void check_name(const std::string& name) {
    const bool valid = !name.empty() && name.size() <= kMaxNameBytes && std::all_of(name.begin(), name.end(), is_name_char);
    if (!valid) {
        throw Error(ErrorKind::value, "section name '" + name + "' must have 1 to " + std::to_string(kMaxNameBytes) +
                                          " characters of A-Z a-z 0-9 _ - .");
    }
}

// Emits the whole file piece by piece: sink(data, bytes).
template <class Sections, class Sink>
void emit(const Sections& parts, Sink&& sink) {
    static constexpr unsigned char kZeros[kCacheLine] = {};
    std::vector<TableEntry> table(parts.size());
    std::uint64_t end = sizeof(FileHeader) + parts.size() * sizeof(TableEntry);
    for (std::size_t i = 0; i < parts.size(); ++i) {
        TableEntry& entry = table[i];
        entry = {};
        std::copy(parts[i].name.begin(), parts[i].name.end(), entry.name.begin());
        entry.offset = end;
        entry.bytes = parts[i].bytes;
        entry.checksum = xxh64(parts[i].data, parts[i].bytes);
        end = align_up(end + parts[i].bytes);
    }
    FileHeader header = {};
    header.magic = kMagic;
    header.major = kFormatMajor;
    header.minor = kFormatMinor;
    header.section_count = static_cast<std::uint32_t>(parts.size());
    header.file_bytes = end;
    header.table_checksum = xxh64(table.data(), table.size() * sizeof(TableEntry));
    header.header_checksum = xxh64(&header, offsetof(FileHeader, header_checksum));
    sink(&header, sizeof header);
    sink(table.data(), table.size() * sizeof(TableEntry));
    for (const auto& part : parts) {
        sink(part.data, part.bytes);
        sink(kZeros, align_up(part.bytes) - part.bytes);
    }
}

}  // namespace

Writer::Writer(std::string kind) : kind_(kind) { put_string(kKindKey, std::move(kind)); }

void Writer::put(std::string name, const void* data, std::size_t bytes) {
    add({std::move(name), data, bytes, nullptr});
}

void Writer::put_owned(std::string name, std::vector<std::uint8_t> bytes) {
    auto owned = std::make_shared<const std::vector<std::uint8_t>>(std::move(bytes));
    const void* data = owned->data();
    const std::size_t size = owned->size();
    add({std::move(name), data, size, std::move(owned)});
}

void Writer::add(Part part) {
    check_name(part.name);
    const bool taken = part.name == kMetaName || std::any_of(parts_.begin(), parts_.end(), [&](const Part& other) {
        return other.name == part.name;
    });
    if (taken) throw Error(ErrorKind::value, "section '" + part.name + "' exists already");
    if (parts_.size() + 1 >= kMaxSections) {
        throw Error(ErrorKind::value, "a file holds at most " + std::to_string(kMaxSections) + " sections");
    }
    parts_.push_back(std::move(part));
}

void Writer::set(std::string key, MetaValue value) {
    if (key.empty() || key.size() > std::numeric_limits<std::uint16_t>::max()) {
        throw Error(ErrorKind::value, "a key must have 1 to 65535 bytes, got " + std::to_string(key.size()));
    }
    if (!meta_.emplace(key, std::move(value)).second) throw Error(ErrorKind::value, "key '" + key + "' exists already");
}

void Writer::put_int(std::string key, std::int64_t value) { set(std::move(key), value); }
void Writer::put_double(std::string key, double value) { set(std::move(key), value); }

void Writer::put_string(std::string key, std::string value) {
    if (value.size() > std::numeric_limits<std::uint32_t>::max()) {
        throw Error(ErrorKind::value, "the value of key '" + key + "' exceeds 4 GiB; put it into a section");
    }
    set(std::move(key), std::move(value));
}

void Writer::put_bytes(std::string key, std::vector<std::uint8_t> value) {
    if (value.size() > std::numeric_limits<std::uint32_t>::max()) {
        throw Error(ErrorKind::value, "the value of key '" + key + "' exceeds 4 GiB; put it into a section");
    }
    set(std::move(key), std::move(value));
}

void Writer::nest(const std::string& prefix, const Writer& inner) {
    for (Part& part : inner.all_parts()) {
        part.name = prefix + "." + part.name;
        add(std::move(part));
    }
}

std::vector<Writer::Part> Writer::all_parts() const {
    auto meta = std::make_shared<const std::vector<std::uint8_t>>(encode_meta(meta_));
    std::vector<Part> parts;
    parts.reserve(parts_.size() + 1);
    parts.push_back({kMetaName, meta->data(), meta->size(), meta});
    parts.insert(parts.end(), parts_.begin(), parts_.end());
    return parts;
}

std::vector<std::uint8_t> Writer::to_bytes() const {
    std::vector<std::uint8_t> out;
    emit(all_parts(), [&](const void* data, std::size_t bytes) { append(out, data, bytes); });
    return out;
}

void Writer::write_file(const std::string& path) const {
    AtomicFile file(path);
    emit(all_parts(), [&](const void* data, std::size_t bytes) { file.write(data, bytes); });
    file.commit();
}

}  // namespace residua::store
