// SPDX-License-Identifier: Apache-2.0
#include "filter/dictionary.hpp"

#include "core/error.hpp"
#include "store/id_hash.hpp"

namespace residua::filter {

std::size_t Dictionary::slot_of(std::string_view text) const {
    const std::size_t mask = table_.size() - 1;
    std::size_t slot = store::hash_id(text) & mask;
    while (table_[slot] != store::kEmptySlot && (*this)[table_[slot]] != text) slot = (slot + 1) & mask;
    return slot;
}

std::optional<std::uint32_t> Dictionary::find(std::string_view text) const {
    if (table_.empty()) return std::nullopt;
    const std::uint32_t code = table_[slot_of(text)];
    return code == store::kEmptySlot ? std::nullopt : std::optional(code);
}

std::size_t Dictionary::count_new(std::span<const std::string_view> texts) const {
    std::size_t n = 0;
    for (const std::string_view text : texts) n += find(text) ? 0 : 1;
    return n;
}

void Dictionary::grow_table() {
    if (store::table_size(size() + 1) <= table_.size()) return;
    std::vector<std::uint32_t> larger(store::table_size(2 * size() + 2), store::kEmptySlot);
    table_.swap(larger);
    for (std::uint32_t code = 0; code < size(); ++code) table_[slot_of((*this)[code])] = code;
}

std::uint32_t Dictionary::add(std::string_view text) {
    if (const auto known = find(text)) return *known;
    if (text.size() > kMaxTextBytes) {
        throw Error(ErrorKind::value, "columns: a text has " + std::to_string(text.size()) + " bytes, at most " +
                                          std::to_string(kMaxTextBytes) + " are allowed");
    }
    if (size() >= store::kEmptySlot) throw Error(ErrorKind::unsupported, "columns: more than 2**32 - 1 distinct texts");
    grow_table();
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    try {
        ends_.push_back(bytes_.size());
    } catch (...) {
        bytes_.resize(bytes_.size() - text.size());
        throw;
    }
    const auto code = static_cast<std::uint32_t>(size() - 1);
    table_[slot_of(text)] = code;
    return code;
}

std::size_t Dictionary::memory_bytes() const {
    return bytes_.capacity() + ends_.capacity() * sizeof(std::uint64_t) + table_.capacity() * sizeof(std::uint32_t);
}

void Dictionary::save(store::Writer& writer, const std::string& prefix) const {
    writer.put(prefix + ".ends", std::span<const std::uint64_t>(ends_));
    writer.put(prefix + ".texts", std::span<const char>(bytes_));
}

Dictionary Dictionary::load(const store::Reader& reader, const std::string& prefix) {
    const std::string ends_name = prefix + ".ends", texts_name = prefix + ".texts";
    reader.verify(ends_name);
    reader.verify(texts_name);
    const auto ends = reader.array<std::uint64_t>(ends_name);
    const auto bytes = reader.array<char>(texts_name);
    if (ends.size() >= store::kEmptySlot) reader.fail(ends_name, "holds more than 2**32 - 1 texts");
    Dictionary out;
    std::uint64_t begin = 0;
    for (const std::uint64_t end : ends) {
        if (end < begin || end > bytes.size() || end - begin > kMaxTextBytes) {
            reader.fail(ends_name, "its ends do not ascend by at most " + std::to_string(kMaxTextBytes));
        }
        const std::string_view text(bytes.data() + begin, static_cast<std::size_t>(end - begin));
        if (!is_utf8(text)) reader.fail(texts_name, "holds text that is not UTF-8");
        begin = end;
    }
    if (begin != bytes.size()) reader.fail(ends_name, "its ends do not span section '" + texts_name + "'");
    out.bytes_.assign(bytes.begin(), bytes.end());
    out.ends_.assign(ends.begin(), ends.end());
    out.table_.assign(store::table_size(out.size()), store::kEmptySlot);
    for (std::uint32_t code = 0; code < out.size(); ++code) {
        std::uint32_t& slot = out.table_[out.slot_of(out[code])];
        if (slot != store::kEmptySlot) reader.fail(texts_name, "holds a text twice");
        slot = code;
    }
    return out;
}

bool is_utf8(std::string_view bytes) {
    for (std::size_t i = 0; i < bytes.size();) {
        const auto lead = static_cast<unsigned char>(bytes[i]);
        const std::size_t n = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
        if (n == 0 || n > bytes.size() - i) return false;
        std::uint32_t point = n == 1 ? lead : lead & (0x7Fu >> n);
        for (std::size_t j = 1; j < n; ++j) {
            const auto next = static_cast<unsigned char>(bytes[i + j]);
            if (next >> 6 != 2) return false;
            point = point << 6 | (next & 63u);
        }
        constexpr std::uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
        if (point < kSmallest[n] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) return false;
        i += n;
    }
    return true;
}

}  // namespace residua::filter
