// SPDX-License-Identifier: Apache-2.0
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/arrays.hpp"
#include "bindings/columns.hpp"
#include "bindings/register.hpp"
#include "core/matrix_checks.hpp"
#include "core/parallel.hpp"
#include "core/progress.hpp"
#include "index/embedding_table.hpp"
#include "index/flat_index.hpp"
#include "index/hnsw_index.hpp"
#include "index/index.hpp"
#include "multivector/fd_encoder.hpp"
#include "multivector/token_store.hpp"

namespace residua::bindings {
namespace {

using index::Filter;
using index::FlatIndex;
using index::HNSWIndex;
using index::IdList;
using index::SearchParams;
using index::SearchResult;
using index::TableIndex;

// For what takes the lock of an index: whoever holds it asks for the interpreter when it looks for Ctrl-C.
template <class Call>
auto without_gil(const Call& call) {
    const py::gil_scoped_release release;
    return call();
}

// An int64 array, or a list of str.
IdList to_ids(const py::object& ids) {
    IdList out;
    if (py::isinstance<py::list>(ids)) {
        out.kind = store::IdKind::string;
        out.strings = ids.cast<std::vector<std::string>>();
    } else {
        const auto a = ids.cast<Array<std::int64_t>>();
        out.ints.assign(a.data(), a.data() + a.size());
    }
    return out;
}

// None, ids as above, a boolean mask, or an expression.
Filter to_filter(const py::object& filter) {
    if (filter.is_none()) return {};
    if (py::isinstance<filter::Expr>(filter)) return filter::ExprPtr(filter.cast<std::shared_ptr<filter::Expr>>());
    if (py::isinstance<py::array_t<bool>>(filter)) {
        const auto mask = filter.cast<Array<bool>>();
        return std::vector<std::uint8_t>(mask.data(), mask.data() + mask.size());
    }
    return to_ids(filter);
}

// A filter, or a pair: a list of filters, and which of them each query takes.
struct Filters {
    explicit Filters(const py::object& filter) {
        if (!py::isinstance<py::tuple>(filter)) {
            one = to_filter(filter);
            return;
        }
        const auto pair = filter.cast<py::tuple>();
        for (const auto f : pair[0].cast<py::list>()) many.push_back(to_filter(py::reinterpret_borrow<py::object>(f)));
        const auto of = pair[1].cast<Array<std::uint32_t>>();
        filter_of.assign(of.data(), of.data() + of.size());
    }
    void set(SearchParams& params) const {
        params.filter = &one;
        params.filters = many;
        params.filter_of = filter_of;
    }

    Filter one;
    std::vector<Filter> many;
    std::vector<std::uint32_t> filter_of;
};

// One Python id per slot; slots without a result get -1 or None.
class IdSlots {
public:
    IdSlots(const IdList& ids, std::vector<py::ssize_t> shape) : ids_(ids), text_(ids.kind == store::IdKind::string) {
        if (text_) {
            objects_ = py::array(py::dtype("O"), shape);
            py::array flat = objects_.attr("ravel")();
            slots_ = static_cast<PyObject**>(flat.mutable_data());
            for (py::ssize_t i = 0; i < objects_.size(); ++i) Py_XSETREF(slots_[i], py::none().release().ptr());
        } else {
            ints_ = Array<std::int64_t>(shape);
            std::fill_n(ints_.mutable_data(), ints_.size(), -1);
        }
    }
    void set(std::size_t slot, std::size_t i) {
        if (text_) {
            Py_XSETREF(slots_[slot], py::str(ids_.strings[i]).release().ptr());
        } else {
            ints_.mutable_data()[slot] = ids_.ints[i];
        }
    }
    py::object take() {
        if (text_) return std::move(objects_);
        return std::move(ints_);
    }

private:
    const IdList& ids_;
    bool text_;
    py::array objects_;
    PyObject** slots_ = nullptr;
    Array<std::int64_t> ints_;
};

py::object to_array(const IdList& ids) {
    IdSlots slots(ids, {static_cast<py::ssize_t>(ids.size())});
    for (std::size_t i = 0; i < ids.size(); ++i) slots.set(i, i);
    return slots.take();
}

// One array per property, over queries.
py::dict notes_of(const std::vector<index::QueryNote>& notes) {
    const auto n = static_cast<py::ssize_t>(notes.size());
    Array<std::int64_t> matches(n), visited(n), reranked(n);
    Array<float> local_rate(n), costs({n, static_cast<py::ssize_t>(3)});
    Array<bool> fallback(n);
    py::list plans;
    for (py::ssize_t i = 0; i < n; ++i) {
        const index::QueryNote& note = notes[static_cast<std::size_t>(i)];
        plans.append(index::to_string(note.plan));
        matches.mutable_data()[i] = static_cast<std::int64_t>(note.matches);
        visited.mutable_data()[i] = static_cast<std::int64_t>(note.visited);
        reranked.mutable_data()[i] = static_cast<std::int64_t>(note.reranked);
        local_rate.mutable_data()[i] = note.local_rate;
        fallback.mutable_data()[i] = note.fallback;
        std::copy(note.costs.begin(), note.costs.end(), costs.mutable_data() + 3 * i);
    }
    py::dict d;
    d["plans"] = plans;
    d["matches"] = matches;
    d["visited"] = visited;
    d["reranked"] = reranked;
    d["local_rate"] = local_rate;
    d["fallback"] = fallback;
    d["costs"] = costs;
    return d;
}

py::dict costs_to_python(const index::PlanCosts& costs) {
    py::dict d;
    const auto values = costs.values();
    for (std::size_t i = 0; i < values.size(); ++i) d[index::PlanCosts::names()[i]] = values[i];
    return d;
}

py::dict stats_of(const SearchResult& r) {
    py::dict d;
    d["plan"] = r.plan;
    d["matches"] = r.matches;
    d["visited"] = r.visited;
    d["reranked"] = r.reranked;
    if (!r.stages.empty()) d["stages"] = r.stages;
    if (r.nprobe > 0) d["nprobe"] = r.nprobe;
    if (!r.notes.empty()) d["notes"] = notes_of(r.notes);
    return d;
}

// (ids, scores, counts, stats); as many columns as the longest result.
py::tuple to_python(const TableIndex& index, const SearchResult& r) {
    const std::size_t nq = r.offsets.size() - 1;
    std::size_t width = 0;
    for (std::size_t q = 0; q < nq; ++q) width = std::max(width, r.offsets[q + 1] - r.offsets[q]);
    const std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(nq), static_cast<py::ssize_t>(width)};
    IdSlots ids(r.ids, shape);
    Array<float> scores(shape);
    Array<std::int64_t> counts(static_cast<py::ssize_t>(nq));
    const Metric metric = r.counts_bits ? Metric::ip : index.metric();
    std::fill_n(scores.mutable_data(), nq * width, public_score(metric, kWorstScore));
    for (std::size_t q = 0; q < nq; ++q) {
        for (std::size_t i = r.offsets[q]; i < r.offsets[q + 1]; ++i) {
            const std::size_t slot = q * width + (i - r.offsets[q]);
            ids.set(slot, i);
            scores.mutable_data()[slot] = public_score(metric, r.scores[i]);
        }
        counts.mutable_data()[q] = static_cast<std::int64_t>(r.offsets[q + 1] - r.offsets[q]);
    }
    return py::make_tuple(ids.take(), scores, counts, stats_of(r));
}

SearchParams make_params(std::size_t k, const std::string& scoring, std::int64_t rerank, const Filter* filter,
                         int num_threads) {
    SearchParams p;
    p.k = k;
    p.scoring = scoring == "symmetric" ? index::Scoring::symmetric : index::Scoring::asymmetric;
    p.rerank = rerank;
    p.filter = filter;
    p.num_threads = resolve_num_threads(num_threads);
    return p;
}

std::vector<std::uint32_t> to_lists(const py::object& lists) {
    if (lists.is_none()) return {};
    const auto a = lists.cast<Array<std::uint32_t>>();
    return {a.data(), a.data() + a.size()};
}

py::object add(TableIndex& index, const Array<float>& x, const py::object& ids, bool upsert, int num_threads,
               const py::object& columns, const py::object& lists, const Progress& progress) {
    const ConstMatrix rows = matrix(x);
    const IdList given = ids.is_none() ? IdList{} : to_ids(ids);
    const IdList* chosen = ids.is_none() ? nullptr : &given;
    const auto fields = without_gil([&] { return index.fields(); });
    const filter::Columns::Batch cells = to_batch(columns, fields);
    const std::vector<std::uint32_t> places = to_lists(lists);
    IdList added;
    {
        py::gil_scoped_release release;
        const ProgressScope scope(progress);  // takes the GIL by itself
        added = index.add(rows, chosen, upsert, resolve_num_threads(num_threads), columns.is_none() ? nullptr : &cells,
                          places);
    }
    return to_array(added);
}

py::tuple search(const TableIndex& index, const Array<float>& queries, std::size_t k, const std::string& scoring,
                 std::int64_t rerank, const py::object& filter, int num_threads,
                 const std::vector<std::pair<std::size_t, std::size_t>>& funnel, std::size_t nprobe, std::size_t ef,
                 const std::string& plan) {
    const ConstMatrix q = matrix(queries);
    const Filters filters(filter);
    SearchParams params = make_params(k, scoring, rerank, nullptr, num_threads);
    filters.set(params);
    params.plan = index::parse_plan(plan);
    for (const auto& [dims, keep] : funnel) params.funnel.push_back({dims, keep});
    params.ef = ef;
    params.nprobe = nprobe;
    SearchResult r;
    {
        py::gil_scoped_release release;
        r = index.search(q, params);
    }
    return to_python(index, r);
}

// A whole number in the range, as Python's int exactly.
bool is_count(const py::handle& h, long long most, long long& out) {
    if (!PyLong_CheckExact(h.ptr())) return false;
    int overflow = 0;
    out = PyLong_AsLongLongAndOverflow(h.ptr(), &overflow);
    return overflow == 0 && out >= 1 && out <= most;
}

// The usual search by one query, without what batches need: (ids, scores, count, stats), one-dimensional. None where
// there is more to look at, or to refuse: search() does.
py::object search_one(const HNSWIndex& index, const py::handle& q, const py::handle& k, const py::handle& ef,
                      const py::handle& num_threads) {
    using Row = py::array_t<float, py::array::c_style>;
    constexpr long long kMost = (1LL << 31) - 1;
    long long count = 0, beam = 0, threads = 0;
    if (!Row::check_(q) || !is_count(k, kMost, count) || !(ef.is_none() || is_count(ef, kMost, beam)) ||
        !(num_threads.is_none() || is_count(num_threads, 4096, threads))) {
        return py::none();
    }
    const auto row = py::reinterpret_borrow<py::array>(q);
    if (row.ndim() != 1 || static_cast<std::size_t>(row.shape(0)) != index.dim()) return py::none();
    const ConstMatrix query(static_cast<const float*>(row.data()), 1, index.dim());
    if (first_non_finite_row(query) || (index.metric() == Metric::cosine && first_zero_row(query)) ||
        without_gil([&] { return static_cast<std::size_t>(count) > index.size() || !index.tuning().empty(); })) {
        return py::none();
    }
    SearchParams params = make_params(static_cast<std::size_t>(count), "asymmetric", index::kAutoRerank, nullptr, 1);
    params.ef = static_cast<std::size_t>(beam);
    SearchResult r;
    {
        py::gil_scoped_release release;
        r = index.search(query, params);
    }
    if (r.ids.size() < params.k) return py::none();
    const auto n = static_cast<py::ssize_t>(params.k);
    IdSlots ids(r.ids, {n});
    Array<float> scores(n);
    for (std::size_t i = 0; i < params.k; ++i) {
        ids.set(i, i);
        scores.mutable_data()[i] = public_score(index.metric(), r.scores[i]);
    }
    return py::make_tuple(ids.take(), std::move(scores), n, stats_of(r));
}

py::tuple search_codes(const TableIndex& index, const Array<std::uint8_t>& codes, std::size_t k, std::int64_t rerank,
                       const py::object& filter, int num_threads, std::size_t nprobe, std::size_t ef,
                       const std::string& plan) {
    const auto queries = matrix(codes);
    const Filters filters(filter);
    SearchParams params = make_params(k, "symmetric", rerank, nullptr, num_threads);
    filters.set(params);
    params.plan = index::parse_plan(plan);
    params.nprobe = nprobe;
    params.ef = ef;
    SearchResult r;
    {
        py::gil_scoped_release release;
        r = index.search_codes(queries.data, queries.rows, params);
    }
    return to_python(index, r);
}

py::tuple range_search(const TableIndex& index, const Array<float>& queries, float threshold, const py::object& filter,
                       int num_threads) {
    const ConstMatrix q = matrix(queries);
    const Filter rows = to_filter(filter);
    const float inside = index.metric() == Metric::l2 ? -threshold : threshold;
    SearchResult r;
    {
        py::gil_scoped_release release;
        r = index.range_search(q, inside, &rows, resolve_num_threads(num_threads));
    }
    for (float& s : r.scores) s = public_score(index.metric(), s);
    const auto n = static_cast<py::ssize_t>(r.scores.size());
    std::vector<std::int64_t> offsets(r.offsets.begin(), r.offsets.end());
    const auto n_offsets = static_cast<py::ssize_t>(offsets.size());
    return py::make_tuple(to_numpy(std::move(offsets), {n_offsets}), to_array(r.ids),
                          to_numpy(std::move(r.scores), {n}));
}

void set_columns(TableIndex& index, const py::object& ids, const py::list& columns) {
    const IdList given = to_ids(ids);
    const auto fields = without_gil([&] { return index.fields(); });
    const filter::Columns::Batch cells = to_batch(columns, fields);
    py::gil_scoped_release release;
    index.set_columns(given, cells);
}

py::list columns_of(const TableIndex& index, const py::object& ids) {
    const IdList given = to_ids(ids);
    filter::Columns::Batch cells;
    {
        py::gil_scoped_release release;
        cells = index.columns(given);
    }
    return batch_to_python(cells, without_gil([&] { return index.fields(); }));
}

std::size_t remove(TableIndex& index, const py::object& ids, bool ignore_missing) {
    const IdList given = to_ids(ids);
    py::gil_scoped_release release;
    return index.remove(given, ignore_missing);
}

py::object add_codes(TableIndex& index, const Array<std::uint8_t>& codes, const py::object& ids,
                     const py::object& lists) {
    const auto rows = matrix(codes);
    const std::vector<std::uint32_t> places = to_lists(lists);
    const IdList given = ids.is_none() ? IdList{} : to_ids(ids);
    IdList added;
    {
        py::gil_scoped_release release;
        added = index.add_codes(rows.data, rows.rows, ids.is_none() ? nullptr : &given, places);
    }
    return to_array(added);
}

py::array_t<std::uint8_t> codes_of(const TableIndex& index, const py::object& ids) {
    const IdList given = to_ids(ids);
    std::vector<std::uint8_t> codes;
    {
        py::gil_scoped_release release;
        codes = index.codes(given);
    }
    const auto n = static_cast<py::ssize_t>(given.size());
    return to_numpy(std::move(codes), {n, static_cast<py::ssize_t>(index.codec()->code_bytes())});
}

void take_back(TableIndex& index, const py::object& ids, std::int64_t max_id) {
    const IdList given = to_ids(ids);
    py::gil_scoped_release release;
    index.take_back(given, max_id);
}

py::array_t<float> get(const TableIndex& index, const py::object& ids) {
    const IdList given = to_ids(ids);
    std::vector<float> x;
    {
        py::gil_scoped_release release;
        x = index.get(given);
    }
    return to_numpy(std::move(x), {static_cast<py::ssize_t>(given.size()), static_cast<py::ssize_t>(index.dim())});
}

}  // namespace

void register_index(py::module_& m) {
    py::class_<TableIndex, std::shared_ptr<TableIndex>>(m, "Index")
        .def_property_readonly("dim", &TableIndex::dim)
        .def_property_readonly("metric", [](const TableIndex& i) { return to_string(i.metric()); })
        .def_property_readonly("vectors", [](const TableIndex& i) { return store::to_string(i.mode()); })
        .def_property_readonly("awaits_codec",
                               [](const TableIndex& i) { return without_gil([&] { return i.awaits_codec(); }); })
        .def_property_readonly("codec_recipe", &TableIndex::codec_recipe)
        .def_property_readonly("id_kind",
                               [](const TableIndex& i) {
                                   const auto kind = without_gil([&] { return i.id_kind(); });
                                   return kind == store::IdKind::string    ? "str"
                                          : kind == store::IdKind::integer ? "int"
                                                                           : "none";
                               })
        .def_property_readonly("codec", [](const TableIndex& i) { return without_gil([&] { return i.codec(); }); })
        .def("__len__", &TableIndex::size, py::call_guard<py::gil_scoped_release>())
        .def("staged_vectors",
             [](const TableIndex& i) {
                 auto v = without_gil([&] { return i.staged_vectors(); });
                 const auto n = static_cast<py::ssize_t>(v.size() / i.dim());
                 return to_numpy(std::move(v), {n, static_cast<py::ssize_t>(i.dim())});
             })
        .def("add", &add, py::arg("x"), py::arg("ids"), py::arg("upsert"), py::arg("num_threads"),
             py::arg("columns") = py::none(), py::arg("lists") = py::none(), py::arg("progress") = py::none())
        .def_property_readonly("fields", [](const TableIndex& i) { return fields_to_python(without_gil([&] { return i.fields(); })); })
        .def("declare_columns",
             [](TableIndex& i, const std::vector<std::pair<std::string, std::string>>& fields) {
                 i.declare_columns(to_fields(fields));
             },
             py::arg("fields"))
        .def("set_columns", &set_columns, py::arg("ids"), py::arg("columns"))
        .def("columns", &columns_of, py::arg("ids"))
        .def("search", &search, py::arg("queries"), py::arg("k"), py::arg("scoring"), py::arg("rerank"),
             py::arg("filter"), py::arg("num_threads"), py::arg("funnel") = std::vector<std::pair<std::size_t, std::size_t>>{},
             py::arg("nprobe") = std::size_t{0}, py::arg("ef") = std::size_t{0}, py::arg("plan") = "auto")
        .def("search_codes", &search_codes, py::arg("codes"), py::arg("k"), py::arg("rerank"), py::arg("filter"),
             py::arg("num_threads"), py::arg("nprobe") = std::size_t{0}, py::arg("ef") = std::size_t{0}, py::arg("plan") = "auto")
        .def("range_search", &range_search, py::arg("queries"), py::arg("threshold"), py::arg("filter"),
             py::arg("num_threads"))
        .def("remove", &remove, py::arg("ids"), py::arg("ignore_missing"))
        .def("add_codes", &add_codes, py::arg("codes"), py::arg("ids"), py::arg("lists") = py::none())
        .def("codes_of", &codes_of, py::arg("ids"))
        .def("all_ids", [](const TableIndex& i) { return to_array(without_gil([&] { return i.all_ids(); })); })
        .def_property("tuning", [](const TableIndex& i) { return without_gil([&] { return i.tuning(); }); },
                      [](TableIndex& i, std::string text) { without_gil([&] { i.set_tuning(std::move(text)); }); })
        .def("take_back", &take_back, py::arg("ids"), py::arg("max_id"))
        .def_property_readonly("max_id", [](const TableIndex& i) { return without_gil([&] { return i.max_id(); }); })
        .def("get", &get, py::arg("ids"))
        .def("contains", [](const TableIndex& i, const py::object& ids) { 
                 const IdList given = to_ids(ids);
                 return without_gil([&] { return i.contains(given); });
             },
             py::arg("ids"))
        .def("compact", &TableIndex::compact, py::call_guard<py::gil_scoped_release>())
        .def("memory", &TableIndex::memory, py::call_guard<py::gil_scoped_release>())
        .def("save", &TableIndex::save, py::arg("path"), py::call_guard<py::gil_scoped_release>());

    py::class_<FlatIndex, TableIndex, std::shared_ptr<FlatIndex>>(m, "FlatIndex")
        .def(py::init([](std::size_t dim, const std::string& metric, const std::string& vectors, bool wants_codec,
                         const std::string& codec_recipe) {
                 return std::make_shared<FlatIndex>(dim, parse_metric(metric), store::parse_vector_mode(vectors),
                                                    wants_codec, codec_recipe);
             }),
             py::arg("dim"), py::arg("metric"), py::arg("vectors"), py::arg("wants_codec"), py::arg("codec_recipe"))
        .def("set_codec", &FlatIndex::set_codec, py::arg("codec"), py::arg("num_threads"),
             py::call_guard<py::gil_scoped_release>());

    py::class_<HNSWIndex, TableIndex, std::shared_ptr<HNSWIndex>>(m, "HNSWIndex")
        .def(py::init([](std::size_t dim, const std::string& metric, const std::string& vectors, bool wants_codec,
                         const std::string& codec_recipe, std::size_t m_links, std::size_t ef_construction,
                         std::uint64_t seed, bool turbo) {
                 return std::make_shared<HNSWIndex>(dim, parse_metric(metric), store::parse_vector_mode(vectors),
                                                    wants_codec, codec_recipe,
                                                    index::GraphParams{m_links, ef_construction, seed, turbo});
             }),
             py::arg("dim"), py::arg("metric"), py::arg("vectors"), py::arg("wants_codec"), py::arg("codec_recipe"),
             py::arg("M"), py::arg("ef_construction"), py::arg("seed"), py::arg("turbo"))
        .def("set_codec", [](HNSWIndex& i, std::shared_ptr<const codec::Codec> c, int num_threads, const Progress& progress) {
                 py::gil_scoped_release release;
                 const ProgressScope scope(progress);
                 i.set_codec(std::move(c), num_threads);
             }, py::arg("codec"), py::arg("num_threads"), py::arg("progress") = py::none())
        .def("search_one", &search_one, py::arg("q"), py::arg("k"), py::arg("ef"), py::arg("num_threads"))
        .def_property_readonly("M", [](const HNSWIndex& i) { return i.params().m; })
        .def_property_readonly("turbo", [](const HNSWIndex& i) { return i.params().turbo; })
        .def_property_readonly("ef_construction", [](const HNSWIndex& i) { return i.params().ef_construction; })
        .def_property_readonly("costs", [](const HNSWIndex& i) { return costs_to_python(i.costs()); })
        .def("calibrate",
             [](HNSWIndex& i) {
                 index::PlanCosts costs;
                 {
                     py::gil_scoped_release release;
                     costs = i.calibrate();
                 }
                 return costs_to_python(costs);
             })
        .def("shape", [](const HNSWIndex& i) {
            HNSWIndex::Shape s;
            {
                py::gil_scoped_release release;
                s = i.shape();
            }
            py::dict d;
            d["edges"] = s.edges;
            d["entries"] = s.entries;
            d["unreachable"] = s.unreachable;
            d["to_removed"] = s.to_removed;
            return d;
        });

    m.def(
        "load",
        [](const std::string& path, bool mmap, const std::string& verify) -> py::tuple {
            store::OpenOptions options;
            options.mmap = mmap;
            options.verify = verify == "full" ? store::Verify::full : store::Verify::quick;
            std::shared_ptr<index::Index> index;
            std::shared_ptr<index::EmbeddingTable> table;
            std::shared_ptr<multivector::FdEncoder> encoder;
            std::shared_ptr<multivector::TokenStore> tokens;
            std::shared_ptr<const codec::Codec> codec;
            bool metric_is_free = false;
            {
                py::gil_scoped_release release;
                const store::Reader in = store::Reader::open(path, options);
                if (index::holds_index(in)) {
                    index = index::read_index(in);
                } else if (in.kind() == index::EmbeddingTable::kKind) {
                    table = index::EmbeddingTable::load(in);
                } else if (in.kind() == multivector::FdEncoder::kKind) {
                    encoder = multivector::FdEncoder::load(in);
                } else if (in.kind() == multivector::TokenStore::kKind) {
                    tokens = multivector::TokenStore::load(in);
                } else {
                    codec = codec::read_codec(in);
                    metric_is_free = in.has_key("metric_is_free") && in.get_int("metric_is_free", 0, 1) == 1;
                }
            }
            // An index is cast as the class that it is.
            const py::object loaded = index     ? py::cast(index)
                                      : table   ? py::cast(table)
                                      : encoder ? py::cast(encoder)
                                      : tokens  ? py::cast(tokens)
                                                : py::cast(codec);
            return py::make_tuple(loaded, metric_is_free);
        },
        py::arg("path"), py::arg("mmap"), py::arg("verify"));

    m.def(
        "first_non_finite",
        [](const Array<float>& x) -> py::ssize_t {
            const ConstMatrix rows = matrix(x);
            py::gil_scoped_release release;
            const auto r = first_non_finite_row(rows);
            return r ? static_cast<py::ssize_t>(*r) : -1;
        },
        py::arg("x"));
    m.def(
        "first_zero_row",
        [](const Array<float>& x) -> py::ssize_t {
            const ConstMatrix rows = matrix(x);
            py::gil_scoped_release release;
            const auto r = first_zero_row(rows);
            return r ? static_cast<py::ssize_t>(*r) : -1;
        },
        py::arg("x"));
}

}  // namespace residua::bindings
