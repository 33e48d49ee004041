// SPDX-License-Identifier: Apache-2.0
// Scans of codes by look-up, and the search for the nearest row of panels: every table that this machine runs
// against the scalar one, with codes that end where an unreadable page begins and start at odd addresses.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/aligned.hpp"
#include "kernel/dispatch.hpp"
#include "kernel_test.hpp"

using namespace residua;
using namespace residua::kernel;
using namespace residua::testing;

namespace {

using Scan = std::size_t (*LookupKernels::*)(const std::uint8_t*, std::size_t, std::size_t, const LookupScan*,
                                             std::size_t, std::uint32_t*);

struct ScanKind {
    const char* name;
    Scan scan;
    std::size_t (*table_bytes)(std::size_t);
    std::size_t (*used_bytes)(std::size_t);  // of a table; the rest is zeros
    int entry_max;
};
const ScanKind kScans[] = {
    {"4 bits", &LookupKernels::scan_nibbles, nibble_table_bytes, [](std::size_t n) { return 2 * n * kStripBytes; },
     kNibbleEntryMax},
    {"8 bits", &LookupKernels::scan_bytes, byte_table_bytes, byte_table_bytes, kByteEntryMax},
};

// Lengths around every width of vectors, and the longest that fits kLookupSumMax.
std::vector<std::size_t> lengths(const ScanKind& kind) {
    const auto numbers = static_cast<std::size_t>(kLookupSumMax / kind.entry_max);
    const std::size_t longest = kind.scan == &LookupKernels::scan_nibbles ? numbers / 2 : numbers;
    std::vector<std::size_t> all;
    for (std::size_t i = 1; i <= 34; ++i) all.push_back(i);
    for (const std::size_t i : {47, 48, 63, 64, 65, 96, 97}) all.push_back(i);
    all.push_back(longest);
    return all;
}

AlignedVector<std::uint8_t> random_tables(const ScanKind& kind, std::size_t length, std::size_t nq) {
    AlignedVector<std::uint8_t> tables(nq * kind.table_bytes(length), 0);
    for (std::size_t i = 0; i < nq; ++i) {
        auto entries = bytes<std::uint8_t>(kind.used_bytes(length));
        for (std::uint8_t& e : entries) {  // many are the largest
            e = static_cast<std::uint8_t>(e >= 230 ? kind.entry_max : e % (kind.entry_max + 1));
        }
        std::copy(entries.begin(), entries.end(),
                  tables.begin() + static_cast<std::ptrdiff_t>(i * kind.table_bytes(length)));
    }
    return tables;
}

struct Found {
    std::size_t block;
    std::uint32_t mask[kLookupTile];
    bool operator==(const Found& o) const {
        return block == o.block && std::memcmp(mask, o.mask, sizeof mask) == 0;
    }
};

Found run(const LookupKernels& kernels, const ScanKind& kind, const std::uint8_t* blocks, std::size_t n_blocks,
          std::size_t length, const std::vector<LookupScan>& queries) {
    Found found = {};
    found.block = (kernels.*kind.scan)(blocks, n_blocks, length, queries.data(), queries.size(), found.mask);
    if (found.block == n_blocks) std::fill(found.mask, found.mask + kLookupTile, 0u);
    return found;
}

// The largest sum of any row, by asking the reference for ever more.
std::int32_t largest_sum(const ScanKind& kind, const std::uint8_t* blocks, std::size_t n_blocks, std::size_t length,
                         const std::uint8_t* tables) {
    std::int32_t low = 0, high = kLookupSumMax + 1;  // reached, not reached
    while (high - low > 1) {
        const std::int32_t middle = low + (high - low) / 2;
        const bool reached =
            run(by_name("scalar").lookups, kind, blocks, n_blocks, length, {{tables, middle}}).block < n_blocks;
        (reached ? low : high) = middle;
    }
    return low;
}

void check_scans(const ScanKind& kind, std::size_t length, std::size_t n_blocks, Guarded& memory) {
    const std::size_t size = n_blocks * kBlockRows * length;
    const std::vector<std::uint8_t> codes = bytes<std::uint8_t>(size);
    const std::uint8_t* blocks = memory.place(codes);
    std::vector<std::uint8_t> shifted(size + 1);
    std::copy(codes.begin(), codes.end(), shifted.begin() + 1);
    const auto tables = random_tables(kind, length, kLookupTile);
    std::vector<std::int32_t> best(kLookupTile);
    for (std::size_t i = 0; i < kLookupTile; ++i) {
        best[i] = largest_sum(kind, blocks, n_blocks, length, tables.data() + i * kind.table_bytes(length));
    }
    for (std::size_t nq = 1; nq <= kLookupTile; ++nq) {
        for (const std::int32_t below : {-1, 0, 1, 60, kLookupSumMax}) {
            std::vector<LookupScan> queries;
            for (std::size_t i = 0; i < nq; ++i) {
                queries.push_back({tables.data() + i * kind.table_bytes(length), std::max(0, best[i] - below)});
            }
            const Found wanted = run(by_name("scalar").lookups, kind, blocks, n_blocks, length, queries);
            REQUIRE((wanted.block < n_blocks) == (below >= 0));
            for (const KernelTable* table : available()) {
                CAPTURE(table->name);
                REQUIRE(run(table->lookups, kind, blocks, n_blocks, length, queries) == wanted);
                REQUIRE(run(table->lookups, kind, shifted.data() + 1, n_blocks, length, queries) == wanted);
            }
        }
    }
}

}  // namespace

TEST_CASE("look-up kernels agree with the scalar ones") {
    Guarded memory;
    for (const ScanKind& kind : kScans) {
        CAPTURE(kind.name);
        for (const std::size_t length : lengths(kind)) {
            CAPTURE(length);
            for (const std::size_t n_blocks : {1, 2, 5}) check_scans(kind, length, n_blocks, memory);
        }
    }
}

TEST_CASE("look-up kernels count up to the largest sum") {
    for (const ScanKind& kind : kScans) {
        CAPTURE(kind.name);
        const std::size_t length = lengths(kind).back();
        AlignedVector<std::uint8_t> full(kind.table_bytes(length), 0);
        std::fill_n(full.begin(), kind.used_bytes(length), static_cast<std::uint8_t>(kind.entry_max));
        const auto codes = bytes<std::uint8_t>(kBlockRows * length);
        const auto per_row = static_cast<std::int32_t>(kind.scan == &LookupKernels::scan_nibbles ? 2 * length : length);
        const std::int32_t sum = per_row * kind.entry_max;
        for (const KernelTable* table : available()) {
            CAPTURE(table->name);
            REQUIRE(run(table->lookups, kind, codes.data(), 1, length, {{full.data(), sum}}).mask[0] == ~0u);
            for (const std::int32_t more : {sum + 1, kLookupSumMax + 1}) {
                REQUIRE(run(table->lookups, kind, codes.data(), 1, length, {{full.data(), more}}).block == 1);
            }
        }
    }
}

namespace {

struct Panels {
    std::vector<float> rows;  // (n, d, kPanelRows)
    std::vector<float> bias;  // (n, kPanelRows)
    std::size_t n = 0, d = 0;
};

// The rows found in groups of panels.
std::vector<std::uint32_t> nearest(const FloatKernels& k, const Panels& p, const float* panels, const float* q,
                                   std::size_t nq, std::size_t group) {
    std::vector<std::uint32_t> out(nq, ~0u);
    float best[kTileQueries * kPanelRows], at[kTileQueries * kPanelRows];
    for (std::size_t first = 0; first < p.n; first += group) {
        const std::size_t n = std::min(group, p.n - first);
        k.nearest_panels(q, p.d, nq, panels + first * p.d * kPanelRows, n, p.d, p.bias.data() + first * kPanelRows,
                         first, best, at, first + n == p.n ? out.data() : nullptr);
    }
    return out;
}

// By gemm_panel of the same table, whose sums nearest_panels promises.
std::vector<std::uint32_t> nearest_by_sums(const FloatKernels& k, const Panels& p, const float* q, std::size_t nq) {
    std::vector<std::uint32_t> out(nq, 0);
    for (std::size_t i = 0; i < nq; ++i) {
        float top = -std::numeric_limits<float>::infinity();
        for (std::size_t b = 0; b < p.n; ++b) {
            float sums[kPanelRows];
            k.gemm_panel(q + i * p.d, p.d, 1, p.rows.data() + b * p.d * kPanelRows, p.d, sums, kPanelRows);
            for (std::size_t r = 0; r < kPanelRows; ++r) {
                const float value = sums[r] + p.bias[b * kPanelRows + r];
                if (!(value > top)) continue;
                top = value;
                out[i] = static_cast<std::uint32_t>(b * kPanelRows + r);
            }
        }
    }
    return out;
}

}  // namespace

TEST_CASE("the nearest row of panels is that of the largest sum, the first of equals") {
    Guarded panel_memory, query_memory;
    for (const bool whole : {false, true}) {  // small whole numbers: sums are exact, and many are equal
        CAPTURE(whole);
        for (const std::size_t d : {1, 2, 3, 7, 8, 12, 16, 17, 33, 130}) {
            for (const std::size_t n : {1, 2, 3, 16}) {
                CAPTURE(d);
                CAPTURE(n);
                Panels p{normals(n * d * kPanelRows), normals(n * kPanelRows), n, d};
                auto q = normals(kTileQueries * d);
                if (whole) {
                    for (auto* x : {&p.rows, &p.bias, &q}) {
                        for (float& v : *x) v = std::round(v);
                    }
                }
                std::fill(p.bias.end() - 3, p.bias.end(), -std::numeric_limits<float>::infinity());  // no rows
                const float* panels = panel_memory.place(p.rows);
                for (const KernelTable* table : available()) {
                    CAPTURE(table->name);
                    for (std::size_t nq = 1; nq <= kTileQueries; ++nq) {
                        const float* asked = query_memory.place(
                            std::vector<float>(q.begin(), q.begin() + static_cast<std::ptrdiff_t>(nq * d)));
                        const auto wanted = nearest_by_sums(whole ? by_name("scalar").floats : table->floats, p, asked, nq);
                        for (const std::size_t group : {1, 2, 5, 16}) {
                            REQUIRE(nearest(table->floats, p, panels, asked, nq, group) == wanted);
                        }
                    }
                }
            }
        }
    }
}
