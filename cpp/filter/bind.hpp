// SPDX-License-Identifier: Apache-2.0
// From an expression to a filter on the columns of a table: names and types are checked, NOT is
// pushed down to the conditions, chains are flattened, conditions on one column merged, and what is
// left is put in one order.
#pragma once

#include <span>
#include <string>

#include "filter/condition.hpp"
#include "filter/expr.hpp"

namespace residua::filter {

enum class Zone : std::uint8_t { unknown, none, utc };  // of the times in a datetime column

struct Field {
    std::string name;
    Kind kind = Kind::integer;
    Zone zone = Zone::unknown;
};

// "'year' (int), 'tags' (tags)", for messages.
std::string list_fields(std::span<const Field> fields);

// Throws value for an unknown column, dtype for a comparison that its type does not have.
Filter bind(const Expr& expr, std::span<const Field> fields);

}  // namespace residua::filter
