// SPDX-License-Identifier: Apache-2.0
// Which way a filtered search goes: what each way costs, by the work that it does and by what a unit of that
// work takes. The units belong to the index and its file, so a choice never depends on the clock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace residua::index {

enum class Plan : std::uint8_t { automatic, scan, cells, graph, filtered_graph };

Plan parse_plan(const std::string& name);  // throws value
const char* to_string(Plan plan);          // automatic is "auto"

// Nanoseconds. The automatic ones follow from the bytes that a unit of work reads.
struct PlanCosts {
    float row = 0;      // scoring a code wherever it lies
    float unit = 0;     // scoring a code of a unit
    float pack = 0;     // putting a code into a unit of codes that match
    float enter = 0;    // taking a row among the candidates of a scan
    float exact = 0;    // exact score of a vector that was gathered
    float gather = 0;   // gathering a vector
    float settle = 0;   // exact score of a candidate wherever it lies
    float hop = 0;      // a step of a walk
    float two_hops = 0; // a step of a walk that looks past rows that fail
    float start = 0;    // where a walk starts

    static constexpr std::array<const char*, 10> names() {
        return {"row", "unit", "pack", "enter", "exact", "gather", "settle", "hop", "two_hops", "start"};
    }
    std::array<float, 10> values() const { return {row, unit, pack, enter, exact, gather, settle, hop, two_hops, start}; }
    static PlanCosts from_values(std::span<const float> values);
};

// What there is to read: bytes of a code (0: vectors are walked over) and of a kept vector (0: none).
struct PlanSizes {
    std::size_t code_bytes = 0;
    std::size_t vector_bytes = 0;
    std::size_t degree = 0;   // of the graph
    std::size_t entries = 0;  // at which walks start
    bool turbo = false;       // neighbours' codes lie beside each list
    bool units = false;       // codes of all rows are kept in units
};

PlanCosts default_costs(const PlanSizes& sizes);

// The ways to score all matches.
enum class ScanWay : std::uint8_t {
    exact,   // matching vectors gathered for all queries
    packed,  // matching codes packed into units for all queries
    masked,  // units of all rows, where these are kept
    rows,    // matching codes one by one
    settle,  // every match is a candidate
};

// How a search is asked for; numbers of rows and queries.
struct ScanTask {
    std::size_t matches = 0;
    std::size_t queries = 1;   // that share the filter
    std::size_t keep = 0;      // candidates to settle
    std::size_t rows = 0;      // of the index
    std::size_t unit_rows = 0; // of units of all rows; 0: there are none
    bool has_codes = true;
    bool has_vectors = true;
};

struct ScanCost {
    ScanWay way = ScanWay::rows;
    double per_query = 0;  // ns
};

// The cheapest way.
ScanCost scan_cost(const PlanCosts& costs, const ScanTask& task);

// Rows that a plain walk keeps so that about `ef` of them match, if that is at all likely.
std::size_t widened(std::size_t ef, double local_rate, std::size_t n);

double graph_cost(const PlanCosts& costs, std::size_t beam, std::size_t keep);
double filtered_graph_cost(const PlanCosts& costs, std::size_t ef, std::size_t keep, double local_rate);

}  // namespace residua::index
