// SPDX-License-Identifier: Apache-2.0
#include "filter/bind.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "core/error.hpp"

namespace residua::filter {
namespace {

std::string quoted(const std::string& name) { return "'" + name + "'"; }

struct Context {
    std::span<const Field> fields;
    const Field& field;
    const Expr& expr;

    [[noreturn]] void refuse(const std::string& why) const {
        throw Error(ErrorKind::dtype, "filter: column " + quoted(field.name) + " is " + to_string(field.kind) + ": " +
                                          why + "; the columns are " + list_fields(fields));
    }
    [[noreturn]] void refuse_op(const char* what_works) const {
        const bool one_tag = expr.op == Op::contains_all && expr.literals.size() == 1;
        refuse(std::string("'") + (one_tag ? "contains" : to_string(expr.op)) + "' does not apply to it, use " + what_works);
    }
    [[noreturn]] void refuse_literal(const Literal& l, const char* expected) const {
        refuse(std::string("cannot be compared with a ") + type_name(l) + ", expected " + expected);
    }
};

// The smallest value of T that is at least (or above) a number, the largest that is at most (or
// below) it; nothing where there is none.
template <class T>
struct Bounds {
    std::optional<T> at_least, above, at_most, below;
};

Bounds<double> bounds_of(const Number& n, double) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    Bounds<double> b{n.ceil, n.ceil, n.floor, n.floor};
    if (n.floor == n.ceil) {
        b.above = n.ceil == kInfinity ? std::nullopt : std::optional(std::nextafter(n.ceil, kInfinity));
        b.below = n.floor == -kInfinity ? std::nullopt : std::optional(std::nextafter(n.floor, -kInfinity));
    }
    return b;
}

Bounds<std::int64_t> bounds_of_whole(std::int64_t i) {
    constexpr auto kMin = std::numeric_limits<std::int64_t>::min(), kMax = std::numeric_limits<std::int64_t>::max();
    Bounds<std::int64_t> b{i, std::nullopt, i, std::nullopt};
    if (i != kMax) b.above = i + 1;
    if (i != kMin) b.below = i - 1;
    return b;
}

Bounds<std::int64_t> bounds_of(const Number& n, std::int64_t) {
    constexpr auto kMin = std::numeric_limits<std::int64_t>::min(), kMax = std::numeric_limits<std::int64_t>::max();
    if (n.whole) return bounds_of_whole(*n.whole);
    const double up = std::ceil(n.ceil), down = std::floor(n.floor);
    if (up >= 0x1p63) return {std::nullopt, std::nullopt, kMax, kMax};
    if (down < -0x1p63) return {kMin, kMin, std::nullopt, std::nullopt};
    Bounds<std::int64_t> b = bounds_of_whole(static_cast<std::int64_t>(up));
    if (up == down) return b;
    const Bounds<std::int64_t> lower = bounds_of_whole(static_cast<std::int64_t>(down));
    return {b.at_least, b.at_least, lower.at_most, lower.at_most};
}

template <class T>
using MaybeBounds = std::optional<Bounds<T>>;

// Nothing for null and NaN, with which every comparison is false.
template <class T>
MaybeBounds<T> bounds_of_literal(const Context& c, const Literal& l) {
    if (std::holds_alternative<Null>(l)) return std::nullopt;
    const auto* n = std::get_if<Number>(&l);
    if (n == nullptr) c.refuse_literal(l, "a number");
    if (std::isnan(n->floor)) return std::nullopt;
    return bounds_of(*n, T{});
}

MaybeBounds<std::int64_t> bounds_of_time(const Context& c, const Literal& l) {
    if (std::holds_alternative<Null>(l)) return std::nullopt;
    const Time* t = std::get_if<Time>(&l);
    if (const auto* text = std::get_if<Text>(&l)) {
        if (!text->time) c.refuse(quoted(text->value) + " is not a time as ISO 8601 writes it (2024-05-31T12:00:00)");
        t = &*text->time;
    }
    if (t == nullptr) c.refuse_literal(l, "a datetime, a date or their ISO 8601 text");
    if (c.field.zone != Zone::unknown && (c.field.zone == Zone::utc) != t->zoned) {
        c.refuse(t->zoned ? "its times have no zone and cannot be compared with one that has"
                          : "its times have a zone and cannot be compared with one that has none; give a zone, "
                            "such as tzinfo=timezone.utc or '+00:00'");
    }
    return bounds_of_whole(t->micros);
}

template <class T>
Condition ordered_condition(const Context& c, MaybeBounds<T> (*bounds)(const Context&, const Literal&)) {
    constexpr T kLow = std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity()
                                                            : std::numeric_limits<T>::min();
    constexpr T kHigh = std::numeric_limits<T>::has_infinity ? std::numeric_limits<T>::infinity()
                                                             : std::numeric_limits<T>::max();
    Ranges<T> out;
    const auto add = [&](std::optional<T> low, std::optional<T> high) {
        if (low && high) out.intervals.push_back({*low, *high});
    };
    const Op op = c.expr.op;
    if (op == Op::contains_any || op == Op::contains_all || op == Op::starts_with || op == Op::is_true) {
        c.refuse_op("==, !=, <, <=, >, >=, between, isin or is_null");
    }
    std::vector<MaybeBounds<T>> b;
    for (const Literal& l : c.expr.literals) b.push_back(bounds(c, l));
    const bool null = std::any_of(b.begin(), b.end(), [](const auto& x) { return !x; });
    if (op == Op::is_null) {
        out.null = true;
    } else if (op == Op::equal || op == Op::is_in) {
        for (const auto& x : b) {
            if (x) add(x->at_least, x->at_most);
        }
    } else if (!null) {
        if (op == Op::not_equal) {
            add(kLow, b[0]->below);
            add(b[0]->above, kHigh);
        }
        if (op == Op::less) add(kLow, b[0]->below);
        if (op == Op::at_most) add(kLow, b[0]->at_most);
        if (op == Op::more) add(b[0]->above, kHigh);
        if (op == Op::at_least) add(b[0]->at_least, kHigh);
        if (op == Op::between) add(b[0]->at_least, b[1]->at_most);
    }
    tidy(out.intervals);
    return out;
}

// By their first bytes as far as those differ: thousands of texts are named at times.
void sort_texts(std::vector<std::string>& texts) {
    if (std::is_sorted(texts.begin(), texts.end())) return;
    struct Item {
        std::uint64_t begin = 0;
        std::string* text = nullptr;
    };
    std::vector<Item> items;
    items.reserve(texts.size());
    for (std::string& text : texts) {
        items.push_back({0, &text});
        for (std::size_t i = 0; i < 8; ++i) {
            items.back().begin = items.back().begin << 8 | (i < text.size() ? static_cast<unsigned char>(text[i]) : 0u);
        }
    }
    std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
        return a.begin != b.begin ? a.begin < b.begin : *a.text < *b.text;
    });
    std::vector<std::string> sorted;
    sorted.reserve(texts.size());
    for (const Item& item : items) sorted.push_back(std::move(*item.text));
    texts = std::move(sorted);
}

Condition texts_of(std::vector<std::string> values, bool negated) {
    sort_texts(values);
    values.erase(std::unique(values.begin(), values.end()), values.end());
    return Texts{std::move(values), {}, negated, false};
}

// The texts among the literals; null is none of them.
std::vector<std::string> text_literals(const Context& c) {
    std::vector<std::string> out;
    for (const Literal& l : c.expr.literals) {
        if (std::holds_alternative<Null>(l)) continue;
        const auto* text = std::get_if<Text>(&l);
        if (text == nullptr) c.refuse_literal(l, "a str");
        out.push_back(text->value);
    }
    return out;
}

Condition single_text_condition(const Context& c) {
    std::vector<std::string> values = text_literals(c);
    switch (c.expr.op) {
        case Op::is_null: return Texts{{}, {}, false, true};
        case Op::equal:
        case Op::is_in: return texts_of(std::move(values), false);
        case Op::not_equal:
            // With null even "not equal" is false.
            return values.empty() ? texts_of({}, false) : texts_of(std::move(values), true);
        case Op::starts_with: return Texts{{}, std::move(values), false, false};
        default: c.refuse_op("==, !=, isin, startswith or is_null");
    }
}

Condition tags_condition(const Context& c) {
    std::vector<std::string> values = text_literals(c);
    switch (c.expr.op) {
        case Op::is_null: return Texts{{}, {}, false, true};
        case Op::contains_any: return texts_of(std::move(values), false);
        default: c.refuse_op("contains, contains_any, contains_all or is_null");
    }
}

Condition bool_condition(const Context& c) {
    std::vector<std::string> values;
    for (const Literal& l : c.expr.literals) {
        if (std::holds_alternative<Null>(l)) continue;
        const bool* flag = std::get_if<bool>(&l);
        if (flag == nullptr) c.refuse_literal(l, "True or False");
        values.emplace_back(*flag ? "true" : "false");
    }
    switch (c.expr.op) {
        case Op::is_null: return Texts{{}, {}, false, true};
        case Op::is_true: return texts_of({"true"}, false);
        case Op::equal:
        case Op::is_in: return texts_of(std::move(values), false);
        case Op::not_equal: return values.empty() ? texts_of({}, false) : texts_of({values[0] == "true" ? "false" : "true"}, false);
        default: c.refuse_op("==, !=, isin, is_null, or the column alone");
    }
}

std::size_t find_field(const std::string& name, std::span<const Field> fields) {
    for (std::size_t i = 0; i < fields.size(); ++i) {
        if (fields[i].name == name) return i;
    }
    throw Error(ErrorKind::value, "filter: there is no column " + quoted(name) + "; the columns are " + list_fields(fields));
}

Filter leaf(std::size_t column, Condition condition) {
    Filter f;
    f.column = column;
    f.condition = std::move(condition);
    return f;
}

// Merges conditions on one column, drops repetitions, and puts what is left in the order of its keys.
Filter join(Filter::Type type, std::vector<Filter> parts, std::span<const Field> fields) {
    std::vector<Filter> flat;
    const auto take = [&](Filter&& part) {
        for (Filter& known : flat) {
            const bool same = known.type == Filter::Type::condition && part.type == Filter::Type::condition &&
                              known.column == part.column;
            if (same && merge(known.condition, part.condition, type == Filter::Type::both,
                              fields[known.column].kind != Kind::tags)) {
                known.key = key_of(known.column, known.condition);
                return;
            }
        }
        flat.push_back(std::move(part));
    };
    for (Filter& part : parts) {
        if (part.type == type) {
            for (Filter& inner : part.parts) take(std::move(inner));
        } else {
            take(std::move(part));
        }
    }
    std::sort(flat.begin(), flat.end(), [](const Filter& a, const Filter& b) { return a.key < b.key; });
    flat.erase(std::unique(flat.begin(), flat.end(), [](const Filter& a, const Filter& b) { return a.key == b.key; }),
               flat.end());
    if (flat.size() == 1) return std::move(flat.front());
    Filter out;
    out.type = type;
    out.key = type == Filter::Type::both ? "&(" : "|(";
    for (const Filter& f : flat) out.key += std::to_string(f.key.size()) + ":" + f.key;
    out.key += ")";
    out.parts = std::move(flat);
    return out;
}

Filter bind(const Expr& expr, std::span<const Field> fields, bool negated);

// Every tag a condition of its own: rows have several.
Filter bind_all_tags(const Context& c, std::size_t column, bool negated) {
    const std::vector<std::string> tags = text_literals(c);
    const bool null = tags.size() < c.expr.literals.size();  // which no row contains
    std::vector<Condition> conditions;
    for (const std::string& tag : tags) conditions.push_back(texts_of({tag}, false));
    if (null || tags.empty()) conditions.assign(1, texts_of({}, !null));  // no row, or all that are not null
    std::vector<Filter> parts;
    for (const Condition& condition : conditions) {
        Filter f = leaf(column, negated ? negate(condition) : condition);
        f.key = key_of(column, f.condition);
        parts.push_back(std::move(f));
    }
    return join(negated ? Filter::Type::either : Filter::Type::both, std::move(parts), c.fields);
}

Filter bind_condition(const Expr& expr, std::span<const Field> fields, bool negated) {
    const std::size_t column = find_field(expr.column, fields);
    const Context c{fields, fields[column], expr};
    const auto condition = [&]() -> Condition {
        switch (c.field.kind) {
            case Kind::integer: return ordered_condition<std::int64_t>(c, &bounds_of_literal<std::int64_t>);
            case Kind::real: return ordered_condition<double>(c, &bounds_of_literal<double>);
            case Kind::datetime: return ordered_condition<std::int64_t>(c, &bounds_of_time);
            case Kind::boolean: return bool_condition(c);
            case Kind::tags: return tags_condition(c);
            default: return single_text_condition(c);
        }
    };
    if (c.field.kind == Kind::tags && expr.op == Op::contains_all) return bind_all_tags(c, column, negated);
    Filter f = leaf(column, condition());
    if (negated) f.condition = negate(f.condition);
    f.key = key_of(f.column, f.condition);
    return f;
}

Filter bind(const Expr& expr, std::span<const Field> fields, bool negated) {
    if (expr.type == Expr::Type::condition) return bind_condition(expr, fields, negated);
    if (expr.type == Expr::Type::negation) return bind(*expr.parts.front(), fields, !negated);
    std::vector<Filter> parts;
    for (const ExprPtr& part : expr.parts) parts.push_back(bind(*part, fields, negated));
    const bool both = (expr.type == Expr::Type::both) != negated;
    return join(both ? Filter::Type::both : Filter::Type::either, std::move(parts), fields);
}

}  // namespace

std::string list_fields(std::span<const Field> fields) {
    if (fields.empty()) return "none (the index was made without columns)";
    std::string out;
    for (const Field& f : fields) out += (out.empty() ? "" : ", ") + quoted(f.name) + " (" + to_string(f.kind) + ")";
    return out;
}

Filter bind(const Expr& expr, std::span<const Field> fields) { return bind(expr, fields, false); }

}  // namespace residua::filter
