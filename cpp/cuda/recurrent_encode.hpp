// SPDX-License-Identifier: Apache-2.0
// Encoding of recurrent codes (codec/recurrent_codec.hpp) on the device: y = M (x - c) by products of matrices, then one
// warp per row rounds a group of 32 dims at a time, a dim per lane, and its ballots are the words of the planes. Codes
// are those of the CPU but for levels within rounding of a step.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/recurrent_codec.hpp"
#include "cuda/runtime.hpp"
#include "store/row_source.hpp"

namespace residua::cuda {

class RecurrentEncoder {
public:
    // The codec outlives the encoder.
    RecurrentEncoder(Context& context, const codec::RecurrentCodec& codec);

    std::size_t code_bytes() const { return codec_.code_bytes(); }
    // n rows of dim() values, one after the other, and n row codes, both on the device. Throws non_finite, and value for
    // a row that is zero under cosine.
    void encode(const void* rows, store::RowType type, std::size_t n, codec::Effort effort, std::uint8_t* codes);
    // The same with both on the host.
    void encode(ConstMatrix x, codec::Effort effort, std::uint8_t* codes);

private:
    // Groups that read the same dims; their rows of y stand together.
    struct Block {
        std::size_t begin, width, first_group, groups;
        std::size_t map_at;  // in map_
    };
    std::size_t chunk_rows() const;
    std::size_t rows() const { return groups_ * 32; }

    Context& context_;
    const codec::RecurrentCodec& codec_;
    std::size_t dim_, groups_;
    double mean_dot_ = 0;
    std::vector<Block> blocks_;
    DeviceArray<float> map_, center_, mean_offset_;
    DeviceArray<float> step_, inverse_;     // by dim of the code
    DeviceArray<std::uint8_t> bits_;        // by group
    DeviceArray<std::uint16_t> place_;      // of a group in y
};

}  // namespace residua::cuda
