// SPDX-License-Identifier: Apache-2.0
// Names of the modes, and the kept vectors in a file: keys and sections "vectors.*".
#include <string>
#include <utility>

#include "store/id_map.hpp"
#include "store/temp_file.hpp"
#include "store/vector_store.hpp"

namespace residua::store {
namespace {

constexpr std::pair<VectorMode, const char*> kModes[] = {
    {VectorMode::none, "none"},       {VectorMode::automatic, "auto"}, {VectorMode::float32, "float32"},
    {VectorMode::float16, "float16"}, {VectorMode::int8, "int8"},      {VectorMode::disk, "disk"},
};
constexpr const char* kTypes[] = {"float32", "float16", "int8"};

template <class T>
SharedArray<T> show(const Reader& reader, const char* name, std::size_t count) {
    return {reader.array<T>(name, count), reader.keep_alive(name)};
}

}  // namespace

VectorMode parse_vector_mode(std::string_view name) {
    for (const auto& [mode, text] : kModes) {
        if (name == text) return mode;
    }
    throw Error(ErrorKind::value, "vectors must be 'auto', 'float32', 'float16', 'int8', 'disk' or 'none', got '" +
                                      std::string(name) + "'");
}

const char* to_string(VectorMode mode) {
    for (const auto& [known, text] : kModes) {
        if (mode == known) return text;
    }
    return "?";
}

void VectorStore::save(Writer& writer) const {
    writer.put_string("vectors.mode", to_string(mode_));
    writer.put_int("vectors.rows", static_cast<std::int64_t>(n_));
    writer.put_int("vectors.dim", static_cast<std::int64_t>(dim_));
    if (mode_ == VectorMode::none) return;
    writer.put_string("vectors.type", kTypes[static_cast<int>(type_)]);
    writer.put("vectors.data", data(), n_ * row_bytes());
    if (type_ == RowType::i8) writer.put("vectors.scale", scale_.span());
    if (metric_ == Metric::cosine) writer.put("vectors.inv_norm", inv_norm_.span());
}

VectorStore VectorStore::load(const Reader& reader, std::size_t dim, Metric metric) {
    const std::string& mode_name = reader.get_string("vectors.mode");
    const VectorMode* mode = nullptr;
    for (const auto& known : kModes) {
        if (mode_name == known.second) mode = &known.first;
    }
    if (mode == nullptr) reader.fail("meta", "key 'vectors.mode' is '" + mode_name + "', which does not exist");
    const auto wanted = static_cast<std::int64_t>(dim);
    reader.get_int("vectors.dim", wanted, wanted);
    VectorStore store(*mode, dim, metric);
    store.n_ = static_cast<std::size_t>(reader.get_int("vectors.rows", 0, static_cast<std::int64_t>(kMaxRows)));
    if (*mode == VectorMode::none) return store;

    const std::string& type = reader.get_string("vectors.type");
    if (*mode == VectorMode::automatic && type == kTypes[0]) store.type_ = RowType::f32;
    if (type != kTypes[static_cast<int>(store.type_)]) {
        reader.fail("meta", "key 'vectors.type' is '" + type + "', which mode '" + mode_name + "' does not use");
    }
    // Rows and dim are bounded, so the product cannot wrap where the file is larger than a byte per element.
    const auto bytes = reader.section("vectors.data").size();
    if (dim == 0 || bytes / store.row_bytes() != store.n_) reader.fail("vectors.data", "its size does not match the rows");
    store.mapped_ = reader.is_mapped();
    store.bytes_ = show<std::uint8_t>(reader, "vectors.data", store.n_ * store.row_bytes());
    if (store.type_ == RowType::i8) store.scale_ = show<float>(reader, "vectors.scale", store.n_);
    if (metric == Metric::cosine) store.inv_norm_ = show<float>(reader, "vectors.inv_norm", store.n_);
    if (*mode == VectorMode::disk && !reader.is_mapped()) store.own_file();
    return store;
}

}  // namespace residua::store
