// SPDX-License-Identifier: Apache-2.0
// What an HNSWIndex is made of, and how it travels (docs/format.md).
#include "index/hnsw_index.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/error.hpp"
#include "core/parallel.hpp"

namespace residua::index {

HNSWIndex::HNSWIndex(std::size_t dim, Metric metric, store::VectorMode mode, bool wants_codec,
                     std::string codec_recipe, const GraphParams& params)
    : TableIndex(dim, metric, mode, wants_codec, std::move(codec_recipe)), params_(params), graph_(2 * params.m) {
    if (params.m < 2 || 2 * params.m > kMaxDegree) {
        throw Error(ErrorKind::value, "M must be 2 … 128, got " + std::to_string(params.m));
    }
    if (params.ef_construction < 1 || params.ef_construction > 65'536) {
        throw Error(ErrorKind::value, "ef_construction must be 1 … 65536, got " + std::to_string(params.ef_construction));
    }
    publish();
}

void HNSWIndex::publish() {
    auto view = std::make_shared<View>();
    view->graph = graph_.view();
    view->codes = codes_.view();
    view->edges = edges_.view();
    view->units = units_.view();
    const std::lock_guard lock(view_mutex_);
    view_ = std::move(view);
}

std::shared_ptr<const HNSWIndex::View> HNSWIndex::view() const {
    const std::lock_guard lock(view_mutex_);
    return view_;
}

std::vector<std::uint8_t> HNSWIndex::codes_of(std::span<const std::uint32_t> rows) const {
    const std::size_t bytes = codec_->code_bytes();
    std::vector<std::uint8_t> out(rows.size() * bytes);
    const auto v = view();  // a change may be moving its own
    for (std::size_t i = 0; i < rows.size(); ++i) {
        codec_->from_rows(v->codes.data + rows[i] * codec_->row_bytes(), 1, out.data() + i * bytes);
    }
    return out;
}

std::vector<float> HNSWIndex::decoded(std::span<const std::uint32_t> rows) const {
    std::vector<float> out(rows.size() * dim_);
    codec_->decode(codes_of(rows).data(), rows.size(), out.data(), 1);
    return out;
}

void HNSWIndex::add_memory(std::map<std::string, std::size_t>& parts) const {
    parts["codes"] = codes_.memory_bytes();
    parts["edges"] = edges_.memory_bytes();
    parts["units"] = units_.memory_bytes();
    parts["graph"] = graph_.memory_bytes() + live_.size() / 8;
}

void HNSWIndex::save_parts(store::Writer& out) const {
    out.put_int("m", static_cast<std::int64_t>(params_.m));
    out.put_int("ef_construction", static_cast<std::int64_t>(params_.ef_construction));
    out.put_int("turbo", params_.turbo ? 1 : 0);
    out.put_int("seed", static_cast<std::int64_t>(params_.seed));
    out.put<std::uint32_t>("graph.edges", graph_.edges().first(std::min(graph_.size(), ids_.rows()) * graph_.degree()));
    out.put<std::uint32_t>("graph.entries", graph_.entries());
    out.put<float>("graph.center", placement_.center);
    out.put_double("graph.largest_squared", placement_.largest_squared);
    if (costs_) {
        const auto values = costs_->values();
        out.put_copy<float>("plan.costs", values);
    }
    if (codec_) out.put<std::uint8_t>("codes", codes_.span().first(ids_.rows() * codec_->row_bytes()));
    if (codec_ && params_.turbo) {
        edges_.save(out);
        if (keeps_units()) units_.save(out);
    }
}

namespace {

// Every place names a row or ends the list, nothing follows the end, and no row names itself.
void check_edges(const store::Reader& in, std::span<const std::uint32_t> edges, std::size_t degree) {
    const std::size_t n = edges.size() / degree;
    for (std::size_t r = 0; r < n; ++r) {
        const std::uint32_t* list = edges.data() + r * degree;
        bool ended = false;
        for (std::size_t i = 0; i < degree; ++i) {
            if (list[i] == kNoRow) {
                ended = true;
            } else if (ended || list[i] >= n || list[i] == r) {
                in.fail("graph.edges", "row " + std::to_string(r) + " has a neighbour that cannot be");
            }
        }
    }
}

PlanCosts read_costs(const store::Reader& in) {
    const auto values = in.array<float>("plan.costs", PlanCosts::names().size());
    for (const float v : values) {
        if (!(v >= 0.0f && v < 1e12f)) in.fail("plan.costs", "a cost is not a number of nanoseconds");
    }
    return PlanCosts::from_values(values);
}

}  // namespace

std::shared_ptr<HNSWIndex> HNSWIndex::load(const store::Reader& in) {
    GraphParams params;
    params.m = static_cast<std::size_t>(in.get_int("m", 2, kMaxDegree / 2));
    params.ef_construction = static_cast<std::size_t>(in.get_int("ef_construction", 1, 65'536));
    params.turbo = in.get_int("turbo", 0, 1) == 1;
    params.seed = static_cast<std::uint64_t>(in.get_int("seed", 0, INT64_MAX));
    auto out = read_header(in, [&](Header h) {
        return std::make_shared<HNSWIndex>(h.dim, h.metric, h.mode, h.wants_codec, std::move(h.codec_recipe), params);
    });
    out->load_table(in);
    const std::size_t n = out->ids_.rows();
    const bool linked = out->codec_ != nullptr || !out->wants_codec_;
    const std::size_t degree = out->graph_.degree();
    const auto edges = in.array<std::uint32_t>("graph.edges", linked ? n * degree : 0);
    check_edges(in, edges, degree);
    const auto shown = in.array<std::uint32_t>("graph.entries");
    std::vector<std::uint32_t> entries(shown.begin(), shown.end());
    if (linked && (entries.empty() != (n == 0) && out->ids_.size() > 0)) in.fail("graph.entries", "there are none");
    if (entries.size() > n || std::any_of(entries.begin(), entries.end(), [n](std::uint32_t r) { return r >= n; })) {
        in.fail("graph.entries", "names a row that is not there");
    }
    if (in.has("plan.costs")) out->costs_ = read_costs(in);
    const auto center = in.array<float>("graph.center");
    if (!center.empty() && center.size() != out->dim_) in.fail("graph.center", "expected a value per dim");
    out->placement_.metric = out->metric_;
    out->placement_.center.assign(center.begin(), center.end());
    out->placement_.largest_squared = in.get_double("graph.largest_squared");
    if (out->codec_) {
        const auto codes = in.array<std::uint8_t>("codes", n * out->codec_->row_bytes());
        out->codes_ = GrowArray<std::uint8_t>(codes, in.keep_alive("codes"));
    }
    out->graph_ = Graph(degree, GrowArray<std::uint32_t>(edges, in.keep_alive("graph.edges")), std::move(entries));
    if (out->codec_ && params.turbo) {
        out->edges_ = EdgeStore(*out->codec_);
        const auto code = out->code_of(*out->codec_);
        out->edges_.load(in, *out->codec_, out->graph_, code);
        if (in.has("units")) {
            out->units_.load(in, *out->codec_, n);
        } else if (out->keeps_units()) {  // a file of an earlier version
            std::vector<std::uint32_t> all(n);
            std::iota(all.begin(), all.end(), 0u);
            out->units_.commit(out->units_.prepare(*out->codec_, n, all, code, default_num_threads()));
        }
    }
    out->live_.resize(n);
    for (const std::uint32_t r : out->ids_.live_rows()) out->live_.set(r);
    out->unrepaired_ = n - out->ids_.size();
    out->publish();
    return out;
}

HNSWIndex::Shape HNSWIndex::shape() const {
    const std::lock_guard writing(writing_);
    std::shared_lock lock(mutex_);
    Shape shape;
    std::vector<std::uint8_t> met(graph_.size());
    std::vector<std::uint32_t> queue(graph_.entries().begin(), graph_.entries().end());
    shape.entries = queue.size();
    for (const std::uint32_t r : queue) met[r] = 1;
    while (!queue.empty()) {
        const std::uint32_t row = queue.back();
        queue.pop_back();
        for (const std::uint32_t next : graph_.neighbours(row)) {
            if (met[next] == 0) queue.push_back(next);
            met[next] = 1;
        }
    }
    for (std::uint32_t r = 0; r < graph_.size(); ++r) {
        if (!live_.test(r)) continue;
        shape.unreachable += met[r] == 0;
        for (const std::uint32_t next : graph_.neighbours(r)) {
            ++shape.edges;
            shape.to_removed += !live_.test(next);
        }
    }
    return shape;
}

}  // namespace residua::index
