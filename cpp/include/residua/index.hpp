// SPDX-License-Identifier: Apache-2.0
// The C++20 interface of Residua: residua.h with RAII, exceptions and spans. Everything here is inline
// over the C functions, so that no type of the standard library crosses the library's border and a
// program may use another compiler or standard library than the one that built it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <residua/residua.h>

namespace residua {
// The version keeps these names apart from those inside the library when it is linked statically.
inline namespace v1 {

class Error : public std::runtime_error {
public:
    Error(residua_status status, const char* text) : std::runtime_error(text), status_(status) {}
    residua_status status() const noexcept { return status_; }

private:
    residua_status status_;
};

enum class Metric : std::int32_t { cosine = RESIDUA_COSINE, ip = RESIDUA_IP, l2 = RESIDUA_L2 };
enum class Scoring : std::int32_t { asymmetric = RESIDUA_ASYMMETRIC, symmetric = RESIDUA_SYMMETRIC };

struct LoadOptions {
    bool mmap = false;         // map the file instead of reading it
    bool verify_full = false;  // with mmap: compare every checksum
};

inline constexpr std::int64_t kRerankAuto = 0;
inline constexpr std::int64_t kRerankNone = RESIDUA_RERANK_NONE;

struct SearchOptions {
    int num_threads = 0;                        // 0: the CPUs that the process may use
    Scoring scoring = Scoring::asymmetric;
    std::int64_t rerank = kRerankAuto;          // or kRerankNone, or how many candidates are settled exactly
    std::span<const std::uint8_t> filter = {};  // a bit per row, least significant first; empty: all rows
    std::int64_t nprobe = 0;                    // lists read per query, where there are lists; 0: automatic
};

// Rows of k results per query, best first; beyond counts[q] the ids are -1.
struct Hits {
    std::size_t k = 0;
    std::vector<std::int64_t> ids;  // rows, where the index has string ids
    std::vector<float> scores;
    std::vector<std::int64_t> counts;

    std::size_t queries() const noexcept { return counts.size(); }
    std::span<const std::int64_t> ids_of(std::size_t query) const { return row(ids, query); }
    std::span<const float> scores_of(std::size_t query) const { return row(scores, query); }

private:
    template <class T>
    std::span<const T> row(const std::vector<T>& values, std::size_t query) const {
        return std::span<const T>(values).subspan(query * k, static_cast<std::size_t>(counts.at(query)));
    }
};

// A loaded index; any number of threads may search it.
class Index {
public:
    static Index load(const std::string& path, LoadOptions options = {}) {
        // A path with a null byte would be cut short on its way through C.
        if (path.find('\0') != std::string::npos) throw Error(RESIDUA_INVALID_VALUE, "the path contains a null byte");
        residua_index* index = nullptr;
        const std::uint32_t flags = (options.mmap ? RESIDUA_LOAD_MMAP : 0u) |
                                    (options.verify_full ? RESIDUA_LOAD_VERIFY_FULL : 0u);
        check(residua_index_load(path.c_str(), flags, &index));
        return Index(index);
    }

    std::size_t dim() const noexcept { return info_.dim; }
    std::size_t size() const noexcept { return info_.rows; }
    Metric metric() const noexcept { return static_cast<Metric>(info_.metric); }
    bool has_string_ids() const noexcept { return info_.id_kind == RESIDUA_STRING_IDS; }

    // queries: row-major, a multiple of dim() floats.
    Hits search(std::span<const float> queries, std::size_t k, const SearchOptions& options = {}) const {
        const std::size_t n = queries_in(queries);
        if (k != 0 && n > std::numeric_limits<std::size_t>::max() / sizeof(std::int64_t) / k) {
            throw Error(RESIDUA_SHAPE, "queries.size() / dim() * k results are more than memory can hold");
        }
        Hits hits{k, std::vector<std::int64_t>(n * k), std::vector<float>(n * k), std::vector<std::int64_t>(n)};
        search_into(queries, k, options, hits.ids, hits.scores, hits.counts);
        return hits;
    }

    // The same without allocating results: ids holds k per query; scores and counts may be empty.
    void search_into(std::span<const float> queries, std::size_t k, const SearchOptions& options,
                     std::span<std::int64_t> ids, std::span<float> scores, std::span<std::int64_t> counts) const {
        const std::size_t n = queries_in(queries);
        need_room(ids.size(), n, k, "ids");
        if (!scores.empty()) need_room(scores.size(), n, k, "scores");
        if (!counts.empty()) need_room(counts.size(), n, 1, "counts");
        residua_search_options c{};
        c.size = sizeof c;
        c.num_threads = options.num_threads;
        c.scoring = static_cast<std::int32_t>(options.scoring);
        c.rerank = options.rerank;
        c.nprobe = options.nprobe;
        if (!options.filter.empty()) {
            if (options.filter.size() != (size() + 7) / 8) {
                throw Error(RESIDUA_SHAPE, "filter has another number of bytes than one bit per row needs");
            }
            c.filter = options.filter.data();
            c.filter_rows = size();
        }
        check(residua_index_search(index_.get(), queries.data(), n, dim(), k, &c, ids.data(),
                                   scores.empty() ? nullptr : scores.data(), counts.empty() ? nullptr : counts.data()));
    }

    // Ids of a row, counted as a filter counts them. The text lives as long as the index.
    std::int64_t int_id(std::size_t row) const {
        std::int64_t id = 0;
        check(residua_index_int_id(index_.get(), row, &id));
        return id;
    }
    std::string_view string_id(std::size_t row) const {
        const char* text = nullptr;
        std::size_t bytes = 0;
        check(residua_index_string_id(index_.get(), row, &text, &bytes));
        return {text, bytes};
    }

    // For calls of residua.h; still owned by this object.
    const residua_index* handle() const noexcept { return index_.get(); }

private:
    explicit Index(residua_index* index) : index_(index) {
        info_.size = sizeof info_;
        check(residua_index_get_info(index, &info_));
    }

    static void check(residua_status status) {
        if (status != RESIDUA_OK) throw Error(status, residua_last_error());
    }
    static void need_room(std::size_t given, std::size_t n, std::size_t k, const char* name) {
        if (n != 0 && given / n < k) {
            throw Error(RESIDUA_SHAPE, (std::string(name) + " has room for " + std::to_string(given) + " values, expected " +
                                        std::to_string(n) + " x " + std::to_string(k)).c_str());
        }
    }
    std::size_t queries_in(std::span<const float> queries) const {
        if (queries.size() % dim() != 0) {
            throw Error(RESIDUA_SHAPE, ("queries have " + std::to_string(queries.size()) +
                                        " floats, expected a multiple of " + std::to_string(dim())).c_str());
        }
        return queries.size() / dim();
    }

    struct Free {
        void operator()(residua_index* index) const noexcept { residua_index_free(index); }
    };
    std::unique_ptr<residua_index, Free> index_;
    residua_index_info info_{};
};

}  // namespace v1
}  // namespace residua
