// SPDX-License-Identifier: Apache-2.0
// The plane kernels on the vector vocabulary (kernel/simd). Include from an ISA translation unit only.
#pragma once

#include "kernel/generic/plane-pack-inl.hpp"

namespace residua::kernel {
namespace {

constexpr std::size_t kGroupBytes = kGroupStrips * kStripBytes;
constexpr std::size_t kVecBytes = kVecStrips * kStripBytes;
constexpr std::size_t kByteAdds = 255 / kCoarseMax;  // table entries that one byte can sum up
// 16-bit sums hold this many groups of coarse entries: each lane sees 1 / kVecStrips of the strips.
constexpr std::size_t kCoarseGroups = 65535 * kVecStrips / (kCoarseMax * kGroupStrips);
// … and this many groups of the high halves of the exact tables, the larger ones.
constexpr std::size_t kExactGroups = 65535 * kVecStrips / ((4 * kWeightMax >> kExactLowBits) * kGroupStrips);

// … and so many where the sum of a row over all strips stays below 2^16.
constexpr std::size_t kSmallGroups = 65535 / (kCoarseMax * kGroupStrips);

constexpr std::size_t kPrefetchBytes = 4096;  // at least this far ahead, in whole blocks

// Strips whose entries are summed in bytes before they are widened; on the widest vectors two
// groups, and a group that is left over is summed alone.
constexpr std::size_t kRunBytes = kByteAdds * kVecBytes;
static_assert(kGroupBytes % kRunBytes == 0 || kRunBytes == 2 * kGroupBytes);

// Adds the coarse entries of `bytes` of strips to the sums of NQ queries, and asks for the bytes
// `ahead` of them: what this block needs, a later one will need too, whereas the hardware loses the
// stream when fine planes are skipped.
template <std::size_t NQ, std::size_t kBytes>
inline void add_run(const std::uint8_t* strips, std::size_t at, std::size_t ahead, const PlaneScan* queries,
                    RowsU16* sums) {
    for (std::size_t v = 0; v < kBytes; v += 64) prefetch(strips + at + ahead + v);
    Bytes low[NQ], high[NQ];
    for (std::size_t v = 0; v < kBytes; v += kVecBytes) {
        const Bytes codes = load_bytes(strips + at + v);
        const Bytes x = low_nibbles(codes);
        const Bytes y = high_nibbles(codes);
        for (std::size_t i = 0; i < NQ; ++i) {
            const Bytes table = load_bytes(queries[i].coarse + at + v);
            low[i] = v == 0 ? look_up(table, x) : add_bytes(low[i], look_up(table, x));
            high[i] = v == 0 ? look_up(table, y) : add_bytes(high[i], look_up(table, y));
        }
    }
    for (std::size_t i = 0; i < NQ; ++i) sums[i].add(low[i], high[i]);
}

// Groups [begin, end) of one plane.
template <std::size_t NQ>
inline void add_groups(const std::uint8_t* strips, std::size_t begin, std::size_t end, std::size_t ahead,
                       const PlaneScan* queries, RowsU16* sums) {
    const std::size_t stop = end * kGroupBytes;
    std::size_t at = begin * kGroupBytes;
    for (; at + kRunBytes <= stop; at += kRunBytes) add_run<NQ, kRunBytes>(strips, at, ahead, queries, sums);
    if constexpr (kRunBytes > kGroupBytes) {
        if (at < stop) add_run<NQ, kGroupBytes>(strips, at, ahead, queries, sums);
    }
}

// The partial sums of one block, doubled at the start of every plane.
template <std::size_t NQ, bool kSmall>
struct NarrowSums {
    RowsU16 rows[NQ];

    NarrowSums() {
        for (RowsU16& r : rows) r.clear();
    }
    RowsI32 total(std::size_t i) const { return kSmall ? widen_small(rows[i]) : widen(rows[i]); }
    void add_plane(const std::uint8_t* strips, std::size_t groups, std::size_t ahead, const PlaneScan* queries) {
        for (RowsU16& r : rows) r.twice();
        add_groups<NQ>(strips, 0, groups, ahead, queries, rows);
    }
};

// The same for layouts whose sums may pass 16 bits: full ones spill into 32-bit sums.
template <std::size_t NQ>
struct SpillingSums {
    RowsU16 rows[NQ];
    RowsI32 spilled[NQ];
    std::size_t load = 0;  // groups of largest entries that `rows` may hold by now

    SpillingSums() {
        for (RowsU16& r : rows) r.clear();
        for (RowsI32& r : spilled) r = zero_rows();
    }
    RowsI32 total(std::size_t i) const { return add_rows(spilled[i], widen(rows[i])); }
    void spill() {
        for (std::size_t i = 0; i < NQ; ++i) {
            spilled[i] = total(i);
            rows[i].clear();
        }
        load = 0;
    }
    void add_plane(const std::uint8_t* strips, std::size_t groups, std::size_t ahead, const PlaneScan* queries) {
        if (2 * load + groups > kCoarseGroups) spill();
        load *= 2;
        for (std::size_t i = 0; i < NQ; ++i) {
            rows[i].twice();
            spilled[i] = add_rows(spilled[i], spilled[i]);
        }
        for (std::size_t begin = 0; begin < groups;) {
            if (load == kCoarseGroups) spill();
            const std::size_t room = kCoarseGroups - load;
            const std::size_t end = groups - begin < room ? groups : begin + room;
            add_groups<NQ>(strips, begin, end, ahead, queries, rows);
            load += end - begin;
            begin = end;
        }
    }
};

// Groups of largest coarse entries that the sums of a whole row may hold.
inline std::size_t coarse_load(const PlaneLayout& layout) {
    std::size_t load = 0;
    for (std::uint32_t t = layout.planes; t-- > 0;) load = 2 * load + layout.groups[t];
    return load;
}

template <std::size_t NQ, class Sums>
std::size_t scan_tile(const PlaneLayout& layout, const std::uint8_t* blocks, std::size_t n_blocks,
                      const PlaneScan* queries, std::uint32_t* mask) {
    const std::uint32_t checks = common_checks(queries, NQ);
    const std::size_t block_bytes = layout.block_bytes();
    const std::size_t ahead = (kPrefetchBytes + block_bytes - 1) / block_bytes * block_bytes;
    const std::size_t add_offset = layout.add_offset(), scale_offset = layout.scale_offset();
    for (std::size_t b = 0; b < n_blocks; ++b) {
        const std::uint8_t* block = blocks + b * block_bytes;
        const std::uint8_t* strips = block;
        Sums sums;
        std::uint32_t any = 0;
        for (std::uint32_t t = layout.planes; t-- > 0;) {
            sums.add_plane(strips, layout.groups[t], ahead, queries);
            strips += layout.groups[t] * kGroupBytes;
            if (((checks >> t) & 1u) == 0) continue;
            any = 0;
            const RowFactors factors = load_factors(block + add_offset, block + scale_offset);
            for (std::size_t i = 0; i < NQ; ++i) {
                mask[i] = rows_reaching(sums.total(i), queries[i].unit[t], queries[i].upper[t], factors,
                                        queries[i].threshold);
                any |= mask[i];
            }
            if (any == 0) break;
        }
        if (any != 0) return b;
    }
    return n_blocks;
}

template <std::size_t NQ>
std::size_t scan_queries(const PlaneLayout& layout, const std::uint8_t* blocks, std::size_t n_blocks,
                         const PlaneScan* queries, std::uint32_t* mask) {
    const std::size_t load = coarse_load(layout);
    if (load <= kSmallGroups) return scan_tile<NQ, NarrowSums<NQ, true>>(layout, blocks, n_blocks, queries, mask);
    if (load <= kCoarseGroups) return scan_tile<NQ, NarrowSums<NQ, false>>(layout, blocks, n_blocks, queries, mask);
    return scan_tile<NQ, SpillingSums<NQ>>(layout, blocks, n_blocks, queries, mask);
}

inline std::size_t scan_simd(const PlaneLayout& layout, const std::uint8_t* blocks, std::size_t n_blocks,
                             const PlaneScan* queries, std::size_t nq, std::uint32_t* mask) {
    static_assert(kPlaneTile == 2);
    return nq == 1 ? scan_queries<1>(layout, blocks, n_blocks, queries, mask)
                   : scan_queries<2>(layout, blocks, n_blocks, queries, mask);
}

// Entries of rows 0 … 15 and of rows 16 … 31.
struct BytePair {
    Bytes low, high;
};

// Two vectors of strips: adds their high table halves to `sums`, returns the sums of the low halves.
inline BytePair look_up_pair(const std::uint8_t* strips, const std::uint8_t* tables, const std::uint8_t* high_tables,
                             RowsU16& sums) {
    const Bytes c0 = load_bytes(strips), c1 = load_bytes(strips + kVecBytes);
    const Bytes x0 = low_nibbles(c0), x1 = low_nibbles(c1), y0 = high_nibbles(c0), y1 = high_nibbles(c1);
    const Bytes h0 = load_bytes(high_tables), h1 = load_bytes(high_tables + kVecBytes);
    sums.add(add_bytes(look_up(h0, x0), look_up(h1, x1)), add_bytes(look_up(h0, y0), look_up(h1, y1)));
    const Bytes l0 = load_bytes(tables), l1 = load_bytes(tables + kVecBytes);
    return {add_bytes(look_up(l0, x0), look_up(l1, x1)), add_bytes(look_up(l0, y0), look_up(l1, y1))};
}

inline void exact_simd(const PlaneLayout& layout, const std::uint8_t* block, const std::uint8_t* tables,
                       std::int64_t* out) {
    static_assert((1 << kExactLowBits) - 1 <= 255 / 4 && (4 * kWeightMax >> kExactLowBits) <= 255 / 2);
    const std::uint8_t* high_tables = tables + layout.groups[0] * kGroupBytes;
    for (std::size_t r = 0; r < kBlockRows; ++r) out[r] = 0;
    for (std::uint32_t t = layout.planes; t-- > 0;) {
        for (std::size_t r = 0; r < kBlockRows; ++r) out[r] *= 2;
        for (std::size_t begin = 0; begin < layout.groups[t]; begin += kExactGroups) {
            const std::size_t left = layout.groups[t] - begin;
            const std::size_t end = begin + (left < kExactGroups ? left : kExactGroups);
            RowsU16 low, high;
            low.clear();
            high.clear();
            std::size_t at = begin * kGroupBytes;
            for (; at + 4 * kVecBytes <= end * kGroupBytes; at += 4 * kVecBytes) {
                const BytePair l0 = look_up_pair(block + at, tables + at, high_tables + at, high);
                const BytePair l1 = look_up_pair(block + at + 2 * kVecBytes, tables + at + 2 * kVecBytes,
                                                 high_tables + at + 2 * kVecBytes, high);
                low.add(add_bytes(l0.low, l1.low), add_bytes(l0.high, l1.high));
            }
            if (at < end * kGroupBytes) {
                const BytePair l = look_up_pair(block + at, tables + at, high_tables + at, high);
                low.add(l.low, l.high);
            }
            std::int32_t low_sums[kBlockRows], high_sums[kBlockRows];
            store_rows(widen(low), low_sums);
            store_rows(widen(high), high_sums);
            for (std::size_t r = 0; r < kBlockRows; ++r) {
                out[r] += low_sums[r] + (std::int64_t{high_sums[r]} << kExactLowBits);
            }
        }
        block += layout.groups[t] * kGroupBytes;
    }
}

constexpr PlaneKernels simd_plane_kernels() { return {kCellsFrom, pack_planes, unpack_planes, expand_planes, scan_simd, exact_simd, fill_tables}; }

}  // namespace
}  // namespace residua::kernel
