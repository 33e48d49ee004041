# SPDX-License-Identifier: Apache-2.0
"""Settings of a search from the recall that is wanted, measured on queries that did not choose them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from residua import _core
from residua._index import Index
from residua._recall_bounds import groups_of_equal, queries_needed
from residua._trials import IndexTrial, Trial, cheapest, true_ids
from residua._typing import ArrayLike, IntArray
from residua._validate import (
    as_array,
    as_k,
    as_number,
    as_seed,
    as_threads,
    as_vectors,
    refuse_zero_rows,
)
from residua.errors import InvalidTypeError, InvalidValueError, ShapeError

__all__ = ["TuneResult", "tune"]


@dataclass(frozen=True)
class TuneResult:
    """Settings, and what they give on queries that did not choose them.

    Attributes
    ----------
    params
        For ``index.search(q, k, **params)`` or ``index.set_defaults(params, k=k)``.
    recall
        Mean recall of the held-out queries.
    ci_low, ci_high
        Its 95 % confidence interval, for more such queries.
    qps
        Queries per second of a batch of the held-out queries: the median of five runs.
    reached
        Whether the settings were chosen with 99.9 % confidence in the target, and the interval of the
        held-out queries reaches it. False: ``params`` are the best that the index has.
    target_recall, k
        As asked for.
    n_tuning, n_held_out
        Queries that chose, and queries that measured.
    """

    params: dict[str, Any]
    recall: float
    ci_low: float
    ci_high: float
    qps: float
    reached: bool
    target_recall: float
    k: int
    n_tuning: int
    n_held_out: int


def tune(
    index: Index,
    queries: ArrayLike,
    *,
    k: int = 10,
    target_recall: float = 0.95,
    truth: ArrayLike | None = None,
    seed: int = 0,
    num_threads: int | None = None,
) -> TuneResult:
    """Find the cheapest settings of a search whose recall reaches a target.

    One half of the queries chooses the settings, with a margin: a one-sided 99.9 % confidence bound of the
    recall reaches the target. The other half measures them. Recall is against the exact search of the kept
    vectors, and a statement about queries like these: queries that are rows of the index, or otherwise easier
    than those to come, promise too much.

    Parameters
    ----------
    index
        A filled index. What is chosen: ``nprobe`` of an IVFIndex, and ``rerank`` where there are a
        codec and kept vectors.
    queries
        ``(nq, dim)``. Equal queries count as one, and stay in one half.
    k
        Results per query.
    target_recall
        Recall@k to reach, above 0, at most 1.
    truth
        ``(nq, k)`` true ids or more per query, best first; None finds them by an exact search, which
        ``vectors="none"`` makes impossible.
    seed
        Seed of the halves.
    num_threads
        At least 1; None uses the CPUs that the process may use. Settings do not depend on it.

    Returns
    -------
    A :class:`TuneResult`; where the target cannot be reached, the best settings, and ``reached=False``.

    Raises
    ------
    InvalidValueError
        The index is empty, or there are too few queries to show the target; the message says how many would
        do.
    UnsupportedError
        No vectors are kept, and no truth is given.
    ShapeError, DtypeError, NonFiniteError, InvalidTypeError

    Examples
    --------
    >>> import residua as rz
    >>> sample = rz.datasets.load_sample()
    >>> index = rz.FlatIndex(384, codec=rz.RecurrentBinaryCodec(384, bits=1))
    >>> ids = index.add(sample.documents[:2000])
    >>> result = rz.tune(index, sample.queries, target_recall=0.95)
    >>> result.recall > 0.95, result.reached
    (True, True)
    >>> hits = index.search(sample.queries, 10, **result.params)
    """
    if not isinstance(index, Index):
        raise InvalidTypeError(f"tune takes an index such as FlatIndex, got {type(index).__name__}")
    k = as_k(k)
    target = as_target(target_recall)
    threads = as_threads(num_threads)
    q, _ = as_vectors(queries, index.dim, "queries")
    if index.metric == "cosine":
        refuse_zero_rows(q, "queries")
    if len(index) == 0:
        raise InvalidValueError("tune needs an index that holds vectors; this one is empty")
    given = None if truth is None else _as_truth(truth, len(q), k)
    groups = groups_of_equal(q)
    split = halves(groups, as_seed(seed), target, k, "queries")
    true = true_ids(index, q, k, threads) if given is None else given
    return tuned(
        lambda rows: IndexTrial(index, q[rows], groups[rows], true[rows], k, threads),
        index._axes(k), split, target, k,
    )  # fmt: skip


def tuned(
    trial: Callable[[IntArray], Trial],
    axes: list[tuple[str, Sequence[int]]],
    split: tuple[IntArray, IntArray],
    target: float,
    k: int,
) -> TuneResult:
    """Choose settings on one half of the queries, and measure them on the other; ``trial`` takes places."""
    chosen, held = split
    params, shown = cheapest(trial(chosen), axes, target)
    measured = trial(held)
    low, mean, high = measured.interval(params)
    return TuneResult(
        params=params,
        recall=mean,
        ci_low=low,
        ci_high=high,
        qps=measured.queries_per_second(params),
        reached=shown and high >= target,
        target_recall=target,
        k=k,
        n_tuning=len(chosen),
        n_held_out=len(held),
    )


def as_target(target_recall: Any) -> float:
    """Return a recall that can be asked for."""
    target = as_number(target_recall, "target_recall")
    if not 0 < target <= 1:
        raise InvalidValueError(f"target_recall must be above 0 and at most 1, got {target}")
    return target


def halves(groups: Any, seed: int, target: float, k: int, name: str) -> tuple[IntArray, IntArray]:
    """Places of two halves of the queries, none of a group in both."""
    n_groups = len(np.unique(groups))
    needed = 2 * queries_needed(target, k)
    if n_groups < needed:
        raise InvalidValueError(
            f"{name}: {n_groups} different ones cannot show a recall@{k} of {target:g}; {needed} can"
        )
    first = np.zeros(int(groups.max()) + 1, bool)
    first[_core.permutation(len(first), seed)[: len(first) // 2]] = True
    return np.flatnonzero(first[groups]), np.flatnonzero(~first[groups])


def _as_truth(truth: ArrayLike, n: int, k: int) -> Any:
    ids = as_array(truth, "truth")
    if ids.ndim != 2 or len(ids) != n or ids.shape[1] < k:
        raise ShapeError(f"truth: expected shape ({n}, {k}) or more per query, got {ids.shape}")
    return ids[:, :k]
