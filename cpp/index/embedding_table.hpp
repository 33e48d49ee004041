// SPDX-License-Identifier: Apache-2.0
// Codes row by row, read back as vectors by row number: no ids, no search, no change once made. Any
// number of threads may read.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "codec/codec.hpp"
#include "core/matrix.hpp"
#include "store/container.hpp"
#include "store/shared_array.hpp"

namespace residua::index {

class EmbeddingTable {
public:
    static constexpr const char* kKind = "embedding_table";

    EmbeddingTable(std::shared_ptr<const codec::Codec> codec, ConstMatrix vectors, int num_threads);

    std::size_t size() const { return rows_; }
    const std::shared_ptr<const codec::Codec>& codec() const { return codec_; }

    // out: rows.size() x dim, row-major. Rows below 0 count from the end. A row outside -size … size - 1
    // throws out_of_range, naming the first, before anything is written.
    void gather(std::span<const std::int64_t> rows, float* out, int num_threads) const;
    // Rows begin, begin + step, … : count of them, all of which exist. step may be negative.
    void slice(std::int64_t begin, std::int64_t step, std::size_t count, float* out, int num_threads) const;

    std::map<std::string, std::size_t> memory() const;
    void save(const std::string& path) const;
    static std::shared_ptr<EmbeddingTable> load(const store::Reader& in);

private:
    EmbeddingTable() = default;

    template <class RowAt>
    void decode(std::size_t count, RowAt row_at, float* out, int num_threads) const;

    std::shared_ptr<const codec::Codec> codec_;
    std::size_t rows_ = 0;
    store::SharedArray<std::uint8_t> codes_;  // rows_ * code_bytes, row by row
};

}  // namespace residua::index
