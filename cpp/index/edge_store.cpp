// SPDX-License-Identifier: Apache-2.0
#include "index/edge_store.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "core/error.hpp"
#include "core/parallel.hpp"

namespace residua::index {
namespace {

constexpr std::size_t kMaxLines = (std::size_t{1} << 32) / kSlotUnits;

void write_record(const codec::Codec& codec, const EdgeForm& form, std::span<const std::uint32_t> rows,
                  std::size_t units, const EdgeStore::CodeOf& code, std::vector<std::uint8_t>& codes, std::uint8_t* out) {
    std::memset(out, 0, form.lines(units) * kCacheLine);
    auto* ids = reinterpret_cast<std::uint32_t*>(out);
    const std::size_t places = units * form.unit_rows;
    std::fill(std::copy(rows.begin(), rows.end(), ids), ids + places, kNoRow);
    pack_units(codec, rows, code, codes, reinterpret_cast<std::uint8_t*>(ids + places));
}

std::shared_ptr<const EdgeEntries> pack_entries(const codec::Codec& codec, const Graph& graph,
                                                const EdgeStore::CodeOf& code) {
    auto out = std::make_shared<EdgeEntries>();
    out->rows.assign(graph.entries().begin(), graph.entries().end());
    out->units.resize(edge_form(codec).units(out->rows.size()) * codec.edge_unit_bytes());
    std::vector<std::uint8_t> codes;
    pack_units(codec, out->rows, code, codes, out->units.data());
    return out;
}

}  // namespace

std::size_t EdgeStore::memory_bytes() const {
    return lines_.memory_bytes() + slots_.memory_bytes() + entries_->units.size() +
           entries_->rows.size() * sizeof(std::uint32_t);
}

// A record at the end, or one that is free.
std::uint32_t EdgeStore::take(std::size_t units) {
    if (units < free_.size() && !free_[units].empty()) {
        const std::uint32_t slot = free_[units].back();
        free_[units].pop_back();
        return slot;
    }
    const std::size_t line = lines_.size() / kCacheLine, end = line + form_.lines(units);
    if (end > kMaxLines) {
        throw Error(ErrorKind::unsupported, "layout='turbo' holds 16 GiB of neighbours' codes; use layout='compact'");
    }
    lines_.resize(end * kCacheLine, 0);
    return static_cast<std::uint32_t>(line * kSlotUnits + units);
}

void EdgeStore::give(std::uint32_t slot) noexcept {
    // Room for it was made in prepare(): there were never more records of this size than slots taken.
    if (units_of(slot) > 0) free_[units_of(slot)].push_back(slot);
}

// Takes room for the records of change.rows and writes them there.
void EdgeStore::write_records(const codec::Codec& codec, const Graph& graph, const CodeOf& code, int num_threads,
                              Change& change) {
    const std::vector<std::uint32_t>& rows = change.rows;
    for (const std::uint32_t r : rows) {
        const std::size_t units = form_.units(graph.count(r));
        change.slots.push_back(units == 0 ? 0 : take(units));
    }
    std::uint8_t* const lines = lines_.edit();
    parallel_for(rows.size(), 64, num_threads, [&](std::size_t begin, std::size_t end, int) {
        std::vector<std::uint8_t> codes;
        for (std::size_t i = begin; i < end; ++i) {
            if (change.slots[i] == 0) continue;
            write_record(codec, form_, graph.neighbours(rows[i]), units_of(change.slots[i]), code, codes,
                         lines + change.slots[i] / kSlotUnits * kCacheLine);
        }
    });
}

EdgeStore::Change EdgeStore::prepare(const codec::Codec& codec, const Graph& graph,
                                     std::span<const std::uint32_t> rows, const CodeOf& code, int num_threads) {
    Change change;
    change.n = graph.size();
    change.rows.assign(rows.begin(), rows.end());
    change.slots.reserve(rows.size());
    change.entries = pack_entries(codec, graph, code);
    free_.resize(kSlotUnits);
    std::size_t wanted[kSlotUnits] = {}, fresh = 0;
    for (const std::uint32_t r : rows) ++wanted[form_.units(graph.count(r))];
    for (std::size_t u = 1; u < kSlotUnits; ++u) {
        fresh += form_.lines(u) * (wanted[u] - std::min(wanted[u], free_[u].size()));
    }
    lines_.reserve(lines_.size() + fresh * kCacheLine);
    slots_.reserve(std::max(slots_.size(), change.n));
    for (auto& list : free_) list.reserve(list.size() + 2 * rows.size());
    try {
        write_records(codec, graph, code, num_threads, change);
    } catch (...) {
        discard(std::move(change));
        throw;
    }
    return change;
}

void EdgeStore::commit(Change change) noexcept {
    slots_.resize(change.n, 0);
    std::uint32_t* const slots = slots_.edit();
    for (std::size_t i = 0; i < change.rows.size(); ++i) {
        give(slots[change.rows[i]]);
        slots[change.rows[i]] = change.slots[i];
    }
    entries_ = std::move(change.entries);
}

void EdgeStore::discard(Change change) noexcept {
    for (const std::uint32_t slot : change.slots) give(slot);
}

void EdgeStore::save(store::Writer& out) const {
    bool in_order = true;
    std::size_t line = 0;
    for (const std::uint32_t slot : slots_.span()) {
        in_order = in_order && (units_of(slot) == 0 || slot / kSlotUnits == line);
        line += units_of(slot) == 0 ? 0 : form_.lines(units_of(slot));
    }
    if (in_order && line * kCacheLine == lines_.size()) {
        out.put<std::uint8_t>("edges.lines", lines_.span());
        out.put<std::uint32_t>("edges.slots", slots_.span());
        return;
    }
    std::vector<std::uint8_t> lines;
    std::vector<std::uint32_t> slots;
    lines.reserve(line * kCacheLine);
    for (const std::uint32_t slot : slots_.span()) {
        const std::size_t units = units_of(slot);
        slots.push_back(units == 0 ? 0 : static_cast<std::uint32_t>(lines.size() / kCacheLine * kSlotUnits + units));
        if (units == 0) continue;
        const std::uint8_t* record = lines_.data() + slot / kSlotUnits * kCacheLine;
        lines.insert(lines.end(), record, record + form_.lines(units) * kCacheLine);
    }
    out.put_owned("edges.lines", std::move(lines));
    out.put_copy<std::uint32_t>("edges.slots", slots);
}

// Slots must lead to records. What these name is checked when it is met (walk_edges): reading them all here
// would read the whole of a mapped file.
void EdgeStore::load(const store::Reader& in, const codec::Codec& codec, const Graph& graph, const CodeOf& code) {
    const std::size_t n = graph.size();
    const auto slots = in.array<std::uint32_t>("edges.slots", n);
    const auto lines = in.array<std::uint8_t>("edges.lines");
    std::size_t line = 0;
    for (std::uint32_t r = 0; r < n; ++r) {
        const auto list = graph.neighbours(r);
        const std::size_t units = form_.units(list.size());
        const std::size_t end = line + (units == 0 ? 0 : form_.lines(units));
        if (slots[r] != (units == 0 ? 0 : line * kSlotUnits + units) || end * kCacheLine > lines.size()) {
            in.fail("edges.slots", "row " + std::to_string(r) + " has no record of its neighbours");
        }
        line = end;
    }
    if (line * kCacheLine != lines.size()) in.fail("edges.lines", "there is more than the records of all rows");
    lines_ = GrowArray<std::uint8_t>(lines, in.keep_alive("edges.lines"));
    slots_ = GrowArray<std::uint32_t>(slots, in.keep_alive("edges.slots"));
    entries_ = pack_entries(codec, graph, code);
}

}  // namespace residua::index
