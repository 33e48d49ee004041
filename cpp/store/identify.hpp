// SPDX-License-Identifier: Apache-2.0
// What a file that is not ours most likely is, said in a way that helps.
#pragma once

#include <span>
#include <string>

namespace residua::store {

// `start`: the first bytes of the file, up to 512.
std::string identify(std::span<const unsigned char> start);

}  // namespace residua::store
