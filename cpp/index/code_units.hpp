// SPDX-License-Identifier: Apache-2.0
// The codes of all rows in the units of the codec's edge scorer, in order of row: what scans read where
// walks read the same units. As with an EdgeStore, a change is prepared beside running searches and put in
// place while nobody reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "codec/codec.hpp"
#include "core/aligned.hpp"
#include "core/bitset.hpp"
#include "core/grow_array.hpp"
#include "core/top_k.hpp"
#include "index/edge_store.hpp"
#include "store/container.hpp"

namespace residua::index {

class CodeUnits {
public:
    using CodeOf = EdgeStore::CodeOf;

    struct Change {
        std::size_t bytes = 0;  // of all units afterwards
        std::size_t unit_bytes = 0;
        std::vector<std::uint32_t> units;
        AlignedVector<std::uint8_t> packed;
    };
    // All that can fail when the codes of `rows`, of n in all, are what `code` says.
    Change prepare(const codec::Codec& codec, std::size_t n, std::span<const std::uint32_t> rows, const CodeOf& code,
                   int num_threads);
    void commit(const Change& change) noexcept;

    const std::uint8_t* data() const { return units_.data(); }
    GrowArray<std::uint8_t>::View view() const { return units_.view(); }
    std::size_t memory_bytes() const { return units_.memory_bytes(); }
    bool empty() const { return units_.size() == 0; }

    // Section "units".
    void save(store::Writer& out) const { out.put<std::uint8_t>("units", units_.span()); }
    void load(const store::Reader& in, const codec::Codec& codec, std::size_t n);

private:
    GrowArray<std::uint8_t> units_;
};

// The codes of `rows`, gathered from units of all rows, in units of their own.
AlignedVector<std::uint8_t> gather_units(const codec::Codec& codec, const std::uint8_t* units, std::span<const std::uint32_t> rows,
                                         int num_threads);

// … from row forms, one after the other in the table.
AlignedVector<std::uint8_t> pack_rows(const codec::Codec& codec, const std::uint8_t* table, std::span<const std::uint32_t> rows,
                                      int num_threads);

// The `keep` best of n rows in units, or of the allowed ones, in no order.
std::vector<ScoredRow> scan_units(const codec::EdgeScorer& scorer, const EdgeForm& form, const std::uint8_t* units, std::size_t n,
                                  const Bitset* allowed, std::size_t query, std::size_t keep);

// Those whose scores are above the threshold.
void scan_units(const codec::EdgeScorer& scorer, const EdgeForm& form, const std::uint8_t* units, std::size_t n,
                const Bitset* allowed, std::size_t query, float threshold, std::vector<ScoredRow>& out);

}  // namespace residua::index
