// SPDX-License-Identifier: Apache-2.0
// Numbers of texts in as few bytes each as the largest one needs: 1, 2 or 4. A file's array is shown
// until the first change.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "filter/lane.hpp"
#include "store/container.hpp"
#include "store/shared_array.hpp"

namespace residua::filter {

// A view of codes of one width.
template <class T>
struct Codes {
    const std::uint8_t* bytes;
    std::uint32_t operator[](std::size_t i) const {
        T code;
        std::memcpy(&code, bytes + i * sizeof code, sizeof code);
        return code;
    }
};

class CodeArray {
public:
    std::size_t width() const { return width_; }
    std::size_t size() const { return bytes_.size() / width_; }
    std::uint32_t operator[](std::size_t i) const {
        const std::uint8_t* p = bytes_.data() + i * width_;
        if (width_ == 1) return *p;
        if (width_ == 2) {
            std::uint16_t code;
            std::memcpy(&code, p, sizeof code);
            return code;
        }
        std::uint32_t code;
        std::memcpy(&code, p, sizeof code);
        return code;
    }
    // use(codes), which gives the code of a row as [] does, without asking for the width every time.
    template <class Use>
    void with_width(Use use) const {
        if (width_ == 1) use(Codes<std::uint8_t>{bytes_.data()});
        else if (width_ == 2) use(Codes<std::uint16_t>{bytes_.data()});
        else use(Codes<std::uint32_t>{bytes_.data()});
    }
    const std::uint8_t* bytes() const { return bytes_.data(); }
    std::size_t memory_bytes() const { return bytes_.memory_bytes(); }

    // Bytes per code that `limit` needs, and one more value to spare.
    static std::size_t width_for(std::size_t limit) { return limit <= 0xFF ? 1 : limit <= 0xFFFF ? 2 : 4; }

    // The same codes with `width` bytes each, and room for n of them.
    void prepare(std::size_t n, std::size_t width) {
        if (width > width_) {
            AlignedVector<std::uint8_t> wide;
            wide.reserve(n * width);
            wide.resize(size() * width);
            for (std::size_t i = 0; i < size(); ++i) write(wide.data(), i, (*this)[i], width);
            bytes_ = store::SharedArray<std::uint8_t>(std::move(wide));
            width_ = width;
        }
        reserve(bytes_, n * width_);
    }
    // After prepare(); new elements are zero.
    void resize(std::size_t n) noexcept { bytes_.edit().resize(n * width_); }
    void set(std::size_t i, std::uint32_t code) noexcept { write(bytes_.edit().data(), i, code, width_); }
    void swap(CodeArray& other) noexcept { std::swap(*this, other); }

    void save(store::Writer& writer, const std::string& name) const { writer.put(name, bytes_.span()); }
    // The caller checks the codes.
    static CodeArray load(const store::Reader& reader, const std::string& name, std::size_t n, std::size_t width) {
        reader.verify(name);
        const auto bytes = reader.array<std::uint8_t>(name);
        if (bytes.size() / width != n || bytes.size() % width != 0) reader.fail(name, "its size does not match the rows");
        CodeArray out;
        out.width_ = width;
        out.bytes_ = store::SharedArray<std::uint8_t>(bytes, reader.keep_alive(name));
        return out;
    }

private:
    static_assert(std::endian::native == std::endian::little, "codes are saved as they lie in memory");
    static void write(std::uint8_t* bytes, std::size_t i, std::uint32_t code, std::size_t width) noexcept {
        std::memcpy(bytes + i * width, &code, width);
    }

    std::size_t width_ = 1;
    store::SharedArray<std::uint8_t> bytes_;
};

// Bytes per code as saved under "<prefix>.width"; fails where they cannot number `texts` texts.
inline std::size_t load_width(const store::Reader& reader, const std::string& prefix, std::size_t texts) {
    const auto width = static_cast<std::size_t>(reader.get_int(prefix + ".width", 1, 4));
    if (width == 3 || width < CodeArray::width_for(texts)) {
        reader.fail("meta", "key '" + prefix + ".width' is " + std::to_string(width) + " for " + std::to_string(texts) + " texts");
    }
    return width;
}

}  // namespace residua::filter
