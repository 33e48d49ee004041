// SPDX-License-Identifier: Apache-2.0
// Scalar codes as bit planes, for devices that score those.
#include <cstring>
#include <vector>

#include "codec/byte_query.hpp"
#include "codec/scalar_codec.hpp"

namespace residua::codec {

std::optional<LinearForm> ScalarCodec::linear_form() const {
    LinearForm form;
    form.layout.planes = static_cast<std::uint32_t>(p_.bits);
    for (int t = 0; t < p_.bits; ++t) {
        form.layout.groups[t] = static_cast<std::uint32_t>(plane_dims(layout_) / kernel::kGroupDims);
    }
    form.has_scalars = true;
    return form;
}

void ScalarCodec::linear_rows(BlockView codes, std::size_t row_begin, std::size_t row_end, std::uint8_t* planes,
                              float* scale, float* add) const {
    const std::size_t plane_bytes = plane_dims(layout_) / 8;
    const auto bits = static_cast<std::size_t>(p_.bits);
    std::vector<std::uint8_t> code(code_bytes());
    std::memset(planes, 0, (row_end - row_begin) * bits * plane_bytes);
    for (std::size_t r = row_begin; r < row_end; ++r, planes += bits * plane_bytes) {
        unpack_row(codes.data + r / kBlockRows * block_bytes(), r % kBlockRows, code.data());
        for (std::size_t i = 0; i < p_.dim; ++i) {
            const unsigned level = bits == 8 ? code[i] : static_cast<unsigned>(code[i / 2]) >> (i % 2 * 4) & 15u;
            // The plane of the highest bit comes first, and in a byte the first dim.
            for (std::size_t t = 0; t < bits; ++t) {
                std::uint8_t& byte = planes[(bits - 1 - t) * plane_bytes + i / 8];
                byte = static_cast<std::uint8_t>(byte | (level >> t & 1u) << (7 - i % 8));
            }
        }
        std::memcpy(add + (r - row_begin), code.data() + layout_.code_bytes(), sizeof *add);
        std::memcpy(scale + (r - row_begin), code.data() + layout_.code_bytes() + sizeof *add, sizeof *scale);
    }
}

}  // namespace residua::codec
