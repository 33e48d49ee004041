// SPDX-License-Identifier: Apache-2.0
#include "filter/condition.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>

#include "core/error.hpp"

namespace residua::filter {
namespace {

constexpr std::pair<Kind, const char*> kKinds[] = {
    {Kind::integer, "int"}, {Kind::real, "float"}, {Kind::boolean, "bool"},      {Kind::category, "category"},
    {Kind::tags, "tags"},   {Kind::text, "str"},   {Kind::datetime, "datetime"},
};

template <class T>
constexpr T lowest() {
    return std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::min();
}
template <class T>
constexpr T highest() {
    return std::numeric_limits<T>::has_infinity ? std::numeric_limits<T>::infinity() : std::numeric_limits<T>::max();
}

std::int64_t after(std::int64_t x) { return x + 1; }
std::int64_t before(std::int64_t x) { return x - 1; }
double after(double x) { return std::nextafter(x, highest<double>()); }
double before(double x) { return std::nextafter(x, lowest<double>()); }

template <class T>
void append_bytes(std::string& out, const T& value) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    out.append(bytes, sizeof(T));
}

template <class T>
void append_ranges(std::string& out, const Ranges<T>& r) {
    out += r.null ? '1' : '0';
    append_bytes(out, r.intervals.size());
    for (const Interval<T>& i : r.intervals) {
        append_bytes(out, i.low == 0 ? T{0} : i.low);  // 0.0 and -0.0 are one value
        append_bytes(out, i.high == 0 ? T{0} : i.high);
    }
}

void append_texts(std::string& out, const std::vector<std::string>& texts) {
    append_bytes(out, texts.size());
    for (const std::string& t : texts) {
        append_bytes(out, t.size());
        out += t;
    }
}

std::vector<std::string> united(const std::vector<std::string>& a, const std::vector<std::string>& b) {
    std::vector<std::string> out;
    std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
    return out;
}

bool merge_texts(Texts& a, const Texts& b, bool both, bool single_valued) {
    // "any of A or any of B" is "any of both"; "none of A and none of B" is "none of both".
    if (a.negated == b.negated && a.negated == both) {
        a.values = united(a.values, b.values);
        a.prefixes = united(a.prefixes, b.prefixes);
        a.null = both ? a.null && b.null : a.null || b.null;
        return true;
    }
    const bool plain = !a.negated && !b.negated && a.prefixes.empty() && b.prefixes.empty();
    if (!(both && single_valued && plain)) return false;
    std::vector<std::string> common;
    std::set_intersection(a.values.begin(), a.values.end(), b.values.begin(), b.values.end(),
                          std::back_inserter(common));
    a.values = std::move(common);
    a.null = a.null && b.null;
    return true;
}

}  // namespace

Kind parse_kind(const std::string& name) {
    std::string known;
    for (const auto& [kind, text] : kKinds) {
        if (name == text) return kind;
        known += (known.empty() ? "'" : ", '") + std::string(text) + "'";
    }
    throw Error(ErrorKind::value, "columns: '" + name + "' is not a type of column, expected one of " + known);
}

const char* to_string(Kind kind) { return kKinds[static_cast<std::size_t>(kind)].second; }

template <class T>
void tidy(std::vector<Interval<T>>& intervals) {
    std::erase_if(intervals, [](const Interval<T>& i) { return !(i.low <= i.high); });
    std::sort(intervals.begin(), intervals.end(), [](const auto& a, const auto& b) { return a.low < b.low; });
    std::size_t n = 0;
    for (const Interval<T>& i : intervals) {
        const bool joins = n > 0 && (intervals[n - 1].high >= i.low || after(intervals[n - 1].high) == i.low);
        if (joins) {
            intervals[n - 1].high = std::max(intervals[n - 1].high, i.high);
        } else {
            intervals[n++] = i;
        }
    }
    intervals.resize(n);
}

template <class T>
Ranges<T> complement(const Ranges<T>& a) {
    Ranges<T> out;
    out.null = !a.null;
    T low = lowest<T>();
    for (const Interval<T>& i : a.intervals) {
        if (i.low > low) out.intervals.push_back({low, before(i.low)});
        if (i.high >= highest<T>()) return out;
        low = after(i.high);
    }
    out.intervals.push_back({low, highest<T>()});
    return out;
}

template <class T>
Ranges<T> unite(const Ranges<T>& a, const Ranges<T>& b) {
    Ranges<T> out = a;
    out.intervals.insert(out.intervals.end(), b.intervals.begin(), b.intervals.end());
    tidy(out.intervals);
    out.null = a.null || b.null;
    return out;
}

template <class T>
Ranges<T> intersect(const Ranges<T>& a, const Ranges<T>& b) {
    Ranges<T> out;
    out.null = a.null && b.null;
    for (std::size_t i = 0, j = 0; i < a.intervals.size() && j < b.intervals.size();) {
        const Interval<T> common{std::max(a.intervals[i].low, b.intervals[j].low),
                                 std::min(a.intervals[i].high, b.intervals[j].high)};
        if (common.low <= common.high) out.intervals.push_back(common);
        a.intervals[i].high < b.intervals[j].high ? ++i : ++j;
    }
    return out;
}

template void tidy(std::vector<Interval<std::int64_t>>&);
template void tidy(std::vector<Interval<double>>&);
template Ranges<std::int64_t> complement(const Ranges<std::int64_t>&);
template Ranges<double> complement(const Ranges<double>&);

Condition negate(const Condition& c) {
    if (const auto* texts = std::get_if<Texts>(&c)) {
        Texts out = *texts;
        out.negated = !out.negated;
        out.null = !out.null;
        return out;
    }
    if (const auto* whole = std::get_if<Ranges<std::int64_t>>(&c)) return complement(*whole);
    return complement(std::get<Ranges<double>>(c));
}

bool merge(Condition& a, const Condition& b, bool both, bool single_valued) {
    if (auto* texts = std::get_if<Texts>(&a)) return merge_texts(*texts, std::get<Texts>(b), both, single_valued);
    const auto merged = [&](const auto& x) {
        const auto& y = std::get<std::decay_t<decltype(x)>>(b);
        return both ? intersect(x, y) : unite(x, y);
    };
    if (const auto* whole = std::get_if<Ranges<std::int64_t>>(&a)) {
        a = merged(Ranges<std::int64_t>(*whole));
    } else {
        a = merged(Ranges<double>(std::get<Ranges<double>>(a)));
    }
    return true;
}

std::string key_of(std::size_t column, const Condition& c) {
    std::string key;
    append_bytes(key, column);
    if (const auto* texts = std::get_if<Texts>(&c)) {
        key += texts->negated ? 'n' : 'p';
        key += texts->null ? '1' : '0';
        append_texts(key, texts->values);
        append_texts(key, texts->prefixes);
    } else if (const auto* whole = std::get_if<Ranges<std::int64_t>>(&c)) {
        append_ranges(key, *whole);
    } else {
        append_ranges(key, std::get<Ranges<double>>(c));
    }
    return key;
}

}  // namespace residua::filter
