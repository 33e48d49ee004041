# SPDX-License-Identifier: Apache-2.0
"""An index from vectors and the recall that is wanted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from residua._build_choice import Choice, Given, K
from residua._build_options import Options, options
from residua._index import Index
from residua._progress import reporter
from residua._recall_bounds import queries_needed
from residua._typing import ArrayLike, FloatArray, Metric, Progress
from residua._validate import (
    METRICS,
    as_choice,
    as_number,
    as_seed,
    as_threads,
    as_vectors,
    refuse_huge_values,
    refuse_zero_rows,
)
from residua.errors import InvalidValueError
from residua.indexes import FlatIndex
from residua.tuning import as_target

__all__ = ["build"]

_EXACT_UP_TO = 2000  # rows that are scanned in a tenth of a millisecond


def build(
    x: ArrayLike,
    *,
    metric: Metric = "cosine",
    target_recall: float = 0.95,
    max_bytes_per_vector: float | None = None,
    queries: ArrayLike | None = None,
    seed: int = 0,
    num_threads: int | None = None,
    progress: Progress = False,
) -> Index:
    """Build an index of vectors that reaches a recall, at the least cost of a search.

    Codecs and kinds of index are tried on a part of the vectors; the cheapest that reaches the target takes
    all of them and is tuned as :func:`residua.tune` does. Its searches use the settings found where a call
    gives none; ``index.plan`` says what was chosen and why, and ``index.defaults`` are the settings.

    Parameters
    ----------
    x
        ``(n, dim)`` vectors; ids are their row numbers.
    metric
        ``"cosine"``, ``"ip"`` or ``"l2"``.
    target_recall
        Recall@10 to reach, above 0, at most 1, against the exact search of ``x``.
    max_bytes_per_vector
        Most bytes of codes, kept vectors and what else grows with them, per vector; None for no limit.
    queries
        ``(nq, dim)`` queries like those to come; half of them measure only. None takes rows of ``x`` as
        queries, which do not find themselves, and has them miss half as much, because real queries are
        harder; those that look unlike the vectors, such as questions for documents, may still miss more.
    seed
        Seed of samples and codecs.
    num_threads
        At least 1; None uses the CPUs that the process may use. The index does not depend on it.
    progress
        True draws a progress bar; a callable gets ``(done, total)``.

    Returns
    -------
    The filled index.

    Raises
    ------
    InvalidValueError
        No index of ``max_bytes_per_vector`` reaches the target, and the message says what would do; or there
        are too few vectors or queries to show the target.
    ShapeError, DtypeError, NonFiniteError, InvalidTypeError

    Examples
    --------
    >>> import residua as rz
    >>> sample = rz.datasets.load_sample()
    >>> index = rz.build(sample.documents, queries=sample.queries, target_recall=0.95)
    >>> hits = index.search(sample.queries, k=10)
    >>> truth = rz.exact_search(sample.queries, sample.documents, 10).ids
    >>> rz.recall(hits.ids, truth) >= 0.95
    True
    """
    as_choice(metric, "metric", METRICS)
    target = as_target(target_recall)
    budget = None if max_bytes_per_vector is None else as_number(max_bytes_per_vector, "max_bytes_per_vector")
    if budget is not None and not budget > 0:
        raise InvalidValueError(f"max_bytes_per_vector must be above 0, got {budget}")
    threads = as_threads(num_threads)
    seed = as_seed(seed)
    v = _vectors(x, None, "x", metric)
    q = None if queries is None else _vectors(queries, v.shape[1], "queries", metric)
    if len(v) == 0:
        raise InvalidValueError("x: expected at least 1 vector to build from, got 0")
    report = reporter(progress, "build")
    report(0, 3)
    every = options(v.shape[1], metric, seed, _fits_half(v))
    fitting = every.within(budget)
    if not fitting.all():
        least = min(every.all(), key=lambda o: o.bytes)
        raise InvalidValueError(
            f"max_bytes_per_vector={budget:g}: the smallest codes of {v.shape[1]} dims are {least.name} of "
            f"{least.bytes} bytes"
        )
    given = Given(v, q, metric, target, seed, threads, budget)
    few = q is None and len(v) <= 2 * queries_needed(given.aim, K)
    if fitting.exact is not None and (len(v) <= _EXACT_UP_TO or few):
        index = _exact(v, metric)
    elif few:
        raise InvalidValueError(
            f"x: {len(v)} vectors cannot show a recall@{K} of {target:g}; give queries=, or {_bytes(every)} "
            "per vector for an exact index"
        )
    else:
        index = _cheapest(given, every, fitting, budget, report)
    report(3, 3)
    return index


def _vectors(x: ArrayLike, dim: int | None, name: str, metric: str) -> FloatArray:
    v, _ = as_vectors(x, dim, name)
    if metric == "cosine":
        refuse_zero_rows(v, name)
    refuse_huge_values(v, name, metric)
    return v


def _fits_half(v: FloatArray) -> bool:
    """Whether float16 holds every row to 1e-3 of its norm, which kept vectors are to be."""
    for begin in range(0, len(v), 2**14):
        x = v[begin : begin + 2**14]
        with np.errstate(over="ignore"):
            missed = x.astype(np.float16).astype(np.float64) - x
        size = np.linalg.norm(x.astype(np.float64), axis=1)
        if not (np.linalg.norm(missed, axis=1) <= 1e-3 * size).all():
            return False
    return True


def _bytes(every: Options) -> str:
    return "" if every.exact is None else f"max_bytes_per_vector={every.exact.bytes}"


def _exact(v: FloatArray, metric: Metric) -> Index:
    index = FlatIndex(v.shape[1], metric=metric)
    index.add(v)
    index._keep({}, K, f"exact, because {len(v)} vectors are scanned faster than codes would pay")
    return index


def _cheapest(
    given: Given, every: Options, fitting: Options, budget: float | None, report: Callable[[int, int], None]
) -> Index:
    """The index of the cheapest option that reaches the target with all vectors."""
    choice = Choice(given)
    ranked = choice.rank(fitting)
    report(1, 3)
    for option in ranked:
        # Recall falls as rows come in: a dearer one may be needed than for a part of them.
        index = choice.complete(option, len(ranked))
        if index is not None:
            return index
    raise InvalidValueError(_impossible(choice, every, budget))


def _impossible(choice: Choice, every: Options, budget: float | None) -> str:
    limit = "" if budget is None else f" of at most {budget:g} bytes per vector"
    text = f"no index{limit} reaches a recall@{K} of {choice.given.target:g}"
    if choice.best is not None:
        recall, option = choice.best
        text += f"; the best, {option.name} of {option.bytes} bytes, reaches {recall:.3f}"
    larger = [] if budget is None else [o for o in every.all() if o.bytes > budget]
    larger.sort(key=lambda o: o.bytes)
    enough = next((o for o in larger if o is every.exact or choice.reaches(o)), None)
    return text if enough is None else f"{text}. {enough.bytes} bytes may do: {enough.name}"
