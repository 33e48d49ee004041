// SPDX-License-Identifier: Apache-2.0
#include "cuda/code_scan.hpp"

#include "core/error.hpp"
#include "cuda/float_scan.hpp"
#include "cuda/linear_scan.hpp"
#include "cuda/lookup_scan.hpp"

namespace residua::cuda {

std::unique_ptr<CodeScan> make_code_scan(Context& context, const codec::Codec& codec) {
    if (codec.linear_form()) return std::make_unique<LinearScan>(context);
    if (const auto shape = codec.lookup_shape()) return std::make_unique<LookupScan>(context, *shape);
    if (const auto rows = codec.rows({})) return std::make_unique<FloatScan>(context, *rows, codec.metric());
    throw Error(ErrorKind::unsupported, "the GPU does not scan codes of a " + codec.kind() + " of " + std::to_string(codec.dim()) +
                                            " dims; it scans binary, recurrent, scalar, product and float codes. "
                                            "Search this index on the CPU, or build it with one of those codecs");
}

}  // namespace residua::cuda
