// SPDX-License-Identifier: Apache-2.0
#include "index/plan.hpp"

#include <algorithm>
#include <cmath>

#include "core/error.hpp"

namespace residua::index {
namespace {

constexpr double kMaxWiden = 16.0;
constexpr double kSlowBeam = 4000.0;  // rows of a beam with which keeping it in order costs as much as the steps
constexpr double kLeastRate = 0.04;   // below it, what is two steps away holds too few matches to lead on
constexpr double kNever = 1e18;
constexpr std::array<const char*, 5> kPlans = {"auto", "scan", "cells", "graph", "filtered_graph"};

}  // namespace

Plan parse_plan(const std::string& name) {
    for (std::size_t i = 0; i < kPlans.size(); ++i) {
        if (name == kPlans[i]) return static_cast<Plan>(i);
    }
    throw Error(ErrorKind::value, "plan must be 'auto', 'scan', 'cells', 'graph' or 'filtered_graph', got '" + name + "'");
}

const char* to_string(Plan plan) { return kPlans[static_cast<std::size_t>(plan)]; }

PlanCosts PlanCosts::from_values(std::span<const float> v) {
    return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9]};
}

PlanCosts default_costs(const PlanSizes& s) {
    const auto code = static_cast<float>(s.code_bytes), vector = static_cast<float>(s.vector_bytes);
    const auto degree = static_cast<float>(s.degree), entries = static_cast<float>(s.entries);
    PlanCosts c;
    c.exact = 4.0f + vector / 128.0f;
    c.gather = 40.0f + vector / 12.0f;
    c.settle = 20.0f + vector / 25.0f;
    c.row = s.code_bytes == 0 ? c.settle : 10.0f + code / 8.0f;
    c.unit = 0.2f + code / 40.0f;
    c.pack = s.units ? 15.0f + code / 2.0f : 26.0f * code;
    c.enter = 30.0f;
    c.hop = 60.0f + degree * (s.turbo ? 1.0f + code / 12.0f : 0.5f * (c.row + 4.0f));
    c.two_hops = degree * (35.0f + c.row);
    c.start = s.turbo ? entries * (0.5f + code / 25.0f) : entries * c.row;
    return c;
}

ScanCost scan_cost(const PlanCosts& c, const ScanTask& t) {
    const auto m = static_cast<double>(t.matches), q = static_cast<double>(std::max<std::size_t>(1, t.queries));
    const double settle = t.has_vectors ? static_cast<double>(std::min(t.keep, t.matches)) * c.settle : 0.0;
    ScanCost best{ScanWay::rows, m * c.row + settle};
    const auto offer = [&](ScanWay way, double cost) {
        if (cost < best.per_query) best = {way, cost};
    };
    const double kept = static_cast<double>(std::min(t.keep, t.matches));
    const double enter = kept * (1.0 + std::log(std::max(1.0, m / std::max(1.0, kept)))) * c.enter;
    if (t.has_vectors && (t.matches <= t.keep || !t.has_codes)) best = {ScanWay::settle, m * c.settle};
    if (t.has_codes) offer(ScanWay::packed, m * (c.unit + c.pack / q) + enter + settle);
    if (t.has_codes && t.unit_rows > 0) {
        const auto n = static_cast<double>(t.rows), per_unit = static_cast<double>(t.unit_rows);
        const double read = 1.0 - std::pow(1.0 - std::min(1.0, m / std::max(1.0, n)), per_unit);
        offer(ScanWay::masked, n * (read * c.unit + 1.0 / per_unit) + enter + settle);
    }
    if (t.has_vectors) offer(ScanWay::exact, m * (c.exact + c.gather / q));
    return best;
}

std::size_t widened(std::size_t ef, double local_rate, std::size_t n) {
    const double factor = std::min(kMaxWiden, 1.0 / std::max(local_rate, 1e-9));
    return std::min(n, static_cast<std::size_t>(std::ceil(static_cast<double>(ef) * factor)));
}

double graph_cost(const PlanCosts& c, std::size_t beam, std::size_t keep) {
    const auto steps = static_cast<double>(beam);
    return c.start + steps * c.hop * (1.0 + steps / kSlowBeam) + static_cast<double>(keep) * c.settle;
}

double filtered_graph_cost(const PlanCosts& c, std::size_t ef, std::size_t keep, double local_rate) {
    if (local_rate < kLeastRate) return kNever;
    // Where most neighbours pass, nothing is looked at beyond them.
    const double past = std::clamp(1.5 * (1.0 - local_rate), 0.45, 1.0);
    return c.start + static_cast<double>(ef) * c.two_hops * past + static_cast<double>(keep) * c.settle;
}

}  // namespace residua::index
