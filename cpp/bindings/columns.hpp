// SPDX-License-Identifier: Apache-2.0
// Columns and filter expressions between Python and C++, for every index.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

#include "filter/columns.hpp"

namespace residua::bindings {

namespace py = pybind11;

// [(name, type), …]
std::vector<filter::Field> to_fields(const std::vector<std::pair<std::string, std::string>>& fields);
py::list fields_to_python(std::span<const filter::Field> fields);

// One item per column, which residua._columns prepares: None for a column that is not named; int and
// datetime: (int64 values, uint8 nulls or None, whether they have a zone or None); float: float64
// values; bool: uint8 of 0, 1 and 255 for null; category and str: a list of str and None; tags: a list
// of sequences of str and None. The items must outlive the batch. Empty for None.
filter::Columns::Batch to_batch(const py::object& cells, std::span<const filter::Field> fields);
// The same items back.
py::list batch_to_python(const filter::Columns::Batch& batch, std::span<const filter::Field> fields);

}  // namespace residua::bindings
