// SPDX-License-Identifier: Apache-2.0
// What scans codes in place of the CPU: an index gives it its codes and prepared queries, and does everything else,
// from filters to exact scores, as it would without. A device keeps a copy of the codes of one index and replaces it
// where it is out of date.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "codec/codec.hpp"
#include "core/bitset.hpp"
#include "index/settle.hpp"

namespace residua::index {

// Names a state of codes and of the rows they belong to; a process has no two states of one name.
class CodeStamp {
public:
    CodeStamp() { renew(); }
    void renew() {
        static std::atomic<std::uint64_t> last{0};
        value_ = ++last;
    }
    std::uint64_t value() const { return value_; }  // never 0

private:
    std::uint64_t value_;
};

// Codes of an index while its lock is held.
struct CodesNow {
    std::shared_ptr<const codec::Codec> codec;
    codec::BlockView view;
    std::uint64_t stamp = 0;
    // Ties go to smaller ranks[row]: a permutation of 0 … n - 1, of this stamp. Empty: ties go to smaller rows.
    std::function<std::vector<std::uint32_t>()> ranks;
};

// Rows that a query reads, and what is added to their scores. `begin` is a multiple of codec::kBlockRows.
struct RowRange {
    std::uint32_t query;
    std::uint32_t begin, end;
    float term;
};

// Thread-safe. Failures change nothing but that the copy may be gone until the next call.
class CodeDevice {
public:
    virtual ~CodeDevice() = default;
    virtual std::string name() const = 0;        // "cuda:0"
    virtual std::size_t most_kept() const = 0;   // rows per query
    virtual std::size_t memory_bytes() const = 0;  // of the device, for codes

    // Copies the codes unless they are there. Throws unsupported for a codec that the device cannot score, and
    // out_of_memory.
    virtual void hold(const CodesNow& codes, int num_threads) = 0;
    // Per query the `keep` best allowed rows (1 … most_kept()), best first; allowed == nullptr: of all rows.
    // The scores are those of Scorer::scores, to the bit where they come from integers.
    virtual RowLists best(const CodesNow& codes, const codec::Scorer& queries, std::size_t keep, const Bitset* allowed,
                          int num_threads) = 0;
    // The same among some rows of each query; ranges of one query do not overlap.
    virtual RowLists best_of(const CodesNow& codes, const codec::Scorer& queries, std::span<const RowRange> ranges,
                             std::size_t keep, const Bitset* allowed, int num_threads) = 0;
};

// Queries that are prepared, and scored by a device, together: bounds the memory they take there.
inline constexpr std::size_t kDeviceQueries = 2048;

// Throws unsupported where the device cannot keep that many rows per query.
void check_kept(const CodeDevice& device, std::size_t keep);
// Places of n rows in the order of their ids.
std::vector<std::uint32_t> ranks_of(std::size_t n, const TieOrder& order);

}  // namespace residua::index
