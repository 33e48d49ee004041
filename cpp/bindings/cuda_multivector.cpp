// SPDX-License-Identifier: Apache-2.0
// Token vectors on the device; private, wrapped by python/residua/_cuda_multivector.py, which checks what users give.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/cuda_arrays.hpp"
#include "bindings/cuda_register.hpp"
#include "core/error.hpp"
#include "cuda/fd_encode.hpp"
#include "cuda/maxsim.hpp"
#include "cuda/shared_context.hpp"

namespace residua::bindings {
namespace {

using cuda::Context;
using cuda::DeviceDocuments;
using cuda::DeviceFdEncoder;
using cuda::PlacedSets;
using cuda::SharedContext;
using multivector::TokenSets;
using multivector::TokenType;

using Offsets = Array<std::int64_t>;

// Somebody's array on the device, C-contiguous float32 or float16 of tokens as its last axis.
struct TokensThere {
    DeviceView view;

    std::size_t dim() const { return view.shape.back(); }
    std::size_t rows() const { return dim() == 0 ? 0 : view.size() / dim(); }
};

TokenSets checked(TokenSets sets, const Offsets& offsets, std::size_t rows) {
    const std::int64_t* o = offsets.data();
    const auto n = static_cast<std::size_t>(offsets.size());
    if (offsets.ndim() != 1 || n < 1 || o[0] != 0 || static_cast<std::size_t>(o[n - 1]) != rows || !std::is_sorted(o, o + n)) {
        throw Error(ErrorKind::shape, "offsets must ascend from 0 to the number of tokens");
    }
    sets.offsets = o;
    sets.n = n - 1;
    return sets;
}

PlacedSets sets_there(const TokensThere& tokens, const Offsets& offsets) {
    TokenSets sets;
    sets.data = tokens.view.data;
    sets.type = tokens.view.item_bytes == 2 ? TokenType::f16 : TokenType::f32;
    sets.dim = tokens.dim();
    return {checked(sets, offsets, tokens.rows()), true};
}

PlacedSets sets_here(const py::array& tokens, const Offsets& offsets, const std::optional<Array<float>>& scales) {
    if (tokens.ndim() != 2 || !(tokens.flags() & py::array::c_style)) {
        throw Error(ErrorKind::shape, "expected C-contiguous tokens of shape (n, dim)");
    }
    TokenSets sets;
    sets.data = tokens.data();
    sets.type = tokens.itemsize() == 2 ? TokenType::f16 : tokens.itemsize() == 1 ? TokenType::i8 : TokenType::f32;
    sets.dim = static_cast<std::size_t>(tokens.shape(1));
    if (scales) sets.scale = scales->data();
    return {checked(sets, offsets, static_cast<std::size_t>(tokens.shape(0))), false};
}

// Tokens of either side.
PlacedSets sets_of(const py::object& tokens, const Offsets& offsets) {
    if (py::isinstance<TokensThere>(tokens)) return sets_there(tokens.cast<const TokensThere&>(), offsets);
    return sets_here(tokens.cast<py::array>(), offsets, std::nullopt);
}

// Calls work(context, out) for n x m float32 values on the device; they go out as NumPy's or stay.
template <class Work>
py::object with_output(const std::shared_ptr<SharedContext>& context, std::size_t n, std::size_t m, bool to_device, const Work& work) {
    const auto make = [&] {
        const std::vector<std::size_t> shape{n, m};
        return std::shared_ptr<OwnedArray>(new OwnedArray(context, shape, "float32", sizeof(float)), &delete_without_gil<OwnedArray>);
    };
    const std::shared_ptr<OwnedArray> out = without_gil([&] {
        auto made = make();
        context->use([&](Context& c) { work(c, static_cast<float*>(made->data())); });
        return made;
    });
    if (to_device) return py::cast(out);
    py::array_t<float> host({n, m});
    float* to = host.mutable_data();
    without_gil([&] { context->use([&](Context& c) { c.copy_out(to, out->data(), out->bytes()); }); });
    return host;
}

// Documents and what keeps them.
class HeldDocuments {
public:
    HeldDocuments(std::shared_ptr<SharedContext> context, std::unique_ptr<DeviceDocuments> documents, std::shared_ptr<const void> owner)
        : context_(std::move(context)), owner_(std::move(owner)), documents_(std::move(documents)) {}
    ~HeldDocuments() {
        try {
            context_->use([&](Context&) { documents_.reset(); });
        } catch (const Error&) {  // the driver is gone already, and the memory with it
            static_cast<void>(documents_.release());
        }
    }
    HeldDocuments(const HeldDocuments&) = delete;
    HeldDocuments& operator=(const HeldDocuments&) = delete;

    const DeviceDocuments& get() const { return *documents_; }
    const std::shared_ptr<SharedContext>& context() const { return context_; }

    py::object maxsim(const py::object& queries, const Offsets& q_offsets, const std::optional<Offsets>& numbers, bool to_device) {
        const PlacedSets q = sets_of(queries, q_offsets);
        multivector::DocumentNumbers chosen;
        if (numbers) chosen = std::span(numbers->data(), static_cast<std::size_t>(numbers->size()));
        const std::size_t n = chosen ? chosen->size() : documents_->size();
        return with_output(context_, q.sets.n, n, to_device, [&](Context&, float* out) { documents_->maxsim(q, chosen, out); });
    }

private:
    std::shared_ptr<SharedContext> context_;
    std::shared_ptr<const void> owner_;
    std::unique_ptr<DeviceDocuments> documents_;
};

// The documents that make(context) gives.
template <class Make>
std::shared_ptr<HeldDocuments> held(const std::shared_ptr<SharedContext>& context, std::shared_ptr<const void> owner, const Make& make) {
    return without_gil([&] {
        std::unique_ptr<DeviceDocuments> documents = context->use([&](Context& c) { return make(c); });
        return std::shared_ptr<HeldDocuments>(new HeldDocuments(context, std::move(documents), std::move(owner)),
                                              &delete_without_gil<HeldDocuments>);
    });
}

class HeldEncoder {
public:
    HeldEncoder(std::shared_ptr<SharedContext> context, const multivector::FdEncoder& encoder) : context_(std::move(context)) {
        context_->use([&](Context& c) { encoder_ = std::make_unique<DeviceFdEncoder>(c, encoder); });
    }
    ~HeldEncoder() {
        try {
            context_->use([&](Context&) { encoder_.reset(); });
        } catch (const Error&) {
            static_cast<void>(encoder_.release());
        }
    }
    HeldEncoder(const HeldEncoder&) = delete;
    HeldEncoder& operator=(const HeldEncoder&) = delete;

    const DeviceFdEncoder& get() const { return *encoder_; }
    const std::shared_ptr<SharedContext>& context() const { return context_; }

    py::object encode(const py::object& tokens, const Offsets& offsets, bool document, bool to_device) {
        const PlacedSets sets = sets_of(tokens, offsets);
        return with_output(context_, sets.sets.n, encoder_->output_dim(), to_device,
                           [&](Context&, float* out) { encoder_->encode(sets, document, out); });
    }

private:
    std::shared_ptr<SharedContext> context_;
    std::unique_ptr<DeviceFdEncoder> encoder_;
};

// Tokens that kernels read where they are, or nothing: they are on the host, or in another form.
py::object tokens_there(const py::object& array, SharedContext& context, const char* name) {
    std::optional<DeviceView> view = view_on_device(array, context, name);
    if (!view || view->shape.size() < 2 || !view->is_contiguous()) return py::none();
    if (view->dtype != "float32" && view->dtype != "float16") return py::none();
    return py::cast(TokensThere{std::move(*view)});
}

void register_documents(py::module_& m) {
    py::class_<HeldDocuments, std::shared_ptr<HeldDocuments>>(m, "TokenDocuments")
        .def_static(
            "of_store",
            [](std::shared_ptr<SharedContext> context, const multivector::TokenStore& store) {
                return held(context, nullptr, [&](Context& c) { return cuda::store_documents(c, store); });
            },
            py::arg("context"), py::arg("store"))
        .def_static(
            "of_host",
            [](std::shared_ptr<SharedContext> context, const py::array& tokens, const Offsets& offsets,
               const std::optional<Array<float>>& scales) {
                const PlacedSets sets = sets_here(tokens, offsets, scales);
                return held(context, nullptr, [&](Context& c) { return cuda::float_documents(c, sets, false); });
            },
            py::arg("context"), py::arg("tokens"), py::arg("offsets"), py::arg("scales"))
        .def_static(
            "of_device",
            [](std::shared_ptr<SharedContext> context, const TokensThere& tokens, const Offsets& offsets, bool halve) {
                const PlacedSets sets = sets_there(tokens, offsets);
                return held(context, tokens.view.owner, [&](Context& c) { return cuda::float_documents(c, sets, true, halve); });
            },
            py::arg("context"), py::arg("tokens"), py::arg("offsets"), py::arg("halve"))
        .def_property_readonly("dim", [](const HeldDocuments& d) { return d.get().dim(); })
        .def_property_readonly("form", [](const HeldDocuments& d) { return d.get().form(); })
        .def_property_readonly("tokens", [](const HeldDocuments& d) { return d.get().tokens(); })
        .def_property_readonly("nbytes", [](const HeldDocuments& d) { return d.get().device_bytes(); })
        .def_property_readonly("context", &HeldDocuments::context)
        .def("__len__", [](const HeldDocuments& d) { return d.get().size(); })
        .def("maxsim", &HeldDocuments::maxsim, py::arg("queries"), py::arg("q_offsets"), py::arg("numbers"), py::arg("to_device"));
}

}  // namespace

void register_cuda_multivector(py::module_& m) {
    py::class_<TokensThere>(m, "TokensThere")
        .def_property_readonly("shape", [](const TokensThere& t) { return py::tuple(py::cast(t.view.shape)); })
        .def_property_readonly("dtype", [](const TokensThere& t) { return t.view.dtype; });
    m.def("tokens_there", &tokens_there, py::arg("array"), py::arg("context"), py::arg("name"));
    register_documents(m);
    py::class_<HeldEncoder, std::shared_ptr<HeldEncoder>>(m, "FDEncoder")
        .def(py::init([](std::shared_ptr<SharedContext> context, const multivector::FdEncoder& encoder) {
                 return without_gil([&] {
                     return std::shared_ptr<HeldEncoder>(new HeldEncoder(std::move(context), encoder), &delete_without_gil<HeldEncoder>);
                 });
             }),
             py::arg("context"), py::arg("encoder"))
        .def_property_readonly("nbytes", [](const HeldEncoder& e) { return e.get().device_bytes(); })
        .def_property_readonly("context", &HeldEncoder::context)
        .def("encode", &HeldEncoder::encode, py::arg("tokens"), py::arg("offsets"), py::arg("document"), py::arg("to_device"));
}

}  // namespace residua::bindings
