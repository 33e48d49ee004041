// SPDX-License-Identifier: Apache-2.0
// Conditions on one column in a closed form: their negation, and often the union or intersection of
// two, is of the same form. So equal filters, however written, become equal trees.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace residua::filter {

// A column's type.
enum class Kind : std::uint8_t { integer, real, boolean, category, tags, text, datetime };

Kind parse_kind(const std::string& name);  // "int", "float", …; throws value
const char* to_string(Kind kind);

template <class T>
struct Interval {  // closed
    T low, high;
    bool operator==(const Interval&) const = default;
};

// Values in disjoint intervals, ascending, none adjacent to the next; and null or not.
template <class T>
struct Ranges {
    std::vector<Interval<T>> intervals;
    bool null = false;
};

// Values (or, of tags, any of them) among `values`, ascending, or beginning with one of `prefixes`;
// all others where `negated`; and null or not.
struct Texts {
    std::vector<std::string> values;
    std::vector<std::string> prefixes;
    bool negated = false;
    bool null = false;
};

using Condition = std::variant<Ranges<std::int64_t>, Ranges<double>, Texts>;

// A filter bound to the columns of a table.
struct Filter {
    enum class Type : std::uint8_t { condition, both, either };

    Type type = Type::condition;
    std::size_t column = 0;
    Condition condition;
    std::vector<Filter> parts;
    std::string key;  // equal for equal filters, and only then
};

template <class T>
Ranges<T> complement(const Ranges<T>& a);
template <class T>
Ranges<T> unite(const Ranges<T>& a, const Ranges<T>& b);
template <class T>
Ranges<T> intersect(const Ranges<T>& a, const Ranges<T>& b);
// Brings intervals in any order into the form above.
template <class T>
void tidy(std::vector<Interval<T>>& intervals);

Condition negate(const Condition& c);
// Puts `b` into `a` where one condition says both (or either); false where none does. single_valued:
// rows have one value at most, unlike rows of tags.
bool merge(Condition& a, const Condition& b, bool both, bool single_valued);

// What tells conditions apart, as bytes.
std::string key_of(std::size_t column, const Condition& c);

}  // namespace residua::filter
