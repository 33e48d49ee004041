// SPDX-License-Identifier: Apache-2.0
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "codec/binary_codec.hpp"
#include "codec/codec.hpp"
#include "codec/float_codec.hpp"
#include "codec/module_codec.hpp"
#include "codec/normalize.hpp"
#include "codec/pq_codec.hpp"
#include "codec/recurrent_codec.hpp"
#include "codec/residual_codec.hpp"
#include "codec/scalar_codec.hpp"
#include "core/parallel.hpp"
#include "core/random.hpp"
#include "kernel/matmul.hpp"
#include "store/container.hpp"
#include "train/steps.hpp"

namespace residua::bindings {
namespace {

using codec::Codec;
using CodecPtr = std::shared_ptr<const Codec>;

constexpr const char* kFloatTypes[] = {"float32", "float16", "bfloat16"};  // as FloatCodec::Type counts

codec::Effort parse_effort(const std::string& name) {
    if (name == "refined") return codec::Effort::refined;
    return name == "scaled" ? codec::Effort::scaled : codec::Effort::rounded;
}

py::array_t<std::uint8_t> encode(const Codec& c, const Array<float>& x, int num_threads, const std::string& effort) {
    const ConstMatrix rows = matrix(x);
    py::array_t<std::uint8_t> out({x.shape(0), static_cast<py::ssize_t>(c.code_bytes())});
    std::uint8_t* codes = out.mutable_data();
    py::gil_scoped_release release;
    c.encode(rows, codes, resolve_num_threads(num_threads), parse_effort(effort));
    return out;
}

py::array_t<float> decode(const Codec& c, const Array<std::uint8_t>& codes, int num_threads) {
    const auto rows = matrix(codes);
    py::array_t<float> out({codes.shape(0), static_cast<py::ssize_t>(c.dim())});
    float* x = out.mutable_data();
    py::gil_scoped_release release;
    c.decode(rows.data, rows.rows, x, resolve_num_threads(num_threads));
    return out;
}

// l2 leaves the library as a positive squared distance.
void to_public(const Codec& c, float* scores, std::size_t n) {
    if (c.metric() != Metric::l2) return;
    for (std::size_t i = 0; i < n; ++i) scores[i] = std::max(0.0f, -scores[i]);
}

py::array_t<float> scores(const Codec& c, const Array<float>& q, const Array<std::uint8_t>& codes, int num_threads) {
    const ConstMatrix queries = matrix(q);
    const auto rows = matrix(codes);
    py::array_t<float> out({q.shape(0), codes.shape(0)});
    float* s = out.mutable_data();
    py::gil_scoped_release release;
    const int threads = resolve_num_threads(num_threads);
    const auto scorer = c.prepare(queries, threads);
    codec::score_rows(c, *scorer, rows.data, rows.rows, s, threads);
    to_public(c, s, queries.rows * rows.rows);
    return out;
}

py::array_t<float> symmetric_scores(const Codec& c, const Array<std::uint8_t>& a, const Array<std::uint8_t>& b,
                                    int num_threads) {
    const auto left = matrix(a);
    const auto right = matrix(b);
    py::array_t<float> out({a.shape(0), b.shape(0)});
    float* s = out.mutable_data();
    py::gil_scoped_release release;
    const int threads = resolve_num_threads(num_threads);
    const auto scorer = c.prepare_codes(left.data, left.rows, threads);
    codec::score_rows(c, *scorer, right.data, right.rows, s, threads);
    if (!c.counts_bits()) to_public(c, s, left.rows * right.rows);
    return out;
}

void save(const Codec& c, const std::string& path, bool metric_is_free) {
    py::gil_scoped_release release;
    store::Writer w(c.kind());
    c.write(w);
    if (metric_is_free) w.put_int("metric_is_free", 1);
    w.write_file(path);
}

template <class T>
std::vector<T> to_vector(const Array<T>& a) {
    return {a.data(), a.data() + a.size()};
}

CodecPtr recurrent_codec(std::size_t dim, double bits, const std::string& metric, const Array<std::uint8_t>& group_bits,
                         const Array<float>& center, const Array<float>& query_mean, std::size_t block_dims,
                         const Array<std::uint16_t>& group_block, const Array<float>& encode_map,
                         const Array<float>& query_map, const Array<float>& query_scale, const Array<float>& step,
                         const Array<float>& levels) {
    codec::RecurrentParams p;
    p.metric = parse_metric(metric);
    p.dim = dim;
    p.bits = bits;
    p.group_bits = to_vector(group_bits);
    p.center = to_vector(center);
    p.query_mean = to_vector(query_mean);
    p.block_dims = block_dims;
    p.group_block = to_vector(group_block);
    p.encode_map = to_vector(encode_map);
    p.query_map = to_vector(query_map);
    p.query_scale = to_vector(query_scale);
    p.step = to_vector(step);
    p.levels = to_vector(levels);
    return std::make_shared<codec::RecurrentCodec>(std::move(p));
}

// What recurrent_codec takes, by name.
py::dict recurrent_parts(const Codec& c) {
    const codec::RecurrentParams p = dynamic_cast<const codec::RecurrentCodec&>(c).params();
    const auto array = [](const auto& v) {
        return to_numpy(std::remove_cvref_t<decltype(v)>(v), {static_cast<py::ssize_t>(v.size())});
    };
    py::dict out;
    out["dim"] = p.dim;
    out["bits"] = p.bits;
    out["metric"] = to_string(p.metric);
    out["group_bits"] = array(p.group_bits);
    out["center"] = array(p.center);
    out["query_mean"] = array(p.query_mean);
    out["block_dims"] = p.block_dims;
    out["group_block"] = array(p.group_block);
    out["encode_map"] = array(p.encode_map);
    out["query_map"] = array(p.query_map);
    out["query_scale"] = array(p.query_scale);
    out["step"] = array(p.step);
    out["levels"] = array(p.levels);
    return out;
}

// blocks: (in, in_bias, out, out_bias) of each.
CodecPtr module_codec(std::size_t dim, std::size_t code_dims, double bits, const std::vector<py::tuple>& blocks,
                      const Array<float>& decode_map, const Array<float>& decode_offset, float expansion) {
    codec::ModuleParams p;
    p.dim = dim;
    p.code_dims = code_dims;
    p.bits = bits;
    for (const py::tuple& block : blocks) {
        const auto [in, in_bias, out, out_bias] =
            block.cast<std::tuple<Array<float>, Array<float>, Array<float>, Array<float>>>();
        p.blocks.push_back({to_vector(in), to_vector(in_bias), to_vector(out), to_vector(out_bias)});
    }
    p.decode_map = to_vector(decode_map);
    p.decode_offset = to_vector(decode_offset);
    p.expansion = expansion;
    return std::make_shared<codec::ModuleCodec>(p);
}

CodecPtr with_expansion(const Codec& c, float expansion) {
    if (const auto* module = dynamic_cast<const codec::ModuleCodec*>(&c)) return module->with_expansion(expansion);
    return dynamic_cast<const codec::RecurrentCodec&>(c).with_expansion(expansion);
}

CodecPtr scalar_codec(std::size_t dim, int bits, const std::string& metric, bool per_vector, const Array<float>& center,
                      const Array<float>& query_mean, const Array<float>& step, float expansion, bool unit_scale) {
    codec::ScalarParams p;
    p.metric = parse_metric(metric);
    p.dim = dim;
    p.bits = bits;
    p.per_vector = per_vector;
    p.center = to_vector(center);
    p.query_mean = to_vector(query_mean);
    p.step = to_vector(step);
    p.expansion = expansion;
    p.unit_scale = unit_scale;
    return std::make_shared<codec::ScalarCodec>(std::move(p));
}

const codec::ScalarCodec& as_scalar(const Codec& c) {
    if (const auto* s = dynamic_cast<const codec::ScalarCodec*>(&c)) return *s;
    throw Error(ErrorKind::unsupported, "only scalar codecs have levels");
}

// (middle of every dim, step of every dim, whether all vectors have a scale of 1)
py::tuple scalar_ranges(const Codec& c) {
    const codec::ScalarParams& p = as_scalar(c).params();
    const auto n = static_cast<py::ssize_t>(p.dim);
    return py::make_tuple(to_numpy(std::vector<float>(p.center), {n}), to_numpy(std::vector<float>(p.step), {n}),
                          p.unit_scale);
}

py::array_t<std::uint8_t> encode_levels(const Codec& c, const Array<std::uint8_t>& levels, int num_threads) {
    const auto rows = matrix(levels);
    if (rows.cols != c.dim()) throw Error(ErrorKind::shape, "levels: expected one per dim");
    const codec::ScalarCodec& scalar = as_scalar(c);
    py::array_t<std::uint8_t> out({levels.shape(0), static_cast<py::ssize_t>(c.code_bytes())});
    std::uint8_t* codes = out.mutable_data();
    py::gil_scoped_release release;
    scalar.encode_levels(rows.data, rows.rows, codes, resolve_num_threads(num_threads));
    return out;
}

CodecPtr pq_codec(std::size_t dim, std::size_t n_subspaces, int bits, const std::string& metric,
                  const Array<float>& rotation, const Array<float>& codebooks, const Array<float>& error_weights,
                  float square_weight, float mean_square, float expansion) {
    codec::PqParams p;
    p.metric = parse_metric(metric);
    p.dim = dim;
    p.n_subspaces = n_subspaces;
    p.bits = bits;
    p.rotation = to_vector(rotation);
    p.codebooks = to_vector(codebooks);
    p.error_weights = to_vector(error_weights);
    p.square_weight = square_weight;
    p.mean_square = mean_square;
    p.expansion = expansion;
    return std::make_shared<codec::PqCodec>(std::move(p));
}

// The codebooks (n_subspaces, 2^bits, dims of the widest), the rotation (dims, dim) or None, the two numbers of the
// score, and the weights of errors, flat.
py::tuple pq_parts(const Codec& c) {
    const auto& pq = dynamic_cast<const codec::PqCodec&>(c);
    const codec::PqParams& p = pq.params();
    py::object rotation = py::none();
    if (!p.rotation.empty()) {
        rotation = to_numpy(std::vector<float>(p.rotation), {static_cast<py::ssize_t>(pq.dims()),
                                                             static_cast<py::ssize_t>(p.dim)});
    }
    return py::make_tuple(to_numpy(std::vector<float>(p.codebooks), {static_cast<py::ssize_t>(p.n_subspaces),
                                                                     static_cast<py::ssize_t>(pq.layout().values()),
                                                                     static_cast<py::ssize_t>(pq.subspace_dims())}),
                          rotation, p.square_weight, p.mean_square,
                          to_numpy(std::vector<float>(p.error_weights),
                                   {static_cast<py::ssize_t>(p.error_weights.size())}));
}

CodecPtr residual_codec(std::size_t dim, std::size_t beam, const std::string& metric, const Array<float>& center,
                        const Array<float>& codebooks, const Array<float>& levels, float expansion) {
    codec::ResidualParams p;
    p.metric = parse_metric(metric);
    p.dim = dim;
    p.beam = beam;
    p.center = to_vector(center);
    p.codebooks = to_vector(codebooks);
    p.levels = to_vector(levels);
    p.expansion = expansion;
    return std::make_shared<codec::ResidualCodec>(std::move(p));
}

py::array_t<double> gram(const Array<float>& x, int num_threads) {
    const ConstMatrix rows = matrix(x);
    py::array_t<double> out({x.shape(1), x.shape(1)});
    double* g = out.mutable_data();
    std::fill_n(g, out.size(), 0.0);
    py::gil_scoped_release release;
    kernel::accumulate_gram(rows, g, resolve_num_threads(num_threads));
    return out;
}

py::array_t<float> transform(const Array<float>& x, const Array<float>& map, int num_threads) {
    const ConstMatrix rows = matrix(x);
    const ConstMatrix m = matrix(map);
    py::array_t<float> out({x.shape(0), map.shape(0)});
    float* y = out.mutable_data();
    py::gil_scoped_release release;
    const kernel::PackedPanels panels(m);
    parallel_for(rows.rows, 256, resolve_num_threads(num_threads), [&](std::size_t begin, std::size_t end, int) {
        panels.multiply(rows.slice(begin, end), {y + begin * m.rows, end - begin, m.rows});
    });
    return out;
}

py::array_t<float> normalize(const Array<float>& x) {
    const ConstMatrix rows = matrix(x);
    py::array_t<float> out({x.shape(0), x.shape(1)});
    float* y = out.mutable_data();
    py::gil_scoped_release release;
    for (std::size_t r = 0; r < rows.rows; ++r) {
        codec::copy_for_metric(rows.row(r), rows.cols, Metric::cosine, y + r * rows.cols);
    }
    return out;
}

py::tuple fit_steps(const Array<float>& y, std::size_t group_dims, int num_threads) {
    const ConstMatrix rows = matrix(y);
    train::StepFit fit;
    {
        py::gil_scoped_release release;
        fit = train::fit_steps(rows, group_dims, resolve_num_threads(num_threads));
    }
    const auto groups = static_cast<py::ssize_t>(fit.groups);
    return py::make_tuple(to_numpy(std::move(fit.step), {train::kMaxBits, groups}),
                          to_numpy(std::move(fit.distortion), {train::kMaxBits + 1, groups}));
}

py::array_t<std::int64_t> as_numpy_rows(const std::vector<std::size_t>& rows) {
    std::vector<std::int64_t> out(rows.begin(), rows.end());
    const auto n = static_cast<py::ssize_t>(out.size());
    return to_numpy(std::move(out), {n});
}

}  // namespace

void register_codecs(py::module_& m) {
    py::class_<Codec, std::shared_ptr<Codec>>(m, "Codec")
        .def_property_readonly("kind", &Codec::kind)
        .def_property_readonly("dim", &Codec::dim)
        .def_property_readonly("code_bytes", &Codec::code_bytes)
        .def_property_readonly("metric", [](const Codec& c) { return to_string(c.metric()); })
        .def_property_readonly("counts_bits", &Codec::counts_bits)
        .def_property_readonly("fingerprint", [](const Codec& c) { return codec::fingerprint(c); })
        .def_property_readonly("dtype",
                               [](const Codec& c) {
                                   const auto* f = dynamic_cast<const codec::FloatCodec*>(&c);
                                   return f != nullptr ? kFloatTypes[static_cast<std::size_t>(f->type())] : "float32";
                               })
        .def_property_readonly("bits",
                               [](const Codec& c) {
                                   if (const auto* r = dynamic_cast<const codec::RecurrentCodec*>(&c)) return r->bits();
                                   if (const auto* r = dynamic_cast<const codec::ModuleCodec*>(&c)) return r->bits();
                                   if (const auto* s = dynamic_cast<const codec::ScalarCodec*>(&c)) {
                                       return static_cast<double>(s->params().bits);
                                   }
                                   if (const auto* q = dynamic_cast<const codec::PqCodec*>(&c)) {
                                       return static_cast<double>(q->params().bits);
                                   }
                                   const auto* b = dynamic_cast<const codec::BinaryCodec*>(&c);
                                   return b != nullptr ? static_cast<double>(b->bits()) : 0.0;
                               })
        .def_property_readonly("ranges",
                               [](const Codec& c) {
                                   const auto* s = dynamic_cast<const codec::ScalarCodec*>(&c);
                                   return s == nullptr             ? "none"
                                          : s->params().per_vector ? "per vector"
                                                                   : "per dimension";
                               })
        .def_property_readonly("rotation",
                               [](const Codec& c) -> std::string {
                                   if (const auto* q = dynamic_cast<const codec::PqCodec*>(&c)) {
                                       return q->params().rotation.empty() ? "none" : "opq";
                                   }
                                   const auto* b = dynamic_cast<const codec::BinaryCodec*>(&c);
                                   return b != nullptr ? b->rotation() : "none";
                               })
        .def_property_readonly("group_bits",
                               [](const Codec& c) {
                                   const auto* r = dynamic_cast<const codec::RecurrentCodec*>(&c);
                                   return r != nullptr ? std::vector<int>(r->group_bits().begin(),
                                                                          r->group_bits().end())
                                                       : std::vector<int>{};
                               })
        .def_property_readonly("block_dims",
                               [](const Codec& c) {
                                   const auto* r = dynamic_cast<const codec::RecurrentCodec*>(&c);
                                   return r != nullptr ? r->block_dims() : 0;
                               })
        .def_property_readonly("n_codebooks",
                               [](const Codec& c) {
                                   const auto* r = dynamic_cast<const codec::ResidualCodec*>(&c);
                                   return r != nullptr ? r->n_codebooks() : 0;
                               })
        .def_property_readonly("beam",
                               [](const Codec& c) {
                                   const auto* r = dynamic_cast<const codec::ResidualCodec*>(&c);
                                   return r != nullptr ? r->params().beam : 0;
                               })
        .def_property_readonly("memory_bytes", &Codec::memory_bytes)
        .def("reads_codes_of", &Codec::reads_codes_of, py::arg("other"))
        .def("candidates", &Codec::candidates, py::arg("k"), py::arg("n"))
        .def("encode", &encode, py::arg("x"), py::arg("num_threads"), py::arg("effort") = "rounded")
        .def("decode", &decode, py::arg("codes"), py::arg("num_threads"))
        .def("scores", &scores, py::arg("queries"), py::arg("codes"), py::arg("num_threads"))
        .def("symmetric_scores", &symmetric_scores, py::arg("codes_a"), py::arg("codes_b"), py::arg("num_threads"))
        .def("save", &save, py::arg("path"), py::kw_only(), py::arg("metric_is_free") = false);
    m.def(
        "float_codec",
        [](std::size_t dim, const std::string& dtype, const std::string& metric) -> CodecPtr {
            const auto* name = std::find(std::begin(kFloatTypes), std::end(kFloatTypes), dtype);
            if (name == std::end(kFloatTypes)) throw Error(ErrorKind::value, "unknown float type '" + dtype + "'");
            const auto type = static_cast<codec::FloatCodec::Type>(name - kFloatTypes);
            return std::make_shared<codec::FloatCodec>(dim, type, parse_metric(metric));
        },
        py::arg("dim"), py::arg("dtype"), py::arg("metric"));
    m.def(
        "binary_codec",
        [](std::size_t dim, std::size_t bits, const std::string& metric) -> CodecPtr {
            return std::make_shared<codec::BinaryCodec>(dim, bits, parse_metric(metric));
        },
        py::arg("dim"), py::arg("bits"), py::arg("metric"));
    m.def(
        "rotated_binary_codec",
        [](std::size_t dim, std::size_t bits, const std::string& metric, const std::string& rotation,
           std::size_t block_dims, const Array<std::uint16_t>& group_block, const Array<float>& map,
           const Array<float>& center, float amplitude) -> CodecPtr {
            return std::make_shared<codec::BinaryCodec>(
                dim, bits, parse_metric(metric),
                codec::BinaryRotation{rotation, block_dims, to_vector(group_block), to_vector(map), to_vector(center),
                                      amplitude});
        },
        py::arg("dim"), py::arg("bits"), py::arg("metric"), py::arg("rotation"), py::arg("block_dims"),
        py::arg("group_block"), py::arg("map"), py::arg("center"), py::arg("amplitude"));
    m.def("recurrent_codec", &recurrent_codec, py::arg("dim"), py::arg("bits"), py::arg("metric"),
          py::arg("group_bits"), py::arg("center"), py::arg("query_mean"), py::arg("block_dims"), py::arg("group_block"),
          py::arg("encode_map"), py::arg("query_map"), py::arg("query_scale"), py::arg("step"), py::arg("levels"));
    m.def("recurrent_parts", &recurrent_parts, py::arg("codec"));
    m.def("scalar_codec", &scalar_codec, py::arg("dim"), py::arg("bits"), py::arg("metric"), py::arg("per_vector"),
          py::arg("center"), py::arg("query_mean"), py::arg("step"), py::arg("expansion"),
          py::arg("unit_scale") = false);
    m.def("scalar_ranges", &scalar_ranges, py::arg("codec"));
    m.def("encode_levels", &encode_levels, py::arg("codec"), py::arg("levels"), py::arg("num_threads"));
    m.def("pq_codec", &pq_codec, py::arg("dim"), py::arg("n_subspaces"), py::arg("bits"), py::arg("metric"),
          py::arg("rotation"), py::arg("codebooks"), py::arg("error_weights"), py::arg("square_weight"),
          py::arg("mean_square"), py::arg("expansion"));
    m.def("pq_parts", &pq_parts, py::arg("codec"));
    m.def("residual_codec", &residual_codec, py::arg("dim"), py::arg("beam"), py::arg("metric"), py::arg("center"),
          py::arg("codebooks"), py::arg("levels"), py::arg("expansion"));
    m.def("module_codec", &module_codec, py::arg("dim"), py::arg("code_dims"), py::arg("bits"), py::arg("blocks"),
          py::arg("decode_map"), py::arg("decode_offset"), py::arg("expansion"));
    m.def("with_expansion", &with_expansion, py::arg("codec"), py::arg("expansion"));
    m.def("normalize", &normalize, py::arg("x"));
    m.def("fit_steps", &fit_steps, py::arg("y"), py::arg("group_dims"), py::arg("num_threads"));
    m.def(
        "sample_rows",
        [](std::size_t n, std::size_t count, std::uint64_t seed) { return as_numpy_rows(sample_rows(n, count, seed)); },
        py::arg("n"), py::arg("count"), py::arg("seed"));
    m.def(
        "permutation", [](std::size_t n, std::uint64_t seed) { return as_numpy_rows(permutation(n, seed)); },
        py::arg("n"), py::arg("seed"));
    m.def("gram", &gram, py::arg("x"), py::arg("num_threads"));
    m.def("transform", &transform, py::arg("x"), py::arg("map"), py::arg("num_threads"));
    m.def(
        "hamming",
        [](const Array<std::uint8_t>& a, const Array<std::uint8_t>& b, int num_threads) {
            const auto left = matrix(a);
            const auto right = matrix(b);
            py::array_t<std::int32_t> out({a.shape(0), b.shape(0)});
            std::int32_t* d = out.mutable_data();
            py::gil_scoped_release release;
            codec::hamming(left.data, left.rows, right.data, right.rows, left.cols, d,
                           resolve_num_threads(num_threads));
            return out;
        },
        py::arg("a"), py::arg("b"), py::arg("num_threads"));
}

}  // namespace residua::bindings
