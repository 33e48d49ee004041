// SPDX-License-Identifier: Apache-2.0
// Exact search over NumPy arrays; private, wrapped by python/residua.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "core/parallel.hpp"
#include "index/exact_scan.hpp"
#include "kernel/dispatch.hpp"

namespace py = pybind11;

namespace residua::bindings {
namespace {

using store::RowSource;
using store::RowType;

// Rows, their norms and their filter for one call, and queries as the scan wants them.
struct ExactInput {
    py::array rows;
    RowSource source;
    Metric metric;
    Array<float> queries, scale;
    std::optional<Bitset> allowed;
    std::vector<float> inv_norm, normalised;

    ExactInput(const Array<float>& q, const py::array& x, const std::string& name, const std::optional<Array<float>>& s,
               const std::optional<Array<bool>>& mask)
        : rows(x), metric(parse_metric(name)), queries(q) {
        if (x.ndim() != 2 || !(x.flags() & py::array::c_style)) {
            throw Error(ErrorKind::shape, "expected C-contiguous rows of shape (n, dim)");
        }
        source.data = x.data();
        source.type = row_type(x.dtype());
        source.n = static_cast<std::size_t>(x.shape(0));
        source.dim = static_cast<std::size_t>(x.shape(1));
        source.stride_bytes = source.dim * store::row_type_bytes(source.type);
        if (matrix(q).cols != source.dim) {
            throw Error(ErrorKind::shape, "queries have " + std::to_string(matrix(q).cols) +
                                              " dimensions, the rows have " + std::to_string(source.dim));
        }
        if (source.n > std::numeric_limits<std::uint32_t>::max()) {
            throw Error(ErrorKind::unsupported, "exact search takes at most 4294967295 rows");
        }
        if (s) {
            scale = *s;
            check_length(scale.size(), "scale");
            source.row_scale = scale.data();
        }
        if (mask) {
            check_length(mask->size(), "allowed");
            allowed.emplace(source.n);
            for (std::size_t i = 0; i < source.n; ++i) {
                if (mask->data()[i]) allowed->set(i);
            }
            source.allowed = &*allowed;
        }
    }
    ExactInput(const ExactInput&) = delete;
    ExactInput& operator=(const ExactInput&) = delete;

    // Without the GIL: norms of all rows and normalised queries where the metric is cosine.
    ConstMatrix prepare(int num_threads) {
        const ConstMatrix q = matrix(queries);
        if (metric != Metric::cosine) return q;
        const std::vector<float> zero(source.dim, 0.0f);
        inv_norm.resize(source.n);
        parallel_for(source.n, 4096, resolve_num_threads(num_threads), [&](std::size_t begin, std::size_t end, int) {
            for (std::size_t i = begin; i < end; ++i) {
                const double norm = std::sqrt(squared_norm(zero.data(), i));
                inv_norm[i] = norm > 0.0 ? static_cast<float>(1.0 / norm) : 0.0f;
            }
        });
        source.inv_norm = inv_norm.data();
        normalised.resize(q.rows * q.cols);
        for (std::size_t i = 0; i < q.rows; ++i) {
            const double norm = std::sqrt(kernel::active().floats.exact_dot_f32(q.row(i), q.row(i), q.cols));
            for (std::size_t j = 0; j < q.cols; ++j) {
                normalised[i * q.cols + j] = norm > 0.0 ? static_cast<float>(q.row(i)[j] / norm) : 0.0f;
            }
        }
        return {normalised.data(), q.rows, q.cols};
    }

    float outward(float score) const { return metric == Metric::l2 ? 0.0f - score : score; }

private:
    // In float64, which the square of any float32 norm fits: the distance to the origin.
    double squared_norm(const float* zero, std::size_t i) const {
        const kernel::FloatKernels& kernels = kernel::active().floats;
        const void* row = source.row(i);
        switch (source.type) {
            case RowType::f32: return kernels.exact_l2_f32(zero, static_cast<const float*>(row), source.dim);
            case RowType::f16: return kernels.exact_l2_f16(zero, static_cast<const std::uint16_t*>(row), source.dim);
            case RowType::bf16: return kernels.exact_l2_bf16(zero, static_cast<const std::uint16_t*>(row), source.dim);
            case RowType::i8: break;
        }
        const float row_scale = source.row_scale != nullptr ? source.row_scale[i] : 1.0f;
        return kernels.exact_l2_i8(zero, static_cast<const std::int8_t*>(row), row_scale, source.dim);
    }
    static RowType row_type(const py::dtype& t) {
        if (t.kind() == 'f' && t.itemsize() == 4) return RowType::f32;
        if (t.kind() == 'f' && t.itemsize() == 2) return RowType::f16;
        if (t.kind() == 'i' && t.itemsize() == 1) return RowType::i8;
        if (t.itemsize() == 2 && py::str(t).cast<std::string>() == "bfloat16") return RowType::bf16;
        throw Error(ErrorKind::dtype, "rows must be float32, float16, bfloat16 or int8");
    }
    void check_length(py::ssize_t got, const char* what) const {
        if (static_cast<std::size_t>(got) == source.n) return;
        throw Error(ErrorKind::shape, std::string(what) + " has " + std::to_string(got) + " values for " +
                                          std::to_string(source.n) + " rows");
    }
};

py::tuple exact_search(const Array<float>& q, const py::array& x, std::size_t k, const std::string& metric,
                       int num_threads, const std::optional<Array<float>>& scale,
                       const std::optional<Array<bool>>& allowed) {
    ExactInput in(q, x, metric, scale, allowed);
    const std::size_t nq = static_cast<std::size_t>(q.shape(0));
    py::array_t<std::int64_t> ids({nq, k});
    py::array_t<float> scores({nq, k});
    std::int64_t* id = ids.mutable_data();
    float* score = scores.mutable_data();
    py::gil_scoped_release release;
    const auto found = index::exact_top_k(in.source, in.metric, in.prepare(num_threads), k, nullptr, num_threads);
    for (std::size_t i = 0; i < nq; ++i) {
        for (std::size_t j = 0; j < k; ++j) {
            const bool real = j < found[i].size();
            id[i * k + j] = real ? static_cast<std::int64_t>(found[i][j].row) : -1;
            score[i * k + j] = in.outward(real ? found[i][j].score : kWorstScore);
        }
    }
    py::gil_scoped_acquire acquire;
    return py::make_tuple(ids, scores);
}

py::tuple exact_range(const Array<float>& q, const py::array& x, float threshold, const std::string& metric,
                      int num_threads, const std::optional<Array<float>>& scale,
                      const std::optional<Array<bool>>& allowed) {
    ExactInput in(q, x, metric, scale, allowed);
    std::vector<std::int64_t> offsets{0}, ids;
    std::vector<float> scores;
    {
        py::gil_scoped_release release;
        const auto found = index::exact_range(in.source, in.metric, in.prepare(num_threads), in.outward(threshold),
                                              nullptr, num_threads);
        for (const auto& hits : found) {
            for (const ScoredRow& hit : hits) {
                ids.push_back(hit.row);
                scores.push_back(in.outward(hit.score));
            }
            offsets.push_back(static_cast<std::int64_t>(ids.size()));
        }
    }
    const auto n = static_cast<py::ssize_t>(ids.size()), m = static_cast<py::ssize_t>(offsets.size());
    return py::make_tuple(to_numpy(std::move(offsets), {m}), to_numpy(std::move(ids), {n}),
                          to_numpy(std::move(scores), {n}));
}

}  // namespace

void register_exact_search(py::module_& m) {
    m.def("exact_search", &exact_search, py::arg("q"), py::arg("x"), py::arg("k"), py::arg("metric"),
          py::arg("num_threads") = 0, py::arg("scale") = py::none(), py::arg("allowed") = py::none());
    m.def("exact_range", &exact_range, py::arg("q"), py::arg("x"), py::arg("threshold"), py::arg("metric"),
          py::arg("num_threads") = 0, py::arg("scale") = py::none(), py::arg("allowed") = py::none());
}

}  // namespace residua::bindings
