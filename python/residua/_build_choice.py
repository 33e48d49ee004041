# SPDX-License-Identifier: Apache-2.0
"""How the options of :func:`residua.build` compare, and the index of the one that is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from residua import _core
from residua._build_options import Option, Options
from residua._index import Index
from residua._recall_bounds import groups_of_equal
from residua._trials import IndexTrial, Measure, cheapest, first_that, without
from residua._typing import AnyArray, FloatArray, IntArray, Metric
from residua.codecs import Codec
from residua.indexes import FlatIndex
from residua.ivf_index import IVFIndex
from residua.tuning import halves

K = 10
_PART = 25_000  # rows that options are compared on
_QUERIES = 1000  # rows that stand in for queries
_LISTS_FROM = 20_000  # rows; fewer are scanned before lists are chosen


@dataclass(frozen=True)
class Given:
    """What the index is to be of, and to reach."""

    x: FloatArray
    queries: FloatArray | None
    metric: Metric
    target: float
    seed: int
    threads: int
    budget: float | None = None

    @property
    def aim(self) -> float:
        """Recall to choose by: real queries are harder than rows, which therefore miss half as much."""
        return self.target if self.queries is not None else (1 + self.target) / 2


class Choice:
    """Compares options on a part of the vectors, and completes them with all."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.best: tuple[float, Option] | None = None
        n = len(given.x)
        self._own: IntArray | None = None
        if given.queries is None:
            self._own = np.sort(_core.sample_rows(n, min(n, _QUERIES), given.seed))
            self._q = np.ascontiguousarray(given.x[self._own])
        else:
            self._q = given.queries
        self._groups = groups_of_equal(self._q)
        name = "rows of x" if given.queries is None else "queries"
        self._chosen, self._held = halves(self._groups, given.seed, given.aim, K, name)
        self._part = np.sort(_core.sample_rows(n, min(n, _PART), given.seed + 1))
        self._known: dict[Option, tuple[bool, Measure]] = {}
        self._truth: dict[int, AnyArray] = {}
        self._codecs: dict[str, Codec] = {}

    def rank(self, found: Options) -> list[Option]:
        """Options that reach the target on the part, the cheapest first."""
        reaching = [o for o in found.kept if self.reaches(o)]
        if found.exact is not None:
            reaching.append(found.exact)
        least = min((self._cost(o) for o in reaching), default=math.inf)
        # A scan reads all codes, so that longer ones cannot be cheaper. More bits rank better: the first
        # that reach the target are the cheapest.
        coded = [o for o in found.coded if o.bytes * len(self.given.x) < least]
        first = first_that(lambda i: self.reaches(coded[i]), len(coded)) if coded else None
        if first is not None:
            reaching += coded[first:]
        return sorted(reaching, key=self._cost)

    def reaches(self, option: Option) -> bool:
        """Whether the option reaches the target on the part."""
        if option not in self._known:
            index = self._filled(option, self._part)
            trial = self._trial(index, self._part, self._chosen)
            params, shown = cheapest(trial, index._axes(K), self.given.aim)
            found = trial.measure(params)
            if self.best is None or found.recall.mean > self.best[0]:
                self.best = (found.recall.mean, option)
            self._known[option] = (shown, found)
        return self._known[option][0]

    def _cost(self, option: Option) -> float:
        """Bytes that a search of all rows reads."""
        n = len(self.given.x)
        if option not in self._known:
            return float(option.bytes * n)
        found = self._known[option][1]
        return found.scanned * n / len(self._part) + found.gathered

    def complete(self, option: Option, n_reaching: int) -> Index | None:
        """The index with all rows, tuned, or None where it falls short of the target."""
        if len(self.given.x) >= _LISTS_FROM:
            index = self._tuned(self._in_lists(option), option, n_reaching, self._cost(option))
            if index is not None:
                return index
        return self._tuned(self._filled(option, np.arange(len(self.given.x))), option, n_reaching, math.inf)

    def _tuned(self, index: Index, option: Option, n_reaching: int, most: float) -> Index | None:
        """The index, unless it falls short of the target, is too large, or costs ``most`` or more."""
        given = self.given
        rows = np.arange(len(given.x))
        trial = self._trial(index, rows, self._chosen)
        params, shown = cheapest(trial, index._axes(K), given.aim)
        low, mean, high = self._trial(index, rows, self._held).interval(params)
        if not shown or high < given.target:
            return None
        if isinstance(index, IVFIndex):
            parts = index.memory()
            size = sum(parts[name] for name in ("codes", "vectors", "lists", "ids")) / len(rows)
            choosing = 4.0 * index.nlist * index.dim
            if trial.measure(params).cost + choosing >= most or (given.budget or math.inf) < size:
                return None
        queries = "rows as queries" if given.queries is None else "queries"
        why = (
            f"recall@{K} {mean:.3f} ({low:.3f} to {high:.3f}) on {len(self._held)} held-out {queries} for a "
            f"target of {given.target:g}; {option.name}, {option.bytes} bytes per vector: the least to read "
            f"of {n_reaching} that reach it"
        )
        index._keep(params, K, why)
        return index

    def _in_lists(self, option: Option) -> IVFIndex:
        """All rows in lists, whose codec is fitted to what the lists leave of them."""
        given, threads = self.given, self.given.threads or None
        codec = None if option.codec is None else option.codec()
        index = IVFIndex(
            given.x.shape[1], metric=given.metric, codec=codec, vectors=option.vectors, seed=given.seed
        )
        asked = None if given.queries is None else given.queries[self._chosen]
        index.train(given.x, queries=asked, num_threads=threads)
        index.add(given.x, num_threads=threads)
        return index

    def _filled(self, option: Option, rows: IntArray) -> Index:
        given = self.given
        x, threads = self._rows(rows), given.threads or None
        codec = self._codecs.get(option.coding)
        if codec is None and option.codec is not None:
            # Queries that measure do not take part in the fit.
            asked = None if given.queries is None else given.queries[self._chosen]
            codec = option.codec().fit(x, queries=asked, metric=given.metric, num_threads=threads)
            self._codecs[option.coding] = codec
        index = FlatIndex(x.shape[1], metric=given.metric, codec=codec, vectors=option.vectors)
        index.add(x, rows, num_threads=threads)
        return index

    def _rows(self, rows: IntArray) -> FloatArray:
        x = self.given.x
        return x if len(rows) == len(x) else np.ascontiguousarray(x[rows])

    def _trial(self, index: Index, rows: IntArray, places: IntArray) -> IndexTrial:
        own = None if self._own is None else self._own[places]
        true = self._true(rows)[places]
        return IndexTrial(index, self._q[places], self._groups[places], true, K, self.given.threads, own)

    def _true(self, rows: IntArray) -> AnyArray:
        """True ids of all queries among some rows of x."""
        if len(rows) not in self._truth:
            given, own = self.given, self._own
            wanted = min(K + (own is not None), len(rows))
            found, _ = _core.exact_search(self._q, self._rows(rows), wanted, given.metric, given.threads)
            ids = rows[found]
            self._truth[len(rows)] = ids if own is None else without(ids, own)
        return self._truth[len(rows)]
