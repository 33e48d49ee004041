// SPDX-License-Identifier: Apache-2.0
// Fixed-dimensional encodings (multivector/fd_encoder.hpp) on the device, from the same tables and in the same order of
// additions: the bits that this machine's CPU gives.
#pragma once

#include <cstdint>

#include "cuda/maxsim.hpp"
#include "cuda/runtime.hpp"
#include "multivector/fd_encoder.hpp"

namespace residua::cuda {

class DeviceFdEncoder {
public:
    // Throws unsupported where tokens have more dims than fit a block's shared memory.
    DeviceFdEncoder(Context& context, const multivector::FdEncoder& encoder);

    std::size_t dim() const { return params_.dim; }
    std::size_t output_dim() const { return params_.output_dim(); }
    std::size_t device_bytes() const;
    // out: sets.n x output_dim() on the device, zero for a set without tokens. Tokens are float32 or float16. Throws
    // shape; non_finite, naming the first bad set and its token, or value where a sum overflows, after all has run.
    void encode(const PlacedSets& sets, bool document, float* out);

private:
    void name_bad(const PlacedSets& sets, std::size_t set) const;

    Context& context_;
    multivector::FdParams params_;
    int chains_;  // of a product (kernel/float_kernels.hpp): 0 where products are rounded
    DeviceArray<float> planes_, plane_offsets_, dense_;
    DeviceArray<std::uint32_t> place_, sketch_limits_, final_begins_, final_entries_;
    DeviceArray<std::uint16_t> sketch_dims_;
};

}  // namespace residua::cuda
