// SPDX-License-Identifier: Apache-2.0
#include "codec/binary_codec.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <span>

#include "codec/hamming_scan.hpp"
#include "codec/normalize.hpp"
#include "codec/plane_query.hpp"
#include "codec/plane_scan.hpp"
#include "core/aligned.hpp"
#include "core/error.hpp"
#include "core/half.hpp"
#include "core/parallel.hpp"
#include "kernel/dispatch.hpp"
#include "store/container.hpp"

namespace residua::codec {
namespace {

constexpr std::size_t kChunk = 1024;
constexpr std::size_t kRotateChunk = 64;

void require(bool ok, const std::string& what) {
    if (!ok) throw Error(ErrorKind::value, "binary codec: " + what);
}

double dot(const float* a, const float* b, std::size_t n) {
    double s = 0;
    for (std::size_t i = 0; i < n; ++i) s += static_cast<double>(a[i]) * b[i];
    return s;
}

void pack_signs(const float* v, std::size_t bits, std::uint8_t* code) {
    for (std::size_t b = 0; b < (bits + 7) / 8; ++b) {
        unsigned byte = 0;
        for (std::size_t j = b * 8; j < b * 8 + 8; ++j) byte = byte << 1 | (j < bits && v[j] > 0 ? 1u : 0u);
        code[b] = static_cast<std::uint8_t>(byte);
    }
}

kernel::PlaneLayout sign_layout(std::size_t bits) {
    kernel::PlaneLayout layout;
    layout.planes = 1;
    layout.groups[0] = static_cast<std::uint32_t>((bits + kernel::kGroupDims - 1) / kernel::kGroupDims);
    return layout;
}

// Hamming distance between codes.
class HammingScorer final : public Scorer {
public:
    HammingScorer(const std::uint8_t* codes, std::size_t n, std::size_t dim, std::size_t bytes)
        : queries_(codes, n, bytes), dim_(dim) {}

    std::size_t size() const override { return queries_.size(); }

    void top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
               std::size_t q_begin, std::size_t q_end, TopK* pools) const override {
        hamming_topk(kernel::active().bits, queries_, q_begin, q_end, codes.data + row_begin * queries_.bytes(),
                     {row_begin, row_end - row_begin, allowed}, dim_, pools);
    }

    void scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                float* out) const override {
        float values[kBlockRows];
        for (std::size_t r = row_begin; r < row_end; r += kBlockRows) {
            hamming_scores(kernel::active().bits, queries_, query, codes.data + r * queries_.bytes(), dim_, values);
            std::copy_n(values, std::min(kBlockRows, row_end - r), out + (r - row_begin));
        }
    }

    // A bit of the query weighs 1 or -1: N is bits - 2 * distance.
    std::optional<LinearQuery> linear_query(std::size_t query) const override {
        LinearQuery out;
        out.weights.resize(sign_layout(dim_).groups[0] * kernel::kGroupDims);
        for (std::size_t i = 0; i < dim_; ++i) {
            out.weights[i] = queries_.bit(query, i) ? 1 : -1;
            out.sum_offset += out.weights[i];
        }
        out.unit = 2;
        return out;
    }

private:
    HammingQueries queries_;
    std::size_t dim_;
};

// Float query against signs: the strips of the codes are those of one plane, to which whole groups of
// dims and the scalars are added on the way. The work of that is shared by all queries of a call.
// `squared_lengths` scores a row by the squared length that its score is to be divided by; without it, lengths are 1.
class SignScorer final : public Scorer {
public:
    SignScorer(std::size_t bytes, kernel::PlaneLayout layout, std::vector<PlaneQuery> queries,
               std::optional<PlaneQuery> squared_lengths)
        : bytes_(bytes), layout_(layout), queries_(std::move(queries)), squared_lengths_(std::move(squared_lengths)) {}

    std::size_t size() const override { return queries_.size(); }

    void top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
               std::size_t q_begin, std::size_t q_end, TopK* pools) const override {
        const std::span<const PlaneQuery> queries = std::span(queries_).subspan(q_begin, q_end - q_begin);
        AlignedVector<std::uint8_t> blocks(kChunk / kBlockRows * layout_.block_bytes());
        for (std::size_t r = row_begin; r < row_end; r += kChunk) {
            const std::size_t n = std::min(kChunk, row_end - r);
            lay_out(codes, r, n, blocks.data());
            plane_topk(kernel::active(), layout_, blocks.data(), {r, n, allowed}, {queries, pools});
        }
    }

    void scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                float* out) const override {
        AlignedVector<std::uint8_t> block(layout_.block_bytes());
        float values[kBlockRows];
        for (std::size_t r = row_begin; r < row_end; r += kBlockRows) {
            const std::size_t n = std::min(kBlockRows, row_end - r);
            lay_out(codes, r, n, block.data());
            score_block(kernel::active().planes, layout_, queries_[query], block.data(), values);
            std::copy_n(values, n, out + (r - row_begin));
        }
    }

    std::optional<LinearQuery> linear_query(std::size_t query) const override { return queries_[query].linear(); }

    // What the scores of rows are multiplied by.
    void scales(BlockView codes, std::size_t row_begin, std::size_t row_end, float* out) const {
        AlignedVector<std::uint8_t> block(layout_.block_bytes());
        for (std::size_t r = row_begin; r < row_end; r += kBlockRows) {
            const std::size_t n = std::min(kBlockRows, row_end - r);
            lay_out(codes, r, n, block.data());
            const auto* halves = reinterpret_cast<const std::uint16_t*>(block.data() + layout_.scale_offset());
            for (std::size_t i = 0; i < n; ++i) out[r - row_begin + i] = float_from_half(halves[i]);
        }
    }

private:
    // Of rows of bytes_, the strips that the layout has.
    void lay_out(BlockView codes, std::size_t row, std::size_t n, std::uint8_t* blocks) const {
        constexpr std::uint16_t kHalfOne = 0x3C00;
        const std::size_t strip_bytes = std::min(kBlockRows * bytes_, layout_.strip_bytes());
        for (std::size_t r = 0; r < n; r += kBlockRows, blocks += layout_.block_bytes()) {
            std::memcpy(blocks, codes.data + (row + r) * bytes_, strip_bytes);
            std::memset(blocks + strip_bytes, 0, layout_.scale_offset() - strip_bytes);
            auto* scales = reinterpret_cast<std::uint16_t*>(blocks + layout_.scale_offset());
            std::fill_n(scales, kBlockRows, kHalfOne);
            if (squared_lengths_) divide_by_lengths(blocks, scales);
        }
    }

    void divide_by_lengths(const std::uint8_t* block, std::uint16_t* scales) const {
        // Keeps inverses within float16 where signs cancel the centre.
        constexpr float kLeast = 0x1p-31f, kMost = 0x1p27f;
        std::int64_t sums[kBlockRows];
        float values[kBlockRows];
        kernel::active().planes.exact(layout_, block, squared_lengths_->exact_tables(), sums);
        const std::int64_t offset = squared_lengths_->table_offset();
        for (std::size_t r = 0; r < kBlockRows; ++r) values[r] = squared_lengths_->score(2 * sums[r] - offset, 0, 1);
        for (float& v : values) v = 1.0f / std::sqrt(std::clamp(v, kLeast, kMost));
        for (std::size_t r = 0; r < kBlockRows; ++r) scales[r] = half_from_float(values[r]);
    }

    std::size_t bytes_;
    kernel::PlaneLayout layout_;
    std::vector<PlaneQuery> queries_;
    std::optional<PlaneQuery> squared_lengths_;
};

}  // namespace

std::size_t BinaryCodec::candidates(std::size_t k, std::size_t n) const { return std::min(n, 20 * k + 100); }

BinaryCodec::BinaryCodec(std::size_t dim, std::size_t bits, Metric metric, BinaryRotation rotation)
    : dim_(dim), bits_(bits), metric_(metric), rotation_(std::move(rotation)) {
    require(bits >= 1 && bits <= dim, "1 to dim bits expected");
    if (rotation_.kind.empty()) return;
    require(rotation_.kind == "random" || rotation_.kind == "itq", "unknown rotation '" + rotation_.kind + "'");
    map_ = BlockMap(rotation_.map, dim, rotation_.block_dims, rotation_.group_block,
                    (bits + BlockMap::kGroup - 1) / BlockMap::kGroup);
    rotation_.map = {};
    require(rotation_.center.size() == dim, "a centre of dim values expected");
    require(map_.is_finite() && std::all_of(rotation_.center.begin(), rotation_.center.end(),
                                            [](float v) { return std::isfinite(v); }),
            "parameters must be finite");
    require(std::isfinite(rotation_.amplitude) && rotation_.amplitude > 0, "a positive amplitude expected");
    if (!divides_by_length()) return;
    turned_center_.resize(width());
    map_.multiply({rotation_.center.data(), 1, dim_}, {turned_center_.data(), 1, width()});
}

std::size_t BinaryCodec::memory_bytes() const {
    return sizeof(*this) + map_.memory_bytes() + (rotation_.center.size() + turned_center_.size()) * sizeof(float);
}

double BinaryCodec::squared_length(std::size_t bits) const {
    const double a = static_cast<double>(amplitude());
    return dot(rotation_.center.data(), rotation_.center.data(), dim_) + a * a * static_cast<double>(bits);
}

float BinaryCodec::amplitude() const {
    if (!map_.empty()) return rotation_.amplitude;
    return metric_ == Metric::cosine ? static_cast<float>(1.0 / std::sqrt(static_cast<double>(bits_))) : 1.0f;
}

void BinaryCodec::project(ConstMatrix x, bool centred, MutMatrix y) const {
    std::vector<float> z(x.rows * dim_);
    for (std::size_t i = 0; i < x.rows; ++i) {
        float* zi = z.data() + i * dim_;
        copy_for_metric(x.row(i), dim_, metric_, zi);
        if (map_.empty()) {
            std::copy_n(zi, bits_, y.row(i));
        } else if (centred) {
            for (std::size_t j = 0; j < dim_; ++j) zi[j] -= rotation_.center[j];
        }
    }
    if (!map_.empty()) map_.multiply({z.data(), x.rows, dim_}, y);
}

bool BinaryCodec::is_code(const std::uint8_t* code) const {
    return bits_ % 8 == 0 || (code[bits_ / 8] & (0xFFu >> (bits_ % 8))) == 0;
}

void BinaryCodec::encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort) const {
    parallel_for(x.rows, map_.empty() ? kChunk : kRotateChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        if (map_.empty()) {
            for (std::size_t r = begin; r < end; ++r) pack_signs(x.row(r), bits_, codes + r * code_bytes());
            return;
        }
        std::vector<float> y((end - begin) * width());
        project(x.slice(begin, end), true, {y.data(), end - begin, width()});
        for (std::size_t r = begin; r < end; ++r) {
            pack_signs(y.data() + (r - begin) * width(), bits_, codes + r * code_bytes());
        }
    });
}

void BinaryCodec::decode(const std::uint8_t* codes, std::size_t n, float* out, int num_threads) const {
    const float a = amplitude();
    const auto unpack = [&](const std::uint8_t* code, float* v) {
        for (std::size_t j = 0; j < bits_; ++j) v[j] = (code[j / 8] >> (7 - j % 8)) & 1 ? a : -a;
    };
    parallel_for(n, kRotateChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        float* first = out + begin * dim_;
        if (map_.empty()) {
            std::fill_n(first, (end - begin) * dim_, 0.0f);
            for (std::size_t r = begin; r < end; ++r) unpack(codes + r * code_bytes(), out + r * dim_);
            return;
        }
        std::vector<float> v((end - begin) * width());
        for (std::size_t r = begin; r < end; ++r) {
            unpack(codes + r * code_bytes(), v.data() + (r - begin) * width());
        }
        map_.multiply_transposed({v.data(), end - begin, width()}, {first, end - begin, dim_});
        for (float* row = first; row != first + (end - begin) * dim_; row += dim_) {
            for (std::size_t j = 0; j < dim_; ++j) row[j] += rotation_.center[j];
            copy_for_metric(row, dim_, metric_, row);
        }
    });
}

void BinaryCodec::pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const {
    kernel::active().planes.pack(code_bytes(), codes, code_bytes(), n, block);
}

void BinaryCodec::unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const {
    kernel::active().planes.unpack(code_bytes(), block, row, code);
}

std::unique_ptr<Scorer> BinaryCodec::prepare(ConstMatrix queries, int num_threads) const {
    return prepare_prefix(queries, bits_, num_threads);
}

std::unique_ptr<Scorer> BinaryCodec::prepare_prefix(ConstMatrix queries, std::size_t bits, int num_threads) const {
    const kernel::PlaneLayout layout = sign_layout(bits);
    std::vector<PlaneQuery> prepared(queries.rows);
    const bool l2 = metric_ == Metric::l2;
    const double a = static_cast<double>(amplitude());
    // A sign is 2 (u - 1/2) times the amplitude. With z = q - c, l2 is 2 <z, v> - |z|^2 - |v|^2; otherwise the
    // score is <q, c> + <q, v>, over the length |c + v| where it is not 1. Lengths are counted in their mean one,
    // which brings their inverses close to 1 whatever the data.
    const bool divides = divides_by_length();
    const double length = divides ? std::sqrt(squared_length(bits)) : 1.0;
    const float factor = static_cast<float>((l2 ? 4.0 : 2.0) * a / length);
    parallel_for(queries.rows, kRotateChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<float> w((end - begin) * width()), q(dim_);
        project(queries.slice(begin, end), l2, {w.data(), end - begin, width()});
        for (std::size_t i = begin; i < end; ++i) {
            copy_for_metric(queries.row(i), dim_, metric_, q.data());
            double constant = 0;
            if (!map_.empty() && !l2) constant = dot(q.data(), rotation_.center.data(), dim_);
            if (l2) {
                for (std::size_t j = 0; !map_.empty() && j < dim_; ++j) q[j] -= rotation_.center[j];
                constant = -dot(q.data(), q.data(), dim_) - a * a * static_cast<double>(bits);
            }
            float* wi = w.data() + (i - begin) * width();
            for (std::size_t j = 0; j < bits; ++j) wi[j] *= factor;
            prepared[i] = PlaneQuery(layout, {wi, bits}, divides ? 0.0f : static_cast<float>(constant),
                                     WeightBits::twelve, false);
            if (divides) prepared[i].set_offset(static_cast<float>(constant / length));
        }
    });
    return std::make_unique<SignScorer>(code_bytes(), layout, std::move(prepared), squared_lengths(bits));
}

std::optional<PlaneQuery> BinaryCodec::squared_lengths(std::size_t bits) const {
    if (!divides_by_length()) return std::nullopt;
    // W has orthonormal rows: |c + v|^2 = |c|^2 + |v|^2 + 2 <W c, a s>.
    std::vector<float> w(turned_center_.begin(), turned_center_.begin() + static_cast<std::ptrdiff_t>(bits));
    const double length = std::sqrt(squared_length(bits));
    for (float& wj : w) wj *= static_cast<float>(4 * static_cast<double>(amplitude()) / (length * length));
    return PlaneQuery(sign_layout(bits), w, 1.0f, WeightBits::twelve, false);
}

std::optional<LinearForm> BinaryCodec::linear_form() const {
    return LinearForm{sign_layout(bits_), divides_by_length()};
}

void BinaryCodec::linear_rows(BlockView codes, std::size_t row_begin, std::size_t row_end, std::uint8_t* planes,
                              float* scale, float* add) const {
    const std::size_t bytes = sign_layout(bits_).code_bytes();
    std::memset(planes, 0, (row_end - row_begin) * bytes);
    for (std::size_t r = row_begin; r < row_end; ++r) {
        unpack_row(codes.data + r / kBlockRows * block_bytes(), r % kBlockRows, planes + (r - row_begin) * bytes);
    }
    const std::optional<PlaneQuery> lengths = squared_lengths(bits_);
    if (!lengths) return;
    std::fill_n(add, row_end - row_begin, 0.0f);
    SignScorer(code_bytes(), sign_layout(bits_), {}, lengths).scales(codes, row_begin, row_end, scale);
}

std::unique_ptr<Scorer> BinaryCodec::prepare_codes(const std::uint8_t* codes, std::size_t n, int) const {
    return std::make_unique<HammingScorer>(codes, n, bits_, code_bytes());
}

void BinaryCodec::write(store::Writer& out) const {
    out.put_string("metric", to_string(metric_));
    out.put_int("dim", static_cast<std::int64_t>(dim_));
    if (bits_ != dim_) out.put_int("bits", static_cast<std::int64_t>(bits_));
    if (map_.empty()) return;
    out.put_string("rotation", rotation_.kind);
    out.put_double("amplitude", static_cast<double>(rotation_.amplitude));
    out.put_int("block_dims", static_cast<std::int64_t>(rotation_.block_dims));
    out.put<std::uint16_t>("group_block", rotation_.group_block);
    out.put<float>("center", rotation_.center);
    out.put_copy<float>("map", map_.values());
}

std::shared_ptr<const Codec> BinaryCodec::read(const store::Reader& in) {
    const std::int64_t dim = in.get_int("dim", 1, 65'536);
    const std::int64_t bits = in.has_key("bits") ? in.get_int("bits", 1, dim) : dim;
    BinaryRotation r;
    if (in.has_key("rotation")) {
        r.kind = in.get_string("rotation");
        r.amplitude = static_cast<float>(in.get_double("amplitude"));
        r.block_dims = static_cast<std::size_t>(in.get_int("block_dims", 1, dim));
        const auto blocks = in.array<std::uint16_t>("group_block");
        const auto center = in.array<float>("center", static_cast<std::size_t>(dim));
        const auto map = in.array<float>("map");
        r.group_block.assign(blocks.begin(), blocks.end());
        r.center.assign(center.begin(), center.end());
        r.map.assign(map.begin(), map.end());
        if (r.kind.empty()) in.fail("meta", "key 'rotation' is empty");
    }
    try {
        return std::make_shared<BinaryCodec>(static_cast<std::size_t>(dim), static_cast<std::size_t>(bits),
                                             read_metric(in), std::move(r));
    } catch (const Error& e) {
        if (e.kind() == ErrorKind::value) in.fail("meta", e.what());
        throw;
    }
}

void hamming(const std::uint8_t* a, std::size_t na, const std::uint8_t* b, std::size_t nb, std::size_t bytes,
             std::int32_t* out, int num_threads) {
    parallel_for(na, 16, num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t i = begin; i < end; i += kernel::kHammingTile) {
            const std::size_t tile = std::min(kernel::kHammingTile, end - i);
            kernel::active().bits.hamming(a + i * bytes, tile, b, nb, bytes, out + i * nb);
        }
    });
}

}  // namespace residua::codec
