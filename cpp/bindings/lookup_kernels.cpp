// SPDX-License-Identifier: Apache-2.0
// The look-up kernels of every instruction set by name, for tests.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "kernel/dispatch.hpp"

namespace residua::bindings {
namespace {

// blocks: (n, 32 * bytes); tables: (nq, …). Returns the first block with a kept row, and the rows of every query.
py::tuple lookup_scan(const std::string& isa, int bits, const Array<std::uint8_t>& blocks,
                      const Array<std::uint8_t>& tables, const Array<std::int32_t>& least) {
    const auto b = matrix(blocks), t = matrix(tables);
    const std::size_t bytes = b.cols / kernel::kBlockRows, nq = t.rows;
    const std::size_t wanted = bits == 4 ? kernel::nibble_table_bytes(bytes) : kernel::byte_table_bytes(bytes);
    if (b.cols % kernel::kBlockRows != 0 || t.cols != wanted || nq < 1 || nq > kernel::kLookupTile ||
        static_cast<std::size_t>(least.size()) != nq) {
        throw Error(ErrorKind::shape, "expected blocks of (n, 32 * bytes), tables of (1..4, …) and a least sum each");
    }
    kernel::LookupScan scans[kernel::kLookupTile];
    for (std::size_t i = 0; i < nq; ++i) scans[i] = {t.row(i), least.data()[i]};
    py::array_t<std::uint32_t> mask(static_cast<py::ssize_t>(nq));
    std::fill_n(mask.mutable_data(), nq, 0u);
    const kernel::LookupKernels& kernels = kernel::by_name(isa).lookups;
    const auto scan = bits == 4 ? kernels.scan_nibbles : kernels.scan_bytes;
    const std::size_t found = scan(b.data, b.rows, bytes, scans, nq, mask.mutable_data());
    return py::make_tuple(found, mask);
}

}  // namespace

void register_lookup_kernels(py::module_& k) {
    k.def("lookup_scan", &lookup_scan, py::arg("isa"), py::arg("bits"), py::arg("blocks"), py::arg("tables"),
          py::arg("least"));
}

}  // namespace residua::bindings
