// SPDX-License-Identifier: Apache-2.0
// Products of the emulation: what cuBLAS computes, by loops.
#include "core/dot.hpp"
#include "cuda/products.hpp"

namespace residua::cuda::blas {

bool is_there(std::string*) { return true; }

void look_in(const std::string&) {}

void multiply(Context&, DeviceRows a, DeviceRows b, std::size_t depth, float* out, std::size_t out_stride) {
    for (std::size_t i = 0; i < a.rows; ++i) {
        for (std::size_t j = 0; j < b.rows; ++j) {
            out[i * out_stride + j] = static_cast<float>(dot_f64(a.data + i * a.stride, b.data + j * b.stride, depth));
        }
    }
}

}  // namespace residua::cuda::blas
