// SPDX-License-Identifier: Apache-2.0
// The reference table: plain C++, the oracle of every other instruction set.
#include "kernel/generic/bit-scalar-inl.hpp"
#include "kernel/generic/byte-scalar-inl.hpp"
#include "kernel/generic/edge-scalar-inl.hpp"
#include "kernel/generic/float-scalar-inl.hpp"
#include "kernel/generic/lookup-scalar-inl.hpp"
#include "kernel/generic/plane-scalar-inl.hpp"
#include "kernel/generic/row-scalar-inl.hpp"
#include "kernel/generic/set-scalar-inl.hpp"
#include "kernel/generic/token-scalar-inl.hpp"
#include "kernel/table.hpp"

namespace residua::kernel {
namespace {

constexpr KernelTable kTable{"scalar", scalar_float_kernels(), scalar_bit_kernels(), scalar_plane_kernels(),
                             scalar_byte_kernels(), scalar_edge_kernels(), scalar_row_kernels(),
                             scalar_lookup_kernels(), scalar_set_kernels(), scalar_token_kernels()};

}  // namespace

const KernelTable& scalar_table() noexcept { return kTable; }

}  // namespace residua::kernel
