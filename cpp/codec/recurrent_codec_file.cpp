// SPDX-License-Identifier: Apache-2.0
// Recurrent codecs in files.
#include <memory>
#include <utility>
#include <vector>

#include "codec/recurrent_codec.hpp"
#include "core/error.hpp"
#include "store/container.hpp"

namespace residua::codec {

void RecurrentCodec::write(store::Writer& out) const {
    out.put_string("metric", to_string(p_.metric));
    out.put_int("dim", static_cast<std::int64_t>(p_.dim));
    out.put_double("bits", p_.bits);
    out.put_double("expansion", static_cast<double>(p_.expansion));
    out.put<std::uint8_t>("group_bits", p_.group_bits);
    out.put<float>("center", p_.center);
    out.put<float>("query_mean", p_.query_mean);
    out.put_copy<float>("encode_map", encode_map_.values());
    if (p_.query_scale.empty()) {
        out.put_copy<float>("query_map", query_map_.values());
    } else {
        out.put<float>("query_scale", p_.query_scale);
    }
    if (p_.block_dims != p_.dim) {
        out.put_int("block_dims", static_cast<std::int64_t>(p_.block_dims));
        out.put<std::uint16_t>("group_block", p_.group_block);
    }
    out.put<float>("step", p_.step);
    out.put<float>("levels", p_.levels);
}

std::shared_ptr<const Codec> RecurrentCodec::read(const store::Reader& in) {
    const auto copy = [&in](const char* name) {
        const auto values = in.array<float>(name);
        return std::vector<float>(values.begin(), values.end());
    };
    RecurrentParams p;
    try {
        p.metric = read_metric(in);
        p.dim = static_cast<std::size_t>(in.get_int("dim", 1, 65'536));
        p.bits = in.get_double("bits");
        p.expansion = static_cast<float>(in.get_double("expansion"));
        const auto bits = in.array<std::uint8_t>("group_bits");
        p.group_bits.assign(bits.begin(), bits.end());
        p.center = copy("center");
        p.query_mean = copy("query_mean");
        p.encode_map = copy("encode_map");
        p.block_dims = p.dim;
        if (in.has_key("block_dims")) {
            p.block_dims = static_cast<std::size_t>(in.get_int("block_dims", 1, static_cast<std::int64_t>(p.dim)));
            const auto blocks = in.array<std::uint16_t>("group_block", p.group_bits.size());
            p.group_block.assign(blocks.begin(), blocks.end());
        }
        if (in.has("query_scale")) {
            p.query_scale = copy("query_scale");
        } else {
            p.query_map = copy("query_map");
        }
        p.step = copy("step");
        p.levels = copy("levels");
        return std::make_shared<RecurrentCodec>(std::move(p));
    } catch (const Error& e) {
        if (e.kind() == ErrorKind::value) in.fail("meta", e.what());
        throw;
    }
}

}  // namespace residua::codec
