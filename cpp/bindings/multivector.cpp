// SPDX-License-Identifier: Apache-2.0
// Encoders and scores of token sets; private, wrapped by python/residua, which checks what users give.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "core/parallel.hpp"
#include "multivector/fd_encoder.hpp"
#include "multivector/maxsim.hpp"
#include "multivector/token_store.hpp"

namespace residua::bindings {
namespace {

using multivector::Candidates;
using multivector::DocumentNumbers;
using multivector::FdEncoder;
using multivector::FdParams;
using multivector::FdTables;
using multivector::TokenSets;
using multivector::TokenStore;
using multivector::TokenType;

using Numbers = std::optional<Array<std::int64_t>>;
using NoGil = py::call_guard<py::gil_scoped_release>;

// In the order of their enumerations.
constexpr const char* kProjections[] = {"count_sketch", "dense", "identity"};
constexpr const char* kCompats[] = {"", "google", "fastembed"};

TokenSets token_sets(const py::array& tokens, const Array<std::int64_t>& offsets) {
    if (tokens.ndim() != 2 || !(tokens.flags() & py::array::c_style) || offsets.ndim() != 1 || offsets.size() < 1) {
        throw Error(ErrorKind::shape, "expected C-contiguous tokens of shape (n, dim) and offsets");
    }
    const std::int64_t* o = offsets.data();
    if (o[0] != 0 || o[offsets.size() - 1] != tokens.shape(0) || !std::is_sorted(o, o + offsets.size())) {
        throw Error(ErrorKind::shape, "offsets must ascend from 0 to the number of tokens");
    }
    TokenSets sets;
    sets.data = tokens.data();
    sets.type = tokens.itemsize() == 2   ? TokenType::f16
                : tokens.itemsize() == 1 ? TokenType::i8
                                         : TokenType::f32;
    sets.dim = static_cast<std::size_t>(tokens.shape(1));
    sets.offsets = o;
    sets.n = static_cast<std::size_t>(offsets.size()) - 1;
    return sets;
}

// One query of all tokens; `ends` is where its offsets are put.
TokenSets one_query(const Array<float>& q, std::int64_t (&ends)[2]) {
    const auto x = matrix(q);
    ends[0] = 0;
    ends[1] = static_cast<std::int64_t>(x.rows);
    return {x.data, TokenType::f32, x.cols, ends, 1};
}

DocumentNumbers chosen(const Numbers& numbers) {
    if (!numbers) return std::nullopt;
    return std::span(numbers->data(), static_cast<std::size_t>(numbers->size()));
}

template <class T>
std::vector<T> values_of(const std::optional<Array<T>>& a) {
    return a ? std::vector<T>(a->data(), a->data() + a->size()) : std::vector<T>();
}

template <class Enum, std::size_t N>
Enum named(const std::string& name, const char* const (&names)[N]) {
    for (std::size_t i = 0; i < N; ++i) {
        if (name == names[i]) return static_cast<Enum>(i);
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
    p.proj = named<multivector::Projection>(proj, kProjections);
    p.final_dim = final_dim;
    p.fill_empty = fill_empty;
    p.seed = seed;
    p.compat = named<multivector::Compat>(compat, kCompats);
    const std::vector<float> c = values_of(center);
    FdTables given;
    given.hyperplanes = values_of(hyperplanes);
    given.sign = values_of(signs);
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

// (rows, columns), by moving; the number of columns follows.
template <class T>
py::array_t<T> table(std::vector<T>&& values, std::size_t rows, std::size_t columns) {
    return to_numpy(std::move(values), {static_cast<py::ssize_t>(rows), static_cast<py::ssize_t>(columns)});
}

// Calls score(documents, chosen) of plain arrays without the GIL.
template <class Score>
auto with_documents(const py::array& tokens, const Array<std::int64_t>& offsets,
                    const std::optional<Array<float>>& scale, const Numbers& numbers, Score score) {
    TokenSets documents = token_sets(tokens, offsets);
    if (scale) documents.scale = scale->data();
    const DocumentNumbers which = chosen(numbers);
    py::gil_scoped_release release;
    return score(documents, which);
}

py::array_t<float> maxsim(const Array<float>& q, const Array<std::int64_t>& q_offsets, const py::array& tokens,
                          const Array<std::int64_t>& offsets, const std::optional<Array<float>>& scale,
                          const Numbers& numbers, int num_threads) {
    const TokenSets queries = token_sets(q, q_offsets);
    std::vector<float> out = with_documents(tokens, offsets, scale, numbers, [&](const auto& documents, auto which) {
        const auto scorer = multivector::float_scorer(queries, documents);
        return multivector::maxsim(*scorer, queries, which, resolve_num_threads(num_threads));
    });
    const std::size_t n = numbers ? numbers->size() : offsets.size() - 1;
    return table(std::move(out), queries.n, n);
}

py::tuple to_tuple(multivector::BestTokens&& best, std::size_t query_tokens) {
    const std::size_t n = query_tokens == 0 ? 0 : best.scores.size() / query_tokens;
    return py::make_tuple(table(std::move(best.scores), query_tokens, n), table(std::move(best.tokens), query_tokens, n));
}

py::tuple best_tokens(const Array<float>& q, const py::array& tokens, const Array<std::int64_t>& offsets,
                      const std::optional<Array<float>>& scale, const Numbers& numbers, int num_threads) {
    std::int64_t ends[2];
    const TokenSets query = one_query(q, ends);
    return to_tuple(with_documents(tokens, offsets, scale, numbers,
                                   [&](const auto& documents, auto which) {
                                       const auto scorer = multivector::float_scorer(query, documents);
                                       return multivector::best_tokens(*scorer, which, resolve_num_threads(num_threads));
                                   }),
                    query.total());
}

py::array_t<float> store_maxsim(const TokenStore& store, const Array<float>& q, const Array<std::int64_t>& q_offsets,
                                const Numbers& numbers, int num_threads) {
    const TokenSets queries = token_sets(q, q_offsets);
    const DocumentNumbers which = chosen(numbers);
    std::vector<float> out;
    {
        py::gil_scoped_release release;
        out = store.maxsim(queries, which, resolve_num_threads(num_threads));
    }
    const std::size_t n = queries.n == 0 ? 0 : out.size() / queries.n;
    return table(std::move(out), queries.n, n);
}

py::tuple store_best_tokens(const TokenStore& store, const Array<float>& q, const Numbers& numbers, int num_threads) {
    std::int64_t ends[2];
    const TokenSets query = one_query(q, ends);
    const DocumentNumbers which = chosen(numbers);
    multivector::BestTokens best;
    {
        py::gil_scoped_release release;
        best = store.best_tokens(query, which, resolve_num_threads(num_threads));
    }
    return to_tuple(std::move(best), query.total());
}

py::tuple store_rank(const TokenStore& store, const Array<float>& q, const Array<std::int64_t>& q_offsets,
                     const Numbers& candidate_offsets, const Numbers& candidates, std::size_t k, int num_threads) {
    const TokenSets queries = token_sets(q, q_offsets);
    Candidates given;
    if (candidate_offsets && candidates) {
        const std::int64_t* o = candidate_offsets->data();
        if (candidate_offsets->size() != q_offsets.size() || o[0] != 0 || o[queries.n] != candidates->size() ||
            !std::is_sorted(o, o + queries.n + 1)) {
            throw Error(ErrorKind::shape, "offsets of candidates must ascend, one more than queries, from 0 to their number");
        }
        given = {o, candidates->data()};
    }
    multivector::Ranking best;
    {
        py::gil_scoped_release release;
        best = store.rank(queries, given, k, resolve_num_threads(num_threads));
    }
    const auto nq = static_cast<py::ssize_t>(queries.n);
    return py::make_tuple(table(std::move(best.numbers), queries.n, best.width),
                          table(std::move(best.scores), queries.n, best.width), to_numpy(std::move(best.counts), {nq}));
}

py::array_t<float> store_decode(const TokenStore& store, std::size_t document) {
    std::vector<float> x;
    {
        py::gil_scoped_release release;
        x = store.decode(document);
    }
    const std::size_t n = x.size() / store.dim();
    return table(std::move(x), n, store.dim());
}

void register_token_store(py::module_& m) {
    py::class_<TokenStore, std::shared_ptr<TokenStore>>(m, "TokenStore")
        .def(py::init([](std::shared_ptr<const codec::Codec> c) {
                 return std::make_shared<TokenStore>(multivector::make_code_tokens(std::move(c)));
             }),
             py::arg("codec"))
        .def_static(
            "of_floats",
            [](const std::string& form, std::size_t dim) {
                return std::make_shared<TokenStore>(multivector::make_float_tokens(form, dim));
            },
            py::arg("form"), py::arg("dim"))
        .def_property_readonly("codec", [](const TokenStore& s) { return s.codec(); })
        .def_property_readonly("form", &TokenStore::form)
        .def_property_readonly("dim", &TokenStore::dim)
        .def_property_readonly("tokens", py::cpp_function(&TokenStore::tokens, NoGil()))
        .def_property_readonly("removed", py::cpp_function(&TokenStore::removed, NoGil()))
        .def("__len__", &TokenStore::size, NoGil())
        .def(
            "add",
            [](TokenStore& s, const py::array& tokens, const Array<std::int64_t>& offsets, int num_threads) {
                const TokenSets documents = token_sets(tokens, offsets);
                py::gil_scoped_release release;
                s.add(documents, resolve_num_threads(num_threads));
            },
            py::arg("tokens"), py::arg("offsets"), py::arg("num_threads"))
        .def(
            "remove",
            [](TokenStore& s, const Array<std::int64_t>& numbers) {
                const std::span given(numbers.data(), static_cast<std::size_t>(numbers.size()));
                py::gil_scoped_release release;
                s.remove(given);
            },
            py::arg("numbers"))
        .def("compact", &TokenStore::compact, py::call_guard<py::gil_scoped_release>())
        .def("decode", &store_decode, py::arg("document"))
        .def("maxsim", &store_maxsim, py::arg("q"), py::arg("q_offsets"), py::arg("numbers"), py::arg("num_threads"))
        .def("best_tokens", &store_best_tokens, py::arg("q"), py::arg("numbers"), py::arg("num_threads"))
        .def("rank", &store_rank, py::arg("q"), py::arg("q_offsets"), py::arg("candidate_offsets"),
             py::arg("candidates"), py::arg("k"), py::arg("num_threads"))
        .def("memory", &TokenStore::memory, NoGil())
        .def("save", &TokenStore::save, py::arg("path"), NoGil());
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
        .def("encode", &encode, py::arg("tokens"), py::arg("offsets"), py::arg("document"), py::arg("num_threads"))
        .def("save", &FdEncoder::save, py::arg("path"), NoGil());
    m.def("maxsim", &maxsim, py::arg("q"), py::arg("q_offsets"), py::arg("tokens"), py::arg("offsets"),
          py::arg("scale"), py::arg("numbers"), py::arg("num_threads"));
    m.def("best_tokens", &best_tokens, py::arg("q"), py::arg("tokens"), py::arg("offsets"), py::arg("scale"),
          py::arg("numbers"), py::arg("num_threads"));
    register_token_store(m);
}

}  // namespace residua::bindings
