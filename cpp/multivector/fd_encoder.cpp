// SPDX-License-Identifier: Apache-2.0
#include "multivector/fd_encoder.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.hpp"
#include "core/parallel.hpp"
#include "kernel/dispatch.hpp"

namespace residua::multivector {
namespace {

using kernel::kPanelRows;
using kernel::kTileQueries;

std::size_t panels_of(std::size_t tokens) { return (tokens + kPanelRows - 1) / kPanelRows; }

// out[c * kPanelRows + t] = sum of the signed dims of column c, of token t of the panel.
void sketch_panel(const float* panel, const std::uint32_t* limits, const std::uint32_t* dims, std::size_t columns,
                  float* out) {
    for (std::size_t c = 0; c < columns; ++c) {
        float sum[kPanelRows] = {};
        for (std::uint32_t e = limits[2 * c]; e < limits[2 * c + 1]; ++e) {
            const float* x = panel + dims[e] * kPanelRows;
            for (std::size_t t = 0; t < kPanelRows; ++t) sum[t] += x[t];
        }
        for (std::uint32_t e = limits[2 * c + 1]; e < limits[2 * c + 2]; ++e) {
            const float* x = panel + dims[e] * kPanelRows;
            for (std::size_t t = 0; t < kPanelRows; ++t) sum[t] -= x[t];
        }
        std::copy_n(sum, kPanelRows, out + c * kPanelRows);
    }
}

// The block of a cell whose bits, first hyperplane first, are a Gray code.
std::uint32_t gray_place(std::uint32_t cell, std::size_t k_sim) {
    std::uint32_t place = 0;
    for (std::size_t j = 0; j < k_sim; ++j) place = 2 * place + (((cell >> j) & 1u) ^ (place & 1u));
    return place;
}

}  // namespace

struct FdEncoder::Scratch {
    std::size_t tokens = 0;
    AlignedVector<float> panels;       // tokens, kPanelRows at a time, k-major
    std::vector<std::uint16_t> cells;  // reps x padded tokens
    AlignedVector<float> projected;    // proj_dim x kPanelRows
    AlignedVector<float> block;        // cells x proj_dim, where a final sketch follows
    AlignedVector<float> first;        // the first token of every cell, projected
    std::vector<std::uint32_t> counts;
    std::vector<std::uint64_t> nearest;
    std::vector<std::uint32_t> first_token;

    std::size_t padded() const { return panels_of(tokens) * kPanelRows; }
};

FdEncoder::FdEncoder(const FdParams& params, FdTables tables, std::vector<float> center)
    : p_(params), tables_(std::move(tables)), center_(std::move(center)) {
    check();
    const kernel::FloatKernels& kernels = kernel::active().floats;
    const std::size_t planes = p_.reps * p_.k_sim;
    offset_.assign(planes, 0.0f);
    for (std::size_t j = 0; j < planes && !center_.empty(); ++j) {
        offset_[j] = static_cast<float>(
            kernels.exact_dot_f32(tables_.hyperplanes.data() + j * p_.dim, center_.data(), p_.dim));
    }
    place_.resize(p_.cells());
    for (std::uint32_t c = 0; c < p_.cells(); ++c) {
        place_[c] = p_.compat == Compat::google ? gray_place(c, p_.k_sim) : c;
    }
    if (p_.proj == Projection::dense) {
        const float unit = 1.0f / std::sqrt(static_cast<float>(p_.proj_dim));
        dense_.resize(tables_.sign.size());
        for (std::size_t i = 0; i < dense_.size(); ++i) dense_[i] = tables_.sign[i] > 0 ? unit : -unit;
    }
    if (p_.proj == Projection::count_sketch) {
        for (std::size_t r = 0; r < p_.reps; ++r) {
            const std::uint32_t* column = tables_.column.data() + r * p_.dim;
            const std::int8_t* sign = tables_.sign.data() + r * p_.dim;
            std::vector<std::vector<std::uint32_t>> dims(2 * p_.proj_dim);
            for (std::uint32_t i = 0; i < p_.dim; ++i) dims[2 * column[i] + (sign[i] > 0 ? 0 : 1)].push_back(i);
            std::uint32_t at = 0;
            for (const auto& part : dims) {
                sketch_limits_.push_back(at);
                at += static_cast<std::uint32_t>(part.size());
                sketch_dims_.insert(sketch_dims_.end(), part.begin(), part.end());
            }
            sketch_limits_.push_back(at);
        }
    }
    final_ = make_final_sketch(p_);
}

void FdEncoder::check() const {
    const auto require = [](bool fine, const char* what) {
        if (!fine) throw Error(ErrorKind::value, std::string("fixed-dimensional encoder: ") + what);
    };
    require(p_.dim >= 1 && p_.dim <= 65'536, "dim must be from 1 to 65536");
    require(p_.k_sim <= kMaxHyperplanes, "k_sim must be at most 16");
    require(p_.reps >= 1 && p_.reps <= 65'536 && p_.proj_dim >= 1 && p_.proj_dim <= 65'536,
            "reps and proj_dim must be from 1 to 65536");
    require(p_.wide_dim() <= kMaxWideDim && p_.final_dim <= kMaxWideDim, "more than 67108864 output dims");
    require(p_.proj != Projection::identity || p_.proj_dim == p_.dim, "identity keeps all dims");
    require(center_.empty() || center_.size() == p_.dim, "center must have dim values");
    require(tables_.hyperplanes.size() == p_.reps * p_.k_sim * p_.dim, "hyperplanes have the wrong size");
    const bool sketch = p_.proj == Projection::count_sketch;
    const std::size_t signs = sketch ? p_.reps * p_.dim
                              : p_.proj == Projection::dense ? p_.reps * p_.proj_dim * p_.dim
                                                             : 0;
    require(tables_.column.size() == (sketch ? signs : 0) && tables_.sign.size() == signs,
            "projections have the wrong size");
    const auto finite = [](float x) { return std::isfinite(x); };
    require(std::all_of(tables_.hyperplanes.begin(), tables_.hyperplanes.end(), finite) &&
                std::all_of(center_.begin(), center_.end(), finite),
            "hyperplanes and center must be finite");
    require(std::all_of(tables_.column.begin(), tables_.column.end(), [&](auto c) { return c < p_.proj_dim; }) &&
                std::all_of(tables_.sign.begin(), tables_.sign.end(), [](auto s) { return s == 1 || s == -1; }),
            "projections hold impossible values");
}

void FdEncoder::encode(const TokenSets& sets, bool document, float* out, int num_threads) const {
    const int threads = std::max(1, num_threads);
    std::vector<Scratch> scratch(std::min(static_cast<std::size_t>(threads), std::max<std::size_t>(1, sets.n)));
    parallel_for(sets.n, 1, threads, [&](std::size_t begin, std::size_t end, int worker) {
        for (std::size_t i = begin; i < end; ++i) {
            encode_set(sets, i, document, scratch[static_cast<std::size_t>(worker)], out + i * output_dim());
        }
    });
}

void FdEncoder::encode_set(const TokenSets& sets, std::size_t i, bool document, Scratch& s, float* out) const {
    std::fill_n(out, output_dim(), 0.0f);
    s.tokens = sets.count(i);
    if (s.tokens == 0) return;
    pack(sets, i, s);
    hash(s);
    const bool fill = document && p_.fill_empty;
    const std::size_t width = p_.cells() * p_.proj_dim;
    s.projected.resize(p_.proj_dim * kPanelRows);
    s.counts.resize(p_.cells());
    if (fill) {
        s.first.resize(width);
        s.first_token.resize(p_.cells());
        s.nearest.resize(p_.cells());
    }
    if (p_.final_dim != 0) s.block.resize(width);
    for (std::size_t r = 0; r < p_.reps; ++r) {
        // Without a final sketch the output itself is the block.
        float* block = p_.final_dim != 0 ? s.block.data() : out + r * width;
        if (p_.final_dim != 0) std::fill_n(block, width, 0.0f);
        collect(r, fill, s, block);
        if (document) average(s, block);
        if (fill) fill_empty(s, block);
        if (p_.final_dim == 0) continue;
        const std::uint32_t* entries = final_.data() + r * width;
        for (std::size_t j = 0; j < width; ++j) {
            out[entries[j] / 2] += (entries[j] & 1u) != 0 ? -block[j] : block[j];
        }
    }
}

void FdEncoder::pack(const TokenSets& sets, std::size_t i, Scratch& s) const {
    const kernel::FloatKernels& kernels = kernel::active().floats;
    s.panels.resize(s.padded() * p_.dim);
    for (std::size_t t = 0; t < s.tokens; t += kPanelRows) {
        const std::size_t n = std::min(kPanelRows, s.tokens - t);
        const std::size_t at = (sets.begin(i) + t) * p_.dim;
        float* panel = s.panels.data() + t * p_.dim;
        if (sets.type == TokenType::f16) {
            kernels.pack_panel_f16(static_cast<const std::uint16_t*>(sets.data) + at, p_.dim, n, p_.dim, panel);
        } else {
            kernels.pack_panel_f32(static_cast<const float*>(sets.data) + at, p_.dim, n, p_.dim, panel);
        }
    }
}

void FdEncoder::hash(Scratch& s) const {
    const kernel::FloatKernels& kernels = kernel::active().floats;
    const std::size_t planes = p_.reps * p_.k_sim, padded = s.padded();
    s.cells.assign(p_.reps * padded, 0);
    float sums[kTileQueries * kPanelRows];
    for (std::size_t t = 0; t < padded; t += kPanelRows) {
        for (std::size_t j = 0; j < planes; j += kTileQueries) {
            const std::size_t n = std::min(kTileQueries, planes - j);
            kernels.gemm_panel(tables_.hyperplanes.data() + j * p_.dim, p_.dim, n, s.panels.data() + t * p_.dim,
                               p_.dim, sums, kPanelRows);
            for (std::size_t i = 0; i < n; ++i) {
                const std::size_t rep = (j + i) / p_.k_sim, bit = (j + i) % p_.k_sim;
                std::uint16_t* cell = s.cells.data() + rep * padded + t;
                const float* sum = sums + i * kPanelRows;
                for (std::size_t r = 0; r < kPanelRows; ++r) {
                    cell[r] = static_cast<std::uint16_t>(cell[r] | (sum[r] > offset_[j + i] ? 1u << bit : 0u));
                }
            }
        }
    }
}

// proj_dim x kPanelRows values of a panel.
const float* FdEncoder::project(std::size_t rep, const float* panel, Scratch& s) const {
    if (p_.proj == Projection::identity) return panel;
    float* out = s.projected.data();
    if (p_.proj == Projection::count_sketch) {
        sketch_panel(panel, sketch_limits_.data() + rep * (2 * p_.proj_dim + 1), sketch_dims_.data() + rep * p_.dim,
                     p_.proj_dim, out);
        return out;
    }
    const kernel::FloatKernels& kernels = kernel::active().floats;
    for (std::size_t c = 0; c < p_.proj_dim; c += kTileQueries) {
        kernels.gemm_panel(dense_.data() + (rep * p_.proj_dim + c) * p_.dim, p_.dim,
                           std::min(kTileQueries, p_.proj_dim - c), panel, p_.dim, out + c * kPanelRows, kPanelRows);
    }
    return out;
}

// Sums of the cells of one repetition, and what filling needs of each: its first token.
void FdEncoder::collect(std::size_t rep, bool fill, Scratch& s, float* block) const {
    const std::size_t width = p_.proj_dim;
    const std::uint16_t* cells = s.cells.data() + rep * s.padded();
    std::fill(s.counts.begin(), s.counts.end(), 0u);
    for (std::size_t t0 = 0; t0 < s.tokens; t0 += kPanelRows) {
        const float* values = project(rep, s.panels.data() + t0 * p_.dim, s);
        const std::size_t n = std::min(kPanelRows, s.tokens - t0);
        for (std::size_t t = 0; t < n; ++t) {
            const std::size_t cell = cells[t0 + t];
            float* sum = block + place_[cell] * width;
            if (s.counts[cell]++ == 0 && fill) {
                s.first_token[cell] = static_cast<std::uint32_t>(t0 + t);
                float* first = s.first.data() + cell * width;
                for (std::size_t c = 0; c < width; ++c) first[c] = values[c * kPanelRows + t];
            }
            for (std::size_t c = 0; c < width; ++c) sum[c] += values[c * kPanelRows + t];
        }
    }
}

void FdEncoder::average(const Scratch& s, float* block) const {
    for (std::size_t cell = 0; cell < p_.cells(); ++cell) {
        if (s.counts[cell] < 2) continue;
        float* mean = block + place_[cell] * p_.proj_dim;
        const float count = static_cast<float>(s.counts[cell]);
        for (std::size_t c = 0; c < p_.proj_dim; ++c) mean[c] /= count;
    }
}

// The nearest occupied cell of every cell in Hamming distance: distances add up bit by bit, so one pass
// per bit over the cells suffices. A key is the distance, what decides among equals, and the cell.
void FdEncoder::fill_empty(Scratch& s, float* block) const {
    constexpr int kTieAt = 16, kDistanceAt = 48;
    constexpr std::uint64_t kNone = std::uint64_t{kMaxHyperplanes + 1} << kDistanceAt;
    const std::size_t cells = p_.cells();
    for (std::size_t cell = 0; cell < cells; ++cell) {
        const std::uint64_t tie = p_.compat == Compat::fastembed ? cell : s.first_token[cell];
        s.nearest[cell] = s.counts[cell] == 0 ? kNone : tie << kTieAt | cell;
    }
    for (std::size_t bit = 1; bit < cells; bit *= 2) {
        for (std::size_t low = 0; low < cells; ++low) {
            if ((low & bit) != 0) continue;
            std::uint64_t& a = s.nearest[low];
            std::uint64_t& b = s.nearest[low | bit];
            const std::uint64_t from_b = b + (std::uint64_t{1} << kDistanceAt);
            b = std::min(b, a + (std::uint64_t{1} << kDistanceAt));
            a = std::min(a, from_b);
        }
    }
    for (std::size_t cell = 0; cell < cells; ++cell) {
        if (s.counts[cell] != 0) continue;
        const std::size_t from = s.nearest[cell] & 0xffffu;
        std::copy_n(s.first.data() + from * p_.proj_dim, p_.proj_dim, block + place_[cell] * p_.proj_dim);
    }
}

void FdEncoder::save(const std::string& path) const {
    store::Writer out(kKind);
    write(out);
    out.write_file(path);
}

void FdEncoder::write(store::Writer& out) const {
    out.put_int("dim", static_cast<std::int64_t>(p_.dim));
    out.put_int("k_sim", static_cast<std::int64_t>(p_.k_sim));
    out.put_int("reps", static_cast<std::int64_t>(p_.reps));
    out.put_int("proj_dim", static_cast<std::int64_t>(p_.proj_dim));
    out.put_int("proj", static_cast<std::int64_t>(p_.proj));
    out.put_int("final_dim", static_cast<std::int64_t>(p_.final_dim));
    out.put_int("fill_empty", p_.fill_empty ? 1 : 0);
    out.put_int("seed", static_cast<std::int64_t>(p_.seed));
    out.put_int("compat", static_cast<std::int64_t>(p_.compat));
    out.put("hyperplanes", std::span<const float>(tables_.hyperplanes));
    out.put("column", std::span<const std::uint32_t>(tables_.column));
    out.put("sign", std::span<const std::int8_t>(tables_.sign));
    out.put("center", std::span<const float>(center_));
}

std::shared_ptr<FdEncoder> FdEncoder::load(const store::Reader& in) {
    FdParams p;
    p.dim = static_cast<std::size_t>(in.get_int("dim", 1, 65'536));
    p.k_sim = static_cast<std::size_t>(in.get_int("k_sim", 0, kMaxHyperplanes));
    p.reps = static_cast<std::size_t>(in.get_int("reps", 1, 65'536));
    p.proj_dim = static_cast<std::size_t>(in.get_int("proj_dim", 1, 65'536));
    p.proj = static_cast<Projection>(in.get_int("proj", 0, 2));
    p.final_dim = static_cast<std::size_t>(in.get_int("final_dim", 0, kMaxWideDim));
    p.fill_empty = in.get_int("fill_empty", 0, 1) == 1;
    p.seed = static_cast<std::uint64_t>(in.get_int("seed"));
    p.compat = static_cast<Compat>(in.get_int("compat", 0, 2));
    const auto copy = [&](auto values) { return std::vector(values.begin(), values.end()); };
    FdTables t{copy(in.array<float>("hyperplanes")), copy(in.array<std::uint32_t>("column")),
               copy(in.array<std::int8_t>("sign"))};
    try {
        return std::make_shared<FdEncoder>(p, std::move(t), copy(in.array<float>("center")));
    } catch (const Error& e) {
        if (e.kind() != ErrorKind::value) throw;
        in.fail("meta", e.what());
    }
}

}  // namespace residua::multivector
