# SPDX-License-Identifier: Apache-2.0
"""A grid of filters over generated columns, with exact answers: kinds x shares of matching rows.

The queries come in groups of near ones. `positive` and `negative` filters are bound to a group: all rows are
put in the order of `correlation * rank by similarity + (1 - correlation) * chance`, and the first or the last
of this order match. So 1 allows exactly the nearest (or farthest) rows, and 0 is chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.datasets import BenchData, DataError

__all__ = ["FILTER_KINDS", "Filter", "FilterGrid"]

FILTER_KINDS = ("mask", "range", "tag", "and", "positive", "negative")
_LANGS = 50

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Filter:
    """One filter: as users of Residua write it, as SQL, and as the rows that match."""

    given: str | Mask
    sql: str
    mask: Mask

    @property
    def count(self) -> int:
        return int(self.mask.sum())


class FilterGrid:
    """Columns for every row of a set, some of its queries in groups, and filters of any share for both."""

    def __init__(
        self,
        data: BenchData,
        shares: Sequence[float],
        correlation: float,
        groups: int,
        per_group: int,
        seed: int,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.shares, self.n = tuple(shares), len(data.base)
        self.base = _comparable(data.base, data.metric)
        chosen = _groups_of(_comparable(data.queries, data.metric), groups, per_group, rng)
        self.queries: Floats = data.queries[np.concatenate(chosen)]
        self.groups = np.split(np.arange(len(self.queries)), np.cumsum([len(g) for g in chosen])[:-1])
        self._scores = _scores(_comparable(self.queries, data.metric), self.base, data.metric)
        self.columns: dict[str, Any] = {
            "number": rng.permutation(self.n),
            "shuffled": rng.permutation(self.n),
            "lang": np.array([f"l{i}" for i in range(_LANGS)])[rng.integers(0, _LANGS, self.n)],
        }
        for g, members in enumerate(self.groups):
            nearness = self._scores[members].mean(axis=0)
            rank = np.empty(self.n)
            rank[np.argsort(-nearness, kind="stable")] = np.arange(self.n) / self.n
            key = correlation * rank + (1 - correlation) * rng.random(self.n)
            column = np.empty(self.n, np.int64)
            column[np.argsort(key, kind="stable")] = np.arange(self.n)
            self.columns[f"near{g}"] = column
        self._tagged = {
            f"s{share:g}v{g}": rng.random(self.n) < share for share in self.shares for g in range(len(chosen))
        }
        self.columns["tags"] = self._tag_lists()

    @property
    def fields(self) -> dict[str, str]:
        kinds = {"lang": "category", "tags": "tags"}
        return {name: kinds.get(name, "int") for name in self.columns}

    def _tag_lists(self) -> list[list[str]]:
        lists: list[list[str]] = [[] for _ in range(self.n)]
        for tag, rows in self._tagged.items():
            for row in np.flatnonzero(rows).tolist():
                lists[row].append(tag)
        return lists

    def filter(self, kind: str, share: float, group: int, shift: int = 0) -> Filter:
        """The filter of a group of queries; `shift` makes another one of the same share, where it can."""
        m = max(1, round(share * self.n))
        if kind == "tag":
            tag = f"s{share:g}v{group}"
            return Filter(f"{tag!r} in tags", f"array_has(tags, '{tag}')", self._tagged[tag])
        if kind == "and":
            langs = min(max(1, round(share**0.5 * _LANGS)), _LANGS)
            chosen = [f"l{(7 * group + i) % _LANGS}" for i in range(langs)]
            part = self._window("number", group, shift, min(self.n, round(m * _LANGS / langs)))
            names = ", ".join(map(repr, chosen))
            mask = part.mask & np.isin(self.columns["lang"], chosen)
            return Filter(f"lang in ({names},) and {part.given}", f"lang IN ({names}) AND {part.sql}", mask)
        if kind in ("mask", "range"):
            part = self._window("shuffled" if kind == "mask" else "number", group, shift, m)
            return Filter(part.mask, part.sql, part.mask) if kind == "mask" else part
        shift = min(shift, self.n - m)
        return self._between(f"near{group}", shift if kind == "positive" else self.n - m - shift, m)

    def _window(self, column: str, group: int, shift: int, m: int) -> Filter:
        """`m` rows somewhere; which ones has nothing to do with the queries."""
        return self._between(column, (group * self.n // 7 + 13 * shift) % (self.n - m + 1), m)

    def _between(self, column: str, low: int, m: int) -> Filter:
        values = self.columns[column]
        text = f"{low} <= {column} < {low + m}"
        return Filter(
            text, f"{column} >= {low} AND {column} < {low + m}", (values >= low) & (values < low + m)
        )

    def recall(
        self, found: npt.NDArray[np.int64], filters: Sequence[Filter], k: int
    ) -> npt.NDArray[np.float64]:
        """Per query the share of the best min(k, matches) rows that was found; equal scores are equal rows.

        A row that the filter does not allow, or one that comes twice, is an error of the engine.
        """
        out = np.ones(len(filters))
        for q, (ids, allowed) in enumerate(zip(found, filters, strict=True)):
            ids = ids[ids >= 0]
            if len(np.unique(ids)) != len(ids) or not allowed.mask[ids].all():
                raise AssertionError(f"query {q}: rows that the filter does not allow, or a row twice: {ids}")
            scores = self._scores[q][allowed.mask]
            m = min(k, len(scores))
            if m > 0:
                least = np.partition(scores, len(scores) - m)[len(scores) - m]
                out[q] = min(m, int((self._scores[q][ids] >= least - 1e-6 * abs(least)).sum())) / m
        return out


def _comparable(x: Floats, metric: str) -> Floats:
    if metric != "cosine":
        return x
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-30))


def _scores(queries: Floats, base: Floats, metric: str) -> npt.NDArray[np.float64]:
    """Larger is better, in float64: float32 sums differ from library to library."""
    parts = []
    for rows in np.array_split(base, max(1, len(base) // 8192)):
        wide = rows.astype(np.float64)
        part = queries.astype(np.float64) @ wide.T
        parts.append(2 * part - (wide**2).sum(axis=1) if metric == "l2" else part)
    scores = np.concatenate(parts, axis=1)
    if metric == "l2":
        scores -= (queries.astype(np.float64) ** 2).sum(axis=1)[:, None]
    return scores


def _groups_of(
    queries: Floats, groups: int, per_group: int, rng: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """Disjoint groups of queries near to each other."""
    if len(queries) < groups * per_group:
        raise DataError(
            f"{groups} groups of {per_group} queries need {groups * per_group} queries, got {len(queries)}"
        )
    free = np.ones(len(queries), bool)
    out = []
    for _ in range(groups):
        first = rng.choice(np.flatnonzero(free))
        near = np.argsort(((queries - queries[first]) ** 2).sum(axis=1), kind="stable")
        members = near[free[near]][:per_group]
        free[members] = False
        out.append(members)
    return out
