// SPDX-License-Identifier: Apache-2.0
// Starts kernels (cuda/simt.hpp says what one is): with nvcc on the device, else in the emulation, at once.
#pragma once

#include <cstddef>
#include <string>

#include "core/error.hpp"
#include "cuda/runtime.hpp"
#include "cuda/simt.hpp"

namespace residua::cuda {

struct Grid {
    std::size_t x = 1, y = 1, z = 1;
};

#if defined(__CUDACC__)

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads) run_kernel(const __grid_constant__ Kernel kernel) {
    kernel();
}

// Nothing happens where a side of the grid is 0. At most 2^31 - 1 blocks in x, 65,535 in y and z.
template <class Kernel>
void launch(const Kernel& kernel, Context& context, Grid grid, std::size_t shared_bytes = 0) {
    if (grid.x * grid.y * grid.z == 0) return;
    cudaGetLastError();  // of a call that could not report it
    const auto fail = [&](cudaError_t error) {
        throw Error(ErrorKind::unsupported, std::string("CUDA could not start a kernel: ") + cudaGetErrorString(error) +
                                                " (" + std::to_string(shared_bytes) + " bytes of shared memory per block)");
    };
    if (shared_bytes > (std::size_t{48} << 10)) {
        const cudaError_t error = cudaFuncSetAttribute(run_kernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                       static_cast<int>(shared_bytes));
        if (error != cudaSuccess) {
            cudaGetLastError();
            fail(error);
        }
    }
    const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
    run_kernel<Kernel><<<blocks, Kernel::kThreads, shared_bytes, reinterpret_cast<cudaStream_t>(context.stream())>>>(kernel);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) fail(error);
}

#else

template <class Kernel>
void launch(const Kernel& kernel, Context& context, Grid grid, std::size_t shared_bytes = 0) {
    if (shared_bytes > context.info().shared_bytes) {
        throw Error(ErrorKind::unsupported, "a block has " + std::to_string(context.info().shared_bytes) +
                                                " bytes of shared memory, not " + std::to_string(shared_bytes));
    }
    const Int3 blocks{static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z)};
    emulation::run([&] { kernel(); }, blocks, Kernel::kThreads, shared_bytes);
}

#endif

}  // namespace residua::cuda
