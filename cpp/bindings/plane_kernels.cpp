// SPDX-License-Identifier: Apache-2.0
// The integer kernels of a named instruction set, for tests and benchmarks. Private: arguments are
// checked for shape only.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "codec/hamming_scan.hpp"
#include "codec/plane_query.hpp"
#include "codec/plane_scan.hpp"
#include "kernel/dispatch.hpp"

namespace residua::bindings {
namespace {

using codec::PlaneQuery;
using kernel::kBlockRows;
using kernel::PlaneLayout;
using Bits = std::vector<std::uint8_t>;  // per group
using Bytes = Array<std::uint8_t>;

void check_cols(const char* what, py::ssize_t got, std::size_t expected) {
    if (static_cast<std::size_t>(got) != expected) {
        throw Error(ErrorKind::shape, std::string(what) + " must have " + std::to_string(expected) +
                                          " columns, got " + std::to_string(got));
    }
}

// Packed rows as a memory map or a caller's buffer gives them: any alignment, no slack at the end.
struct Rows {
    const std::uint8_t* data;
    std::size_t n;
    std::size_t bytes;
};

Rows rows_of(const py::array_t<std::uint8_t>& a) {
    if (a.ndim() != 2 || (a.flags() & py::array::c_style) == 0) {
        throw Error(ErrorKind::shape, "expected a contiguous 2-D array");
    }
    return {a.data(), static_cast<std::size_t>(a.shape(0)), static_cast<std::size_t>(a.shape(1))};
}

py::array_t<std::int32_t> hamming(const std::string& isa, const py::array_t<std::uint8_t>& queries,
                                  const py::array_t<std::uint8_t>& rows) {
    const Rows q = rows_of(queries), x = rows_of(rows);
    check_cols("queries", queries.shape(1), x.bytes);
    py::array_t<std::int32_t> out({q.n, x.n});
    kernel::by_name(isa).bits.hamming(q.data, q.n, x.data, x.n, x.bytes, out.mutable_data());
    return out;
}

std::size_t block_count(std::size_t n) { return (n + kBlockRows - 1) / kBlockRows; }

// Packed rows to blocks of strips.
py::array_t<std::uint8_t> hamming_pack(const std::string& isa, const py::array_t<std::uint8_t>& rows) {
    const Rows x = rows_of(rows);
    AlignedVector<std::uint8_t> blocks(block_count(x.n) * kBlockRows * x.bytes);
    for (std::size_t r = 0; r < x.n; r += kBlockRows) {
        kernel::by_name(isa).planes.pack(x.bytes, x.data + r * x.bytes, x.bytes, std::min(kBlockRows, x.n - r),
                                         blocks.data() + r * x.bytes);
    }
    const auto size = static_cast<py::ssize_t>(blocks.size());
    return to_numpy(std::move(blocks), {size});
}

// Number of the stop block, the masks and the distances of its rows.
py::tuple hamming_scan(const std::string& isa, const py::array_t<std::uint8_t>& queries,
                       const py::array_t<std::uint8_t>& blocks, const Array<std::int32_t>& limits) {
    const Rows q = rows_of(queries);
    if (q.n == 0 || q.n > kernel::kHammingTile || static_cast<std::size_t>(limits.size()) != q.n) {
        throw Error(ErrorKind::shape, "expected 1 to 4 queries and as many limits");
    }
    const codec::HammingQueries prepared(q.data, q.n, q.bytes);
    Array<std::uint32_t> mask(static_cast<py::ssize_t>(q.n));
    Array<std::int32_t> dist({q.n, kBlockRows});
    const std::size_t at = kernel::by_name(isa).bits.hamming_scan(
        blocks.data(), static_cast<std::size_t>(blocks.size()) / (kBlockRows * q.bytes), q.bytes, prepared.tables(0),
        q.n, limits.data(), mask.mutable_data(), dist.mutable_data());
    return py::make_tuple(at, mask, dist);
}

// The k nearest of n rows of every query: distances and rows, nearest first, ties by row.
py::tuple hamming_topk(const std::string& isa, const Bytes& queries, const Bytes& blocks, std::size_t n,
                       std::size_t k) {
    const Rows q = rows_of(queries);
    check_cols("blocks", blocks.size(), block_count(n) * kBlockRows * q.bytes);
    const std::size_t kept = std::min(k, n), dim = 8 * q.bytes;
    Array<std::int32_t> dist({q.n, kept});
    Array<std::int64_t> row({q.n, kept});
    std::int32_t* dist_out = dist.mutable_data();
    std::int64_t* row_out = row.mutable_data();
    {
        const py::gil_scoped_release release;
        const codec::HammingQueries prepared(q.data, q.n, q.bytes);
        std::vector<TopK> pools(q.n, TopK(kept));
        codec::hamming_topk(kernel::by_name(isa).bits, prepared, 0, q.n, blocks.data(), {0, n, nullptr}, dim,
                            pools.data());
        for (std::size_t i = 0; i < q.n; ++i) {
            const auto best = pools[i].take_sorted();
            for (std::size_t j = 0; j < kept; ++j) {
                dist_out[i * kept + j] = static_cast<std::int32_t>((static_cast<float>(dim) - best[j].score) / 2);
                row_out[i * kept + j] = best[j].row;
            }
        }
    }
    return py::make_tuple(dist, row);
}

// Row codes, `add` and `scale` (float16 as uint16) to blocks.
py::array_t<std::uint8_t> plane_pack(const std::string& isa, const Bits& bits, const py::array_t<std::uint8_t>& codes,
                                     const Array<float>& add, const Array<std::uint16_t>& scale) {
    const PlaneLayout layout = codec::plane_layout(bits);
    const Rows rows = rows_of(codes);
    check_cols("codes", codes.shape(1), layout.code_bytes());
    check_cols("add", add.size(), rows.n);
    check_cols("scale", scale.size(), rows.n);
    AlignedVector<std::uint8_t> blocks(block_count(rows.n) * layout.block_bytes());
    const auto& planes = kernel::by_name(isa).planes;
    for (std::size_t first = 0; first < rows.n; first += kBlockRows) {
        const std::size_t n = std::min(kBlockRows, rows.n - first);
        std::uint8_t* block = blocks.data() + first / kBlockRows * layout.block_bytes();
        planes.pack(layout.code_bytes(), rows.data + first * rows.bytes, rows.bytes, n, block);
        std::memcpy(block + layout.add_offset(), add.data() + first, n * sizeof(float));
        std::memcpy(block + layout.scale_offset(), scale.data() + first, n * sizeof(std::uint16_t));
    }
    const auto size = static_cast<py::ssize_t>(blocks.size());
    return to_numpy(std::move(blocks), {size});
}

py::array_t<std::uint8_t> plane_unpack(const std::string& isa, const Bits& bits, const Bytes& blocks, std::size_t n) {
    const PlaneLayout layout = codec::plane_layout(bits);
    check_cols("blocks", blocks.size(), block_count(n) * layout.block_bytes());
    py::array_t<std::uint8_t> codes({n, layout.code_bytes()});
    for (std::size_t r = 0; r < n; ++r) {
        kernel::by_name(isa).planes.unpack(layout.code_bytes(), blocks.data() + r / kBlockRows * layout.block_bytes(),
                                           r % kBlockRows, codes.mutable_data() + r * layout.code_bytes());
    }
    return codes;
}

std::vector<PlaneQuery> prepare(const PlaneLayout& layout, const Array<float>& weights) {
    const auto w = matrix(weights);
    std::vector<PlaneQuery> queries;
    queries.reserve(w.rows);
    for (std::size_t i = 0; i < w.rows; ++i) queries.emplace_back(layout, std::span(w.row(i), w.cols));
    return queries;
}

// What a prepared query holds, as arrays.
py::dict plane_query(const Bits& bits, const Array<float>& weights) {
    const PlaneLayout layout = codec::plane_layout(bits);
    const PlaneQuery q(layout, std::span(weights.data(), static_cast<std::size_t>(weights.size())));
    const kernel::PlaneScan scan = q.with_threshold(0.0f);
    py::dict d;
    d["weights"] = py::array_t<std::int16_t>(static_cast<py::ssize_t>(q.weights().size()), q.weights().data());
    d["unit"] = q.unit();
    d["offset"] = q.table_offset();
    d["coarse"] = Bytes(static_cast<py::ssize_t>(q.weights().size() * 4), scan.coarse);
    d["exact"] = Bytes(static_cast<py::ssize_t>(q.weights().size() * 8), q.exact_tables());
    d["bound_unit"] = Array<float>(layout.planes, scan.unit);
    d["bound_upper"] = Array<float>(layout.planes, scan.upper);
    d["check_planes"] = scan.check_planes;
    return d;
}

// Number of the stop block and the masks, for up to kPlaneTile queries with given thresholds.
py::tuple plane_scan(const std::string& isa, const Bits& bits, const Bytes& blocks, const Array<float>& weights,
                     const std::vector<float>& thresholds, std::size_t first_block,
                     std::optional<std::uint32_t> check_planes) {
    const PlaneLayout layout = codec::plane_layout(bits);
    const auto queries = prepare(layout, weights);
    if (queries.empty() || queries.size() > kernel::kPlaneTile || thresholds.size() != queries.size()) {
        throw Error(ErrorKind::shape, "expected 1 to " + std::to_string(kernel::kPlaneTile) +
                                          " queries and as many thresholds");
    }
    kernel::PlaneScan scans[kernel::kPlaneTile];
    for (std::size_t i = 0; i < queries.size(); ++i) {
        scans[i] = queries[i].with_threshold(thresholds[i]);
        if (check_planes) scans[i].check_planes = *check_planes | 1u;
    }
    const std::size_t n = static_cast<std::size_t>(blocks.size()) / layout.block_bytes() - first_block;
    std::vector<std::uint32_t> mask(queries.size());
    const std::size_t at = kernel::by_name(isa).planes.scan(
        layout, blocks.data() + first_block * layout.block_bytes(), n, scans, queries.size(), mask.data());
    return py::make_tuple(first_block + at, mask);
}

// Sums of the exact kernel and the estimates made of them: (blocks * 32) each.
py::tuple plane_exact(const std::string& isa, const Bits& bits, const Bytes& blocks, const Array<float>& weights) {
    const PlaneLayout layout = codec::plane_layout(bits);
    const PlaneQuery q(layout, std::span(weights.data(), static_cast<std::size_t>(weights.size())));
    const std::size_t n = static_cast<std::size_t>(blocks.size()) / layout.block_bytes();
    Array<std::int64_t> sums(static_cast<py::ssize_t>(n * kBlockRows));
    Array<float> scores(static_cast<py::ssize_t>(n * kBlockRows));
    for (std::size_t b = 0; b < n; ++b) {
        const std::uint8_t* block = blocks.data() + b * layout.block_bytes();
        std::int64_t* out = sums.mutable_data() + b * kBlockRows;
        kernel::by_name(isa).planes.exact(layout, block, q.exact_tables(), out);
        codec::score_block(kernel::by_name(isa).planes, layout, q, block, scores.mutable_data() + b * kBlockRows);
    }
    return py::make_tuple(sums, scores);
}

// The complete search: scores and rows of the k best, best first. Queries are handed to plane_topk
// `tile` at a time (0: all at once).
py::tuple plane_topk(const std::string& isa, const Bits& bits, const Bytes& blocks, std::size_t n,
                     const Array<float>& weights, std::size_t k, std::size_t tile, std::size_t first_row,
                     std::optional<Array<bool>> allowed) {
    const PlaneLayout layout = codec::plane_layout(bits);
    check_cols("blocks", blocks.size(), block_count(n) * layout.block_bytes());
    Bitset mask;
    if (allowed) {
        mask.resize(first_row + n);
        for (std::size_t r = 0; r < n; ++r) {
            if (allowed->data()[r]) mask.set(first_row + r);
        }
    }
    const std::size_t nq = static_cast<std::size_t>(weights.shape(0));
    Array<float> scores({nq, k});
    Array<std::int64_t> rows({nq, k});
    std::fill_n(scores.mutable_data(), nq * k, kWorstScore);
    std::fill_n(rows.mutable_data(), nq * k, -1);
    float* score_out = scores.mutable_data();
    std::int64_t* row_out = rows.mutable_data();
    {
        const py::gil_scoped_release release;
        const auto queries = prepare(layout, weights);
        std::vector<TopK> pools(nq, TopK(k));
        const std::size_t step = tile == 0 ? nq : tile;
        for (std::size_t i = 0; i < nq; i += step) {
            const std::span<const PlaneQuery> part(queries.data() + i, std::min(step, nq - i));
            codec::plane_topk(kernel::by_name(isa), layout, blocks.data(),
                              {first_row, n, allowed ? &mask : nullptr}, {part, pools.data() + i});
        }
        for (std::size_t i = 0; i < nq; ++i) {
            const auto best = pools[i].take_sorted();
            for (std::size_t j = 0; j < best.size(); ++j) {
                score_out[i * k + j] = best[j].score;
                row_out[i * k + j] = best[j].row;
            }
        }
    }
    return py::make_tuple(scores, rows);
}

}  // namespace

void register_bit_kernels(py::module_& m) {
    m.def("hamming", &hamming, py::arg("isa"), py::arg("queries").noconvert(), py::arg("rows").noconvert());
    m.def("hamming_pack", &hamming_pack, py::arg("isa"), py::arg("rows").noconvert());
    m.def("hamming_scan", &hamming_scan, py::arg("isa"), py::arg("queries").noconvert(),
          py::arg("blocks").noconvert(), py::arg("limits"));
    m.def("hamming_topk", &hamming_topk, py::arg("isa"), py::arg("queries"), py::arg("blocks"), py::arg("n"),
          py::arg("k"));
}

void register_plane_kernels(py::module_& m) {
    m.attr("plane_tile") = kernel::kPlaneTile;
    m.def("plane_pack", &plane_pack, py::arg("isa"), py::arg("bits"), py::arg("codes").noconvert(), py::arg("add"),
          py::arg("scale"));
    m.def("plane_unpack", &plane_unpack, py::arg("isa"), py::arg("bits"), py::arg("blocks"), py::arg("n"));
    m.def("plane_query", &plane_query, py::arg("bits"), py::arg("weights"));
    m.def("plane_scan", &plane_scan, py::arg("isa"), py::arg("bits"), py::arg("blocks"), py::arg("weights"),
          py::arg("thresholds"), py::arg("first_block") = 0, py::arg("check_planes") = py::none());
    m.def("plane_exact", &plane_exact, py::arg("isa"), py::arg("bits"), py::arg("blocks"), py::arg("weights"));
    m.def("plane_topk", &plane_topk, py::arg("isa"), py::arg("bits"), py::arg("blocks"), py::arg("n"),
          py::arg("weights"), py::arg("k"), py::arg("tile") = 0, py::arg("first_row") = 0,
          py::arg("allowed") = py::none());
}

}  // namespace residua::bindings
