# SPDX-License-Identifier: Apache-2.0
"""Filters on generated columns: microseconds until the rows are known, and bytes per row."""

from __future__ import annotations

from typing import Any

import numpy as np

import residua as rz
from bench.environment import pinned
from bench.measures.session import Session
from bench.stats import interleave, spread
from residua import _core
from residua._columns import as_cells

__all__ = ["measure_filters"]

_FIELDS = [("number", "int"), ("lang", "category"), ("tags", "tags")]
_TERMS = {
    "range of 50 %": "250000 <= number < 750000",
    "range of 0.1 %": "500000 <= number < 501000",
    "category of 2.5 %": "lang == 'lang 7'",
    "frequent tag": "'tag 0' in tags",
    "rare tag": "'tag 700' in tags",
    "not a range": "not 250000 <= number < 750000",
    "three terms": "250000 <= number < 750000 and lang == 'lang 7' and 'tag 20' in tags",
}


def _table(n: int, seed: int) -> _core.columns.Columns:
    """A number of a million values, one of 40 categories, 3 of 1,000 tags with shares as 1 / rank."""
    rng = np.random.default_rng(seed)
    tags = np.array([f"tag {i}" for i in range(1000)])
    langs = np.array([f"lang {i}" for i in range(40)])
    share = 1 / np.arange(1, 1001)
    table = _core.columns.Columns(_FIELDS)
    for part in np.array_split(np.arange(n), 10):
        size = len(part)
        columns = {
            "number": rng.integers(0, 1_000_000, size),
            "lang": langs[rng.integers(0, 40, size)],
            "tags": tags[rng.choice(1000, (size, 3), p=share / share.sum())],
        }
        table.append(size, as_cells(columns, _FIELDS, size))
    return table


def _three_terms() -> rz.Expression:
    number, lang, tags = rz.col("number"), rz.col("lang"), rz.col("tags")
    return number.between(250_000, 749_999) & (lang == "lang 7") & tags.contains("tag 20")


def measure_filters(session: Session) -> None:
    """Cold evaluations, and cached ones in all of Python. `[[bar]] name = "cold", at_most = ...`."""
    case = session.case
    table = _table(case.rows or 1_000_000, case.seed)
    expressions = {name: rz.where(text)._expr for name, text in _TERMS.items()}
    many = range(100)

    def cold(expression: _core.columns.Expr) -> None:
        table.forget_results()
        table.select(expression)

    def text() -> None:
        for _ in many:
            table.select(rz.where(_TERMS["three terms"])._expr)

    def operators() -> None:
        for _ in many:
            table.select(_three_terms()._expr)

    actions: dict[str, Any] = {name: lambda e=e: cold(e) for name, e in expressions.items()}
    with pinned(case.threads):
        seconds = interleave(actions, case.repeats, clock=case.clock)
        cached = interleave({"text": text, "operators": operators}, case.repeats, clock=case.clock)
    for name, e in expressions.items():
        took = spread(seconds[name]).map(lambda s: s * 1e6)
        session.rows.append({"label": name, "matches": table.select(e).count, "cold_us": took.as_dict()})
    for name, times in cached.items():
        took = spread(times).map(lambda s: s * 1e6 / len(many))
        session.rows.append({"label": f"three terms as {name}", "cached_us": took.as_dict()})
    bars = {bar["name"]: bar["at_most"] for bar in case.bars}
    measured = {
        "cold": ("three terms, not evaluated before", spread(seconds["three terms"]).median * 1e6, "µs"),
        "cached": (
            "the same again, Python included",
            max(spread(t).median for t in cached.values()) * 1e6 / len(many),
            "µs",
        ),
        "bytes": (
            "an int, a category and 3 tags",
            table.memory_bytes / len(table),
            "bytes per row",
        ),
    }
    for name, (claim, value, unit) in measured.items():
        session.expect(claim, value, bars.get(name), unit, at_most=True)
