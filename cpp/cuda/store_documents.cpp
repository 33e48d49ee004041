// SPDX-License-Identifier: Apache-2.0
// Documents of a token store on the device.
#include <algorithm>
#include <string>
#include <utility>

#include "codec/recurrent_codec.hpp"
#include "core/error.hpp"
#include "core/matrix_checks.hpp"
#include "core/parallel.hpp"
#include "cuda/code_maxsim.hpp"
#include "cuda/maxsim.hpp"
#include "multivector/token_weights.hpp"

namespace residua::cuda {
namespace {

using codec::kBlockRows;
using multivector::TokenWeights;

class CodeDocuments final : public DeviceDocuments {
public:
    CodeDocuments(Context& context, const multivector::TokenData& data, std::vector<std::int64_t> offsets)
        : CodeDocuments(context, data, recurrent_codec(data), std::move(offsets)) {}

    std::size_t dim() const override { return codec_->dim(); }
    const char* form() const override { return "codes"; }
    std::size_t device_bytes() const override {
        return tiles_.tiles.bytes() + tiles_.device_groups.bytes() + tiles_.first_tile.bytes() + offsets().size() * sizeof(std::int64_t);
    }

protected:
    MaxsimPass prepare(const PlacedSets& queries, std::uint32_t*, std::vector<DeviceArray<std::uint8_t>>& keep) override {
        const std::size_t tokens = queries.sets.total();
        const TokenWeights weights = weights_of(queries, tokens);
        const std::uint32_t pass_tokens = code_pass_tokens(tokens);
        const std::size_t padded = (tokens + pass_tokens - 1) / pass_tokens * pass_tokens;
        const std::vector<Pack16> fragments = fragments_of(weights, tokens, padded / 16);
        std::vector<float> terms(3 * padded, 0.0f);  // pairs, then constants
        for (std::size_t i = 0; i < tokens; ++i) {
            terms[2 * i] = weights.units[i];
            terms[2 * i + 1] = weights.offsets[i];
            terms[2 * padded + i] = weights.constants[i];
        }
        const auto give = [&](const void* data, std::size_t bytes) {
            keep.emplace_back(context(), bytes, "the tokens of queries");
            keep.back().copy_in(static_cast<const std::uint8_t*>(data), bytes);
            return keep.back().data();
        };
        CodeQueries given{};
        given.fragments = reinterpret_cast<const Pack16*>(give(fragments.data(), fragments.size() * sizeof(Pack16)));
        given.terms = reinterpret_cast<const float*>(give(terms.data(), terms.size() * sizeof(float)));
        given.constants = given.terms + 2 * padded;
        return code_pass(context(), tiles_, pass_tokens, given);
    }

    void name_bad(std::size_t document) const override {  // codes are finite
        throw Error(ErrorKind::non_finite, "doc_tokens: document " + std::to_string(document) + " contains NaN or infinity");
    }

private:
    CodeDocuments(Context& context, const multivector::TokenData& data, const codec::RecurrentCodec& recurrent,
                  std::vector<std::int64_t> offsets)
        : DeviceDocuments(context, std::move(offsets)), codec_(data.codec()), recurrent_(recurrent),
          tiles_(context, recurrent.group_bits(), first_blocks(data)) {
        const std::size_t* first = data.memory().first_block;
        std::vector<std::uint8_t> present(first[size()]);
        for (std::size_t i = 0; i < size(); ++i) {
            const auto count = static_cast<std::size_t>(this->offsets()[i + 1] - this->offsets()[i]);
            for (std::size_t b = first[i]; b < first[i + 1]; ++b) {
                present[b] = static_cast<std::uint8_t>(std::min(kBlockRows, count - (b - first[i]) * kBlockRows));
            }
        }
        tiles_.take(context, recurrent.layout(), static_cast<const std::uint8_t*>(data.memory().data), present);
    }

    static const codec::RecurrentCodec& recurrent_codec(const multivector::TokenData& data) {
        const auto* out = dynamic_cast<const codec::RecurrentCodec*>(data.codec().get());
        if (out == nullptr) throw Error(ErrorKind::unsupported, "tokens are no recurrent codes");
        return *out;
    }
    std::vector<std::size_t> first_blocks(const multivector::TokenData& data) const {
        const std::size_t* first = data.memory().first_block;
        return {first, first + size() + 1};
    }

    // Weights as fragments A: rows g and g + 8, then the second half of the group.
    std::vector<Pack16> fragments_of(const TokenWeights& w, std::size_t n_tokens, std::size_t n_tiles) const {
        const std::size_t n_groups = tiles_.n_groups();
        std::vector<Pack16> out(n_tiles * n_groups * kWarp, Pack16{});
        for (std::size_t i = 0; i < out.size(); ++i) {
            const std::size_t lane = i % kWarp, group = i / kWarp % n_groups, tile = i / kWarp / n_groups;
            for (std::size_t word = 0; word < 4; ++word) {
                const std::size_t token = tile * 16 + lane / 4 + (word & 1) * 8;
                if (token >= n_tokens) continue;
                const std::int8_t* weights = w.weights.data() + token * w.rows + group * 32;
                for (std::uint32_t byte = 0; byte < 4; ++byte) {
                    const std::uint32_t dim = dim_of(static_cast<std::uint32_t>(lane), static_cast<std::uint32_t>(word >> 1), byte);
                    out[i].word[word] |= std::uint32_t{static_cast<std::uint8_t>(weights[dim])} << (8 * byte);
                }
            }
        }
        return out;
    }

    TokenWeights weights_of(const PlacedSets& queries, std::size_t tokens) const {
        multivector::TokenSets sets = queries.sets;
        AlignedVector<std::uint8_t> host;
        if (queries.on_device) {
            host.resize(tokens * dim() * type_bytes(sets.type));
            context().copy_out(host.data(), sets.data, host.size());
            sets.data = host.data();
        }
        AlignedVector<float> floats;
        sets.data = multivector::as_floats(sets, 0, tokens, floats);
        sets.type = multivector::TokenType::f32;
        if (const auto bad = first_non_finite_row({static_cast<const float*>(sets.data), tokens, dim()})) {
            throw Error(ErrorKind::non_finite, "q_tokens: token " + std::to_string(*bad) + " contains NaN or infinity");
        }
        return multivector::token_weights(recurrent_, sets, resolve_num_threads(0));
    }

    std::shared_ptr<const codec::Codec> codec_;
    const codec::RecurrentCodec& recurrent_;
    CodeTiles tiles_;
};

}  // namespace

std::unique_ptr<DeviceDocuments> store_documents(Context& context, const multivector::TokenStore& store) {
    std::unique_ptr<DeviceDocuments> out;
    store.show([&](const multivector::TokenData& given, const multivector::DocumentPlaces& places) {
        // Removed documents are empty.
        std::unique_ptr<multivector::TokenData> compacted;
        std::vector<std::int64_t> offsets{0};
        for (std::size_t i = 0; i < places.n; ++i) offsets.push_back(offsets.back() + static_cast<std::int64_t>(places.count(i)));
        if (places.removed != nullptr) compacted = given.compacted(places, places.n);
        const multivector::TokenData& data = compacted ? *compacted : given;
        if (data.codec() != nullptr) {
            out = std::make_unique<CodeDocuments>(context, data, std::move(offsets));
            return;
        }
        const multivector::TokenMemory memory = data.memory();
        const std::string form = data.form();
        const multivector::TokenType type = form == "float16" ? multivector::TokenType::f16
                                            : form == "int8"  ? multivector::TokenType::i8
                                                              : multivector::TokenType::f32;
        out = float_documents(context, {{memory.data, type, data.dim(), offsets.data(), places.n, memory.scales}, false}, false);
    });
    return out;
}

}  // namespace residua::cuda
