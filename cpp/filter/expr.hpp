// SPDX-License-Identifier: Apache-2.0
// Filter expressions as users write them: names, operators and literals, not yet bound to columns.
// Immutable and shared; anything said twice may be the same node.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace residua::filter {

// A number of any size: exactly `whole`, or between two neighbouring doubles (equal where it is one).
struct Number {
    std::optional<std::int64_t> whole;
    double floor = 0;
    double ceil = 0;

    static Number of(std::int64_t i);
    static Number of(double x) { return {std::nullopt, x, x}; }
};

// Microseconds since 1970; `zoned` times are in UTC, others on the clock of whoever wrote them.
struct Time {
    std::int64_t micros = 0;
    bool zoned = false;
};

// Text, and the time that it spells where it spells one (ISO 8601).
struct Text {
    std::string value;
    std::optional<Time> time;
};

struct Null {};

using Literal = std::variant<Null, bool, Number, Time, Text>;

// "bool", "number", "datetime", "str" or "null".
const char* type_name(const Literal& literal);

enum class Op : std::uint8_t {
    equal,
    not_equal,
    less,
    at_most,
    more,
    at_least,
    between,       // two literals, both inclusive
    is_in,         // any of the literals
    contains_any,
    contains_all,
    starts_with,   // one text
    is_null,
    is_true,       // a bool column standing alone
};

// As in messages: ">=", "isin", …
const char* to_string(Op op);

struct Expr;
using ExprPtr = std::shared_ptr<const Expr>;

struct Expr {
    enum class Type : std::uint8_t { condition, both, either, negation };

    Type type = Type::condition;
    std::string column;             // condition
    Op op = Op::is_null;
    std::vector<Literal> literals;
    std::vector<ExprPtr> parts;     // both, either: at least one; negation: one
    std::uint32_t depth = 1;

    static ExprPtr condition_on(std::string column, Op op, std::vector<Literal> literals = {});
    static ExprPtr all_of(const ExprPtr& a, const ExprPtr& b);
    static ExprPtr any_of(const ExprPtr& a, const ExprPtr& b);
    static ExprPtr not_of(const ExprPtr& a);
};

}  // namespace residua::filter
