# SPDX-License-Identifier: Apache-2.0
"""Which documents of a multi-vector index are ranked by their tokens, and how many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from residua._document_ids import DocumentIds
from residua._settings import ladder
from residua._tokens import Tokens, pick
from residua._trials import Trial
from residua._typing import AnyArray, FloatArray, IntArray
from residua._validate import as_k, as_seed
from residua.errors import ShapeError
from residua.multivector import maxsim_topk
from residua.results import Hits
from residua.tuning import TuneResult, as_target, halves, tuned

_ASKED = 100  # queries that guess how many candidates are needed
_PIECE = 8  # tokens of such a query, where it is a piece of a document
_USUAL_RECALL = 0.98
FEW = 1000  # documents that are all ranked: that takes a millisecond
_GROWTH = 0.25  # exponent of the documents: MUVERA's tables and 5,000 abstracts, from 1,800 on


class Candidates:
    """Numbers of documents to rank, a run per query."""

    def __init__(self, runs: list[IntArray]) -> None:
        self.offsets = np.concatenate([[0], np.cumsum([len(r) for r in runs])]).astype(np.int64)
        self.numbers = np.concatenate(runs) if runs else np.empty(0, np.int64)

    @classmethod
    def of_search(cls, numbers: AnyArray, n: int) -> Candidates:
        """What a search of the first stage found; documents from ``n`` on are still being added."""
        return cls([row[(row >= 0) & (row < n)] for row in np.atleast_2d(numbers)])

    @classmethod
    def given(cls, candidates: Any, ids: DocumentIds, n_queries: int) -> Candidates:
        """Ids that users give: one array for all queries, or one per query, where -1 and None are missing."""
        first = next((c for c in candidates if c is not None), None)
        if not isinstance(first, (list, tuple, set, frozenset, np.ndarray)):
            return cls([_run(candidates, ids)] * n_queries)
        if len(candidates) != n_queries:
            raise ShapeError(
                f"candidates: a list of ids per query needs {n_queries} of them, got {len(candidates)}"
            )
        return cls([_run(c, ids) for c in candidates])


def _run(candidates: Any, ids: DocumentIds) -> IntArray:
    listed = candidates.tolist() if isinstance(candidates, np.ndarray) else list(candidates)
    return np.unique(ids.numbers([i for i in listed if i is not None and i != -1]))


class Count(NamedTuple):
    """How many candidates hold the best ``k`` of ``documents`` documents well enough."""

    k: int
    candidates: int
    documents: int
    tuned: bool = False  # by a measurement on queries, not guessed

    @classmethod
    def of(cls, saved: AnyArray) -> Count:
        k, candidates, documents, tuned = (int(i) for i in saved)
        return cls(max(1, k), max(1, candidates), max(0, documents), bool(tuned))

    def for_search(self, k: int, n: int) -> int:
        """The same for other sizes: in proportion to k, and growing slowly with the documents."""
        if n <= FEW and not self.tuned:
            return max(k, n)
        wider: float = max(1.0, k / self.k) * max(1.0, n / max(1, self.documents)) ** _GROWTH
        return max(k, math.ceil(self.candidates * wider))


def guessed_count(
    sample: tuple[AnyArray, IntArray],
    queries: tuple[AnyArray, IntArray] | None,
    score: Callable[[tuple[AnyArray, IntArray]], FloatArray],
    num_threads: int | None,
) -> Count:
    """How many candidates of a sample hold 98 % of the ten best by MaxSim.

    ``score`` gives first-stage scores of queries and all documents of the sample. Where no queries are given,
    some tokens of some documents ask for the other documents.
    """
    n, own = len(sample[1]) - 1, queries is None
    asked = pieces(sample) if queries is None else pick_evenly(queries, _ASKED)
    k = min(10, n - own)
    if k < 1 or len(asked[1]) < 2:
        return Count(10, 10, n)
    best = maxsim_topk(asked, sample, k + own, num_threads=num_threads)
    true = best.ids[:, int(own) :]
    places = np.argsort(np.argsort(-score(asked), axis=1, kind="stable"), axis=1)
    ranks = np.sort(np.take_along_axis(places, np.maximum(true, 0), axis=1)[true >= 0])
    reached = int(ranks[math.ceil(_USUAL_RECALL * len(ranks)) - 1]) + 1 if len(ranks) else k
    return Count(10, max(10, reached), n)


def pieces(sample: tuple[AnyArray, IntArray]) -> tuple[AnyArray, IntArray]:
    """Up to 8 evenly spaced tokens of each of some documents."""
    flat, offsets = pick_evenly(sample, _ASKED)
    rows = [
        np.arange(a, b)[:: max(1, -(-(b - a) // _PIECE))]
        for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    ]
    lengths = np.cumsum([0, *map(len, rows)])
    return flat[np.concatenate(rows)], lengths.astype(np.int64)


def pick_evenly(sets: tuple[AnyArray, IntArray], most: int) -> tuple[AnyArray, IntArray]:
    """At most that many of the sets."""
    n = len(sets[1]) - 1
    chosen = pick(Tokens(*sets, False), np.arange(0, n, max(1, -(-n // most))))
    return chosen.flat, chosen.offsets


def tune_candidates(
    search: Callable[..., Hits],
    q: Tokens,
    n: int,
    k: int,
    target_recall: Any,
    seed: int,
    num_threads: int | None,
) -> TuneResult:
    """Find the fewest candidates by which ``search`` finds what it finds by ranking all n documents."""
    k, target = as_k(k), as_target(target_recall)
    split = halves(np.arange(len(q)), as_seed(seed), target, k, "q_tokens")

    def ranked(queries: Tokens, count: int) -> Hits:
        return search((queries.flat, queries.offsets), k, candidates=count, num_threads=num_threads)

    true = ranked(q, n).ids
    axes: list[tuple[str, Sequence[int]]] = [("candidates", ladder(k, max(k, n)))]
    return tuned(lambda rows: _Ranking(ranked, pick(q, rows), true[rows], k), axes, split, target, k)


class _Ranking(Trial):
    """Candidates of some queries, ranked by their tokens."""

    def __init__(
        self, ranked: Callable[[Tokens, int], Hits], queries: Tokens, true: AnyArray, k: int
    ) -> None:
        super().__init__(np.arange(len(queries)), true, k)
        self._ranked, self._queries = ranked, queries

    def _search(self, params: dict[str, Any]) -> Hits:
        return self._ranked(self._queries, params["candidates"])

    def _costs(self, hits: Hits) -> tuple[float, float]:
        return 0.0, float(hits.stats["reranked"])  # documents, which are as good as bytes to compare
