// SPDX-License-Identifier: Apache-2.0
#include "codec/pq_codec.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "codec/normalize.hpp"
#include "codec/pq_scan.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "kernel/dispatch.hpp"
#include "store/container.hpp"

namespace residua::codec {
namespace {

constexpr std::size_t kChunk = 64;
constexpr std::size_t kEncodeChunk = 384;

void require(bool ok, const char* what) {
    if (!ok) throw Error(ErrorKind::value, std::string("PQ codec: ") + what);
}

double dot(const float* a, const float* b, std::size_t n) {
    double s = 0;
    for (std::size_t i = 0; i < n; ++i) s += static_cast<double>(a[i]) * b[i];
    return s;
}

// out[c] = -|q - word_c|^2.
void fill_distances(ConstMatrix words, const float* q, float* out) {
    for (std::size_t c = 0; c < words.rows; ++c) {
        float sum = 0;
        for (std::size_t j = 0; j < words.cols; ++j) sum -= (q[j] - words.row(c)[j]) * (q[j] - words.row(c)[j]);
        out[c] = sum;
    }
}

}  // namespace

// Entries between all pairs of codewords, rounded up in one unit: a query that is a code copies the rows of its
// codewords.
struct PqCodec::PairTables {
    std::vector<std::uint8_t> entries;  // (n_subspaces, values, values)
    std::vector<float> base;            // (n_subspaces, values)
    std::vector<float> exact;           // 4 bits: the entries before rounding
    double unit = 1;
};

PqCodec::PqCodec(PqParams params) : p_(std::move(params)) {
    require(p_.dim >= 1, "dim must be at least 1");
    require(p_.bits == 8 || p_.bits == 4, "bits must be 8 or 4");
    require(p_.rotation.size() % p_.dim == 0, "the rotation must have rows of dim values");
    dims_ = p_.rotation.empty() ? p_.dim : p_.rotation.size() / p_.dim;
    require(p_.n_subspaces >= 1 && p_.n_subspaces <= dims_, "there must be 1 to dims sub-spaces");
    require(std::isfinite(p_.expansion) && p_.expansion >= 1, "expansion must be at least 1");
    layout_ = {p_.n_subspaces, p_.bits};
    check();
    nearest_.reserve(p_.n_subspaces);
    panels_.resize(p_.n_subspaces);
    squares_.resize(p_.n_subspaces * layout_.values());
    double longest_squared = 0;
    for (std::size_t m = 0; m < p_.n_subspaces; ++m) {
        const ConstMatrix words = codebook(m);
        nearest_.emplace_back(words);
        panels_[m].pack(words);
        double longest = 0;
        for (std::size_t c = 0; c < words.rows; ++c) {
            const double square = dot(words.row(c), words.row(c), words.cols);
            squares_[m * words.rows + c] = static_cast<float>(square);
            longest = std::max(longest, square);
        }
        longest_squared += longest;
    }
    codeword_length_ = std::sqrt(longest_squared);
    if (!p_.error_weights.empty()) prepare_refinement();
    if (p_.rotation.empty()) return;
    rotate_.pack({p_.rotation.data(), dims_, p_.dim});
    std::vector<float> back(p_.rotation.size());
    for (std::size_t i = 0; i < dims_; ++i) {
        for (std::size_t j = 0; j < p_.dim; ++j) back[j * dims_ + i] = p_.rotation[i * p_.dim + j];
    }
    rotate_back_.pack({back.data(), p_.dim, dims_});
}

PqCodec::~PqCodec() = default;

void PqCodec::check() const {
    require(p_.codebooks.size() == p_.n_subspaces * layout_.values() * subspace_dims(),
            "codebooks must hold n_subspaces times 2^bits codewords of ceil(dims / n_subspaces) values");
    const auto finite = [](const std::vector<float>& v) {
        return std::all_of(v.begin(), v.end(), [](float f) { return std::isfinite(f); });
    };
    require(std::isfinite(p_.square_weight) && p_.square_weight >= 0 && std::isfinite(p_.mean_square) &&
                p_.mean_square >= 0 && (p_.metric != Metric::l2 || p_.square_weight == 0),
            "the weight and the mean of squared lengths must not be negative, and l2 has no weight");
    require(p_.error_weights.empty() || p_.error_weights.size() == dims_ * dims_,
            "the weights of errors must be a matrix of dims by dims, or none");
    require(finite(p_.codebooks) && finite(p_.rotation) && finite(p_.error_weights), "parameters must be finite");
}

std::size_t PqCodec::memory_bytes() const {
    const std::size_t floats = p_.rotation.size() + p_.codebooks.size() + p_.error_weights.size() + squares_.size() +
                               word_bias_.size();
    std::size_t bytes = floats * sizeof(float) + rotate_.memory_bytes() + rotate_back_.memory_bytes() +
                        weigh_.memory_bytes() + pair_bytes_.load();
    for (std::size_t m = 0; m < p_.n_subspaces; ++m) bytes += nearest_[m].memory_bytes() + panels_[m].memory_bytes();
    return bytes;
}

std::size_t PqCodec::candidates(std::size_t k, std::size_t n) const {
    // The rank that a true neighbour can fall to grows with n, more slowly than n itself.
    const double growth = std::sqrt(std::max(1.0, static_cast<double>(n) / 100'000.0));
    const double wanted = std::ceil(static_cast<double>(p_.expansion) * growth * static_cast<double>(k)) + 16;
    return static_cast<std::size_t>(std::min<double>(wanted, static_cast<double>(n)));
}

void PqCodec::transform(ConstMatrix x, MutMatrix y) const {
    if (p_.rotation.empty()) {
        for (std::size_t i = 0; i < x.rows; ++i) copy_for_metric(x.row(i), p_.dim, p_.metric, y.row(i));
        return;
    }
    const std::vector<float> z = copies_for_metric(x, p_.dim, p_.metric);
    rotate_.multiply({z.data(), x.rows, p_.dim}, y);
}

void PqCodec::encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort effort) const {
    const int sweeps = weigh_.rows() == 0 || effort == Effort::rounded ? 0 : effort == Effort::scaled ? 2 : 3;
    parallel_for(x.rows, kEncodeChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        const std::size_t n = end - begin, bytes = code_bytes();
        std::vector<float> y(n * dims_);
        std::vector<std::uint32_t> numbers(p_.n_subspaces * n);
        transform(x.slice(begin, end), {y.data(), n, dims_});
        std::uint8_t* out = codes + begin * bytes;
        if (p_.bits == 4) std::memset(out, 0, n * bytes);
        for (std::size_t m = 0; m < p_.n_subspaces; ++m) {
            const std::size_t first = begin_of(m);
            nearest_[m].assign({y.data() + first, n, begin_of(m + 1) - first, dims_}, numbers.data() + m * n);
        }
        if (sweeps > 0) refine({y.data(), n, dims_}, numbers.data(), sweeps);
        for (std::size_t m = 0; m < p_.n_subspaces; ++m) {
            for (std::size_t i = 0; i < n; ++i) {
                if (p_.bits == 8) {
                    out[i * bytes + m] = static_cast<std::uint8_t>(numbers[m * n + i]);
                } else {
                    out[i * bytes + m / 2] |= static_cast<std::uint8_t>(numbers[m * n + i] << (m % 2 * 4));
                }
            }
        }
    });
}

void PqCodec::gather(const std::uint8_t* code, float* y) const {
    const std::size_t stride = subspace_dims(), wide = dims_ % p_.n_subspaces, values = layout_.values();
    const float* words = p_.codebooks.data();
    for (std::size_t m = 0; m < p_.n_subspaces; ++m, words += values * stride) {
        const std::size_t c = p_.bits == 8 ? code[m] : code[m / 2] >> (m % 2 * 4) & 15u;
        const std::size_t width = wide == 0 || m < wide ? stride : stride - 1;
        for (std::size_t j = 0; j < width; ++j) y[j] = words[c * stride + j];
        y += width;
    }
}

void PqCodec::decode(const std::uint8_t* codes, std::size_t n, float* out, int num_threads) const {
    parallel_for(n, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        if (p_.rotation.empty()) {
            for (std::size_t r = begin; r < end; ++r) gather(codes + r * code_bytes(), out + r * p_.dim);
            return;
        }
        std::vector<float> y((end - begin) * dims_);
        for (std::size_t r = begin; r < end; ++r) gather(codes + r * code_bytes(), y.data() + (r - begin) * dims_);
        rotate_back_.multiply({y.data(), end - begin, dims_}, {out + begin * p_.dim, end - begin, p_.dim});
    });
}

void PqCodec::pack_block(const std::uint8_t* codes, std::size_t n, std::uint8_t* block) const {
    if (p_.bits == 4) return kernel::active().planes.pack(code_bytes(), codes, code_bytes(), n, block);
    std::memset(block, 0, block_bytes());
    for (std::size_t r = 0; r < n; ++r) {
        for (std::size_t m = 0; m < code_bytes(); ++m) block[m * kBlockRows + r] = codes[r * code_bytes() + m];
    }
}

void PqCodec::unpack_row(const std::uint8_t* block, std::size_t row, std::uint8_t* code) const {
    if (p_.bits == 4) return kernel::active().planes.unpack(code_bytes(), block, row, code);
    for (std::size_t m = 0; m < code_bytes(); ++m) code[m] = block[m * kBlockRows + row];
}

void PqCodec::fill_entries(ConstMatrix y, std::vector<float>& entries) const {
    const std::size_t values = layout_.values(), row = p_.n_subspaces * values;
    entries.resize(y.rows * row);
    if (distances_are_entries()) {
        for (std::size_t i = 0; i < y.rows; ++i) {
            for (std::size_t m = 0; m < p_.n_subspaces; ++m) {
                fill_distances(codebook(m), y.row(i) + begin_of(m), entries.data() + i * row + m * values);
            }
        }
        return;
    }
    for (std::size_t m = 0; m < p_.n_subspaces; ++m) {
        const std::size_t first = begin_of(m);
        const ConstMatrix part(y.data + first, y.rows, begin_of(m + 1) - first, y.stride);
        panels_[m].multiply(part, {entries.data() + m * values, y.rows, values, row});
    }
    for (std::size_t i = 0; i < y.rows; ++i) {
        for (std::size_t m = 0; m < p_.n_subspaces; ++m) finish_entries(m, entries.data() + i * row + m * values);
    }
}

void PqCodec::finish_entries(std::size_t m, float* products) const {
    const std::size_t values = layout_.values();
    const float* squares = squares_.data() + m * values;
    if (p_.metric == Metric::l2) {
        for (std::size_t c = 0; c < values; ++c) products[c] = 2 * products[c] - squares[c];
    } else if (p_.square_weight != 0) {
        for (std::size_t c = 0; c < values; ++c) products[c] -= p_.square_weight * squares[c];
    }
}

std::vector<float> PqCodec::strip_entries(const float* entries) const {
    std::vector<float> out(2 * code_bytes() * kernel::kStripBytes, 0.0f);
    for (std::size_t m = 0; m < p_.n_subspaces; ++m) {
        std::copy_n(entries + m * 16, 16, out.begin() + static_cast<std::ptrdiff_t>(layout_.table_offset(m)));
    }
    return out;
}

double PqCodec::shared_part(const float* y) const {
    if (distances_are_entries()) return 0;
    if (p_.metric == Metric::l2) return -dot(y, y, dims_);
    return static_cast<double>(p_.square_weight) * static_cast<double>(p_.mean_square);
}

float PqCodec::score(const float* query, const float* y) const {
    const kernel::FloatKernels& kernels = kernel::active().floats;
    if (p_.metric == Metric::l2) return -kernels.l2_f32(query, y, dims_);
    const float product = kernels.dot_f32(query, y, dims_);
    if (p_.square_weight == 0) return product;
    return product - p_.square_weight * (kernels.dot_f32(y, y, dims_) - p_.mean_square);
}

LookupForm PqCodec::score_entries(const float* query) const {
    LookupForm out;
    if (p_.metric != Metric::l2) {
        fill_entries({query, 1, dims_}, out.entries);
        out.shared = static_cast<float>(shared_part(query));
        return out;
    }
    out.entries.resize(p_.n_subspaces * layout_.values());
    for (std::size_t m = 0; m < p_.n_subspaces; ++m) {
        fill_distances(codebook(m), query + begin_of(m), out.entries.data() + m * layout_.values());
    }
    return out;
}

// What the parts of a score of this query, or of its bound, add up to at most.
double PqCodec::magnitude(const float* y) const {
    const double length = std::sqrt(dot(y, y, dims_));
    if (p_.metric != Metric::l2) {
        const double squares = codeword_length_ * codeword_length_ + static_cast<double>(p_.mean_square);
        return length * codeword_length_ + static_cast<double>(p_.square_weight) * squares;
    }
    return 2 * (length + codeword_length_) * (length + codeword_length_);
}

std::unique_ptr<Scorer> PqCodec::prepare(ConstMatrix queries, int num_threads) const {
    constexpr std::size_t kTables = 2 * kernel::kTileQueries;  // whose floats are in memory at a time
    std::vector<PqQuery> prepared(queries.rows);
    parallel_for(queries.rows, kTables, num_threads, [&](std::size_t begin, std::size_t end, int) {
        const std::size_t n = end - begin;
        std::vector<float> y(n * dims_), entries;
        transform(queries.slice(begin, end), {y.data(), n, dims_});
        fill_entries({y.data(), n, dims_}, entries);
        for (std::size_t i = 0; i < n; ++i) {
            const float* q = y.data() + i * dims_;
            const float* own = entries.data() + i * p_.n_subspaces * layout_.values();
            const double shared = shared_part(q);
            prepared[begin + i] = {LookupTables(layout_, own, shared, magnitude(q), dims_ + p_.n_subspaces),
                                   p_.bits == 4 ? strip_entries(own) : std::vector<float>(q, q + dims_),
                                   static_cast<float>(shared)};
        }
    });
    return std::make_unique<PqScorer>(*this, std::move(prepared));
}

const PqCodec::PairTables& PqCodec::pair_tables(int num_threads) const {
    std::call_once(pairs_made_, [&] {
        auto pairs = std::make_unique<PairTables>();
        const std::size_t values = layout_.values(), square = values * values;
        std::vector<float> all(p_.n_subspaces * square);
        pairs->base.resize(p_.n_subspaces * values);
        std::vector<float> widest(p_.n_subspaces, 0.0f);
        parallel_for(p_.n_subspaces, 1, num_threads, [&](std::size_t m, std::size_t, int) {
            float* pair = all.data() + m * square;
            const bool distances = distances_are_entries();
            if (!distances) panels_[m].multiply(codebook(m), {pair, values, values});
            for (std::size_t a = 0; a < values; ++a, pair += values) {
                if (distances) {
                    fill_distances(codebook(m), codebook(m).row(a), pair);
                } else {
                    finish_entries(m, pair);
                }
                const auto [low, high] = std::minmax_element(pair, pair + values);
                pairs->base[m * values + a] = *low;
                widest[m] = std::max(widest[m], *high - *low);
            }
        });
        const int top = layout_.entry_max();
        const float range = *std::max_element(widest.begin(), widest.end());
        pairs->unit = std::max(static_cast<double>(range) / top, double{std::numeric_limits<float>::min()});
        pairs->entries.resize(all.size());
        parallel_for(p_.n_subspaces, 1, num_threads, [&](std::size_t m, std::size_t, int) {
            for (std::size_t a = 0; a < values; ++a) {
                const std::size_t at = m * square + a * values;
                round_up_entries(all.data() + at, values, pairs->base[m * values + a], pairs->unit, top,
                                 pairs->entries.data() + at);
            }
        });
        if (p_.bits == 4) pairs->exact = std::move(all);
        pair_bytes_ = pairs->entries.size() + (pairs->base.size() + pairs->exact.size()) * sizeof(float);
        pairs_ = std::move(pairs);
    });
    return *pairs_;
}

std::unique_ptr<Scorer> PqCodec::prepare_codes(const std::uint8_t* codes, std::size_t n, int num_threads) const {
    const PairTables& pairs = pair_tables(num_threads);
    std::vector<PqQuery> prepared(n);
    parallel_for(n, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        const std::size_t values = layout_.values();
        for (std::size_t i = begin; i < end; ++i) {
            const std::uint8_t* code = codes + i * code_bytes();
            std::vector<float> y(dims_), own(pairs.exact.empty() ? 0 : p_.n_subspaces * values);
            gather(code, y.data());
            AlignedVector<std::uint8_t> tables(layout_.table_bytes(), 0);
            LookupBound bound;
            bound.unit = pairs.unit;
            bound.base = shared_part(y.data());
            const auto shared = static_cast<float>(bound.base);
            bound.slack = lookup_slack(magnitude(y.data()), dims_ + p_.n_subspaces) + table_rounding(layout_, pairs.unit);
            for (std::size_t m = 0; m < p_.n_subspaces; ++m) {
                const std::size_t c = p_.bits == 8 ? code[m] : code[m / 2] >> (m % 2 * 4) & 15u;
                bound.base += static_cast<double>(pairs.base[m * values + c]);
                std::copy_n(pairs.entries.data() + (m * values + c) * values, values,
                            tables.data() + layout_.table_offset(m));
                if (!own.empty()) std::copy_n(pairs.exact.data() + (m * values + c) * values, values, &own[m * values]);
            }
            prepared[i] = {LookupTables(std::move(tables), bound), own.empty() ? std::move(y) : strip_entries(own.data()),
                           shared};
        }
    });
    return std::make_unique<PqScorer>(*this, std::move(prepared));
}

void PqCodec::write(store::Writer& out) const {
    out.put_string("metric", to_string(p_.metric));
    out.put_int("dim", static_cast<std::int64_t>(p_.dim));
    out.put_int("n_subspaces", static_cast<std::int64_t>(p_.n_subspaces));
    out.put_int("bits", p_.bits);
    out.put_double("square_weight", static_cast<double>(p_.square_weight));
    out.put_double("mean_square", static_cast<double>(p_.mean_square));
    out.put_double("expansion", static_cast<double>(p_.expansion));
    out.put<float>("rotation", p_.rotation);
    out.put<float>("codebooks", p_.codebooks);
    out.put<float>("error_weights", p_.error_weights);
}

std::shared_ptr<const Codec> PqCodec::read(const store::Reader& in) {
    PqParams p;
    try {
        p.metric = read_metric(in);
        p.dim = static_cast<std::size_t>(in.get_int("dim", 1, 65'536));
        p.n_subspaces = static_cast<std::size_t>(in.get_int("n_subspaces", 1, 65'536));
        p.bits = static_cast<int>(in.get_int("bits", 4, 8));
        p.square_weight = static_cast<float>(in.get_double("square_weight"));
        p.mean_square = static_cast<float>(in.get_double("mean_square"));
        p.expansion = static_cast<float>(in.get_double("expansion"));
        const auto rotation = in.array<float>("rotation"), codebooks = in.array<float>("codebooks");
        const auto weights = in.array<float>("error_weights");
        p.rotation.assign(rotation.begin(), rotation.end());
        p.codebooks.assign(codebooks.begin(), codebooks.end());
        p.error_weights.assign(weights.begin(), weights.end());
        return std::make_shared<PqCodec>(std::move(p));
    } catch (const Error& e) {
        if (e.kind() == ErrorKind::value) in.fail("meta", e.what());
        throw;
    }
}

}  // namespace residua::codec
