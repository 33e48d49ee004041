// SPDX-License-Identifier: Apache-2.0
// The only chooser of kernels: the best table that the machine runs, or the one RESIDUA_ISA names.
#pragma once

#include <string_view>
#include <vector>

#include "kernel/table.hpp"

namespace residua::kernel {

// Chosen at first use and fixed for the life of the process. Throws when RESIDUA_ISA names a table
// that is unknown, not built in, or not supported by this machine.
const KernelTable& active();

// All tables that this machine can run, best first.
std::vector<const KernelTable*> available();

// A table by name; throws like active().
const KernelTable& by_name(std::string_view name);

}  // namespace residua::kernel
