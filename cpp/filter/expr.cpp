// SPDX-License-Identifier: Apache-2.0
#include "filter/expr.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.hpp"

namespace residua::filter {
namespace {

// Deeper trees would need a stack that not every thread has.
constexpr std::uint32_t kMaxDepth = 500;

std::shared_ptr<Expr> with_parts(Expr::Type type, std::vector<ExprPtr> parts) {
    auto e = std::make_shared<Expr>();
    e->type = type;
    for (const ExprPtr& p : parts) e->depth = std::max(e->depth, p->depth + 1);
    if (e->depth > kMaxDepth) {
        throw Error(ErrorKind::value, "filter: nested more than " + std::to_string(kMaxDepth) +
                                          " deep; name many values with isin() or contains_any()");
    }
    e->parts = std::move(parts);
    return e;
}

// A chain of the same operator becomes one node, however long it is.
ExprPtr join(Expr::Type type, const ExprPtr& a, const ExprPtr& b) {
    std::vector<ExprPtr> parts;
    for (const ExprPtr& side : {a, b}) {
        if (side->type == type) {
            parts.insert(parts.end(), side->parts.begin(), side->parts.end());
        } else {
            parts.push_back(side);
        }
    }
    return with_parts(type, std::move(parts));
}

}  // namespace

Number Number::of(std::int64_t i) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const double d = static_cast<double>(i);
    const bool too_large = d >= 0x1p63;  // has no int64 to compare with
    if (!too_large && static_cast<std::int64_t>(d) == i) return {i, d, d};
    if (too_large || static_cast<std::int64_t>(d) > i) return {i, std::nextafter(d, -kInfinity), d};
    return {i, d, std::nextafter(d, kInfinity)};
}

const char* type_name(const Literal& literal) {
    constexpr const char* kNames[] = {"null", "bool", "number", "datetime", "str"};
    return kNames[literal.index()];
}

const char* to_string(Op op) {
    switch (op) {
        case Op::equal: return "==";
        case Op::not_equal: return "!=";
        case Op::less: return "<";
        case Op::at_most: return "<=";
        case Op::more: return ">";
        case Op::at_least: return ">=";
        case Op::between: return "between";
        case Op::is_in: return "isin";
        case Op::contains_any: return "contains_any";
        case Op::contains_all: return "contains_all";
        case Op::starts_with: return "startswith";
        case Op::is_null: return "is_null";
        case Op::is_true: return "use as a condition";
    }
    return "?";
}

ExprPtr Expr::condition_on(std::string column, Op op, std::vector<Literal> literals) {
    auto e = std::make_shared<Expr>();
    e->column = std::move(column);
    e->op = op;
    e->literals = std::move(literals);
    return e;
}

ExprPtr Expr::all_of(const ExprPtr& a, const ExprPtr& b) { return join(Type::both, a, b); }
ExprPtr Expr::any_of(const ExprPtr& a, const ExprPtr& b) { return join(Type::either, a, b); }
ExprPtr Expr::not_of(const ExprPtr& a) {
    if (a->type == Type::negation) return a->parts.front();
    return with_parts(Type::negation, {a});
}

}  // namespace residua::filter
