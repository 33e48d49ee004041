// SPDX-License-Identifier: Apache-2.0
// The byte kernels of a named instruction set, for tests and benchmarks. Private: arguments are
// checked for shape only.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "codec/byte_query.hpp"
#include "kernel/dispatch.hpp"

namespace residua::bindings {
namespace {

using codec::ByteQuery;
using kernel::ByteLayout;
using kernel::kByteRows;
using kernel::kCellBytes;

ByteLayout layout_of(int bits, std::size_t dim) {
    if (bits != 8 && bits != 4) throw Error(ErrorKind::value, "bits must be 8 or 4");
    ByteLayout layout;
    layout.bits = bits;
    layout.cells = (dim + layout.cell_dims() - 1) / layout.cell_dims();
    return layout;
}

void check(const char* what, py::ssize_t got, std::size_t expected) {
    if (static_cast<std::size_t>(got) != expected) {
        throw Error(ErrorKind::shape, std::string(what) + " must have " + std::to_string(expected) +
                                          " elements, got " + std::to_string(got));
    }
}

// Row codes of whole cells, `add` and `scale` to blocks.
py::array_t<std::uint8_t> byte_pack(int bits, const Array<std::uint8_t>& codes, const Array<float>& add,
                                    const Array<float>& scale) {
    const auto rows = matrix(codes);
    ByteLayout layout = layout_of(bits, 1);
    layout.cells = rows.cols / kCellBytes;
    check("codes", codes.shape(1), layout.code_bytes());
    check("add", add.size(), rows.rows);
    check("scale", scale.size(), rows.rows);
    AlignedVector<std::uint8_t> blocks((rows.rows + kByteRows - 1) / kByteRows * layout.block_bytes());
    for (std::size_t r = 0; r < rows.rows; ++r) {
        std::uint8_t* block = blocks.data() + r / kByteRows * layout.block_bytes();
        for (std::size_t c = 0; c < layout.cells; ++c) {
            std::memcpy(block + (c * kByteRows + r % kByteRows) * kCellBytes, rows.row(r) + c * kCellBytes, kCellBytes);
        }
        std::memcpy(block + layout.add_offset() + r % kByteRows * 4, add.data() + r, 4);
        std::memcpy(block + layout.scale_offset() + r % kByteRows * 4, scale.data() + r, 4);
    }
    const auto size = static_cast<py::ssize_t>(blocks.size());
    return to_numpy(std::move(blocks), {size});
}

ByteQuery query_of(const ByteLayout& layout, const Array<float>& weights) {
    return {layout, std::span(weights.data(), static_cast<std::size_t>(weights.size()))};
}

// What a prepared query holds.
py::dict byte_query(int bits, std::size_t dim, const Array<float>& weights) {
    const ByteQuery q = query_of(layout_of(bits, dim), weights);
    const kernel::ByteScan scan = q.with_threshold(0.0f);
    py::dict d;
    d["fine"] = Array<std::int16_t>(static_cast<py::ssize_t>(q.fine().size()), q.fine().data());
    d["coarse"] = Array<std::int8_t>(static_cast<py::ssize_t>(q.coarse().size()), q.coarse().data());
    d["unit"] = q.unit();
    d["bound_unit"] = scan.unit;
    d["bound_upper"] = scan.upper;
    return d;
}

// Number of the stop block and the masks, for a tile of queries with given thresholds.
py::tuple byte_scan(const std::string& isa, int bits, std::size_t dim, const Array<std::uint8_t>& blocks,
                    const Array<float>& weights, const std::vector<float>& thresholds, std::size_t first_block) {
    const ByteLayout layout = layout_of(bits, dim);
    const auto w = matrix(weights);
    const std::size_t tile = kernel::by_name(isa).bytes.tile;
    if (w.rows == 0 || w.rows > tile || thresholds.size() != w.rows) {
        throw Error(ErrorKind::shape, "expected 1 to " + std::to_string(tile) + " queries and as many thresholds");
    }
    std::vector<ByteQuery> queries;
    kernel::ByteScan scans[kernel::kByteTile];
    queries.reserve(w.rows);
    for (std::size_t i = 0; i < w.rows; ++i) {
        queries.emplace_back(layout, std::span(w.row(i), w.cols));
        scans[i] = queries[i].with_threshold(thresholds[i]);
    }
    const std::size_t n = static_cast<std::size_t>(blocks.size()) / layout.block_bytes() - first_block;
    std::vector<std::uint32_t> mask(w.rows);
    const std::size_t at = kernel::by_name(isa).bytes.scan(layout, blocks.data() + first_block * layout.block_bytes(), n,
                                                           scans, w.rows, mask.data());
    return py::make_tuple(first_block + at, mask);
}

// Sums of the exact kernel and the scores made of them: (blocks * 32) each.
py::tuple byte_exact(const std::string& isa, int bits, std::size_t dim, const Array<std::uint8_t>& blocks,
                     const Array<float>& weights) {
    const ByteLayout layout = layout_of(bits, dim);
    const ByteQuery q = query_of(layout, weights);
    const auto& bytes = kernel::by_name(isa).bytes;
    const std::size_t n = static_cast<std::size_t>(blocks.size()) / layout.block_bytes();
    Array<std::int64_t> sums(static_cast<py::ssize_t>(n * kByteRows));
    Array<float> scores(static_cast<py::ssize_t>(n * kByteRows));
    for (std::size_t b = 0; b < n; ++b) {
        const std::uint8_t* block = blocks.data() + b * layout.block_bytes();
        bytes.exact(layout, block, q.fine().data(), ~0u, sums.mutable_data() + b * kByteRows);
        q.scores(bytes, layout, block, ~0u, scores.mutable_data() + b * kByteRows);
    }
    return py::make_tuple(sums, scores);
}

// Rows may stand at any address, with nothing readable after the last.
py::array_t<float> byte_decode(const std::string& isa, int bits, const py::array_t<std::uint8_t>& codes,
                               const Array<float>& step, const Array<float>& center, const Array<float>& scale) {
    const auto dim = static_cast<std::size_t>(step.size());
    const ByteLayout layout = layout_of(bits, dim);
    if (codes.ndim() != 2 || (codes.flags() & py::array::c_style) == 0) {
        throw Error(ErrorKind::shape, "expected a contiguous 2-D array");
    }
    check("codes", codes.shape(1), layout.code_bytes());
    check("center", center.size(), dim);
    check("scale", scale.size(), static_cast<std::size_t>(codes.shape(0)));
    py::array_t<float> out({static_cast<std::size_t>(codes.shape(0)), dim});
    for (py::ssize_t r = 0; r < codes.shape(0); ++r) {
        kernel::by_name(isa).bytes.decode(layout, codes.data() + static_cast<std::size_t>(r) * layout.code_bytes(),
                                          step.data(), center.data(), scale.data()[r], dim,
                                          out.mutable_data() + static_cast<std::size_t>(r) * dim);
    }
    return out;
}

}  // namespace

void register_byte_kernels(py::module_& m) {
    m.def("byte_tile", [](const std::string& isa) { return kernel::by_name(isa).bytes.tile; }, py::arg("isa"));
    m.def("byte_pack", &byte_pack, py::arg("bits"), py::arg("codes"), py::arg("add"), py::arg("scale"));
    m.def("byte_query", &byte_query, py::arg("bits"), py::arg("dim"), py::arg("weights"));
    m.def("byte_scan", &byte_scan, py::arg("isa"), py::arg("bits"), py::arg("dim"), py::arg("blocks"),
          py::arg("weights"), py::arg("thresholds"), py::arg("first_block") = 0);
    m.def("byte_exact", &byte_exact, py::arg("isa"), py::arg("bits"), py::arg("dim"), py::arg("blocks"),
          py::arg("weights"));
    m.def("byte_decode", &byte_decode, py::arg("isa"), py::arg("bits"), py::arg("codes").noconvert(), py::arg("step"),
          py::arg("center"), py::arg("scale"));
}

}  // namespace residua::bindings
