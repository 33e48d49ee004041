// SPDX-License-Identifier: Apache-2.0
// One table of function pointers per instruction set. Kernels see raw pointers and sizes: they do
// not allocate, throw, or start threads. Each family is described in its own header.
#pragma once

#include "kernel/bit_kernels.hpp"
#include "kernel/byte_kernels.hpp"
#include "kernel/edge_kernels.hpp"
#include "kernel/float_kernels.hpp"
#include "kernel/lookup_kernels.hpp"
#include "kernel/plane_kernels.hpp"
#include "kernel/row_kernels.hpp"
#include "kernel/set_kernels.hpp"
#include "kernel/token_kernels.hpp"

namespace residua::kernel {

struct KernelTable {
    const char* name;
    FloatKernels floats;
    BitKernels bits;
    PlaneKernels planes;
    ByteKernels bytes;
    EdgeKernels edges;
    RowKernels rows;
    LookupKernels lookups;
    SetKernels sets;
    TokenKernels tokens;
};

}  // namespace residua::kernel
