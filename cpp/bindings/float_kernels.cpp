// SPDX-License-Identifier: Apache-2.0
// The floating-point kernels of every instruction set by name, for tests and benchmarks.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "kernel/dispatch.hpp"
#include "kernel/matmul.hpp"

namespace py = pybind11;

namespace residua::bindings {
namespace {

using kernel::FloatKernels;
using kernel::kPanelRows;

const FloatKernels& floats(const std::string& isa) { return kernel::by_name(isa).floats; }

template <class A, class B>
std::size_t common_size(const Array<A>& q, const Array<B>& x) {
    if (q.size() != x.size()) {
        throw Error(ErrorKind::shape, "q has " + std::to_string(q.size()) + " elements, x has " +
                                          std::to_string(x.size()) + "; they must be equal");
    }
    return static_cast<std::size_t>(q.size());
}

template <class Out, class T>
void def_pair(py::module_& m, const char* name, Out (*FloatKernels::*fn)(const float*, const T*, std::size_t)) {
    m.def(name, [fn](const std::string& isa, const Array<float>& q, const Array<T>& x) {
        return (floats(isa).*fn)(q.data(), x.data(), common_size(q, x));
    });
}

template <class Out>
void def_scaled_pair(py::module_& m, const char* name,
                     Out (*FloatKernels::*fn)(const float*, const std::int8_t*, float, std::size_t)) {
    m.def(name, [fn](const std::string& isa, const Array<float>& q, const Array<std::int8_t>& x, float scale) {
        return (floats(isa).*fn)(q.data(), x.data(), scale, common_size(q, x));
    });
}

template <class In, class Out>
void def_convert(py::module_& m, const char* name, void (*FloatKernels::*fn)(const In*, Out*, std::size_t)) {
    m.def(name, [fn](const std::string& isa, const Array<In>& in) {
        py::array_t<Out> out(in.size());
        (floats(isa).*fn)(in.data(), out.mutable_data(), static_cast<std::size_t>(in.size()));
        return out;
    });
}

template <class T>
void def_pack(py::module_& m, const char* name,
              void (*FloatKernels::*fn)(const T*, std::size_t, std::size_t, std::size_t, float*)) {
    m.def(name, [fn](const std::string& isa, const Array<T>& x) {
        const auto rows = matrix(x);
        if (rows.rows > kPanelRows) throw Error(ErrorKind::shape, "a panel holds at most 16 rows");
        py::array_t<float> panel({rows.cols, kPanelRows});
        (floats(isa).*fn)(rows.data, rows.stride, rows.rows, rows.cols, panel.mutable_data());
        return panel;
    });
}

py::array_t<float> gemm_panel(const std::string& isa, const Array<float>& q, const Array<float>& panel) {
    const auto a = matrix(q), b = matrix(panel);
    if (a.rows < 1 || a.rows > kernel::kTileQueries || b.cols != kPanelRows || a.cols != b.rows) {
        throw Error(ErrorKind::shape, "expected q of (1..6, d) and a panel of (d, 16)");
    }
    py::array_t<float> out({a.rows, kPanelRows});
    floats(isa).gemm_panel(a.data, a.stride, a.rows, b.data, a.cols, out.mutable_data(), kPanelRows);
    return out;
}

// Panels of (n, d, 16), searched `group` at a time: the row of largest q . row + bias.
py::array_t<std::uint32_t> nearest_panels(const std::string& isa, const Array<float>& q, const Array<float>& panels,
                                          const Array<float>& bias, std::size_t group) {
    const auto a = matrix(q), b = matrix(bias);
    if (a.rows < 1 || a.rows > kernel::kTileQueries || b.cols != kPanelRows || group < 1 ||
        static_cast<std::size_t>(panels.size()) != b.rows * a.cols * kPanelRows) {
        throw Error(ErrorKind::shape, "expected q of (1..6, d), panels of (n, d, 16) and a bias of (n, 16)");
    }
    py::array_t<std::uint32_t> out(static_cast<py::ssize_t>(a.rows));
    float best[kernel::kTileQueries * kPanelRows], at[kernel::kTileQueries * kPanelRows];
    for (std::size_t first = 0; first < b.rows; first += group) {
        const std::size_t n = std::min(group, b.rows - first);
        floats(isa).nearest_panels(a.data, a.stride, a.rows, panels.data() + first * a.cols * kPanelRows, n, a.cols,
                                   b.row(first), first, best, at, first + n == b.rows ? out.mutable_data() : nullptr);
    }
    return out;
}

// Repeats one tile; returns the number of multiply-adds done (for the benchmark).
std::size_t gemm_repeat(const std::string& isa, const Array<float>& q, const Array<float>& panel, std::size_t times) {
    const auto a = matrix(q), b = matrix(panel);
    float out[kernel::kTileQueries * kPanelRows];
    py::gil_scoped_release release;
    for (std::size_t t = 0; t < times; ++t) {
        kernel::by_name(isa).floats.gemm_panel(a.data, a.stride, kernel::kTileQueries, b.data, a.cols, out, kPanelRows);
    }
    return times * kernel::kTileQueries * kPanelRows * a.cols;
}

py::array_t<float> matmul_nt(const Array<float>& a, const Array<float>& b) {
    const auto va = matrix(a), vb = matrix(b);
    if (va.cols != vb.cols) throw Error(ErrorKind::shape, "a and b must have the same number of columns");
    py::array_t<float> c({va.rows, vb.rows});
    float* out = c.mutable_data();
    py::gil_scoped_release release;
    kernel::PackedPanels scratch;
    kernel::matmul_nt(va, vb, MutMatrix(out, va.rows, vb.rows), scratch);
    return c;
}

}  // namespace

void register_float_kernels(py::module_& k) {
    def_pair(k, "dot_f32", &FloatKernels::dot_f32);
    def_pair(k, "dot_f16", &FloatKernels::dot_f16);
    def_pair(k, "dot_bf16", &FloatKernels::dot_bf16);
    def_pair(k, "dot_i8", &FloatKernels::dot_i8);
    def_pair(k, "l2_f32", &FloatKernels::l2_f32);
    def_pair(k, "l2_f16", &FloatKernels::l2_f16);
    def_pair(k, "l2_bf16", &FloatKernels::l2_bf16);
    def_scaled_pair(k, "l2_i8", &FloatKernels::l2_i8);
    def_pair(k, "exact_dot_f32", &FloatKernels::exact_dot_f32);
    def_pair(k, "exact_dot_f16", &FloatKernels::exact_dot_f16);
    def_pair(k, "exact_dot_bf16", &FloatKernels::exact_dot_bf16);
    def_pair(k, "exact_dot_i8", &FloatKernels::exact_dot_i8);
    def_pair(k, "exact_l2_f32", &FloatKernels::exact_l2_f32);
    def_pair(k, "exact_l2_f16", &FloatKernels::exact_l2_f16);
    def_pair(k, "exact_l2_bf16", &FloatKernels::exact_l2_bf16);
    def_scaled_pair(k, "exact_l2_i8", &FloatKernels::exact_l2_i8);
    def_convert(k, "f16_to_f32", &FloatKernels::f16_to_f32);
    def_convert(k, "f32_to_f16", &FloatKernels::f32_to_f16);
    def_convert(k, "bf16_to_f32", &FloatKernels::bf16_to_f32);
    def_convert(k, "f32_to_bf16", &FloatKernels::f32_to_bf16);
    def_pack(k, "pack_panel_f32", &FloatKernels::pack_panel_f32);
    def_pack(k, "pack_panel_f16", &FloatKernels::pack_panel_f16);
    def_pack(k, "pack_panel_bf16", &FloatKernels::pack_panel_bf16);
    k.def("gemm_panel", &gemm_panel);
    k.def("nearest_panels", &nearest_panels);
    k.def("gemm_repeat", &gemm_repeat);
    k.def("matmul_nt", &matmul_nt);
}

}  // namespace residua::bindings
