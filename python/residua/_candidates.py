# SPDX-License-Identifier: Apache-2.0
"""Which documents of a multi-vector index are ranked by their tokens, and how many."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from residua._document_ids import DocumentIds
from residua._recall_bounds import CHOOSING, REPORTING, estimate, recall_per_query
from residua._settings import ladder
from residua._tokens import Tokens, pick
from residua._typing import AnyArray, IntArray
from residua._validate import as_k, as_seed
from residua.errors import ShapeError
from residua.results import Hits
from residua.tuning import TuneResult, as_target, halves

_RUNS = 5


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


def usual_candidates(k: int, n: int, chosen: tuple[int, int] | None) -> int:
    """How many candidates a search for k among n documents ranks; ``chosen`` by a measurement, for its k."""
    if chosen is not None:
        return max(k, math.ceil(chosen[1] * max(1.0, k / chosen[0])))
    return max(k, math.ceil(12 * k * max(1.0, n / 1000) ** 0.4))


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
    groups = np.arange(len(q))
    chosen, held = halves(groups, as_seed(seed), target, k, "q_tokens")

    def found(count: int, queries: Tokens = q) -> AnyArray:
        return search((queries.flat, queries.offsets), k, candidates=count, num_threads=num_threads).ids

    true = found(n)
    for count in ladder(k, max(k, n)):
        recalls = recall_per_query(found(count), true)
        shown = estimate(recalls[chosen], groups[chosen], k).bound(-CHOOSING) >= target
        if shown:
            break
    seconds = []
    for _ in range(_RUNS):
        start = perf_counter()
        found(count, pick(q, held))
        seconds.append(perf_counter() - start)
    measured = estimate(recalls[held], groups[held], k)
    high = measured.bound(REPORTING)
    return TuneResult(
        params={"candidates": count},
        recall=measured.mean,
        ci_low=measured.bound(-REPORTING),
        ci_high=high,
        qps=float(len(held) / np.median(seconds)),
        reached=shown and high >= target,
        target_recall=target,
        k=k,
        n_tuning=len(chosen),
        n_held_out=len(held),
    )
