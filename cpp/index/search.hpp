// SPDX-License-Identifier: Apache-2.0
// What every index is asked and what it answers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "filter/expr.hpp"
#include "index/plan.hpp"
#include "store/id_map.hpp"

namespace residua::index {

enum class Scoring : std::uint8_t { asymmetric, symmetric };

inline constexpr std::int64_t kAutoRerank = -1;

// Ids as users give and get them: integers or strings, never both.
struct IdList {
    store::IdKind kind = store::IdKind::integer;
    std::vector<std::int64_t> ints;
    std::vector<std::string> strings;

    std::size_t size() const { return kind == store::IdKind::string ? strings.size() : ints.size(); }
};

// A bit per live row, least significant first; shown, not owned.
struct RowBits {
    const std::uint8_t* bytes = nullptr;
    std::size_t rows = 0;
};

// Which rows a search may return: those of some ids (unknown ids allow nothing), a mask over the live
// rows in order of insertion, of bytes or of bits, or those whose columns fulfil an expression.
using Filter = std::variant<std::monostate, IdList, std::vector<std::uint8_t>, RowBits, filter::ExprPtr>;

// The first `dims` dims of what is scanned choose `keep` rows for the next stage.
struct FunnelStage {
    std::size_t dims = 0;
    std::size_t keep = 0;
};

class CodeDevice;

struct SearchParams {
    std::size_t k = 10;
    Scoring scoring = Scoring::asymmetric;
    std::int64_t rerank = kAutoRerank;  // 0: none; otherwise how many candidates are settled exactly
    const Filter* filter = nullptr;     // nullptr: all
    int num_threads = 1;
    std::size_t ef = 0;                 // rows that a walk over a graph keeps; 0: the index chooses
    std::size_t nprobe = 0;             // lists to read per query; 0: automatic
    std::vector<FunnelStage> funnel;    // coarse to fine; empty: all dims at once
    Plan plan = Plan::automatic;        // of those that the index has
    std::span<const Filter> filters;    // a graph index: in place of `filter`, query i takes filters[filter_of[i]]
    std::span<const std::uint32_t> filter_of;
    CodeDevice* device = nullptr;       // what scans the codes; nullptr: the CPU
};

// How one query was answered.
struct QueryNote {
    Plan plan = Plan::scan;
    bool fallback = false;       // another plan was tried first
    std::uint64_t matches = 0;
    std::uint64_t visited = 0;
    std::uint64_t reranked = 0;
    float local_rate = -1.0f;    // share of the rows near the query that match; below 0: nobody asked
    std::array<float, 3> costs{};  // estimated: scan, graph, filtered graph; ns, below 0: not estimated
};

// Best first; larger scores are better (l2: minus the squared distance).
struct SearchResult {
    std::vector<std::size_t> offsets;          // query i: [offsets[i], offsets[i + 1])
    std::vector<std::uint32_t> rows;           // where the ids stood during the search
    IdList ids;
    std::vector<float> scores;
    std::string plan;                          // "exact", "codes", "codes+rerank", "funnel", "cells…", "graph", …
    std::uint64_t matches = 0;                 // rows that are live and pass the filter
    std::uint64_t visited = 0;                 // rows per query
    std::uint64_t reranked = 0;                // candidates per query
    std::uint64_t nprobe = 0;                  // lists read per query, where there are lists
    std::vector<std::uint64_t> stages;         // rows per query that each stage of a funnel scored, the last included
    std::vector<QueryNote> notes;              // per query, where a graph index chose a plan: filters, few rows, scans
    bool counts_bits = false;                  // scores are dim - 2 hamming, whatever the metric
};

}  // namespace residua::index
