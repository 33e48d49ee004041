// SPDX-License-Identifier: Apache-2.0
// Columns and filters under sanitizers: random changes against plain vectors, and damaged files.
#if __has_include(<doctest/doctest.h>)
#include <doctest/doctest.h>
#else
#include <doctest.h>
#endif

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "filter/columns.hpp"
#include "filter/dictionary.hpp"
#include "store/container.hpp"

using namespace residua;
using namespace residua::filter;

namespace {

struct Row {
    std::optional<std::int64_t> number;
    std::optional<std::string> text;
    std::optional<std::vector<std::string>> tags;
};

// A table of an int, a category and a tag column, and the same rows in plain vectors.
struct Table {
    Columns columns{std::vector<Field>{{"number", Kind::integer, Zone::unknown},
                                       {"text", Kind::category, Zone::unknown},
                                       {"tags", Kind::tags, Zone::unknown}}};
    std::vector<Row> rows;
    std::mt19937 random{7};
    std::size_t n_texts = 20;

    int below(int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); }
    std::string word() { return "word " + std::to_string(below(static_cast<int>(n_texts))); }

    Row make_row() {
        Row row;
        if (below(9) != 0) row.number = below(3) == 0 ? below(5) : below(1'000'000) - 500'000;
        if (below(9) != 0) row.text = below(2) == 0 ? "common" : word();
        if (below(9) != 0) {
            row.tags.emplace();
            for (int i = below(4); i > 0; --i) {
                const std::string tag = word();
                if (std::find(row.tags->begin(), row.tags->end(), tag) == row.tags->end()) row.tags->push_back(tag);
            }
        }
        return row;
    }

    // Writes new values into rows, of which the last n_new are new.
    void put(const std::vector<std::uint32_t>& at, std::size_t n_new) {
        std::vector<Row> given(at.size());
        for (Row& row : given) row = make_row();
        NumberCells<std::int64_t> numbers;
        TextCells texts;
        TagCells tags;
        tags.offsets.push_back(0);
        for (const Row& row : given) {
            numbers.values.push_back(row.number.value_or(0));
            numbers.nulls.push_back(row.number ? 0 : 1);
            texts.codes.push_back(row.text ? static_cast<std::uint32_t>(texts.texts.size()) : kNullCode);
            if (row.text) texts.texts.push_back(*row.text);
            tags.nulls.push_back(row.tags ? 0 : 1);
            if (row.tags) {
                for (const std::string& tag : *row.tags) {
                    tags.codes.push_back(static_cast<std::uint32_t>(tags.texts.size()));
                    tags.texts.push_back(tag);
                }
            }
            tags.offsets.push_back(tags.codes.size());
        }
        const Columns::Batch batch{numbers, texts, tags};
        columns.prepare(batch, at, n_new);
        columns.commit(batch, at, n_new);
        rows.resize(rows.size() + n_new);
        for (std::size_t i = 0; i < at.size(); ++i) rows[at[i]] = given[i];
    }
    void append(std::size_t n) {
        std::vector<std::uint32_t> at(n);
        std::iota(at.begin(), at.end(), static_cast<std::uint32_t>(rows.size()));
        put(at, n);
    }
};

Literal number(std::int64_t i) { return Number::of(i); }
Literal text(std::string s) { return Text{std::move(s), std::nullopt}; }

template <class Matches>
void check_rows(const Table& t, const ExprPtr& e, Matches matches) {
    const auto found = t.columns.select(*e, Bitset());
    std::size_t count = 0;
    bool same = found->rows.size() == t.rows.size();
    for (std::size_t i = 0; i < t.rows.size() && same; ++i) {
        same = found->rows.test(i) == matches(t.rows[i]);
        count += matches(t.rows[i]) ? 1 : 0;
    }
    CHECK(same);
    CHECK(found->count == count);
}

void check_all(const Table& t) {
    const auto range = Expr::condition_on("number", Op::between, {number(-1000), number(200'000)});
    const auto is_in = Expr::condition_on("number", Op::is_in, {number(3), number(1), Null{}});
    const auto common = Expr::condition_on("text", Op::equal, {text("common")});
    const auto rare = Expr::condition_on("text", Op::equal, {text("word 7")});
    const auto prefix = Expr::condition_on("text", Op::starts_with, {text("word 1")});
    const auto tag = Expr::condition_on("tags", Op::contains_any, {text("word 2"), text("word 3"), text("none")});
    const auto in_range = [](const Row& r) { return r.number && *r.number >= -1000 && *r.number <= 200'000; };
    const auto has_tag = [](const Row& r) {
        return r.tags && std::any_of(r.tags->begin(), r.tags->end(), [](const auto& x) { return x == "word 2" || x == "word 3"; });
    };
    check_rows(t, range, in_range);
    check_rows(t, Expr::not_of(range), [&](const Row& r) { return !in_range(r); });
    check_rows(t, is_in, [](const Row& r) { return r.number == 3 || r.number == 1; });
    check_rows(t, common, [](const Row& r) { return r.text == "common"; });
    check_rows(t, Expr::not_of(rare), [](const Row& r) { return r.text != "word 7"; });
    check_rows(t, prefix, [](const Row& r) { return r.text && r.text->starts_with("word 1"); });
    check_rows(t, tag, has_tag);
    check_rows(t, Expr::not_of(tag), [&](const Row& r) { return !has_tag(r); });
    check_rows(t, Expr::all_of(range, Expr::any_of(common, tag)),
               [&](const Row& r) { return in_range(r) && (r.text == "common" || has_tag(r)); });
    check_rows(t, Expr::condition_on("tags", Op::is_null), [](const Row& r) { return !r.tags; });
}

std::vector<std::uint8_t> saved(const Columns& columns) {
    store::Writer writer("columns");
    columns.save(writer);
    return writer.to_bytes();
}

}  // namespace

TEST_CASE("columns follow any sequence of changes") {
    for (const std::size_t n_texts : {20, 400, 70'000}) {
        Table t;
        t.n_texts = n_texts;
        check_all(t);
        for (int round = 0; round < 12; ++round) {
            t.append(static_cast<std::size_t>(t.below(round == 4 ? 30'000 : 700)));
            std::vector<std::uint32_t> changed;
            for (int i = t.below(30); i > 0 && !t.rows.empty(); --i) changed.push_back(static_cast<std::uint32_t>(t.below(static_cast<int>(t.rows.size()))));
            std::sort(changed.begin(), changed.end());
            changed.erase(std::unique(changed.begin(), changed.end()), changed.end());
            if (!changed.empty()) t.put(changed, 0);
            if (round % 3 == 2) {
                std::vector<std::uint32_t> keep;
                std::vector<Row> kept;
                for (std::uint32_t r = 0; r < t.rows.size(); ++r) {
                    if (t.below(4) == 0) continue;
                    keep.push_back(r);
                    kept.push_back(t.rows[r]);
                }
                t.columns.compact(keep);
                t.rows = std::move(kept);
            }
            check_all(t);
            if (round % 4 == 3) {
                const auto bytes = saved(t.columns);
                t.columns = Columns::load(store::Reader::from_bytes(bytes), t.rows.size());
                CHECK(saved(t.columns) == bytes);
                check_all(t);
            }
        }
    }
}

TEST_CASE("ends of int64 and of doubles") {
    constexpr auto kMin = std::numeric_limits<std::int64_t>::min(), kMax = std::numeric_limits<std::int64_t>::max();
    Columns columns{std::vector<Field>{{"i", Kind::integer, Zone::unknown}}};
    const Columns::Batch batch{NumberCells<std::int64_t>{{kMin, -1, 0, kMax - 1, kMax}, {}, Zone::unknown}};
    const std::vector<std::uint32_t> rows{0, 1, 2, 3, 4};
    columns.prepare(batch, rows, 5);
    columns.commit(batch, rows, 5);
    const auto count = [&](Op op, Number n) { return columns.select(*Expr::condition_on("i", op, {n}), Bitset())->count; };
    CHECK(count(Op::more, Number::of(kMax - 1)) == 1);
    CHECK(count(Op::at_least, Number::of(0x1p63)) == 0);
    CHECK(count(Op::less, Number::of(0x1p63)) == 5);
    CHECK(count(Op::at_most, Number::of(-0x1p63)) == 1);
    CHECK(count(Op::more, Number::of(kMax)) == 0);
    CHECK(count(Op::less, Number::of(kMin)) == 0);
    CHECK(count(Op::more, Number::of(-0.5)) == 3);
    CHECK(count(Op::equal, Number::of(0.5)) == 0);
    CHECK(count(Op::not_equal, Number::of(0.5)) == 5);
    CHECK(count(Op::at_least, Number::of(std::numeric_limits<double>::quiet_NaN())) == 0);
}

TEST_CASE("damaged columns are refused or hold sound values") {
    Table t;
    t.n_texts = 300;
    t.append(700);
    const auto bytes = saved(t.columns);
    std::mt19937 random(3);
    for (int i = 0; i < 3000; ++i) {
        auto damaged = bytes;
        damaged[random() % damaged.size()] ^= static_cast<std::uint8_t>(1u << (random() % 8));
        try {
            const Columns loaded = Columns::load(store::Reader::from_bytes(damaged), t.rows.size());
            loaded.read(std::vector<std::uint32_t>{0, 1, 699});
        } catch (const Error& e) {
            CHECK(e.kind() == ErrorKind::corrupt_file);
        }
    }
    for (const std::size_t rows : {0, 699, 701}) CHECK_THROWS_AS(Columns::load(store::Reader::from_bytes(bytes), rows), Error);
}

TEST_CASE("UTF-8 is told from other bytes") {
    for (const char* good : {"", "a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xED\x9F\xBF", "\xF4\x8F\xBF\xBF"}) CHECK(is_utf8(good));
    for (const char* bad : {"\x80", "\xC3", "\xC0\xAF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "a\xFF"}) CHECK(!is_utf8(bad));
}
