// SPDX-License-Identifier: Apache-2.0
// residua.h over cpp/index: arguments are checked, searched, and copied into the caller's buffers.
#include <residua/residua.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "capi/error_text.hpp"
#include "capi/sized_struct.hpp"
#include "core/error.hpp"
#include "core/matrix_checks.hpp"
#include "core/parallel.hpp"
#include "index/index.hpp"

using residua::ConstMatrix;
using residua::Error;
using residua::ErrorKind;
using residua::Metric;
using residua::capi::guarded;
using residua::capi::need;
using residua::index::SearchParams;
using residua::index::SearchResult;

struct residua_index {
    std::shared_ptr<const residua::index::Index> index;
    // Places of the live rows, ascending; empty when none was removed. A row of the interface is an
    // index into it.
    std::vector<std::uint32_t> live;

    std::size_t size() const { return index->size(); }
    bool has_strings() const { return index->id_kind() == residua::store::IdKind::string; }
    std::int64_t row_of(std::uint32_t place) const {
        return live.empty() ? place : std::lower_bound(live.begin(), live.end(), place) - live.begin();
    }
    std::uint32_t place_of(std::size_t row) const {
        if (row >= size()) {
            throw Error(ErrorKind::value, "row is " + std::to_string(row) + ", the index has " + std::to_string(size()) +
                                              " rows, numbered from 0");
        }
        return live.empty() ? static_cast<std::uint32_t>(row) : live[row];
    }
};

namespace {

constexpr std::size_t kOldestInfo = offsetof(residua_index_info, id_kind) + sizeof(std::int32_t);
constexpr std::size_t kOldestOptions = offsetof(residua_search_options, filter_rows) + sizeof(std::size_t);
constexpr std::size_t kMaxK = std::numeric_limits<std::int32_t>::max();
constexpr int kMaxThreads = 4096;

[[noreturn]] void refuse(ErrorKind kind, const std::string& text) { throw Error(kind, text); }

std::string text_of(std::int64_t value) { return std::to_string(value); }

// What the caller wants of a search; the parameters point to the filter beside them.
struct Request {
    residua::index::Filter filter;
    SearchParams params;

    Request(const residua_index& index, std::size_t k, const residua_search_options* given) {
        residua_search_options options{};
        if (given != nullptr) options = residua::capi::read_sized(given, kOldestOptions, "residua_search_options");
        params.k = k;
        take_scoring(options);
        if (options.num_threads < 0 || options.num_threads > kMaxThreads) {
            refuse(ErrorKind::value, "num_threads is " + text_of(options.num_threads) +
                                         ", expected 1 to 4096, or 0 for the CPUs that the process may use");
        }
        params.num_threads = residua::resolve_num_threads(options.num_threads);
        take_nprobe(options);
        take_filter(index, options);
    }
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;

private:
    void take_scoring(const residua_search_options& options) {
        if (options.scoring != RESIDUA_ASYMMETRIC && options.scoring != RESIDUA_SYMMETRIC) {
            refuse(ErrorKind::value, "scoring is " + text_of(options.scoring) +
                                         ", expected RESIDUA_ASYMMETRIC (0) or RESIDUA_SYMMETRIC (1)");
        }
        params.scoring = options.scoring == RESIDUA_SYMMETRIC ? residua::index::Scoring::symmetric
                                                              : residua::index::Scoring::asymmetric;
        if (options.rerank < RESIDUA_RERANK_NONE || options.rerank > static_cast<std::int64_t>(kMaxK)) {
            refuse(ErrorKind::value, "rerank is " + text_of(options.rerank) +
                                         ", expected 0 (automatic), RESIDUA_RERANK_NONE (-1), or how many candidates");
        }
        params.rerank = options.rerank == 0                     ? residua::index::kAutoRerank
                        : options.rerank == RESIDUA_RERANK_NONE ? 0
                                                                : options.rerank;
    }
    void take_nprobe(const residua_search_options& options) {
        if (options.nprobe < 0 || options.nprobe > static_cast<std::int64_t>(kMaxK)) {
            refuse(ErrorKind::value, "nprobe is " + text_of(options.nprobe) +
                                         ", expected 0 (automatic), or 1 to 2147483647 lists per query");
        }
        params.nprobe = static_cast<std::size_t>(options.nprobe);
    }
    void take_filter(const residua_index& index, const residua_search_options& options) {
        if (options.filter == nullptr && options.filter_rows != 0) {
            refuse(ErrorKind::value, "filter is NULL, but filter_rows is " + std::to_string(options.filter_rows) +
                                         "; expected 0, or a filter");
        }
        if (options.filter == nullptr) return;
        if (options.filter_rows != index.size()) {
            refuse(ErrorKind::shape, "filter_rows is " + std::to_string(options.filter_rows) +
                                         ", expected one bit per row of the index: " + std::to_string(index.size()));
        }
        filter = residua::index::RowBits{options.filter, options.filter_rows};
        params.filter = &filter;
    }
};

// Queries under the same rules as Python's.
ConstMatrix checked_queries(const residua_index& index, const float* queries, std::size_t n, std::size_t dim) {
    if (dim != index.index->dim()) {
        refuse(ErrorKind::shape, "queries have " + std::to_string(dim) + " dims, the index " +
                                     std::to_string(index.index->dim()));
    }
    if (n > std::numeric_limits<std::ptrdiff_t>::max() / sizeof(float) / dim) {
        refuse(ErrorKind::shape, "n_queries is " + std::to_string(n) + ", more than memory can hold");
    }
    if (n > 0) need(queries, "queries");
    const ConstMatrix q(queries, n, dim);
    if (const auto bad = residua::first_non_finite_row(q)) {
        refuse(ErrorKind::non_finite, "queries: row " + std::to_string(*bad) + " contains NaN or infinity");
    }
    if (index.index->metric() != Metric::cosine) return q;
    if (const auto bad = residua::first_zero_row(q)) {
        refuse(ErrorKind::value, "queries: row " + std::to_string(*bad) +
                                     " is a zero vector, which has no cosine; remove it or use an index of 'ip'");
    }
    return q;
}

void check_buffers(std::size_t n, std::size_t k, const std::int64_t* ids) {
    if (k < 1 || k > kMaxK) {
        refuse(ErrorKind::value, "k is " + std::to_string(k) + ", expected 1 to 2147483647");
    }
    if (n > std::numeric_limits<std::ptrdiff_t>::max() / sizeof(std::int64_t) / k) {
        refuse(ErrorKind::shape, std::to_string(n) + " queries of k = " + std::to_string(k) +
                                     " results are more than memory can hold");
    }
    if (n > 0) need(ids, "ids");
}

// Into rows of k; what is left over says that there is nothing.
void copy_out(const residua_index& index, const SearchResult& r, std::size_t k, std::int64_t* ids, float* scores,
              std::int64_t* counts) {
    const Metric metric = r.counts_bits ? Metric::ip : index.index->metric();
    const bool strings = index.has_strings();
    for (std::size_t q = 0; q + 1 < r.offsets.size(); ++q, ids += k) {
        const std::size_t begin = r.offsets[q];
        const std::size_t found = r.offsets[q + 1] - begin;
        for (std::size_t i = 0; i < found; ++i) {
            ids[i] = strings ? index.row_of(r.rows[begin + i]) : r.ids.ints[begin + i];
        }
        std::fill(ids + found, ids + k, -1);
        if (scores != nullptr) {
            for (std::size_t i = 0; i < found; ++i) scores[i] = residua::public_score(metric, r.scores[begin + i]);
            std::fill(scores + found, scores + k, residua::public_score(metric, residua::kWorstScore));
            scores += k;
        }
        if (counts != nullptr) counts[q] = static_cast<std::int64_t>(found);
    }
}

void check_id_kind(const residua_index& index, bool strings) {
    if (index.has_strings() != strings) {
        refuse(ErrorKind::dtype, strings ? "this index has integer ids; use residua_index_int_id()"
                                         : "this index has string ids; use residua_index_string_id()");
    }
}

}  // namespace

const char* residua_version(void) { return RESIDUA_VERSION; }

const char* residua_last_error(void) { return residua::capi::last_text(); }

residua_status residua_index_load(const char* path, std::uint32_t flags, residua_index** index) {
    return guarded([&] {
        need(path, "path");
        need(index, "index");
        constexpr std::uint32_t kKnown = RESIDUA_LOAD_MMAP | RESIDUA_LOAD_VERIFY_FULL;
        if ((flags & ~kKnown) != 0) {
            refuse(ErrorKind::value, "flags are " + std::to_string(flags) +
                                         ", expected 0, RESIDUA_LOAD_MMAP (1), RESIDUA_LOAD_VERIFY_FULL (2), or both");
        }
        residua::store::OpenOptions options;
        options.mmap = (flags & RESIDUA_LOAD_MMAP) != 0;
        options.verify = (flags & RESIDUA_LOAD_VERIFY_FULL) != 0 ? residua::store::Verify::full
                                                                 : residua::store::Verify::quick;
        auto out = std::make_unique<residua_index>();
        out->index = residua::index::read_index(residua::store::Reader::open(path, options));
        const residua::store::IdMap& map = out->index->id_map();
        if (map.size() != map.rows()) out->live = map.live_rows();
        *index = out.release();
    });
}

void residua_index_free(residua_index* index) { delete index; }

residua_status residua_index_get_info(const residua_index* index, residua_index_info* info) {
    return guarded([&] {
        need(index, "index");
        need(info, "info");
        residua_index_info out{};
        out.dim = index->index->dim();
        out.rows = index->size();
        out.metric = static_cast<std::int32_t>(index->index->metric());
        out.id_kind = index->has_strings() ? RESIDUA_STRING_IDS : RESIDUA_INTEGER_IDS;
        residua::capi::write_sized(out, info, kOldestInfo, "residua_index_info");
    });
}

residua_status residua_index_search(const residua_index* index, const float* queries, std::size_t n_queries,
                                    std::size_t dim, std::size_t k, const residua_search_options* options,
                                    std::int64_t* ids, float* scores, std::int64_t* counts) {
    return guarded([&] {
        need(index, "index");
        check_buffers(n_queries, k, ids);
        const ConstMatrix q = checked_queries(*index, queries, n_queries, dim);
        const Request request(*index, k, options);
        if (n_queries == 0) return;
        copy_out(*index, index->index->search(q, request.params), k, ids, scores, counts);
    });
}

residua_status residua_index_int_id(const residua_index* index, std::size_t row, std::int64_t* id) {
    return guarded([&] {
        need(index, "index");
        need(id, "id");
        check_id_kind(*index, false);
        *id = index->index->id_map().int_id(index->place_of(row));
    });
}

residua_status residua_index_string_id(const residua_index* index, std::size_t row, const char** text,
                                       std::size_t* bytes) {
    return guarded([&] {
        need(index, "index");
        need(text, "text");
        need(bytes, "bytes");
        check_id_kind(*index, true);
        const std::string_view id = index->index->id_map().string_id(index->place_of(row));
        *text = id.data();
        *bytes = id.size();
    });
}
