// SPDX-License-Identifier: Apache-2.0
#include "index/index.hpp"

#include <string>

#include "core/error.hpp"
#include "index/flat_index.hpp"
#include "index/hnsw_index.hpp"
#include "index/ivf_index.hpp"

namespace residua::index {
namespace {

struct Kind {
    const char* name;
    std::shared_ptr<Index> (*read)(const store::Reader& in);
};

// A new index adds its line here, and every reader of files knows it.
constexpr Kind kKinds[] = {
    {FlatIndex::kKind, [](const store::Reader& in) -> std::shared_ptr<Index> { return FlatIndex::load(in); }},
    {HNSWIndex::kKind, [](const store::Reader& in) -> std::shared_ptr<Index> { return HNSWIndex::load(in); }},
    {IvfIndex::kKind, [](const store::Reader& in) -> std::shared_ptr<Index> { return IvfIndex::load(in); }},
};

}  // namespace

bool holds_index(const store::Reader& in) {
    for (const Kind& k : kKinds) {
        if (in.kind() == k.name) return true;
    }
    return false;
}

std::shared_ptr<Index> read_index(const store::Reader& in) {
    std::string known;
    for (const Kind& k : kKinds) {
        if (in.kind() == k.name) return k.read(in);
        known += (known.empty() ? "'" : ", '") + std::string(k.name) + "'";
    }
    throw Error(ErrorKind::unsupported,
                in.path() + " holds '" + in.kind() + "', which is not an index of this version; expected " + known);
}

}  // namespace residua::index
