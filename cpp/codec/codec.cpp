// SPDX-License-Identifier: Apache-2.0
#include "codec/codec.hpp"

#include <algorithm>
#include <cstring>

#include "codec/binary_codec.hpp"
#include "codec/float_codec.hpp"
#include "codec/module_codec.hpp"
#include "codec/pq_codec.hpp"
#include "codec/recurrent_codec.hpp"
#include "codec/residual_codec.hpp"
#include "codec/scalar_codec.hpp"
#include "core/aligned.hpp"
#include "core/checksum.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "store/container.hpp"

namespace residua::codec {
namespace {

using ReadFn = std::shared_ptr<const Codec> (*)(const store::Reader&);
struct Kind {
    const char* name;
    ReadFn read;
};
constexpr Kind kKinds[] = {
    {FloatCodec::kKind, FloatCodec::read},
    {BinaryCodec::kKind, BinaryCodec::read},
    {RecurrentCodec::kKind, RecurrentCodec::read},
    {ModuleCodec::kKind, ModuleCodec::read},
    {ScalarCodec::kKind, ScalarCodec::read},
    {PqCodec::kKind, PqCodec::read},
    {ResidualCodec::kKind, ResidualCodec::read},
};

// Units that are blocks.
class BlockEdgeScorer final : public EdgeScorer {
public:
    explicit BlockEdgeScorer(std::unique_ptr<Scorer> scorer) : scorer_(std::move(scorer)) {}

    std::size_t size() const override { return scorer_->size(); }
    std::uint32_t scores(const std::uint8_t* unit, std::size_t query, float threshold, float* out) const override {
        scorer_->scores({unit, kBlockRows}, 0, kBlockRows, query, out);
        std::uint32_t above = 0;
        for (std::size_t r = 0; r < kBlockRows; ++r) above |= static_cast<std::uint32_t>(out[r] > threshold) << r;
        return above;
    }

private:
    std::unique_ptr<Scorer> scorer_;
};

}  // namespace

void Scorer::scores_of(BlockView codes, std::span<const std::uint32_t> rows, std::size_t query, float* out) const {
    float block[kBlockRows];
    std::size_t have = codes.n;  // the block that is scored; none yet
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::size_t begin = rows[i] / kBlockRows * kBlockRows;
        if (begin != have) scores(codes, begin, std::min(codes.n, begin + kBlockRows), query, block);
        have = begin;
        out[i] = block[rows[i] - begin];
    }
}

std::unique_ptr<Scorer> Codec::prepare_prefix(ConstMatrix, std::size_t, int) const {
    throw Error(ErrorKind::unsupported, "a funnel needs codes that keep their dims one after the other; those of a " +
                                            kind() + " do not");
}

void Codec::linear_rows(BlockView, std::size_t, std::size_t, std::uint8_t*, float*, float*) const {
    throw Error(ErrorKind::unsupported, "scores of a " + kind() + " are not linear in bits");
}

void Codec::pack_edges(const std::uint8_t* codes, std::size_t n, std::uint8_t* unit) const { pack_block(codes, n, unit); }

void Codec::unpack_edge(const std::uint8_t* unit, std::size_t row, std::uint8_t* code) const {
    unpack_row(unit, row, code);
}

std::unique_ptr<EdgeScorer> Codec::prepare_edges(ConstMatrix queries, int num_threads) const {
    return std::make_unique<BlockEdgeScorer>(prepare(queries, num_threads));
}

void Codec::to_rows(const std::uint8_t* codes, std::size_t n, std::uint8_t* rows) const {
    std::memcpy(rows, codes, n * code_bytes());
}

void Codec::from_rows(const std::uint8_t* rows, std::size_t n, std::uint8_t* codes) const {
    std::memcpy(codes, rows, n * code_bytes());
}

std::unique_ptr<RowScorer> Codec::prepare_rows(ConstMatrix queries, int num_threads) const {
    return gathering_scorer(*this, prepare(queries, num_threads));
}

std::shared_ptr<const Codec> read_codec(const store::Reader& in) {
    for (const Kind& k : kKinds) {
        if (in.kind() == k.name) return k.read(in);
    }
    throw Error(ErrorKind::corrupt_file, "the file holds a codec of unknown kind '" + in.kind() + "'");
}

void write_codec(store::Writer& out, const std::string& name, const Codec& codec) {
    store::Writer inner(codec.kind());
    codec.write(inner);
    out.nest(name, inner);
}

Metric read_metric(const store::Reader& in) {
    try {
        return parse_metric(in.get_string("metric"));
    } catch (const Error& e) {
        if (e.kind() == ErrorKind::value) in.fail("meta", e.what());
        throw;
    }
}

void Scorer::top_k_of(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
                      std::span<const std::uint32_t> queries, TopK* pools) const {
    for (std::uint32_t q : queries) top_k(codes, row_begin, row_end, allowed, q, q + 1, pools + q);
}

bool Codec::reads_codes_of(const Codec& other) const { return fingerprint(*this) == fingerprint(other); }

void Codec::add_to_score(std::uint8_t*, float) const {
    throw Error(ErrorKind::unsupported, "codes of a " + kind() + " take in no term of their row");
}

std::string fingerprint(const Codec& codec) {
    store::Writer w(codec.kind());
    codec.write(w);
    const std::vector<std::uint8_t> bytes = w.to_bytes();
    static constexpr char kHex[] = "0123456789abcdef";
    std::uint64_t h = xxh64(bytes.data(), bytes.size(), 0);
    std::string s(16, '0');
    for (auto it = s.rbegin(); it != s.rend(); ++it, h >>= 4) *it = kHex[h & 15];
    return s;
}

void score_rows(const Codec& codec, const Scorer& scorer, const std::uint8_t* codes, std::size_t n, float* out,
                int num_threads) {
    constexpr std::size_t kChunkRows = 1024;
    constexpr std::size_t kChunkQueries = 1024;  // bounds a chunk, between which interrupts are polled
    const std::size_t block_bytes = codec.block_bytes();
    for (std::size_t q_begin = 0; q_begin < scorer.size(); q_begin += kChunkQueries) {
        const std::size_t q_end = std::min(q_begin + kChunkQueries, scorer.size());
        parallel_for(n, kChunkRows, num_threads, [&](std::size_t begin, std::size_t end, int) {
            const std::size_t rows = end - begin;
            AlignedVector<std::uint8_t> blocks((rows + kBlockRows - 1) / kBlockRows * block_bytes);
            for (std::size_t r = 0; r < rows; r += kBlockRows) {
                codec.pack_block(codes + (begin + r) * codec.code_bytes(), std::min(kBlockRows, rows - r),
                                 blocks.data() + r / kBlockRows * block_bytes);
            }
            for (std::size_t q = q_begin; q < q_end; ++q) {
                scorer.scores({blocks.data(), rows}, 0, rows, q, out + q * n + begin);
            }
        });
    }
}

}  // namespace residua::codec
