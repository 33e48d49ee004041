// SPDX-License-Identifier: Apache-2.0
#include "multivector/token_store.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "core/error.hpp"
#include "core/half.hpp"
#include "core/parallel.hpp"
#include "core/prefetch.hpp"
#include "kernel/dispatch.hpp"

namespace residua::multivector {
namespace {

using codec::kBlockRows;
static_assert(kBlockRows == kernel::kByteRows);

constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr std::size_t kEncodeTokens = 16'384;  // encoded at a time
constexpr std::size_t kDocumentGrain = 4;
constexpr std::size_t kAheadBlocks = 2;

std::size_t blocks_of(std::size_t tokens) { return (tokens + kBlockRows - 1) / kBlockRows; }

}  // namespace

struct TokenStore::Queries {
    AlignedVector<std::int8_t> weights;
    std::vector<kernel::TokenQuery> tokens;
    std::vector<float> constants;
};

struct TokenStore::Scratch {
    AlignedVector<std::uint8_t> cells;
    AlignedVector<float> best;  // kBlockRows lanes per query token
    std::vector<std::uint32_t> at;

    // The largest lane of a query token; its first token as block * kBlockRows + lane, where that is asked for.
    float largest(std::size_t t) const {
        return *std::max_element(best.data() + t * kBlockRows, best.data() + (t + 1) * kBlockRows);
    }
    std::int64_t first_of(std::size_t t, float value) const {
        std::int64_t first = std::numeric_limits<std::int64_t>::max();
        for (std::size_t r = 0; r < kBlockRows; ++r) {
            const std::size_t lane = t * kBlockRows + r;
            if (best[lane] == value) first = std::min(first, static_cast<std::int64_t>(at[lane] * kBlockRows + r));
        }
        return first;
    }
};

TokenStore::TokenStore(std::shared_ptr<const codec::Codec> c)
    : codec_(std::move(c)), recurrent_(dynamic_cast<const codec::RecurrentCodec*>(codec_.get())) {
    if (recurrent_ == nullptr || codec_->metric() != Metric::ip) {
        throw Error(ErrorKind::value, "a token store needs a recurrent codec that was fitted with metric 'ip'");
    }
}

std::size_t TokenStore::size() const {
    const std::shared_lock lock(mutex_);
    return offsets_.size() - 1;
}

std::size_t TokenStore::tokens() const {
    const std::shared_lock lock(mutex_);
    return static_cast<std::size_t>(offsets_.back());
}

void TokenStore::add(const TokenSets& documents, int num_threads) {
    const std::size_t bytes = codec_->code_bytes(), block_bytes = codec_->block_bytes();
    std::size_t n_blocks = 0;
    for (std::size_t i = 0; i < documents.n; ++i) n_blocks += blocks_of(documents.count(i));
    AlignedVector<std::uint8_t> blocks(n_blocks * block_bytes);
    std::uint8_t* out = blocks.data();
    std::vector<std::uint8_t> codes;
    for (std::size_t i = 0; i < documents.n;) {
        std::size_t last = i + 1;  // at least one document, however long
        while (last < documents.n && documents.begin(last + 1) - documents.begin(i) <= kEncodeTokens) ++last;
        const std::size_t begin = documents.begin(i), n = documents.begin(last) - begin;
        codes.resize(n * bytes);
        codec_->encode({static_cast<const float*>(documents.data) + begin * documents.dim, n, documents.dim},
                       codes.data(), num_threads, codec::Effort::rounded);
        for (; i < last; ++i) {
            for (std::size_t t = 0; t < documents.count(i); t += kBlockRows, out += block_bytes) {
                codec_->pack_block(codes.data() + (documents.begin(i) - begin + t) * bytes,
                                   std::min(kBlockRows, documents.count(i) - t), out);
            }
        }
    }
    const std::lock_guard lock(mutex_);
    // All memory first: what follows cannot fail.
    AlignedVector<std::uint8_t>& kept = blocks_.edit(blocks_.size() + blocks.size());
    offsets_.reserve(offsets_.size() + documents.n);
    first_block_.reserve(first_block_.size() + documents.n);
    kept.insert(kept.end(), blocks.begin(), blocks.end());
    for (std::size_t i = 0; i < documents.n; ++i) {
        offsets_.push_back(offsets_.back() + static_cast<std::int64_t>(documents.count(i)));
        first_block_.push_back(first_block_.back() + blocks_of(documents.count(i)));
    }
}

std::vector<float> TokenStore::decode(std::size_t document) const {
    const std::shared_lock lock(mutex_);
    if (document + 1 >= offsets_.size()) throw Error(ErrorKind::out_of_range, "no such document");
    const auto count = static_cast<std::size_t>(offsets_[document + 1] - offsets_[document]);
    std::vector<std::uint8_t> codes(count * codec_->code_bytes());
    for (std::size_t t = 0; t < count; ++t) {
        codec_->unpack_row(blocks_.data() + (first_block_[document] + t / kBlockRows) * codec_->block_bytes(),
                           t % kBlockRows, codes.data() + t * codec_->code_bytes());
    }
    std::vector<float> out(count * codec_->dim());
    codec_->decode(codes.data(), count, out.data(), 1);
    return out;
}

TokenStore::Queries TokenStore::prepare(const TokenSets& queries, int num_threads) const {
    const std::size_t n = queries.total(), rows = recurrent_->tops().size();
    std::vector<float> weights(n * rows);
    Queries q;
    q.constants.resize(n);
    recurrent_->query_weights({static_cast<const float*>(queries.data), n, queries.dim}, weights.data(),
                              q.constants.data(), num_threads);
    const float top = *std::max_element(recurrent_->tops().begin(), recurrent_->tops().end());
    const auto limit = static_cast<float>(kernel::token_weight_max(static_cast<int>(top)));
    q.weights.resize(n * rows);
    q.tokens.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
        const float* w = weights.data() + i * rows;
        float largest = 0;
        for (std::size_t j = 0; j < rows; ++j) largest = std::max(largest, std::abs(w[j]));
        const float unit = largest > 0 ? largest / limit : 1.0f;
        double offset = 0;
        for (std::size_t j = 0; j < rows; ++j) {
            const float rounded = std::nearbyint(w[j] / unit);
            q.weights[i * rows + j] = static_cast<std::int8_t>(rounded);
            offset -= static_cast<double>(rounded) * static_cast<double>(recurrent_->tops()[j]) / 2;
        }
        q.tokens[i] = {q.weights.data() + i * rows, unit,
                       static_cast<float>(offset * static_cast<double>(unit))};
    }
    return q;
}

void TokenStore::scan(const Queries& q, std::size_t document, bool where, Scratch& s) const {
    const kernel::KernelTable& kernels = kernel::active();
    const kernel::PlaneLayout& layout = recurrent_->layout();
    const std::size_t n_cells = kernel::kGroupStrips * layout.groups[0];
    const auto count = static_cast<std::size_t>(offsets_[document + 1] - offsets_[document]);
    s.cells.resize(n_cells * kernel::kCellBytes * kBlockRows);
    s.best.assign(q.tokens.size() * kBlockRows, kNone);
    if (where) s.at.assign(q.tokens.size() * kBlockRows, 0);
    const std::uint8_t* block = blocks_.data() + first_block_[document] * codec_->block_bytes();
    for (std::size_t b = 0; b < blocks_of(count); ++b, block += codec_->block_bytes()) {
        // The planes of a block are streams too short for the hardware to follow.
        const std::uint8_t* ahead = block + kAheadBlocks * codec_->block_bytes();
        if (ahead < blocks_.data() + blocks_.size()) {
            for (std::size_t i = 0; i < codec_->block_bytes(); i += kCacheLine) prefetch_line(ahead + i);
        }
        const std::size_t present = std::min(kBlockRows, count - b * kBlockRows);
        float add[kBlockRows], scale[kBlockRows];
        std::uint16_t half[kBlockRows];
        std::memcpy(add, block + layout.add_offset(), sizeof add);
        std::memcpy(half, block + layout.scale_offset(), sizeof half);
        kernels.floats.f16_to_f32(half, scale, kBlockRows);
        std::fill(add + present, add + kBlockRows, kNone);  // their scale is zero
        kernels.planes.expand(layout, block, s.cells.data());
        kernels.tokens.best(s.cells.data(), n_cells, scale, add, q.tokens.data(), q.tokens.size(),
                            static_cast<std::uint32_t>(b), s.best.data(), where ? s.at.data() : nullptr);
    }
}

void TokenStore::maxsim(const TokenSets& queries, const DocumentChoice& chosen, float* out, int num_threads) const {
    const int threads = std::max(1, num_threads);
    const Queries q = prepare(queries, threads);
    const std::shared_lock lock(mutex_);
    std::vector<Scratch> scratch(static_cast<std::size_t>(threads));
    parallel_for(chosen.count, kDocumentGrain, threads, [&](std::size_t begin, std::size_t end, int worker) {
        Scratch& s = scratch[static_cast<std::size_t>(worker)];
        for (std::size_t i = begin; i < end; ++i) {
            scan(q, chosen[i], false, s);
            for (std::size_t r = 0; r < queries.n; ++r) {
                double sum = 0;
                for (std::size_t t = queries.begin(r); t < queries.begin(r + 1); ++t) {
                    sum += static_cast<double>(s.largest(t)) + static_cast<double>(q.constants[t]);
                }
                out[r * chosen.count + i] = static_cast<float>(sum);
            }
        }
    });
}

void TokenStore::best_tokens(const TokenSets& query, const DocumentChoice& chosen, float* scores,
                             std::int64_t* tokens, int num_threads) const {
    const int threads = std::max(1, num_threads);
    const Queries q = prepare(query, threads);
    const std::shared_lock lock(mutex_);
    std::vector<Scratch> scratch(static_cast<std::size_t>(threads));
    parallel_for(chosen.count, kDocumentGrain, threads, [&](std::size_t begin, std::size_t end, int worker) {
        Scratch& s = scratch[static_cast<std::size_t>(worker)];
        for (std::size_t i = begin; i < end; ++i) {
            scan(q, chosen[i], true, s);
            for (std::size_t t = 0; t < q.tokens.size(); ++t) {
                const float best = s.largest(t);
                scores[t * chosen.count + i] = best + q.constants[t];
                tokens[t * chosen.count + i] = best == kNone ? -1 : s.first_of(t, best);
            }
        }
    });
}

std::map<std::string, std::size_t> TokenStore::memory() const {
    const std::shared_lock lock(mutex_);
    return {{"codes", blocks_.memory_bytes()},
            {"offsets", offsets_.capacity() * sizeof(std::int64_t) + first_block_.capacity() * sizeof(std::size_t)},
            {"codec", codec_->memory_bytes()}};
}

void TokenStore::save(const std::string& path) const {
    const std::shared_lock lock(mutex_);
    store::Writer w(kKind);
    store::Writer c(codec_->kind());
    codec_->write(c);
    w.nest("codec", c);
    w.put("offsets", std::span<const std::int64_t>(offsets_));
    w.put("blocks", blocks_.span());
    w.write_file(path);
}

std::shared_ptr<TokenStore> TokenStore::load(const store::Reader& in) {
    std::shared_ptr<const codec::Codec> codec = codec::read_codec(in.nested("codec"));
    std::shared_ptr<TokenStore> out;
    try {
        out = std::make_shared<TokenStore>(std::move(codec));
    } catch (const Error& e) {
        in.fail("codec", e.what());
    }
    const auto offsets = in.array<std::int64_t>("offsets");
    in.verify("offsets");
    if (offsets.empty() || offsets[0] != 0) in.fail("offsets", "does not begin with 0");
    for (std::size_t i = 1; i < offsets.size(); ++i) {
        // Bounded so that the number of bytes below cannot overflow.
        if (offsets[i] < offsets[i - 1] || offsets[i] > std::int64_t{1} << 40) in.fail("offsets", "does not ascend");
        const auto count = static_cast<std::size_t>(offsets[i] - offsets[i - 1]);
        out->first_block_.push_back(out->first_block_.back() + blocks_of(count));
    }
    out->offsets_.assign(offsets.begin(), offsets.end());
    const auto blocks =
        in.array<std::uint8_t>("blocks", out->first_block_.back() * out->codec_->block_bytes());
    out->blocks_ = store::SharedArray<std::uint8_t>(blocks, in.keep_alive("blocks"));
    return out;
}

}  // namespace residua::multivector
