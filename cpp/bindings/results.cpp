// SPDX-License-Identifier: Apache-2.0
#include "bindings/results.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "index/plan.hpp"

namespace residua::bindings {

using index::IdList;
using index::SearchResult;
using index::TableIndex;

namespace {

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

}  // namespace

py::object to_array(const IdList& ids) {
    IdSlots slots(ids, {static_cast<py::ssize_t>(ids.size())});
    for (std::size_t i = 0; i < ids.size(); ++i) slots.set(i, i);
    return slots.take();
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

}  // namespace residua::bindings
