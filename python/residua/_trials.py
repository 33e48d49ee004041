# SPDX-License-Identifier: Apache-2.0
"""Searches that are tried against the truth, and the cheapest settings that reach a recall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from residua import _core
from residua._index import Index
from residua._recall_bounds import CHOOSING, REPORTING, Estimate, estimate, recall_per_query
from residua._typing import AnyArray, FloatArray, IntArray
from residua.errors import UnsupportedError
from residua.results import Hits

_CHUNK_VALUES = 2**24  # floats of the kept vectors that are looked at together
_RUNS = 5
_GATHER = 4.0  # what a byte costs that is read for a candidate, against one of a scan


def true_ids(index: Index, q: FloatArray, k: int, threads: int) -> AnyArray:
    """``(nq, k)`` ids that the exact search of the kept vectors finds; -1 or None past the last row."""
    if index._native.vectors == "none" and index._native.codec is not None:
        raise UnsupportedError(
            "this index keeps no vectors, so that nobody knows what is right; give truth=, ids of an exact "
            "search"
        )
    ids = np.sort(index._native.all_ids())  # so that ties go to the smaller id
    step = max(1, _CHUNK_VALUES // index.dim)
    best_ids = np.empty((len(q), 0), ids.dtype)
    best = np.empty((len(q), 0), np.float32)
    for begin in range(0, len(ids), step):
        part = ids[begin : begin + step]
        given = part.tolist() if part.dtype == object else np.ascontiguousarray(part)
        rows, scores = _core.exact_search(
            q, index._native.get(given), min(k, len(part)), index.metric, threads
        )
        best_ids = np.concatenate([best_ids, part[rows]], axis=1)
        best = np.concatenate([best, -scores if index.metric == "l2" else scores], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best_ids, best = np.take_along_axis(best_ids, order, 1), np.take_along_axis(best, order, 1)
    return best_ids


@dataclass(frozen=True)
class Measure:
    """What settings give: recall, and bytes per query that are read in order, or row by row."""

    recall: Estimate
    scanned: float
    gathered: float

    @property
    def cost(self) -> float:
        return self.scanned + self.gathered


class Trial:
    """Searches of some queries whose true results are known; the same settings are measured once.

    What is searched, and what that costs, is up to the derived classes.
    """

    def __init__(self, groups: IntArray, true: AnyArray, k: int, own: AnyArray | None = None) -> None:
        """``own``: the id of every query that is a row itself, and is not to be found; ``true`` lacks it."""
        self._groups, self._true, self._k, self._own = groups, true, k, own
        self._known: dict[tuple[Any, ...], Measure] = {}

    def _search(self, params: dict[str, Any]) -> Hits:
        raise NotImplementedError

    def _costs(self, hits: Hits) -> tuple[float, float]:
        """Bytes per query that are read in order, and row by row."""
        raise NotImplementedError

    def measure(self, params: dict[str, Any]) -> Measure:
        """Recall, and what a query costs."""
        key = tuple(sorted(params.items()))
        if key not in self._known:
            hits = self._search(params)
            found = hits.ids if self._own is None else without(hits.ids, self._own)
            recall = estimate(recall_per_query(found, self._true), self._groups, self._k)
            self._known[key] = Measure(recall, *self._costs(hits))
        return self._known[key]

    def reaches(self, params: dict[str, Any], target: float) -> bool:
        """Whether the recall is at least the target, with a margin for the size of the sample."""
        found = self.measure(params).recall
        return found.mean == 1 if target >= 1 else found.bound(-CHOOSING) >= target

    def interval(self, params: dict[str, Any]) -> tuple[float, float, float]:
        """Lower bound, mean and upper bound of the recall."""
        found = self.measure(params).recall
        return found.bound(-REPORTING), found.mean, found.bound(REPORTING)

    def queries_per_second(self, params: dict[str, Any]) -> float:
        times = []
        for _ in range(_RUNS):
            start = perf_counter()
            self._search(params)
            times.append(perf_counter() - start)
        return float(len(self._groups) / np.median(times))


class IndexTrial(Trial):
    """Searches of an index of single vectors."""

    def __init__(
        self,
        index: Index,
        q: FloatArray,
        groups: IntArray,
        true: AnyArray,
        k: int,
        threads: int,
        own: AnyArray | None = None,
    ) -> None:
        super().__init__(groups, true, k, own)
        self._index, self._q, self._threads = index, q, threads or None

    def _search(self, params: dict[str, Any]) -> Hits:
        wanted = self._k + (self._own is not None)
        hits: Hits = self._index.search(self._q, wanted, num_threads=self._threads, **params)  # type: ignore[attr-defined]
        return hits

    def _costs(self, hits: Hits) -> tuple[float, float]:
        codec, dim = self._index.codec, self._index.dim
        row = 4 * dim if codec is None or not codec.is_trained else codec.code_bytes
        visited, reranked = (float(np.mean(hits.stats[name])) for name in ("visited", "reranked"))
        return visited * row, reranked * 4 * dim * _GATHER


def without(ids: AnyArray, own: AnyArray) -> AnyArray:
    """Every row but its own id, or but the last one where that is not among them."""
    keep = ids != own[:, None]
    keep[keep.all(axis=1), -1] = False
    rest: AnyArray = ids[keep].reshape(len(ids), ids.shape[1] - 1)
    return rest


def cheapest(
    trial: Trial, axes: list[tuple[str, Sequence[int]]], target: float
) -> tuple[dict[str, Any], bool]:
    """The cheapest settings of at most two kinds that reach the target, or the dearest and False."""
    if not axes:
        return {}, trial.reaches({}, target)
    (name, values), *finer = axes
    dearest = {axis: steps[-1] for axis, steps in finer}
    first = first_that(lambda i: trial.reaches({name: values[i], **dearest}, target), len(values))
    if first is None:
        return {name: values[-1], **dearest}, False
    best: dict[str, Any] = {}
    for value in values[first:]:
        params = {name: value, **_finest(trial, {name: value}, finer, target)}
        # With more of the first kind less of the second may do.
        if best and trial.measure(params).cost >= trial.measure(best).cost:
            break
        best = params
        if not finer:
            break
    return best, True


def _finest(
    trial: Trial, params: dict[str, Any], finer: list[tuple[str, Sequence[int]]], target: float
) -> dict[str, Any]:
    if not finer:
        return {}
    ((name, values),) = finer
    i = first_that(lambda j: trial.reaches({**params, name: values[j]}, target), len(values))
    return {name: values[-1 if i is None else i]}


def first_that(reaches: Callable[[int], bool], n: int) -> int | None:
    """The first of 0 … n - 1 that reaches, where all later ones do; dear ones are tried only if needed."""
    low, step = -1, 1  # all up to `low` do not reach
    while True:
        high = min(low + step, n - 1)
        if reaches(high):
            break
        if high == n - 1:
            return None
        low, step = high, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        if reaches(middle):
            high = middle
        else:
            low = middle
    return int(high)
