// SPDX-License-Identifier: Apache-2.0
// Encoders and scores of token sets; private, wrapped by python/residua, which checks what users give.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "core/parallel.hpp"
#include "multivector/fd_encoder.hpp"
#include "multivector/maxsim.hpp"
#include "multivector/token_store.hpp"

namespace residua::bindings {
namespace {

using multivector::DocumentChoice;
using multivector::FdEncoder;
using multivector::FdParams;
using multivector::FdTables;
using multivector::TokenSets;
using multivector::TokenStore;
using multivector::TokenType;

TokenSets token_sets(const py::array& tokens, const Array<std::int64_t>& offsets) {
    if (tokens.ndim() != 2 || !(tokens.flags() & py::array::c_style) || offsets.ndim() != 1 || offsets.size() < 1) {
        throw Error(ErrorKind::shape, "expected C-contiguous tokens of shape (n, dim) and offsets");
    }
    TokenSets sets;
    sets.data = tokens.data();
    sets.type = tokens.itemsize() == 2   ? TokenType::f16
                : tokens.itemsize() == 1 ? TokenType::i8
                                         : TokenType::f32;
    sets.dim = static_cast<std::size_t>(tokens.shape(1));
    sets.offsets = offsets.data();
    sets.n = static_cast<std::size_t>(offsets.size()) - 1;
    return sets;
}

template <class T>
std::vector<T> values_of(const Array<T>& a) {
    return {a.data(), a.data() + a.size()};
}

template <class Enum>
Enum named(const std::string& name, std::initializer_list<const char*> names) {
    int i = 0;
    for (const char* known : names) {
        if (name == known) return static_cast<Enum>(i);
        ++i;
    }
    throw Error(ErrorKind::value, "unknown name '" + name + "'");
}

std::shared_ptr<FdEncoder> make_encoder(std::size_t dim, std::size_t k_sim, std::size_t reps, std::size_t proj_dim,
                                        const std::string& proj, std::size_t final_dim, bool fill_empty,
                                        std::uint64_t seed, const std::string& compat,
                                        const std::optional<Array<float>>& center,
                                        const std::optional<Array<float>>& hyperplanes,
                                        const std::optional<Array<std::int8_t>>& signs) {
    FdParams p;
    p.dim = dim;
    p.k_sim = k_sim;
    p.reps = reps;
    p.proj_dim = proj_dim;
    p.proj = named<multivector::Projection>(proj, {"count_sketch", "dense", "identity"});
    p.final_dim = final_dim;
    p.fill_empty = fill_empty;
    p.seed = seed;
    p.compat = named<multivector::Compat>(compat, {"", "google", "fastembed"});
    const std::vector<float> c = center ? values_of(*center) : std::vector<float>();
    FdTables given;
    if (hyperplanes) given.hyperplanes = values_of(*hyperplanes);
    if (signs) given.sign = values_of(*signs);
    py::gil_scoped_release release;
    return std::make_shared<FdEncoder>(p, hyperplanes ? std::move(given) : multivector::make_tables(p), c);
}

py::array_t<float> encode(const FdEncoder& e, const py::array& tokens, const Array<std::int64_t>& offsets,
                          bool document, int num_threads) {
    const TokenSets sets = token_sets(tokens, offsets);
    py::array_t<float> out({sets.n, e.output_dim()});
    float* x = out.mutable_data();
    py::gil_scoped_release release;
    e.encode(sets, document, x, resolve_num_threads(num_threads));
    return out;
}

py::dict params_of(const FdEncoder& e) {
    static constexpr const char* kProjections[] = {"count_sketch", "dense", "identity"};
    static constexpr const char* kCompats[] = {"", "google", "fastembed"};
    const FdParams& p = e.params();
    py::dict d;
    d["dim"] = p.dim;
    d["k_sim"] = p.k_sim;
    d["reps"] = p.reps;
    d["proj_dim"] = p.proj_dim;
    d["proj"] = kProjections[static_cast<int>(p.proj)];
    d["final_dim"] = p.final_dim;
    d["fill_empty"] = p.fill_empty;
    d["seed"] = p.seed;
    d["compat"] = kCompats[static_cast<int>(p.compat)];
    return d;
}

// Documents of a call: all, or those whose numbers are given.
struct Documents {
    const std::optional<Array<std::int64_t>>& numbers;
    std::size_t n;

    DocumentChoice chosen() const {
        if (!numbers) return {nullptr, n};
        return {numbers->data(), static_cast<std::size_t>(numbers->size())};
    }
};

const float* scale_of(const std::optional<Array<float>>& scale) { return scale ? scale->data() : nullptr; }

py::array_t<float> maxsim(const Array<float>& q, const Array<std::int64_t>& q_offsets, const py::array& tokens,
                          const Array<std::int64_t>& offsets, const std::optional<Array<float>>& scale,
                          const std::optional<Array<std::int64_t>>& numbers, int num_threads) {
    const TokenSets queries = token_sets(q, q_offsets), documents = token_sets(tokens, offsets);
    const DocumentChoice chosen = Documents{numbers, documents.n}.chosen();
    py::array_t<float> out({queries.n, chosen.count});
    float* x = out.mutable_data();
    py::gil_scoped_release release;
    multivector::maxsim(queries, documents, scale_of(scale), chosen, x, resolve_num_threads(num_threads));
    return out;
}

py::tuple best_tokens(const Array<float>& q, const py::array& tokens, const Array<std::int64_t>& offsets,
                      const std::optional<Array<float>>& scale, const std::optional<Array<std::int64_t>>& numbers,
                      int num_threads) {
    const std::int64_t ends[2] = {0, q.shape(0)};
    const TokenSets documents = token_sets(tokens, offsets);
    const TokenSets query{q.data(), TokenType::f32, documents.dim, ends, 1};
    const DocumentChoice chosen = Documents{numbers, documents.n}.chosen();
    py::array_t<float> scores({query.total(), chosen.count});
    py::array_t<std::int64_t> best({query.total(), chosen.count});
    float* s = scores.mutable_data();
    std::int64_t* b = best.mutable_data();
    py::gil_scoped_release release;
    multivector::best_tokens(query, documents, scale_of(scale), chosen, s, b, resolve_num_threads(num_threads));
    py::gil_scoped_acquire acquire;
    return py::make_tuple(scores, best);
}

py::array_t<float> store_maxsim(const TokenStore& store, const Array<float>& q, const Array<std::int64_t>& q_offsets,
                                const std::optional<Array<std::int64_t>>& numbers, int num_threads) {
    const TokenSets queries = token_sets(q, q_offsets);
    const DocumentChoice chosen = Documents{numbers, store.size()}.chosen();
    py::array_t<float> out({queries.n, chosen.count});
    float* x = out.mutable_data();
    py::gil_scoped_release release;
    store.maxsim(queries, chosen, x, resolve_num_threads(num_threads));
    return out;
}

py::tuple store_best_tokens(const TokenStore& store, const Array<float>& q,
                            const std::optional<Array<std::int64_t>>& numbers, int num_threads) {
    const std::int64_t ends[2] = {0, q.shape(0)};
    const TokenSets query{q.data(), TokenType::f32, store.codec()->dim(), ends, 1};
    const DocumentChoice chosen = Documents{numbers, store.size()}.chosen();
    py::array_t<float> scores({query.total(), chosen.count});
    py::array_t<std::int64_t> best({query.total(), chosen.count});
    float* s = scores.mutable_data();
    std::int64_t* b = best.mutable_data();
    py::gil_scoped_release release;
    store.best_tokens(query, chosen, s, b, resolve_num_threads(num_threads));
    py::gil_scoped_acquire acquire;
    return py::make_tuple(scores, best);
}

void register_token_store(py::module_& m) {
    py::class_<TokenStore, std::shared_ptr<TokenStore>>(m, "TokenStore")
        .def(py::init([](std::shared_ptr<const codec::Codec> c) { return std::make_shared<TokenStore>(std::move(c)); }),
             py::arg("codec"))
        .def_property_readonly("codec", [](const TokenStore& s) { return s.codec(); })
        .def_property_readonly("tokens", &TokenStore::tokens)
        .def("__len__", &TokenStore::size)
        .def(
            "add",
            [](TokenStore& s, const Array<float>& tokens, const Array<std::int64_t>& offsets, int num_threads) {
                const TokenSets documents = token_sets(tokens, offsets);
                py::gil_scoped_release release;
                s.add(documents, resolve_num_threads(num_threads));
            },
            py::arg("tokens"), py::arg("offsets"), py::arg("num_threads"))
        .def(
            "decode",
            [](const TokenStore& s, std::size_t document) {
                std::vector<float> x = s.decode(document);
                const auto dim = static_cast<py::ssize_t>(s.codec()->dim());
                const py::ssize_t n = static_cast<py::ssize_t>(x.size()) / dim;
                return to_numpy(std::move(x), {n, dim});
            },
            py::arg("document"))
        .def("maxsim", &store_maxsim, py::arg("q"), py::arg("q_offsets"), py::arg("numbers"), py::arg("num_threads"))
        .def("best_tokens", &store_best_tokens, py::arg("q"), py::arg("numbers"), py::arg("num_threads"))
        .def("memory", &TokenStore::memory)
        .def("save", &TokenStore::save, py::arg("path"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace

void register_multivector(py::module_& m) {
    py::class_<FdEncoder, std::shared_ptr<FdEncoder>>(m, "FDEncoder")
        .def(py::init(&make_encoder), py::arg("dim"), py::arg("k_sim"), py::arg("reps"), py::arg("proj_dim"),
             py::arg("proj"), py::arg("final_dim"), py::arg("fill_empty"), py::arg("seed"), py::arg("compat"),
             py::arg("center"), py::arg("hyperplanes"), py::arg("signs"))
        .def_property_readonly("params", &params_of)
        .def_property_readonly("center", [](const FdEncoder& e) {
            return py::array_t<float>(static_cast<py::ssize_t>(e.center().size()), e.center().data());
        })
        .def_property_readonly("output_dim", &FdEncoder::output_dim)
        .def_property_readonly("memory_bytes", &FdEncoder::memory_bytes)
        .def("encode", &encode, py::arg("tokens"), py::arg("offsets"), py::arg("document"), py::arg("num_threads"))
        .def("save", &FdEncoder::save, py::arg("path"), py::call_guard<py::gil_scoped_release>());
    m.def("maxsim", &maxsim, py::arg("q"), py::arg("q_offsets"), py::arg("tokens"), py::arg("offsets"),
          py::arg("scale"), py::arg("numbers"), py::arg("num_threads"));
    m.def("best_tokens", &best_tokens, py::arg("q"), py::arg("tokens"), py::arg("offsets"), py::arg("scale"),
          py::arg("numbers"), py::arg("num_threads"));
    register_token_store(m);
}

}  // namespace residua::bindings
