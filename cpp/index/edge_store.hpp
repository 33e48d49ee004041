// SPDX-License-Identifier: Apache-2.0
// The neighbours of every row of a graph with their codes beside them, so that a hop is one read of
// consecutive bytes (NGT-QG; SymphonyQG, SIGMOD 2025, section 4).
//
// A record holds the row numbers of a list, kNoRow behind the last, and then their codes in the codec's
// units (Codec::pack_edges). Records are whole cache lines; a slot says where the record of a row
// lies and how many units it has. Records are never changed while they may be read: a change writes new ones beside them, and a
// commit, during which nobody reads, makes slots point there.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "codec/codec.hpp"
#include "core/aligned.hpp"
#include "core/grow_array.hpp"
#include "index/graph.hpp"
#include "store/container.hpp"

namespace residua::index {

inline constexpr std::uint32_t kSlotUnits = 16;

inline std::size_t units_of(std::uint32_t slot) { return slot % kSlotUnits; }

inline constexpr std::size_t kMaxUnitRows = 32;

// How records are laid out for a codec.
struct EdgeForm {
    std::size_t unit_rows = 0;
    std::size_t unit_bytes = 0;

    // Of a list of n rows.
    std::size_t units(std::size_t n) const { return (n + unit_rows - 1) / unit_rows; }
    std::size_t lines(std::size_t units) const {
        return (units * (unit_rows * sizeof(std::uint32_t) + unit_bytes) + kCacheLine - 1) / kCacheLine;
    }
};

inline EdgeForm edge_form(const codec::Codec& codec) { return {codec.edge_rows(), codec.edge_unit_bytes()}; }

// The codes of `rows`, which code(row, out) writes, as units, the last one filled up with zeros. `codes` is for its use.
template <class CodeOf>
void pack_units(const codec::Codec& codec, std::span<const std::uint32_t> rows, const CodeOf& code,
                std::vector<std::uint8_t>& codes, std::uint8_t* units) {
    const std::size_t bytes = codec.code_bytes(), step = codec.edge_rows(), unit_bytes = codec.edge_unit_bytes();
    codes.resize(step * bytes);
    for (std::size_t i = 0; i < rows.size(); i += step, units += unit_bytes) {
        const std::size_t n = std::min(step, rows.size() - i);
        for (std::size_t j = 0; j < n; ++j) code(rows[i + j], codes.data() + j * bytes);
        codec.pack_edges(codes.data(), n, units);
    }
}

// The rows at which walks start, in units of their own.
struct EdgeEntries {
    std::vector<std::uint32_t> rows;
    AlignedVector<std::uint8_t> units;
};

struct EdgeView {
    EdgeForm form;
    GrowArray<std::uint8_t>::View lines;
    GrowArray<std::uint32_t>::View slots;
    std::shared_ptr<const EdgeEntries> entries;

    std::size_t size() const { return slots.size; }

    const std::uint8_t* record(std::uint32_t slot) const { return lines.data + slot / kSlotUnits * kCacheLine; }
};

class EdgeStore {
public:
    // code(row, out): the row's code.
    using CodeOf = std::function<void(std::uint32_t, std::uint8_t*)>;

    EdgeStore() = default;
    explicit EdgeStore(const codec::Codec& codec) : form_(edge_form(codec)) {}

    const EdgeForm& form() const { return form_; }
    std::size_t size() const { return slots_.size(); }
    EdgeView view() const { return {form_, lines_.view(), slots_.view(), entries_}; }
    std::size_t memory_bytes() const;

    // New records for some rows, which are in place but known to no slot.
    class Change {
    public:
        Change() = default;
        Change(Change&&) noexcept = default;
        Change& operator=(Change&&) noexcept = default;

    private:
        friend class EdgeStore;
        std::size_t n = 0;
        std::vector<std::uint32_t> rows, slots;
        std::shared_ptr<const EdgeEntries> entries;
    };
    // All that can fail when the lists of `rows` are what the graph now says. One change at a time.
    Change prepare(const codec::Codec& codec, const Graph& graph, std::span<const std::uint32_t> rows, const CodeOf& code,
                   int num_threads);
    // Nobody reads meanwhile.
    void commit(Change change) noexcept;
    void discard(Change change) noexcept;

    // Sections "edges.*".
    void save(store::Writer& out) const;
    void load(const store::Reader& in, const codec::Codec& codec, const Graph& graph, const CodeOf& code);

private:
    void write_records(const codec::Codec& codec, const Graph& graph, const CodeOf& code, int num_threads, Change& change);
    std::uint32_t take(std::size_t units);
    void give(std::uint32_t slot) noexcept;

    EdgeForm form_;
    GrowArray<std::uint8_t> lines_;
    GrowArray<std::uint32_t> slots_;  // line * kSlotUnits + units; 0 units: no neighbours
    std::shared_ptr<const EdgeEntries> entries_ = std::make_shared<const EdgeEntries>();
    std::vector<std::vector<std::uint32_t>> free_;  // slots of records that nobody uses, by units
};

}  // namespace residua::index
