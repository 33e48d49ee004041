// SPDX-License-Identifier: Apache-2.0
// What all indexes have in common, and the one place that reads any of them from a file.
#pragma once

#include <cstddef>
#include <memory>

#include "core/matrix.hpp"
#include "core/metric.hpp"
#include "index/search.hpp"
#include "store/container.hpp"
#include "store/id_map.hpp"

namespace residua::index {

class Index {
public:
    virtual ~Index() = default;

    virtual std::size_t dim() const = 0;
    virtual Metric metric() const = 0;
    virtual std::size_t size() const = 0;
    virtual store::IdKind id_kind() const = 0;

    // Queries are finite (and not zero under cosine); callers check (core/matrix_checks.hpp).
    virtual SearchResult search(ConstMatrix queries, const SearchParams& params) const = 0;

    // Rows and ids without a lock: for readers of an index that nobody changes.
    virtual const store::IdMap& id_map() const = 0;
};

// Whether the container holds an index rather than a codec.
bool holds_index(const store::Reader& in);

// Reads an index of any kind; the file's kind chooses the class.
std::shared_ptr<Index> read_index(const store::Reader& in);

}  // namespace residua::index
