# SPDX-License-Identifier: Apache-2.0
"""Filters as text and as operators: what they mean, and what is refused with which words."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import residua as rz
from residua import _core
from residua._columns import as_cells

FIELDS = [
    ("year", "int"), ("price", "float"), ("lang", "category"), ("tags", "tags"),
    ("sold", "bool"), ("name", "str"), ("at", "datetime"), ("a b", "int"), ("when", "datetime"),
]  # fmt: skip
UTC = dt.timezone.utc
ROWS: list[dict[str, Any]] = [
    {"year": 2019, "price": 0.5, "lang": "en", "tags": ["nlp"], "sold": True, "name": "anna", "a b": 1},
    {
        "year": 2020,
        "price": 2.0,
        "lang": "de",
        "tags": ["cv", "nlp"],
        "sold": False,
        "name": "änne",
        "a b": 2,
    },
    {"year": 2021, "price": -1.0, "lang": "日本", "tags": [], "sold": None, "name": "", "a b": 3},
    {"year": None, "price": None, "lang": None, "tags": None, "sold": None, "name": None, "a b": None},
    {"year": 2022, "price": np.inf, "lang": "en", "tags": ["cv"], "sold": True, "name": "bert", "a b": 2},
]
for i, row in enumerate(ROWS):
    row["at"] = None if i == 3 else dt.datetime(2024, 1, 1 + i, 12)
    row["when"] = None if i == 3 else dt.datetime(2024, 1, 1 + i, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def table() -> _core.columns.Columns:
    made = _core.columns.Columns(FIELDS)
    made.append(len(ROWS), as_cells(ROWS, FIELDS, len(ROWS)))
    return made


def rows(table: _core.columns.Columns, filter: Any) -> list[int]:
    expression = rz.where(filter) if isinstance(filter, str) else filter
    return np.flatnonzero(table.select(expression._expr).mask()).tolist()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("year >= 2020", [1, 2, 4]),
        ("2020 <= year", [1, 2, 4]),
        ("2019 < year <= 2021", [1, 2]),
        ("year == 2020 or year == 2022", [1, 4]),
        ("year != 2020", [0, 2, 4]),
        ("not year == 2020", [0, 2, 3, 4]),
        ("not (year < 2021 and lang == 'en')", [1, 2, 3, 4]),
        ("year in (2019, 2022.0, None)", [0, 4]),
        ("year not in (2019, 2022)", [1, 2, 3]),
        ("year in ()", []),
        ("year > 2019.5", [1, 2, 4]),
        ("year == 2019.5", []),
        ("year < 100000000000000000000", [0, 1, 2, 4]),
        ("year == None", []),
        ("year != None", []),
        ("year is None", [3]),
        ("year is not None", [0, 1, 2, 4]),
        ("year.is_null()", [3]),
        ("price > -1e300", [0, 1, 2, 4]),
        ("price >= -1 and price < 1", [0, 2]),
        ("price > 1e308", [4]),
        ("lang in ('en', '日本')", [0, 2, 4]),
        ('"en" == lang', [0, 4]),
        ("lang.startswith('e')", [0, 4]),
        ("'nlp' in tags", [0, 1]),
        ("'nlp' not in tags", [2, 3, 4]),
        ("tags.contains_any(['cv', 'nlp'])", [0, 1, 4]),
        ("tags.contains_all(['cv', 'nlp'])", [1]),
        ("tags.contains_all([])", [0, 1, 2, 4]),
        ("tags.contains_any([])", []),
        ("sold", [0, 4]),
        ("not sold", [1, 2, 3]),
        ("sold == False", [1]),
        ("name.startswith('ä')", [1]),
        ("name == ''", [2]),
        ("name.startswith('')", [0, 1, 2, 4]),
        ("col('a b') == 2 and (sold | (year == 2020))", [1, 4]),
        ("(year > 2020) & ~(lang == 'en')", [2]),
        ("at > '2024-01-02'", [1, 2, 4]),
        ("at.between('2024-01-01T12:00:00', '2024-01-02 12:00')", [0, 1]),
        ("when >= '2024-01-02T13:00:00+01:00'", [1, 2, 4]),
        ("when < '2024-01-02T12:00:00Z'", [0]),
        ("  year\n >= 2020 ", None),
    ],
)
def test_text(table: _core.columns.Columns, text: str, found: list[int] | None) -> None:
    if found is None:  # a line break ends an expression, as in Python
        with pytest.raises(rz.errors.InvalidValueError, match="line 2"):
            rz.where(text)
        return
    assert rows(table, text) == found
    assert rows(table, eval(repr(rz.where(text)), {"where": rz.where})) == found


def test_null_is_false_in_every_comparison_and_so_not_of_it_is_true(table: _core.columns.Columns) -> None:
    year = rz.col("year")
    for made in (year < 2020, year >= 2020, year == 2020, year != 2020, year.between(0, 9999)):
        assert 3 not in rows(table, made)
        assert 3 in rows(table, ~made)
        assert rows(table, made | ~made) == [0, 1, 2, 3, 4]
        assert rows(table, made & ~made) == []
    for value in (None, float("nan"), np.datetime64("NaT"), np.float32("nan")):
        assert rows(table, year == value) == []
        assert rows(table, year != value) == []
        assert rows(table, rz.col("price") <= value) == []


@pytest.mark.parametrize(
    "value", [2020, 2020.0, np.int16(2020), np.float32(2020), np.uint64(2020), np.array(2020)]
)
def test_numbers_of_any_type(table: _core.columns.Columns, value: Any) -> None:
    assert rows(table, rz.col("year") == value) == [1]


def test_whole_numbers_and_floats_are_compared_exactly() -> None:
    table = _core.columns.Columns([("i", "int"), ("f", "float")])
    big = 2**53
    table.append(
        3, as_cells({"i": [big, big + 1, -(2**63)], "f": [big, big + 2, -(2.0**63)]}, table.fields, 3)
    )
    assert rows(table, rz.col("i") == float(big)) == [0]
    assert rows(table, rz.col("i") > float(big)) == [1]
    assert rows(table, rz.col("f") > big) == [1]
    assert rows(table, rz.col("f") >= big + 1) == [1]
    assert rows(table, rz.col("f") == big + 1) == []
    assert rows(table, rz.col("f") < big + 1) == [0, 2]
    assert rows(table, rz.col("i") >= -(2**63)) == [0, 1, 2]
    assert rows(table, rz.col("i") < -(2**63)) == []
    assert rows(table, rz.col("i") > -(10**400)) == [0, 1, 2]
    assert rows(table, rz.col("f") < 10**400) == [0, 1, 2]


def test_times(table: _core.columns.Columns) -> None:
    at, when = rz.col("at"), rz.col("when")
    assert rows(table, at == dt.datetime(2024, 1, 2, 12)) == [1]
    assert rows(table, at >= np.datetime64("2024-01-02T12:00:00.000000000")) == [1, 2, 4]
    assert rows(table, at < dt.date(2024, 1, 2)) == [0]
    zone = dt.timezone(dt.timedelta(hours=-3))
    assert rows(table, when == dt.datetime(2024, 1, 2, 9, tzinfo=zone)) == [1]
    with pytest.raises(TypeError, match=r"no zone .*columns are 'year' \(int\)"):
        rows(table, at == dt.datetime(2024, 1, 2, tzinfo=UTC))
    for naive in (dt.datetime(2024, 1, 2), np.datetime64("2024-01-02"), "2024-01-02"):
        with pytest.raises(TypeError, match="have a zone"):
            rows(table, when == naive)
    with pytest.raises(TypeError, match="ISO 8601"):
        rows(table, at > "yesterday")
    with pytest.raises(ValueError, match="microsecond"):
        rows(table, at > np.datetime64("2024-01-02T12:00:00.000000001"))


@pytest.mark.parametrize(
    ("text", "message", "at"),
    [
        ("year >=", "invalid syntax", 8),
        ("year >= 20 20", "filter", None),
        ("", "empty", None),
        ("   ", "empty", None),
        ("year", "'use as a condition' does not apply", None),
        ("yeer > 1", "no column 'yeer'; the columns are 'year' .int., ", None),
        ("year > name", "not with the column 'name'", 8),
        ("1 < 2", "needs the name of a column", 1),
        ("'ä' == 'b' and year > 1", "needs the name of a column", 1),
        ("lang == 'ä' and year > b'x'", "expected a number, a text in quotes", 24),
        ("year > 'a'", "'year' is int: cannot be compared with a str", None),
        ("year > True", "'year' is int: cannot be compared with a bool", None),
        ("sold == 1", "'sold' is bool: cannot be compared with a number, expected True or False", None),
        ("sold > False", "'>' does not apply", None),
        ("lang < 'x'", "'<' does not apply", None),
        ("lang == 3", "cannot be compared with a number, expected a str", None),
        ("tags == 'nlp'", "use contains", None),
        ("'a' in name", "'contains' does not apply", None),
        ("year.startswith('1')", "'startswith' does not apply", None),
        ("at > 5", "expected a datetime", None),
        ("year >= 2020 & lang == 'en'", "bind tighter than comparisons", 9),
        ("year in 5", "'in' needs values", 9),
        ("year is 5", "'is' compares with None", 9),
        ("__import__('os').system('true')", "methods of a column", 1),
        ("year.__class__", "expected a comparison", 1),
        ("year.real()", "no method 'real'", 1),
        ("year.between(1)", "between takes 2", 1),
        ("year.isin('abc')", "needs a list", 1),
        ("lambda: 1", "expected a comparison", 1),
        ("[year for year in (1,)]", "expected a comparison", 1),
        ("year > (1).real", "expected a number", None),
        ("f'{year}' == lang", "filter", None),
        ("year = 5", "equality is ==", 6),
        ("year > 1 && lang == 'a = b'", "write and, or", None),
        ("year > 1 AND lang == 'en'", "in lower case", None),
        ("name like 'a%'", "startswith", None),
        ("lang == 'a AND b' 5", "invalid syntax(?!;)", None),
        ("col(3) > 1", "col needs one name", 1),
        ("year > 1 if sold else year < 1", "expected a comparison", 1),
        ("year > -'a'", "expected a number", 8),
        ("year > 1\0", "filter", None),
        ("(" * 300 + "year > 1" + ")" * 300, "filter", None),
        ("not " * 3000 + "sold", "filter", None),
    ],
)
def test_refused(table: _core.columns.Columns, text: str, message: str, at: int | None) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        rows(table, text)
    assert isinstance(caught.value, rz.errors.ResiduaError)
    if at is not None:
        assert f"character {at}:" in str(caught.value)
        assert str(caught.value).split("\n")[-1] == " " * (4 + at - 1) + "^"


def test_operators_are_refused_where_python_would_mislead() -> None:
    year = rz.col("year")
    for misuse in (
        lambda: 2019 <= year < 2022,
        lambda: (year > 1) and (year < 3),
        lambda: not (year > 1),
        lambda: bool(year),
    ):
        with pytest.raises(TypeError, match="no truth value"):
            misuse()
    for misuse in (
        lambda: (year > 1) & 5,
        lambda: year.isin("abc"),
        lambda: year.isin(5),
        lambda: rz.col("tags").contains(["a"]),
        lambda: rz.col("tags").contains_any("a"),
        lambda: year == [1, 2],
        lambda: year == b"x",
        lambda: year == 1j,
        lambda: rz.col(3),
        lambda: rz.where(3),
        lambda: rz.Expression(),
        lambda: hash(year),
    ):
        with pytest.raises(TypeError):
            misuse()
    for misuse in (lambda: rz.col("\ud800"), lambda: year == "\ud800"):
        with pytest.raises(ValueError, match="surrogate"):
            misuse()


def test_a_long_chain_and_a_deep_tree() -> None:
    table = _core.columns.Columns([("i", "int"), ("c", "category")])
    n = 3000
    table.append(n, as_cells({"i": np.arange(n), "c": [f"c{i}" for i in range(n)]}, table.fields, n))
    chain = rz.col("i") == 0
    for i in range(2, 2000, 2):
        chain = chain | (rz.col("i") == i)
    assert rows(table, chain) == list(range(0, 2000, 2))
    assert rows(table, rz.col("i").isin(range(10_000))) == list(range(n))
    assert rows(table, rz.col("c").isin([f"c{i}" for i in range(0, 20_000, 2)])) == list(range(0, n, 2))

    def nest() -> None:
        deep = rz.col("i") == 0
        for i in range(600):
            deep = (deep | (rz.col("i") == i)) if i % 2 else (deep & (rz.col("i") >= 0))

    with pytest.raises(ValueError, match="500 deep"):
        nest()


@pytest.mark.parametrize("as_given", [list, tuple, set, iter, np.array, pa.array, pa.chunked_array])
def test_values_of_isin_come_in_many_forms(table: _core.columns.Columns, as_given: Any) -> None:
    def given(values: list[Any]) -> Any:
        return as_given([values]) if as_given is pa.chunked_array else as_given(values)

    for column, values, found in (
        ("year", [2020, 2019], [0, 1]),
        ("price", [0.5, 7.25], [0]),
        ("name", ["anna", "änne", "2020-01-01"], [0, 1]),
    ):
        made = rz.col(column).isin(given(values))
        assert rows(table, made) == found
        assert rows(table, rz.where(repr(made)[len('where("') : -2])) == found
    assert rows(table, rz.col("year").isin([2020, None, float("nan"), 2**70])) == [1]


def test_equal_filters_are_evaluated_once(table: _core.columns.Columns) -> None:
    table.forget_results()
    one = table.select(rz.where("year >= 2020 and lang == 'en' and not sold")._expr)
    size = table.cache_bytes
    for same in (
        "not sold and lang in ('en', 'en') and year > 2019",
        f"not (sold or not lang == 'en' or not year.between(2020, {2**63 - 1}))",
    ):
        assert table.select(rz.where(same)._expr).count == one.count
        assert table.cache_bytes == size
    table.select(rz.where("year >= 2021 and lang == 'en' and not sold")._expr)
    assert table.cache_bytes > size
