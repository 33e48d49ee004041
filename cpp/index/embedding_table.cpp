// SPDX-License-Identifier: Apache-2.0
#include "index/embedding_table.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/error.hpp"
#include "core/parallel.hpp"

namespace residua::index {

namespace {

constexpr std::size_t kChunkRows = 4096;  // rows that a thread takes at a time
constexpr std::size_t kAhead = 16;        // rows between a prefetch and its use

void prefetch(const std::uint8_t* p, std::size_t bytes) {
    for (std::size_t at = 0; at < bytes; at += 64) __builtin_prefetch(p + at);
}

}  // namespace

EmbeddingTable::EmbeddingTable(std::shared_ptr<const codec::Codec> codec, ConstMatrix vectors, int num_threads)
    : codec_(std::move(codec)), rows_(vectors.rows) {
    if (vectors.cols != codec_->dim()) {
        throw Error(ErrorKind::shape, "vectors have " + std::to_string(vectors.cols) + " dims, the codec " +
                                          std::to_string(codec_->dim()));
    }
    AlignedVector<std::uint8_t> codes(rows_ * codec_->code_bytes());
    codec_->encode(vectors, codes.data(), num_threads, codec::Effort::rounded);
    codes_ = store::SharedArray<std::uint8_t>(std::move(codes));
}

// Codes are brought together in small batches, so that every codec decodes them as it decodes any, and
// so that the memory that they wait for is asked for early.
template <class RowAt>
void EmbeddingTable::decode(std::size_t count, RowAt row_at, float* out, int num_threads) const {
    const std::size_t bytes = codec_->code_bytes(), dim = codec_->dim();
    const std::size_t batch = std::clamp<std::size_t>((std::size_t{32} << 10) / bytes, 1, 64);
    parallel_for(count, kChunkRows, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<std::uint8_t> codes(batch * bytes);
        for (std::size_t i = begin; i < std::min(end, begin + kAhead); ++i) {
            prefetch(codes_.data() + row_at(i) * bytes, bytes);
        }
        for (std::size_t first = begin; first < end; first += batch) {
            const std::size_t n = std::min(batch, end - first);
            for (std::size_t i = 0; i < n; ++i) {
                if (first + i + kAhead < end) prefetch(codes_.data() + row_at(first + i + kAhead) * bytes, bytes);
                std::memcpy(codes.data() + i * bytes, codes_.data() + row_at(first + i) * bytes, bytes);
            }
            codec_->decode(codes.data(), n, out + first * dim, 1);
        }
    });
}

void EmbeddingTable::gather(std::span<const std::int64_t> rows, float* out, int num_threads) const {
    const auto n = static_cast<std::int64_t>(rows_);
    for (const std::int64_t r : rows) {
        if (r < -n || r >= n) {
            throw Error(ErrorKind::out_of_range, "row " + std::to_string(r) + " is outside a table of " +
                                                     std::to_string(n) + " rows: expected " + std::to_string(-n) +
                                                     " … " + std::to_string(n - 1));
        }
    }
    decode(
        rows.size(), [&](std::size_t i) { return static_cast<std::size_t>(rows[i] < 0 ? rows[i] + n : rows[i]); }, out,
        num_threads);
}

void EmbeddingTable::slice(std::int64_t begin, std::int64_t step, std::size_t count, float* out,
                           int num_threads) const {
    if (step == 1) {  // nothing to bring together
        codec_->decode(codes_.data() + static_cast<std::size_t>(begin) * codec_->code_bytes(), count, out,
                       count <= kChunkRows ? 1 : num_threads);
        return;
    }
    decode(
        count, [&](std::size_t i) { return static_cast<std::size_t>(begin + static_cast<std::int64_t>(i) * step); },
        out, num_threads);
}

std::map<std::string, std::size_t> EmbeddingTable::memory() const {
    return {{"codec", codec_->memory_bytes()}, {"codes", codes_.memory_bytes()}};
}

void EmbeddingTable::save(const std::string& path) const {
    store::Writer w(kKind);
    w.put_int("rows", static_cast<std::int64_t>(rows_));
    codec::write_codec(w, "codec", *codec_);
    w.put<std::uint8_t>("codes", codes_.span());
    w.write_file(path);
}

std::shared_ptr<EmbeddingTable> EmbeddingTable::load(const store::Reader& in) {
    std::shared_ptr<EmbeddingTable> out(new EmbeddingTable());
    out->codec_ = codec::read_codec(in.nested("codec"));
    // Bounded so that the product below cannot overflow.
    out->rows_ = static_cast<std::size_t>(in.get_int("rows", 0, std::int64_t{1} << 40));
    const auto codes = in.array<std::uint8_t>("codes", out->rows_ * out->codec_->code_bytes());
    out->codes_ = store::SharedArray<std::uint8_t>(codes, in.keep_alive("codes"));
    return out;
}

}  // namespace residua::index
