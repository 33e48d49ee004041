// SPDX-License-Identifier: Apache-2.0
// The vectors kept for exact re-ranking, row by row, in one contiguous block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "core/matrix.hpp"
#include "core/metric.hpp"
#include "store/container.hpp"
#include "store/row_source.hpp"
#include "store/shared_array.hpp"

namespace residua::store {

class TempFile;  // an unlinked file that grows, mapped for reading

enum class VectorMode : std::uint8_t {
    none,
    automatic,  // float16 while it holds every row to 1e-3 of its norm, else float32
    float32,
    float16,
    int8,   // symmetric, one scale per row: max|x| / 127
    disk,   // float32 in a temporary file of TMPDIR that no one else can see
};

VectorMode parse_vector_mode(std::string_view name);  // "auto" is automatic; throws value
const char* to_string(VectorMode mode);

class VectorStore {
public:
    VectorStore(VectorMode mode, std::size_t dim, Metric metric);
    ~VectorStore();
    VectorStore(VectorStore&&) noexcept;
    VectorStore& operator=(VectorStore&&) noexcept;

    VectorMode mode() const { return mode_; }       // as asked for
    RowType row_type() const { return type_; }      // as kept now
    bool empty_mode() const { return mode_ == VectorMode::none; }
    std::size_t size() const { return n_; }         // rows; counted in mode none too
    std::size_t dim() const { return dim_; }

    // Does all that can fail before rows like these are appended (n_new of them) or assigned: checks
    // that they fit the type (float16 overflow: value, naming the row), widens an automatic store,
    // reserves. The rows read back the same afterwards, so a failure later on needs no undo here.
    void prepare(ConstMatrix rows, std::size_t n_new, int num_threads = 1);
    // In parts, beside readers of view() until publish(); not in mode disk. Whether rows like these fit where
    // nothing moves; a copy in which they do; rows encoded behind the last one, to be published, or taken back by
    // truncate(size()).
    bool has_room(ConstMatrix rows, std::size_t n_new, int num_threads) const;
    VectorStore with_room(ConstMatrix rows, std::size_t n_new, int num_threads) const;
    void stage(ConstMatrix rows, int num_threads);
    void publish(std::size_t n_new) noexcept { n_ += n_new; }
    // Throws shape for rows of another dim, value where float16 was asked for and does not hold them.
    void check(ConstMatrix rows, int num_threads) const;
    // Appends all rows or, on an exception, none. Calls prepare itself.
    void append(ConstMatrix rows, int num_threads = 1);
    void assign(std::size_t row, const float* x);
    void truncate(std::size_t n) noexcept;          // undoes appends
    void compact(std::span<const std::uint32_t> keep);

    // The row as kept, decoded. Not in mode none.
    void get(std::size_t row, float* out) const;
    RowSource view() const;  // until the next change; data is null in mode none

    struct Memory {
        std::size_t rows = 0;       // heap bytes of the vectors
        std::size_t scalars = 0;    // heap bytes of scales and inverse norms
        std::size_t file = 0;       // bytes of a mapped or temporary file
    };
    Memory memory() const;

    // Keys and sections "vectors.*". The Writer shows this store until it is written.
    void save(Writer& writer) const;
    // A mapped file is shown until the first change.
    static VectorStore load(const Reader& reader, std::size_t dim, Metric metric);

private:
    std::size_t row_bytes() const { return dim_ * row_type_bytes(type_); }
    const std::uint8_t* data() const;
    void check_row(std::size_t row) const;
    void check_half(ConstMatrix rows, int num_threads) const;
    bool must_widen(ConstMatrix rows, int num_threads) const;
    void widen();
    void own_file();
    // Writes the row, in memory, and its scalars; the arrays have room and are its own.
    void encode_row_at(std::size_t row, const float* x);

    VectorMode mode_;
    Metric metric_;
    RowType type_;
    std::size_t dim_;
    std::size_t n_ = 0;
    bool mapped_ = false;  // what is shown lies in a mapped file
    SharedArray<std::uint8_t> bytes_;
    SharedArray<float> scale_;      // i8
    SharedArray<float> inv_norm_;   // cosine
    std::unique_ptr<TempFile> file_;  // mode disk, once something is written
};

}  // namespace residua::store
