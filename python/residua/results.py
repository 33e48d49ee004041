# SPDX-License-Identifier: Apache-2.0
"""What searches return."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from residua._typing import AnyArray, FloatArray, IntArray
from residua.errors import InvalidTypeError, OutOfRangeError

__all__ = ["Hits", "RangeHits"]


@dataclass(frozen=True, eq=False)
class Hits:
    """Results of a search, best first, ties by smaller id; unpacks as ``ids, scores = hits``.

    Attributes
    ----------
    ids
        ``(nq, k)`` int64, or object (``str``) when the index has string ids; missing slots hold -1 or
        ``None``. One-dimensional queries give ``(k,)``.
    scores
        Float32 of the same shape. Similarity for cosine and ip (larger is better), squared distance
        for l2 (smaller is better); missing slots hold -inf (+inf for l2).
    counts
        How many results are real, ``(nq,)`` int64, or an int for a one-dimensional query.
    stats
        What the search did, per query: ``plan``, ``matches`` (rows that are live and pass the filter),
        ``visited`` (rows scored), ``reranked`` (candidates settled exactly), …; with one filter per query
        the counts are lists.
    """

    ids: AnyArray
    scores: FloatArray
    counts: IntArray | int
    stats: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[AnyArray]:
        yield self.ids
        yield self.scores

    def __repr__(self) -> str:
        if self.ids.ndim == 1 and isinstance(self.ids, np.ndarray):
            head = ", ".join(f"{i!s}: {s:.4g}" for i, s in zip(self.ids[:3], self.scores[:3], strict=True))
            more = ", …" if len(self.ids) > 3 else ""
            return f"Hits(k={len(self.ids)}, {{{head}{more}}}, plan={self.stats.get('plan')!r})"
        if self.ids.ndim == 1:
            return f"Hits(k={len(self.ids)}, plan={self.stats.get('plan')!r})"
        return f"Hits(nq={self.ids.shape[0]}, k={self.ids.shape[1]}, plan={self.stats.get('plan')!r})"


@dataclass(frozen=True, eq=False)
class RangeHits:
    """Results of a range search in flat arrays; iterates as ``(ids, scores)`` per query.

    Attributes
    ----------
    offsets
        ``(nq + 1,)`` int64: the results of query i stand at ``offsets[i]:offsets[i + 1]``.
    ids, scores
        Flat arrays over all queries, best first within each query, ties by smaller id.
    """

    offsets: IntArray
    ids: AnyArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, query: int) -> tuple[AnyArray, FloatArray]:
        n = len(self)
        try:
            query = operator.index(query)
        except TypeError:
            raise InvalidTypeError(f"query must be an integer, got {query!r}") from None
        if not -n <= query < n:
            raise OutOfRangeError(f"query {query} is out of range for {n} queries")
        query %= n
        part = slice(int(self.offsets[query]), int(self.offsets[query + 1]))
        return self.ids[part], self.scores[part]

    def __iter__(self) -> Iterator[tuple[AnyArray, FloatArray]]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"RangeHits(nq={len(self)}, hits={len(self.ids)})"


def make_hits(
    ids: AnyArray,
    scores: FloatArray,
    counts: IntArray,
    k: int,
    metric: str,
    single: bool,
    stats: dict[str, Any],
) -> Hits:
    """Pad native results, ``(nq, at most k)``, to k columns."""
    nq, have = ids.shape
    if have < k:
        missing: Any = None if ids.dtype == object else -1
        worst = np.inf if metric == "l2" else -np.inf
        wide_ids = np.full((nq, k), missing, dtype=ids.dtype)
        wide_scores = np.full((nq, k), worst, dtype=np.float32)
        wide_ids[:, :have], wide_scores[:, :have] = ids, scores
        ids, scores = wide_ids, wide_scores
    if single:
        return Hits(ids[0], scores[0], int(counts[0]), stats)
    return Hits(ids, scores, counts, stats)
