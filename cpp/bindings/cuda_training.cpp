// SPDX-License-Identifier: Apache-2.0
// Training and encoding on the device.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/cuda_arrays.hpp"
#include "bindings/cuda_register.hpp"
#include "codec/recurrent_codec.hpp"
#include "core/error.hpp"
#include "core/parallel.hpp"
#include "cuda/kmeans.hpp"
#include "cuda/products.hpp"
#include "cuda/recurrent_encode.hpp"

namespace residua::bindings {
namespace {

using cuda::Context;
using cuda::SharedContext;

py::tuple kmeans(const std::shared_ptr<SharedContext>& context, const Array<float>& x, std::size_t k, int iterations, bool spherical,
                 std::size_t max_rows, std::uint64_t seed, int num_threads) {
    const ConstMatrix rows = matrix(x);
    train::KMeansOptions o;
    o.k = k;
    o.iterations = iterations;
    o.spherical = spherical;
    o.max_rows = max_rows;
    o.seed = seed;
    o.num_threads = resolve_num_threads(num_threads);
    py::array_t<std::uint32_t> labels(x.shape(0));
    std::uint32_t* out = labels.mutable_data();
    train::KMeans fit = without_gil([&] {
        return context->use([&](Context& c) {
            train::KMeans made = cuda::kmeans(c, rows, o);
            cuda::DeviceKMeans engine(c);
            engine.hold(rows);
            engine.assign({made.centroids.data(), k, rows.cols}, spherical ? train::Nearness::product : train::Nearness::distance, out);
            return made;
        });
    });
    return py::make_tuple(to_numpy(std::move(fit.centroids), {static_cast<py::ssize_t>(k), x.shape(1)}), labels);
}

codec::Effort parse_effort(const std::string& name) {
    if (name == "refined") return codec::Effort::refined;
    return name == "scaled" ? codec::Effort::scaled : codec::Effort::rounded;
}

// Classes of another module are told apart by their kind, not by the types of this one.
const codec::RecurrentCodec& as_recurrent(const codec::Codec& c) {
    if (c.kind() == codec::RecurrentCodec::kKind) return static_cast<const codec::RecurrentCodec&>(c);
    throw Error(ErrorKind::unsupported, "the GPU encodes with recurrent binary codecs, not with a " + c.kind() + "; codec.encode(x) does on the CPU");
}

store::RowType row_type(const DeviceView& x) {
    if (x.dtype == "float32") return store::RowType::f32;
    if (x.dtype == "float16") return store::RowType::f16;
    if (x.dtype == "bfloat16") return store::RowType::bf16;
    throw Error(ErrorKind::dtype, "x: dtype " + x.dtype + " is not accepted on the device, expected float32, float16 or bfloat16");
}

py::object encode(const std::shared_ptr<SharedContext>& context, const codec::Codec& given, const py::object& x, const std::string& effort,
                  bool on_device) {
    const codec::RecurrentCodec& codec = as_recurrent(given);
    const std::optional<DeviceView> view = view_on_device(x, *context, "x");
    const Array<float> host = view ? Array<float>() : x.cast<Array<float>>();
    const std::vector<std::size_t> shape = view ? view->shape : std::vector<std::size_t>(host.shape(), host.shape() + host.ndim());
    if (shape.size() != 2 || shape[1] != codec.dim()) {
        throw Error(ErrorKind::shape, "x: expected shape (n, " + std::to_string(codec.dim()) + ")");
    }
    if (view && !view->is_contiguous()) throw Error(ErrorKind::value, "x: rows on the device must lie one after the other; make a copy first");
    const store::RowType type = view ? row_type(*view) : store::RowType::f32;
    const std::size_t n = shape[0], bytes = codec.code_bytes();
    const auto run = [&](Context& c, std::uint8_t* on_host, std::uint8_t* codes) {
        cuda::RecurrentEncoder encoder(c, codec);
        if (!view && on_host != nullptr) return encoder.encode({host.data(), n, codec.dim()}, parse_effort(effort), on_host);
        cuda::DeviceArray<float> rows(c, view ? 0 : n * codec.dim(), "the rows to encode");
        if (!view) rows.copy_in(host.data(), rows.size());
        cuda::DeviceArray<std::uint8_t> own(c, codes == nullptr ? n * bytes : 0, "the codes");
        std::uint8_t* to = codes != nullptr ? codes : own.data();
        encoder.encode(view ? view->data : rows.data(), type, n, parse_effort(effort), to);
        if (on_host != nullptr) c.copy_out(on_host, to, n * bytes);
    };
    if (on_device) {
        return py::cast(without_gil([&] {
            std::shared_ptr<OwnedArray> out(new OwnedArray(context, {n, bytes}, "uint8", 1), &delete_without_gil<OwnedArray>);
            context->use([&](Context& c) { run(c, nullptr, static_cast<std::uint8_t*>(out->data())); });
            return out;
        }));
    }
    py::array_t<std::uint8_t> out({n, bytes});
    std::uint8_t* to = out.mutable_data();
    without_gil([&] { context->use([&](Context& c) { run(c, to, nullptr); }); });
    return out;
}

// cuBLAS comes in packages named nvidia.…, wherever Python finds those.
void tell_where_packages_are() {
    std::string folders;
    const py::object spec = py::module_::import("importlib.util").attr("find_spec")("nvidia");
    if (spec.is_none() || spec.attr("submodule_search_locations").is_none()) return;
    for (const py::handle place : spec.attr("submodule_search_locations")) {
        const auto folder = py::str(place).cast<std::string>();
        folders += folder + "/cu13/lib:" + folder + "/cublas/lib:";
    }
    cuda::blas::look_in(folders);
}

}  // namespace

void register_cuda_training(py::module_& m) {
    m.def("kmeans", &kmeans, py::arg("context"), py::arg("x"), py::arg("k"), py::arg("iterations"), py::arg("spherical"),
          py::arg("max_rows"), py::arg("seed"), py::arg("num_threads"));
    m.def("encode", &encode, py::arg("context"), py::arg("codec"), py::arg("x"), py::arg("effort"), py::arg("on_device"));
    m.def("cublas", [] {
        std::string reason;
        const bool there = without_gil([&] { return cuda::blas::is_there(&reason); });
        return py::make_tuple(there, reason);
    });
    tell_where_packages_are();
}

}  // namespace residua::bindings
