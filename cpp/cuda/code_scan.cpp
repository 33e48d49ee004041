// SPDX-License-Identifier: Apache-2.0
#include "cuda/code_scan.hpp"

#include "core/error.hpp"
#include "cuda/linear_scan.hpp"

namespace residua::cuda {

std::unique_ptr<CodeScan> make_code_scan(Context& context, const codec::Codec& codec) {
    if (codec.linear_form()) return std::make_unique<LinearScan>(context);
    throw Error(ErrorKind::unsupported, "the GPU cannot scan codes of a " + codec.kind() +
                                            "; binary, recurrent and scalar codecs work there, and this index searches on the CPU");
}

}  // namespace residua::cuda
