// SPDX-License-Identifier: Apache-2.0
#include "codec/module_codec.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "codec/normalize.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "store/container.hpp"

namespace residua::codec {
namespace {

constexpr std::size_t kGroup = BlockMap::kGroup;
constexpr std::size_t kChunk = 64;
constexpr std::size_t kMostDims = 65'536;

void require(bool ok, const std::string& what) {
    if (!ok) throw Error(ErrorKind::value, "recurrent module codec: " + what);
}

std::size_t whole_groups(std::size_t n) { return (n + kGroup - 1) / kGroup * kGroup; }

// The codec of composed codes: identity maps, and levels that are sums of +-1, +-1/2, … +-2^-residuals.
std::shared_ptr<const RecurrentCodec> level_codec(std::size_t dims, std::size_t residuals, double bits, float expansion) {
    const std::size_t planes = residuals + 1;
    RecurrentParams p;
    p.metric = Metric::ip;
    p.dim = dims;
    p.block_dims = dims;
    p.bits = bits;
    p.group_bits.assign(dims / kGroup, static_cast<std::uint8_t>(planes));
    p.center.assign(dims, 0.0f);
    p.query_mean.assign(dims, 0.0f);
    p.encode_map.assign(dims * dims, 0.0f);
    for (std::size_t i = 0; i < dims; ++i) p.encode_map[i * dims + i] = 1.0f;
    p.query_map = p.encode_map;
    p.step.assign(dims, std::ldexp(2.0f, -static_cast<int>(residuals)));
    const std::size_t count = std::size_t{1} << planes;
    for (std::size_t g = 0; g < p.group_bits.size(); ++g) {
        for (std::size_t u = 0; u < count; ++u) {
            p.levels.push_back(static_cast<float>(u) - 0.5f * static_cast<float>(count - 1));
        }
    }
    p.expansion = expansion;
    return std::make_shared<const RecurrentCodec>(std::move(p));
}

std::vector<float> copy(const store::Reader& in, const std::string& name, std::size_t count) {
    const auto values = in.array<float>(name, count);
    return {values.begin(), values.end()};
}

}  // namespace

ModuleCodec::Affine::Affine(std::span<const float> values, std::span<const float> bias, std::size_t inputs)
    : bias_(bias.begin(), bias.end()) {
    require(!bias.empty() && bias.size() <= kMostDims && inputs >= 1 && values.size() == bias.size() * inputs,
            "one weight per input and output expected");
    std::vector<float> padded(values.begin(), values.end());
    padded.resize(whole_groups(bias.size()) * inputs);
    map_ = BlockMap(padded, inputs, inputs, {}, padded.size() / inputs / kGroup);
}

void ModuleCodec::Affine::apply(ConstMatrix x, MutMatrix y) const {
    map_.multiply(x, y);
    for (std::size_t i = 0; i < x.rows; ++i) {
        float* yi = y.row(i);
        for (std::size_t j = 0; j < bias_.size(); ++j) yi[j] += bias_[j];
    }
}

std::vector<float> ModuleCodec::Affine::values() const {
    std::vector<float> out = map_.values();
    out.resize(bias_.size() * map_.dim());
    return out;
}

bool ModuleCodec::Affine::is_finite() const {
    return map_.is_finite() && std::all_of(bias_.begin(), bias_.end(), [](float v) { return std::isfinite(v); });
}

ModuleCodec::ModuleCodec(const ModuleParams& p) : dim_(p.dim) {
    require(p.dim >= 1 && p.dim <= kMostDims, "1 to 65,536 dims expected");
    require(p.code_dims >= kGroup && p.code_dims % kGroup == 0 && p.code_dims <= kMostDims,
            "code dims must be a multiple of 32, at most 65,536");
    require(p.blocks.size() % 2 == 1 && p.blocks.size() < 2 * kernel::kMaxPlanes,
            "one block and two per residual code expected, at most 15");
    require(std::isfinite(p.expansion) && p.expansion >= 1, "expansion must be at least 1");
    for (std::size_t i = 0; i < p.blocks.size(); ++i) {
        const ModuleBlock& block = p.blocks[i];
        const bool rebuilds = i % 2 == 1;  // B_t reads codes and writes vectors
        require(block.out_bias.size() == (rebuilds ? dim_ : p.code_dims),
                "block " + std::to_string(i) + " has another number of outputs");
        blocks_.push_back({Affine(block.in, block.in_bias, rebuilds ? p.code_dims : dim_),
                           Affine(block.out, block.out_bias, block.in_bias.size())});
    }
    require(p.decode_offset.size() == dim_, "one decode offset per dim expected");
    decoder_ = Affine(p.decode_map, p.decode_offset, p.code_dims);
    const auto finite = [](const Block& b) { return b.in.is_finite() && b.out.is_finite(); };
    require(std::all_of(blocks_.begin(), blocks_.end(), finite) && decoder_.is_finite(), "weights must be finite");
    codes_ = level_codec(p.code_dims, residuals(), p.bits, p.expansion);
}

std::shared_ptr<const Codec> ModuleCodec::with_expansion(float expansion) const {
    auto out = std::make_shared<ModuleCodec>(*this);
    out->codes_ = std::dynamic_pointer_cast<const RecurrentCodec>(codes_->with_expansion(expansion));
    return out;
}

std::size_t ModuleCodec::memory_bytes() const {
    std::size_t bytes = codes_->memory_bytes() + decoder_.memory_bytes();
    for (const Block& b : blocks_) bytes += b.in.memory_bytes() + b.out.memory_bytes();
    return bytes;
}

void ModuleCodec::compose(ConstMatrix x, float* b) const {
    const std::size_t n = x.rows, m = code_dims();
    std::vector<float> hidden, out, residual(n * dim_);
    const auto run = [&](const Block& block, ConstMatrix in) {
        hidden.resize(n * block.in.padded());
        out.resize(n * block.out.padded());
        // What pads the hidden layer is not read: the second map has one column per hidden value.
        const std::size_t width = block.in.bias().size();
        MutMatrix h{hidden.data(), n, width, block.in.padded()};
        block.in.apply(in, h);
        for (float& v : hidden) v = std::max(v, 0.0f);
        block.out.apply({hidden.data(), n, width, block.in.padded()}, {out.data(), n, block.out.padded()});
        return block.out.padded();
    };
    std::vector<float> unit(n * dim_);
    for (std::size_t i = 0; i < n; ++i) copy_for_metric(x.row(i), dim_, Metric::cosine, unit.data() + i * dim_);
    std::fill_n(b, n * m, 0.0f);
    const auto add_signs = [&](std::size_t width, float weight) {
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t j = 0; j < m; ++j) b[i * m + j] += out[i * width + j] < 0 ? -weight : weight;
        }
    };
    add_signs(run(blocks_[0], {unit.data(), n, dim_}), 1.0f);
    float weight = 1.0f;
    for (std::size_t t = 1; t <= residuals(); ++t) {
        const std::size_t width = run(blocks_[2 * t - 1], {b, n, m});
        for (std::size_t i = 0; i < n; ++i) {
            const float* rebuilt = out.data() + i * width;
            const float factor = inverse_norm(rebuilt, dim_);
            for (std::size_t j = 0; j < dim_; ++j) residual[i * dim_ + j] = unit[i * dim_ + j] - factor * rebuilt[j];
        }
        weight *= 0.5f;
        add_signs(run(blocks_[2 * t], {residual.data(), n, dim_}), weight);
    }
}

std::vector<float> ModuleCodec::compose_all(ConstMatrix x, int num_threads) const {
    const std::size_t m = code_dims();
    std::vector<float> out(x.rows * m);
    parallel_for(x.rows, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        compose(x.slice(begin, end), out.data() + begin * m);
        for (std::size_t i = begin; i < end; ++i) {
            float* b = out.data() + i * m;
            const float factor = inverse_norm(b, m);
            for (std::size_t j = 0; j < m; ++j) b[j] *= factor;
        }
    });
    return out;
}

void ModuleCodec::encode(ConstMatrix x, std::uint8_t* codes, int num_threads, Effort) const {
    const std::size_t m = code_dims(), bytes = code_bytes();
    parallel_for(x.rows, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        const std::size_t n = end - begin;
        std::vector<float> b(n * m);
        compose(x.slice(begin, end), b.data());
        codes_->encode({b.data(), n, m}, codes + begin * bytes, 1, Effort::rounded);
        for (std::size_t i = 0; i < n; ++i) {
            RecurrentCodec::set_scale(inverse_norm(b.data() + i * m, m), codes + (begin + i + 1) * bytes);
        }
    });
}

void ModuleCodec::decode(const std::uint8_t* codes, std::size_t n, float* out, int num_threads) const {
    const std::size_t m = code_dims();
    parallel_for(n, kChunk, num_threads, [&](std::size_t begin, std::size_t end, int) {
        const std::size_t rows = end - begin, width = decoder_.padded();
        std::vector<float> b(rows * m), x(rows * width);
        codes_->decode(codes + begin * code_bytes(), rows, b.data(), 1);
        decoder_.apply({b.data(), rows, m}, {x.data(), rows, width});
        for (std::size_t i = 0; i < rows; ++i) {
            copy_for_metric(x.data() + i * width, dim_, Metric::cosine, out + (begin + i) * dim_);
        }
    });
}

std::unique_ptr<Scorer> ModuleCodec::prepare(ConstMatrix queries, int num_threads) const {
    const std::vector<float> b = compose_all(queries, num_threads);
    return codes_->prepare({b.data(), queries.rows, code_dims()}, num_threads);
}

std::unique_ptr<EdgeScorer> ModuleCodec::prepare_edges(ConstMatrix queries, int num_threads) const {
    const std::vector<float> b = compose_all(queries, num_threads);
    return codes_->prepare_edges({b.data(), queries.rows, code_dims()}, num_threads);
}

std::unique_ptr<RowScorer> ModuleCodec::prepare_rows(ConstMatrix queries, int num_threads) const {
    const std::vector<float> b = compose_all(queries, num_threads);
    return codes_->prepare_rows({b.data(), queries.rows, code_dims()}, num_threads);
}

void ModuleCodec::write(store::Writer& out) const {
    out.put_string("metric", to_string(metric()));
    out.put_int("dim", static_cast<std::int64_t>(dim_));
    out.put_int("code_dims", static_cast<std::int64_t>(code_dims()));
    out.put_int("residuals", static_cast<std::int64_t>(residuals()));
    out.put_double("bits", bits());
    out.put_double("expansion", static_cast<double>(codes_->params().expansion));
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
        const std::string name = "block" + std::to_string(i);
        out.put_copy<float>(name + "_in", blocks_[i].in.values());
        out.put<float>(name + "_in_bias", blocks_[i].in.bias());
        out.put_copy<float>(name + "_out", blocks_[i].out.values());
        out.put<float>(name + "_out_bias", blocks_[i].out.bias());
    }
    out.put_copy<float>("decode_map", decoder_.values());
    out.put<float>("decode_offset", decoder_.bias());
}

std::shared_ptr<const Codec> ModuleCodec::read(const store::Reader& in) {
    ModuleParams p;
    try {
        if (read_metric(in) != Metric::cosine) in.fail("meta", "the metric must be cosine");
        p.dim = static_cast<std::size_t>(in.get_int("dim", 1, kMostDims));
        p.code_dims = static_cast<std::size_t>(in.get_int("code_dims", kGroup, kMostDims));
        const auto residuals = static_cast<std::size_t>(in.get_int("residuals", 0, kernel::kMaxPlanes - 1));
        p.bits = in.get_double("bits");
        p.expansion = static_cast<float>(in.get_double("expansion"));
        for (std::size_t i = 0; i < 1 + 2 * residuals; ++i) {
            const std::string name = "block" + std::to_string(i);
            const std::size_t inputs = i % 2 == 1 ? p.code_dims : p.dim, outputs = i % 2 == 1 ? p.dim : p.code_dims;
            const std::size_t hidden = in.array<float>(name + "_in_bias").size();
            p.blocks.push_back({copy(in, name + "_in", hidden * inputs), copy(in, name + "_in_bias", hidden),
                                copy(in, name + "_out", outputs * hidden), copy(in, name + "_out_bias", outputs)});
        }
        p.decode_map = copy(in, "decode_map", p.dim * p.code_dims);
        p.decode_offset = copy(in, "decode_offset", p.dim);
        return std::make_shared<ModuleCodec>(p);
    } catch (const Error& e) {
        if (e.kind() == ErrorKind::value) in.fail("meta", e.what());
        throw;
    }
}

}  // namespace residua::codec
