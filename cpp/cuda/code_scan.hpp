// SPDX-License-Identifier: Apache-2.0
// Codes of an index on the device, and the best of them for a batch of queries. One class per family of codecs:
//   LinearScan  scores are linear in small unsigned numbers: binary, recurrent and scalar codes (cuda/linear_scan.hpp)
//   LookupScan  scores are sums of table entries: product codes (cuda/lookup_scan.hpp)
//   FloatScan   codes are rows of floats (cuda/float_scan.hpp)
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "codec/codec.hpp"
#include "core/bitset.hpp"
#include "cuda/pools.hpp"
#include "cuda/runtime.hpp"
#include "index/code_device.hpp"

namespace residua::cuda {

using index::RowRange;

struct DeviceRanks;  // cuda/row_choice.hpp

// What may be found, and how it is told apart.
struct RowChoice {
    const Bitset* allowed = nullptr;                // nullptr: all rows
    std::span<const std::uint32_t> ranks = {};      // ties go to smaller ranks[row], a permutation; empty: to smaller rows
    int num_threads = 1;                            // that prepare queries
    const DeviceRanks* kept = nullptr;              // in place of `ranks`, where they are on the device already
};

class CodeScan {
public:
    virtual ~CodeScan() = default;

    // Replaces what the device holds; on failure it holds nothing.
    virtual void take(const codec::Codec& codec, codec::BlockView codes, int num_threads) = 0;
    virtual std::size_t rows() const = 0;
    virtual std::size_t device_bytes() const = 0;

    // Per query of `queries`, made by the codec, the `keep` best rows: best first, score and row, where there are any.
    // keep: 1 … Pools::kMostKept. Scores are those of the CPU: the same bits where they come from integers.
    virtual std::vector<std::vector<ScoredRow>> best(const codec::Scorer& queries, std::size_t keep, const RowChoice& choice) = 0;
    // The same among some rows of each query; ranges of a query do not overlap.
    virtual std::vector<std::vector<ScoredRow>> best_of(const codec::Scorer& queries, std::span<const RowRange> ranges, std::size_t keep,
                                                        const RowChoice& choice) = 0;
};

// For the family of the codec; throws ErrorKind::unsupported, naming the codec, where there is none.
std::unique_ptr<CodeScan> make_code_scan(Context& context, const codec::Codec& codec);

}  // namespace residua::cuda
