// SPDX-License-Identifier: Apache-2.0
// Instantiates the kernels on NEON. Everything but the table has internal linkage, so no code
// compiled with these flags can be merged into the rest of the library.
#include "kernel/simd/vec_neon.hpp"

#include "kernel/generic/bit-inl.hpp"
#include "kernel/generic/byte-inl.hpp"
#include "kernel/generic/edge-inl.hpp"
#include "kernel/generic/float-inl.hpp"
#include "kernel/generic/lookup-inl.hpp"
#include "kernel/generic/plane-inl.hpp"
#include "kernel/generic/row-scalar-inl.hpp"
#include "kernel/generic/set-inl.hpp"
#include "kernel/generic/token-inl.hpp"
#include "kernel/table.hpp"

namespace residua::kernel {
namespace {

constexpr KernelTable kTable{"neon", simd_float_kernels(), simd_bit_kernels(), simd_plane_kernels(),
                             simd_byte_kernels(), simd_edge_kernels(), scalar_row_kernels(), simd_lookup_kernels(),
                             simd_set_kernels(), simd_token_kernels()};

}  // namespace

const KernelTable& neon_table() noexcept { return kTable; }

}  // namespace residua::kernel
