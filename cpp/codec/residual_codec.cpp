// SPDX-License-Identifier: Apache-2.0
#include "codec/residual_codec.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "codec/block_rows.hpp"
#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "store/container.hpp"

namespace residua::codec {
namespace {

constexpr std::size_t kCodewords = train::kCodewords;
constexpr std::size_t kLevels = 256;
constexpr std::size_t kChunk = 64;

void require(bool ok, const char* what) {
    if (!ok) throw Error(ErrorKind::value, std::string("residual codec: ") + what);
}

double dot(const float* a, const float* b, std::size_t n) {
    double s = 0;
    for (std::size_t i = 0; i < n; ++i) s += static_cast<double>(a[i]) * b[i];
    return s;
}

class ResidualScorer final : public Scorer {
public:
    // tables: one row per query, of `books` times 256 values; constants: one per query.
    ResidualScorer(std::size_t books, bool l2, const std::vector<float>& levels, std::vector<float> tables,
                   std::vector<float> constants)
        : books_(books), l2_(l2), levels_(levels), tables_(std::move(tables)), constants_(std::move(constants)) {}

    std::size_t size() const override { return constants_.size(); }

    void top_k(BlockView codes, std::size_t row_begin, std::size_t row_end, const Bitset* allowed,
               std::size_t q_begin, std::size_t q_end, TopK* pools) const override {
        const BlockRows rows(row_begin, row_end - row_begin, allowed);
        const std::uint8_t* blocks = codes.data + row_begin / kBlockRows * block_bytes();
        float scores[kBlockRows];
        for (std::size_t q = q_begin; q < q_end; ++q) {
            TopK& pool = pools[q - q_begin];
            for (std::size_t b = 0; b < rows.blocks(); ++b) {
                std::uint32_t mask = rows.mask(b);
                if (mask == 0) continue;
                score_block(blocks + b * block_bytes(), q, scores);
                const float least = pool.threshold();
                std::uint32_t reach = 0;
                for (std::size_t j = 0; j < kBlockRows; ++j) reach |= (scores[j] >= least ? 1u : 0u) << j;
                for (mask &= reach; mask != 0; mask &= mask - 1) {
                    const auto j = static_cast<std::size_t>(std::countr_zero(mask));
                    pool.push(scores[j], rows.row(b, j));
                }
            }
        }
    }

    void scores(BlockView codes, std::size_t row_begin, std::size_t row_end, std::size_t query,
                float* out) const override {
        float block_scores[kBlockRows];
        for (std::size_t r = row_begin; r < row_end; r += kBlockRows) {
            score_block(codes.data + r / kBlockRows * block_bytes(), query, block_scores);
            std::copy_n(block_scores, std::min(kBlockRows, row_end - r), out + (r - row_begin));
        }
    }

private:
    std::size_t block_bytes() const { return kBlockRows * (books_ + 1); }

    void score_block(const std::uint8_t* block, std::size_t query, float* out) const {
        const float* table = tables_.data() + query * books_ * kCodewords;
        float sums[kBlockRows];
        std::fill_n(sums, kBlockRows, constants_[query]);
        for (std::size_t m = 0; m < books_; ++m) {
            for (std::size_t j = 0; j < kBlockRows; ++j) sums[j] += table[block[j]];
            table += kCodewords;
            block += kBlockRows;
        }
        for (std::size_t j = 0; j < kBlockRows; ++j) {
            const float level = levels_[block[j]];
            out[j] = l2_ ? sums[j] - level : sums[j] * level;
        }
    }

    std::size_t books_;
    bool l2_;
    std::vector<float> levels_;
    std::vector<float> tables_;
    std::vector<float> constants_;
};

}  // namespace

ResidualCodec::ResidualCodec(ResidualParams params) : p_(std::move(params)) {
    require(p_.dim >= 1, "dim must be at least 1");
    require(p_.center.size() == p_.dim, "the center must have dim values");
    require(p_.codebooks.size() % (kCodewords * p_.dim) == 0, "codebooks must have 256 x dim values each");
    require(n_codebooks() >= 1 && n_codebooks() <= train::kMaxCodebooks, "expected 1 to 32 codebooks");
    require(p_.beam >= 1 && p_.beam <= train::kMaxBeam, "beam must be 1 to 64");
    require(p_.levels.size() == kLevels, "expected 256 levels");
    require(std::isfinite(p_.expansion) && p_.expansion >= 1, "expansion must be at least 1");
    const auto finite = [](const std::vector<float>& v) {
        return std::all_of(v.begin(), v.end(), [](float f) { return std::isfinite(f); });
    };
    require(finite(p_.center) && finite(p_.codebooks) && finite(p_.levels), "parameters must be finite");
    require(std::is_sorted(p_.levels.begin(), p_.levels.end()) && p_.levels[0] >= 0, "levels must ascend from 0");
    panels_.pack({p_.codebooks.data(), n_codebooks() * kCodewords, p_.dim});
}

std::size_t ResidualCodec::memory_bytes() const {
    return (p_.center.size() + p_.codebooks.size() + p_.levels.size()) * sizeof(float) + panels_.memory_bytes();
}

std::size_t ResidualCodec::candidates(std::size_t k, std::size_t n) const {
    // The rank that a true neighbour can fall to grows with n, more slowly than n itself.
    const double growth = std::sqrt(std::max(1.0, static_cast<double>(n) / 100'000.0));
    const double wanted = std::ceil(static_cast<double>(p_.expansion) * growth * static_cast<double>(k)) + 16;
    return static_cast<std::size_t>(std::min<double>(wanted, static_cast<double>(n)));
}

const train::BeamSearch& ResidualCodec::search(int num_threads) const {
    std::call_once(search_made_, [&] {
        auto made = std::make_unique<train::BeamSearch>(p_.dim);
        const std::size_t book = kCodewords * p_.dim;
        for (std::size_t m = 0; m < n_codebooks(); ++m) {
            made->append({p_.codebooks.data() + m * book, kCodewords, p_.dim}, num_threads);
        }
        search_ = std::move(made);
    });
    return *search_;
}

void ResidualCodec::add_codewords(const std::uint8_t* code, float* out) const {
    for (std::size_t m = 0; m < n_codebooks(); ++m) {
        const float* c = p_.codebooks.data() + (m * kCodewords + code[m]) * p_.dim;
        for (std::size_t j = 0; j < p_.dim; ++j) out[j] += c[j];
    }
}

// The nearest level, of two equally near ones the lower.
std::uint8_t ResidualCodec::level_of(double value) const {
    std::size_t low = 0, high = kLevels - 1;
    while (low < high) {
        const std::size_t mid = (low + high) / 2;
        const double between = 0.5 * (static_cast<double>(p_.levels[mid]) + static_cast<double>(p_.levels[mid + 1]));
        if (value <= between) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return static_cast<std::uint8_t>(low);
}

void ResidualCodec::encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort) const {
    const train::BeamSearch& beams = search(num_threads);
    parallel_for(x.rows, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        const std::size_t n = end - begin;
        std::vector<float> z(n * p_.dim), sum(p_.dim);
        std::vector<double> length(n);
        for (std::size_t i = 0; i < n; ++i) {
            float* zi = z.data() + i * p_.dim;
            copy_for_metric(x.row(begin + i), p_.dim, p_.metric, zi);
            length[i] = p_.metric == Metric::cosine ? 1.0 : std::sqrt(dot(zi, zi, p_.dim));
            for (std::size_t j = 0; j < p_.dim; ++j) zi[j] -= p_.center[j];
        }
        beams.encode({z.data(), n, p_.dim}, p_.beam, codes + begin * code_bytes(), code_bytes(), 1);
        for (std::size_t i = 0; i < n; ++i) {
            std::uint8_t* code = codes + (begin + i) * code_bytes();
            const bool l2 = p_.metric == Metric::l2;
            std::fill(sum.begin(), sum.end(), 0.0f);
            if (!l2) std::copy(p_.center.begin(), p_.center.end(), sum.begin());
            add_codewords(code, sum.data());
            const double square = dot(sum.data(), sum.data(), p_.dim);
            const double scale = square > 0 ? length[i] / std::sqrt(square) : 0.0;
            code[n_codebooks()] = level_of(l2 ? square : scale);
        }
    });
}

void ResidualCodec::decode(const std::uint8_t* codes, std::size_t n, float* out, int num_threads) const {
    parallel_for(n, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        for (std::size_t r = begin; r < end; ++r) {
            const std::uint8_t* code = codes + r * code_bytes();
            float* x = out + r * p_.dim;
            std::copy(p_.center.begin(), p_.center.end(), x);
            add_codewords(code, x);
            if (p_.metric == Metric::l2) continue;
            const float scale = p_.metric == Metric::cosine ? inverse_norm(x, p_.dim) : p_.levels[code[n_codebooks()]];
            for (std::size_t j = 0; j < p_.dim; ++j) x[j] *= scale;
        }
    });
}

void ResidualCodec::pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const {
    std::memset(block, 0, block_bytes());
    for (std::size_t r = 0; r < n; ++r) {
        for (std::size_t i = 0; i < code_bytes(); ++i) block[i * kBlockRows + r] = codes[r * code_bytes() + i];
    }
}

void ResidualCodec::unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const {
    for (std::size_t i = 0; i < code_bytes(); ++i) code[i] = block[i * kBlockRows + row];
}

std::unique_ptr<Scorer> ResidualCodec::prepare(ConstMatrix queries, int num_threads) const {
    const bool l2 = p_.metric == Metric::l2;
    const std::size_t entries = n_codebooks() * kCodewords;
    std::vector<float> tables(queries.rows * entries), constants(queries.rows);
    parallel_for(queries.rows, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        const std::size_t n = end - begin;
        std::vector<float> z(n * p_.dim);
        for (std::size_t i = 0; i < n; ++i) {
            float* zi = z.data() + i * p_.dim;
            copy_for_metric(queries.row(begin + i), p_.dim, p_.metric, zi);
            if (l2) {
                for (std::size_t j = 0; j < p_.dim; ++j) zi[j] -= p_.center[j];
            }
            constants[begin + i] = static_cast<float>(l2 ? -dot(zi, zi, p_.dim) : dot(zi, p_.center.data(), p_.dim));
        }
        float* out = tables.data() + begin * entries;
        panels_.multiply({z.data(), n, p_.dim}, {out, n, entries});
        if (l2) {
            for (std::size_t i = 0; i < n * entries; ++i) out[i] *= 2;
        }
    });
    return std::make_unique<ResidualScorer>(n_codebooks(), l2, p_.levels, std::move(tables), std::move(constants));
}

std::unique_ptr<Scorer> ResidualCodec::prepare_codes(const std::uint8_t* codes, std::size_t n, int num_threads) const {
    std::vector<float> decoded(n * p_.dim);
    decode(codes, n, decoded.data(), num_threads);
    return prepare({decoded.data(), n, p_.dim}, num_threads);
}

void ResidualCodec::write(store::Writer& out) const {
    out.put_string("metric", to_string(p_.metric));
    out.put_int("dim", static_cast<std::int64_t>(p_.dim));
    out.put_int("beam", static_cast<std::int64_t>(p_.beam));
    out.put_int("n_codebooks", static_cast<std::int64_t>(n_codebooks()));
    out.put_double("expansion", static_cast<double>(p_.expansion));
    out.put<float>("center", p_.center);
    out.put<float>("codebooks", p_.codebooks);
    out.put<float>("levels", p_.levels);
}

std::shared_ptr<const Codec> ResidualCodec::read(const store::Reader& in) {
    ResidualParams p;
    try {
        p.metric = read_metric(in);
        p.dim = static_cast<std::size_t>(in.get_int("dim", 1, 65'536));
        p.beam = static_cast<std::size_t>(in.get_int("beam", 1, train::kMaxBeam));
        const auto books = static_cast<std::size_t>(in.get_int("n_codebooks", 1, train::kMaxCodebooks));
        p.expansion = static_cast<float>(in.get_double("expansion"));
        const auto copy = [&](const char* name, std::size_t size) {
            const auto values = in.array<float>(name, size);
            return std::vector<float>(values.begin(), values.end());
        };
        p.center = copy("center", p.dim);
        p.codebooks = copy("codebooks", books * kCodewords * p.dim);
        p.levels = copy("levels", kLevels);
        return std::make_shared<ResidualCodec>(std::move(p));
    } catch (const Error& e) {
        if (e.kind() == ErrorKind::value) in.fail("meta", e.what());
        throw;
    }
}

}  // namespace residua::codec
