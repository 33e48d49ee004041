// SPDX-License-Identifier: Apache-2.0
// The row form of recurrent codes: the bits of a dim, which lie in as many planes, come together in fields
// of 4, 2 and 1 bits, so that a row is scored with shifts and byte products (kernel/row_kernels.hpp).
#include <algorithm>
#include <cstring>
#include <vector>

#include "codec/recurrent_codec.hpp"
#include "kernel/dispatch.hpp"

namespace residua::codec {

using kernel::FieldRun;
using kernel::kHalfPiece;
using kernel::kPieceBytes;

void RecurrentCodec::make_form() {
    // Runs by width and level, and the dims of each in order.
    struct Run {
        FieldRun run;
        std::vector<std::uint32_t> dims;
    };
    std::vector<Run> runs;
    const std::size_t n_dims = p_.group_bits.size() * kernel::kGroupDims;
    fields_.resize(n_dims);
    places_.resize(n_dims);
    tops_.resize(n_dims);
    for (std::uint32_t i = 0; i < n_dims; ++i) {
        const int bits = p_.group_bits[i / kernel::kGroupDims];
        tops_[i] = static_cast<float>((1 << bits) - 1);
        for (int left = bits; left > 0;) {
            const int width = left >= 4 ? 4 : left >= 2 ? 2 : 1;
            left -= width;
            const auto it = std::find_if(runs.begin(), runs.end(), [&](const Run& r) {
                return r.run.width == width && r.run.shift == left;
            });
            Run& run = it != runs.end() ? *it : runs.emplace_back();
            run.run.width = static_cast<std::uint8_t>(width);
            run.run.shift = static_cast<std::uint8_t>(left);
            run.dims.push_back(i);
        }
    }
    std::size_t byte = 0, weight = 0;
    for (Run& r : runs) {
        const std::size_t subs = r.run.subs(), per_half = kHalfPiece * subs, per_piece = 2 * per_half;
        r.run.halves = static_cast<std::uint32_t>((r.dims.size() + per_half - 1) / per_half);
        for (std::size_t j = 0; j < r.dims.size(); ++j) {
            const std::size_t piece = j / per_piece, within = j % per_piece;
            const std::size_t lanes = 2 * piece + 2 <= r.run.halves ? kPieceBytes : kHalfPiece;
            const std::size_t sub = within / lanes, lane = within % lanes;
            const auto place = static_cast<std::uint32_t>(weight + (piece * subs + sub) * kPieceBytes + lane);
            fields_[r.dims[j]].push_back({static_cast<std::uint32_t>(byte + piece * kPieceBytes + lane),
                                          static_cast<std::uint8_t>(sub * r.run.width), r.run.shift, r.run.width,
                                          place});
            places_[r.dims[j]].push_back(place);
        }
        form_.fields.runs[form_.fields.n_runs++] = r.run;
        byte += r.run.bytes();
        weight += r.run.weights();
    }
    form_.add_at = byte;
    form_.scale_at = byte + 4;
    form_.half_scale = true;
    form_.row_bytes = byte + kScalarBytes;
}

void RecurrentCodec::to_rows(const std::uint8_t* codes, std::size_t n, std::uint8_t* rows) const {
    std::vector<std::uint8_t> levels(fields_.size());
    for (std::size_t r = 0; r < n; ++r) {
        const std::uint8_t* code = codes + r * code_bytes();
        std::uint8_t* row = rows + r * row_bytes();
        std::memset(row, 0, form_.add_at);
        unpack_levels(code, levels.data());
        for (std::size_t i = 0; i < fields_.size(); ++i) {
            for (const Field& f : fields_[i]) {
                const unsigned field = static_cast<unsigned>(levels[i]) >> f.level & ((1u << f.width) - 1);
                row[f.at] = static_cast<std::uint8_t>(row[f.at] | field << f.shift);
            }
        }
        std::memcpy(row + form_.add_at, code + layout_.code_bytes(), kScalarBytes);
    }
}

void RecurrentCodec::from_rows(const std::uint8_t* rows, std::size_t n, std::uint8_t* codes) const {
    std::vector<std::uint8_t> levels(fields_.size());
    for (std::size_t r = 0; r < n; ++r) {
        const std::uint8_t* row = rows + r * row_bytes();
        std::uint8_t* code = codes + r * code_bytes();
        std::memset(code, 0, layout_.code_bytes());
        for (std::size_t i = 0; i < fields_.size(); ++i) {
            unsigned level = 0;
            for (const Field& f : fields_[i]) level |= (static_cast<unsigned>(row[f.at]) >> f.shift & ((1u << f.width) - 1)) << f.level;
            levels[i] = static_cast<std::uint8_t>(level);
        }
        std::uint8_t* plane = code;
        for (int t = static_cast<int>(layout_.planes) - 1; t >= 0; --t) {
            for (std::size_t i = 0; i < layout_.groups[t] * kernel::kGroupDims; ++i) {
                plane[i / 8] = static_cast<std::uint8_t>(plane[i / 8] | (levels[i] >> t & 1u) << (7 - i % 8));
            }
            plane += layout_.groups[t] * 4;
        }
        std::memcpy(code + layout_.code_bytes(), row + form_.add_at, kScalarBytes);
    }
}

void RecurrentCodec::pack_edges(const std::uint8_t* codes, std::size_t n, std::uint8_t* unit) const {
    kernel::active().edges.pack(layout_.code_bytes(), codes, code_bytes(), n, unit);
    std::uint8_t* add = unit + layout_.total_groups() * kernel::kEdgeGroupBytes;
    std::memset(add, 0, kernel::kEdgeScalarBytes);
    for (std::size_t r = 0; r < n; ++r) {
        const std::uint8_t* scalars = codes + r * code_bytes() + layout_.code_bytes();
        std::memcpy(add + r * 4, scalars, 4);
        std::memcpy(add + kernel::kEdgeRows * 4 + r * 2, scalars + 4, 2);
    }
}

void RecurrentCodec::unpack_edge(const std::uint8_t* unit, std::size_t row, std::uint8_t* code) const {
    kernel::active().edges.unpack(layout_.code_bytes(), unit, row, code);
    const std::uint8_t* add = unit + layout_.total_groups() * kernel::kEdgeGroupBytes;
    std::memcpy(code + layout_.code_bytes(), add + row * 4, 4);
    std::memcpy(code + layout_.code_bytes() + 4, add + kernel::kEdgeRows * 4 + row * 2, 2);
}

}  // namespace residua::codec
