// SPDX-License-Identifier: Apache-2.0
// Products of float32 matrices on the device, in full precision. By cuBLAS, which is loaded when it is first needed;
// where it is not found, by a plain kernel at a fraction of its rate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "cuda/runtime.hpp"

namespace residua::cuda {

// Rows `stride` floats apart.
struct DeviceRows {
    const float* data;
    std::size_t rows, stride;
};

// out[i * out_stride + j] = <a_i, b_j> of rows of `depth` values. The same bits in every run on a device.
void multiply_rows(Context& context, DeviceRows a, DeviceRows b, std::size_t depth, float* out, std::size_t out_stride);

// The plain kernel alone.
void multiply_rows_plainly(Context& context, DeviceRows a, DeviceRows b, std::size_t depth, float* out, std::size_t out_stride);

// cuBLAS: device_blas.cu, and loops of the CPU in the emulation.
namespace blas {

// Whether it was found; `reason` says why not.
bool is_there(std::string* reason = nullptr);
// Folders to look in before others, separated by ':'; counts until cuBLAS is loaded.
void look_in(const std::string& folders);
// As multiply_rows(); these where it is_there().
void multiply(Context& context, DeviceRows a, DeviceRows b, std::size_t depth, float* out, std::size_t out_stride);


// Of rows of float16 or bfloat16, whose products are exact and added up in float32 by tensor cores. `adds`: to what is
// there. Depth and strides are multiples of 8.
struct HalfRows {
    const std::uint16_t* data;
    std::size_t rows, stride;
};
void multiply_halves(Context& context, HalfRows a, HalfRows b, bool bfloat, std::size_t depth, float* out, std::size_t out_stride,
                     bool adds);

}  // namespace blas
}  // namespace residua::cuda
