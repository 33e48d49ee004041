// SPDX-License-Identifier: Apache-2.0
// Tokens as recurrent codes, in whole blocks per document, scored without being decoded to floats: levels are
// unpacked block by block and multiplied as integers.
#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "codec/recurrent_codec.hpp"
#include "core/error.hpp"
#include "core/metric.hpp"
#include "core/prefetch.hpp"
#include "kernel/dispatch.hpp"
#include "multivector/token_data.hpp"
#include "multivector/token_weights.hpp"
#include "store/shared_array.hpp"

namespace residua::multivector {
namespace {

using codec::kBlockRows;
static_assert(kBlockRows == kernel::kByteRows);

constexpr std::size_t kEncodeTokens = 16'384;  // encoded at a time
constexpr std::size_t kAheadBlocks = 2;

std::size_t blocks_of(std::size_t tokens) { return (tokens + kBlockRows - 1) / kBlockRows; }

// Where codes lie.
struct CodeBlocks {
    const std::uint8_t* data = nullptr;
    const std::uint8_t* end = nullptr;
    const std::size_t* first = nullptr;  // block of every document
    std::size_t bytes = 0;               // of a block
};

class CodeScorer final : public TokenScorer {
public:
    CodeScorer(const codec::RecurrentCodec& codec, const TokenSets& queries, const DocumentPlaces& places,
               const CodeBlocks& blocks, int num_threads)
        : TokenScorer(places, queries.total()), layout_(codec.layout()), blocks_(blocks),
          weights_(token_weights(codec, queries, num_threads)) {
        joined_ = kernel::joined_cells(static_cast<int>(*std::max_element(codec.tops().begin(), codec.tops().end())));
        for (std::size_t i = 0; i < queries.total(); ++i) {
            queries_.push_back({weights_.weights.data() + i * weights_.rows, weights_.units[i], weights_.offsets[i]});
        }
    }

    void best(std::size_t document, TokenScratch& s, float* scores, std::int64_t* tokens) const override {
        const std::size_t n = query_tokens();
        scan(document, tokens != nullptr, s);
        for (std::size_t t = 0; t < n; ++t) {
            const float* lanes = s.best.data() + t * kBlockRows;
            const float best = largest(lanes);
            scores[t] = best + weights_.constants[t];
            if (tokens != nullptr) tokens[t] = first_of(lanes, s.blocks.data() + t * kBlockRows, best);
        }
    }

private:
    // The planes of a block are streams too short for the hardware to follow.
    void prefetch_block(const std::uint8_t* block) const {
        if (block >= blocks_.end) return;
        for (std::size_t i = 0; i < blocks_.bytes; i += kCacheLine) prefetch_line(block + i);
    }

    // The best of the rows of all blocks, lane by lane; and their blocks.
    void scan(std::size_t document, bool where, TokenScratch& s) const {
        const kernel::KernelTable& kernels = kernel::active();
        const std::size_t n_cells = kernel::kGroupStrips * layout_.groups[0];
        const std::size_t count = places().count(document), lanes = queries_.size() * kBlockRows;
        s.cells.resize(n_cells * kernel::kCellBytes * kBlockRows);
        s.best.assign(lanes, kWorstScore);
        if (where) s.blocks.assign(lanes, 0);
        const std::uint8_t* block = blocks_.data + blocks_.first[document] * blocks_.bytes;
        for (std::size_t b = 0; b < blocks_of(count); ++b, block += blocks_.bytes) {
            prefetch_block(block + kAheadBlocks * blocks_.bytes);
            const std::size_t present = std::min(kBlockRows, count - b * kBlockRows);
            float add[kBlockRows], scale[kBlockRows];
            std::uint16_t half[kBlockRows];
            std::memcpy(add, block + layout_.add_offset(), sizeof add);
            std::memcpy(half, block + layout_.scale_offset(), sizeof half);
            kernels.floats.f16_to_f32(half, scale, kBlockRows);
            std::fill(add + present, add + kBlockRows, kWorstScore);  // their scale is zero
            kernels.planes.expand(layout_, block, s.cells.data());
            kernels.tokens.best(s.cells.data(), n_cells, joined_, scale, add, queries_.data(), queries_.size(),
                                static_cast<std::uint32_t>(b), s.best.data(), where ? s.blocks.data() : nullptr);
        }
    }

    static float largest(const float* lanes) {
        constexpr std::size_t kWidth = 8;  // what compilers keep in registers
        float top[kWidth];
        std::copy_n(lanes, kWidth, top);
        for (std::size_t r = kWidth; r < kBlockRows; r += kWidth) {
            for (std::size_t i = 0; i < kWidth; ++i) top[i] = lanes[r + i] > top[i] ? lanes[r + i] : top[i];
        }
        return *std::max_element(top, top + kWidth);
    }

    static std::int64_t first_of(const float* lanes, const std::uint32_t* blocks, float value) {
        std::int64_t first = std::numeric_limits<std::int64_t>::max();
        for (std::size_t r = 0; r < kBlockRows; ++r) {
            if (lanes[r] == value) first = std::min(first, static_cast<std::int64_t>(blocks[r] * kBlockRows + r));
        }
        return first;
    }

    const kernel::PlaneLayout& layout_;
    CodeBlocks blocks_;
    TokenWeights weights_;
    std::size_t joined_ = 1;
    std::vector<kernel::TokenQuery> queries_;
};

class CodeTokens final : public TokenData {
public:
    explicit CodeTokens(std::shared_ptr<const codec::Codec> c)
        : codec_(std::move(c)), recurrent_(dynamic_cast<const codec::RecurrentCodec*>(codec_.get())) {
        if (recurrent_ == nullptr || codec_->metric() != Metric::ip) {
            throw Error(ErrorKind::value, "a token store needs a recurrent codec that was fitted with metric 'ip'");
        }
    }

    static std::unique_ptr<TokenData> read(const store::Reader& in, std::span<const std::int64_t> offsets) {
        std::shared_ptr<const codec::Codec> codec = codec::read_codec(in.nested("codec"));
        std::unique_ptr<CodeTokens> out;
        try {
            out = std::make_unique<CodeTokens>(std::move(codec));
        } catch (const Error& e) {
            in.fail("codec", e.what());
        }
        out->first_block_.reserve(offsets.size());
        for (std::size_t i = 1; i < offsets.size(); ++i) {
            out->push_blocks(static_cast<std::size_t>(offsets[i] - offsets[i - 1]));
        }
        const auto blocks = in.array<std::uint8_t>("blocks", out->first_block_.back() * out->block_bytes());
        out->blocks_ = store::SharedArray<std::uint8_t>(blocks, in.keep_alive("blocks"));
        return out;
    }

    std::size_t dim() const override { return codec_->dim(); }
    const char* form() const override { return "codes"; }
    std::shared_ptr<const codec::Codec> codec() const override { return codec_; }
    TokenMemory memory() const override { return {blocks_.data(), nullptr, first_block_.data()}; }

    std::unique_ptr<TokenData> encoded(const TokenSets& documents, int num_threads) const override {
        auto out = std::make_unique<CodeTokens>(codec_);
        for (std::size_t i = 0; i < documents.n; ++i) out->push_blocks(documents.count(i));
        AlignedVector<std::uint8_t>& blocks = out->blocks_.edit();
        blocks.resize(out->first_block_.back() * block_bytes());
        std::uint8_t* to = blocks.data();
        const std::size_t bytes = codec_->code_bytes();
        std::vector<std::uint8_t> codes;
        AlignedVector<float> buffer;
        for (std::size_t i = 0; i < documents.n;) {
            std::size_t last = i + 1;  // at least one document, however long
            while (last < documents.n && documents.begin(last + 1) - documents.begin(i) <= kEncodeTokens) ++last;
            const std::size_t begin = documents.begin(i), n = documents.begin(last) - begin;
            codes.resize(n * bytes);
            codec_->encode({as_floats(documents, begin, n, buffer), n, documents.dim}, codes.data(), num_threads,
                           codec::Effort::rounded);
            for (; i < last; ++i) {
                for (std::size_t t = 0; t < documents.count(i); t += kBlockRows, to += block_bytes()) {
                    codec_->pack_block(codes.data() + (documents.begin(i) - begin + t) * bytes,
                                       std::min(kBlockRows, documents.count(i) - t), to);
                }
            }
        }
        return out;
    }

    std::unique_ptr<TokenData> compacted(const DocumentPlaces& places, std::size_t documents) const override {
        auto out = std::make_unique<CodeTokens>(codec_);
        for (std::size_t i = 0; i < documents; ++i) out->push_blocks(places.count(i));
        AlignedVector<std::uint8_t>& blocks = out->blocks_.edit();
        blocks.resize(out->first_block_.back() * block_bytes());
        std::uint8_t* to = blocks.data();
        for (std::size_t i = 0; i < documents; ++i) {
            to = std::copy_n(blocks_.data() + first_block_[i] * block_bytes(),
                             blocks_of(places.count(i)) * block_bytes(), to);
        }
        return out;
    }

    void append(const TokenData& more) override {
        const auto& other = static_cast<const CodeTokens&>(more);
        AlignedVector<std::uint8_t>& blocks = blocks_.edit(blocks_.size() + other.blocks_.size());
        const std::size_t before = first_block_.back(), documents = other.first_block_.size() - 1;
        make_room(first_block_, documents);
        blocks.insert(blocks.end(), other.blocks_.span().begin(), other.blocks_.span().end());
        for (std::size_t i = 1; i <= documents; ++i) first_block_.push_back(before + other.first_block_[i]);
    }

    void decode(const DocumentPlaces& places, std::size_t document, float* out) const override {
        const std::size_t count = places.count(document);
        std::vector<std::uint8_t> codes(count * codec_->code_bytes());
        for (std::size_t t = 0; t < count; ++t) {
            codec_->unpack_row(blocks_.data() + (first_block_[document] + t / kBlockRows) * block_bytes(),
                               t % kBlockRows, codes.data() + t * codec_->code_bytes());
        }
        codec_->decode(codes.data(), count, out, 1);
    }

    std::unique_ptr<TokenScorer> prepare(const TokenSets& queries, const DocumentPlaces& places,
                                         int num_threads) const override {
        return std::make_unique<CodeScorer>(
            *recurrent_, queries, places,
            CodeBlocks{blocks_.data(), blocks_.data() + blocks_.size(), first_block_.data(), block_bytes()},
            num_threads);
    }

    void add_memory(std::map<std::string, std::size_t>& parts) const override {
        parts["codes"] = blocks_.memory_bytes();
        parts["codec"] = codec_->memory_bytes();
        parts["offsets"] += first_block_.capacity() * sizeof(std::size_t);
    }

    void write(store::Writer& out) const override {
        store::Writer c(codec_->kind());
        codec_->write(c);
        out.nest("codec", c);
        out.put("blocks", blocks_.span());
    }

private:
    std::size_t block_bytes() const { return codec_->block_bytes(); }
    void push_blocks(std::size_t tokens) { first_block_.push_back(first_block_.back() + blocks_of(tokens)); }

    std::shared_ptr<const codec::Codec> codec_;
    const codec::RecurrentCodec* recurrent_;
    std::vector<std::size_t> first_block_{0};  // a document starts a block
    store::SharedArray<std::uint8_t> blocks_;
};

}  // namespace

std::unique_ptr<TokenData> make_code_tokens(std::shared_ptr<const codec::Codec> codec) {
    return std::make_unique<CodeTokens>(std::move(codec));
}

std::unique_ptr<TokenData> read_code_tokens(const store::Reader& in, std::span<const std::int64_t> offsets) {
    return CodeTokens::read(in, offsets);
}

}  // namespace residua::multivector
