# SPDX-License-Identifier: Apache-2.0
"""Any filter on any rows, written any way, against plain Python; also after changes, saving and loading."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import residua as rz
from residua import _core
from residua._columns import as_cells, as_dict

FIELDS = {
    "i": "int", "f": "float", "b": "bool", "c": "category", "t": "tags", "s": "str", "d": "datetime",
}  # fmt: skip
Row = dict[str, Any]
Matches = Callable[[Row], bool]

whole = st.one_of(st.integers(-3, 3), st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]))
real = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 2.0, float(2**53), math.inf, -math.inf, 5e-324]), st.floats(-3, 3)
)
word = st.sampled_from(["", "a", "ab", "b", "ä", "日本", "a b", "😀", "false"])
moment = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)) | st.sampled_from(
    [dt.datetime(1969, 12, 31, 23, 59, 59, 999999), dt.datetime(2024, 2, 29)]
)
rows_of = st.fixed_dictionaries(
    {
        "i": st.none() | whole,
        "f": st.none() | real,
        "b": st.none() | st.booleans(),
        "c": st.none() | word,
        "t": st.none() | st.lists(word, max_size=3, unique=True),
        "s": st.none() | word,
        "d": st.none() | moment,
    }
)
number = st.one_of(whole, real, st.integers(-(2**80), 2**80), st.just(10**400), st.just(math.nan))
OPS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
Filter = tuple[Any, Matches]


def is_nan(x: Any) -> bool:
    return isinstance(x, float) and math.isnan(x)


@st.composite
def conditions(draw: st.DrawFn) -> Filter:
    name = draw(st.sampled_from(list(FIELDS)))
    column = rz.col(name)
    if draw(st.integers(0, 9)) == 0:
        return column.is_null(), lambda r: r[name] is None
    values = {"i": number, "f": number, "b": st.booleans(), "d": moment}.get(name, word)
    if name == "t":
        tags = draw(st.lists(word, max_size=3))
        if draw(st.booleans()):
            return column.contains_any(tags), lambda r: r[name] is not None and bool(set(tags) & set(r[name]))
        return column.contains_all(tags), lambda r: r[name] is not None and set(tags) <= set(r[name])
    kind = draw(st.integers(0, 3))
    if kind == 0:
        some = draw(st.lists(values, max_size=4))
        return column.isin([*some, None]), lambda r: r[name] is not None and any(r[name] == v for v in some)
    if kind == 1 and name in "cs":
        prefix = draw(word)
        return column.startswith(prefix), lambda r: r[name] is not None and r[name].startswith(prefix)
    if kind == 1 and name in "ifd":
        a, b = draw(values), draw(values)
        return column.between(a, b), lambda r: r[name] is not None and a <= r[name] <= b
    op = draw(st.sampled_from(list(OPS) if name in "ifd" else ["==", "!="]))
    value = draw(values)
    made: Any = OPS[op](column, value)
    return made, lambda r: r[name] is not None and not is_nan(value) and OPS[op](r[name], value)


def combined(parts: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    def both(a: Filter, b: Filter) -> Filter:
        return a[0] & b[0], lambda r: a[1](r) and b[1](r)

    def either(a: Filter, b: Filter) -> Filter:
        return a[0] | b[0], lambda r: a[1](r) or b[1](r)

    return st.one_of(
        st.builds(both, parts, parts),
        st.builds(either, parts, parts),
        parts.map(lambda a: (~a[0], lambda r: not a[1](r))),
    )


filters = st.recursive(conditions(), combined, max_leaves=6)
FIELD_LIST = list(FIELDS.items())


def cells(rows: list[Row]) -> Any:
    return as_cells({name: [r[name] for r in rows] for name in FIELDS}, FIELD_LIST, len(rows))


def check(table: _core.columns.Columns, rows: list[Row], made: Filter) -> None:
    found = table.select(made[0]._expr)
    wanted = [made[1](r) for r in rows]
    assert found.mask().tolist() == wanted, made[0]
    assert found.count == sum(wanted)
    # Its own text says the same, where it is text: dates are not.
    if "datetime" not in repr(made[0]) and "inf" not in repr(made[0]) and "nan" not in repr(made[0]):
        again = eval(repr(made[0]), {"where": rz.where})
        assert table.select(again._expr).mask().tolist() == wanted, repr(made[0])


def plain(table: _core.columns.Columns, n: int) -> list[Row]:
    columns = as_dict(table.read(list(range(n))), FIELD_LIST)
    rows = [{name: values[i] for name, values in columns.items()} for i in range(n)]
    for row in rows:
        for name, value in row.items():
            if value is None or value != value:
                row[name] = None
            elif name == "d":
                row[name] = value.item()
            elif name == "t":
                row[name] = list(value)
            elif name != "t" and hasattr(value, "item"):
                row[name] = value.item()
    return rows


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(rows_of, max_size=80), st.lists(filters, min_size=1, max_size=5), st.data())
def test_filters_are_what_python_says(rows: list[Row], several: list[Filter], data: st.DataObject) -> None:
    table = _core.columns.Columns(FIELD_LIST)
    cut = data.draw(st.integers(0, len(rows)))
    for part in (rows[:cut], rows[cut:]):
        table.append(len(part), cells(part))
    assert plain(table, len(rows)) == rows
    for made in several:
        check(table, rows, made)
    # Changes in place, loss of rows, and a way through a file.
    if rows:
        at = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=5)))
        new = [data.draw(rows_of) for _ in at]
        table.put(at, 0, cells(new))
        for i, row in zip(at, new, strict=True):
            rows[i] = row
        keep = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1))))
        for made in several:
            check(table, rows, made)
        table.compact(keep)
        rows = [rows[i] for i in keep]
    saved = table.to_bytes()
    table = _core.columns.Columns.from_bytes(saved, len(rows))
    assert table.to_bytes() == saved
    assert plain(table, len(rows)) == rows
    for made in several:
        check(table, rows, made)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.sampled_from(["uniform", "skewed", "few", "sorted", "normal", "wide"]))
def test_ranges_over_many_rows(seed: int, shape: str) -> None:
    """Bins are chosen from the values: whatever these are, and in whatever order they come."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40_000))
    values = {
        "uniform": lambda: rng.integers(-(10**6), 10**6, n),
        "skewed": lambda: np.where(rng.random(n) < 0.6, 7, rng.integers(0, 10**6, n)),
        "few": lambda: rng.integers(0, 5, n),
        "sorted": lambda: np.sort(rng.integers(0, 10**9, n)),
        "normal": lambda: (rng.standard_normal(n) * 100).astype(np.int64),
        "wide": lambda: rng.choice([-1, 1], n) * 2 ** rng.integers(0, 53, n),
    }[shape]()
    table = _core.columns.Columns([("i", "int"), ("f", "float")])
    for part in np.array_split(np.arange(n), int(rng.integers(1, 6))):
        table.append(len(part), [(values[part], None, None), values[part] / 2])
    for _ in range(5):
        a, b = np.sort(rng.choice(values, 2)) + rng.integers(-1, 2, 2)
        some = rng.choice(values, 300)
        for made, wanted in [
            (rz.col("i").between(a, b), (values >= a) & (values <= b)),
            (~(rz.col("f") > float(a) / 2), values / 2 <= a / 2),
            (rz.col("i").isin(some), np.isin(values, some)),
            (rz.col("f").isin((some / 2).tolist()), np.isin(values, some)),
            (rz.col("f") != float(a) / 2, values != a),
        ]:
            np.testing.assert_array_equal(table.select(made._expr).mask(), wanted)
