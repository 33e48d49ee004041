# SPDX-License-Identifier: Apache-2.0
"""Quality on judged collections: nDCG and recall of relevant documents, for floats and for codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from residua._progress import reporter
from residua._typing import ArrayLike, FloatArray, IntArray, Metric, Progress
from residua._validate import (
    METRICS,
    as_choice,
    as_int,
    as_number,
    as_seed,
    as_threads,
    as_vectors,
    refuse_zero_rows,
)
from residua.codecs import Codec, RecurrentBinaryCodec, check_codec
from residua.errors import InvalidTypeError, InvalidValueError, ShapeError
from residua.indexes import FlatIndex

__all__ = ["Estimate", "EvaluationRow", "evaluate", "ndcg_at", "recall_of_relevant"]

Values = npt.NDArray[np.float64]

_DEPTHS = (10, 100)  # recall is reported at these
_K = 10  # of nDCG


@dataclass(frozen=True)
class Estimate:
    """A mean over queries with its bootstrap confidence interval of 95 %.

    Attributes
    ----------
    value
        The mean.
    low, high
        2.5 and 97.5 % quantiles of the mean over resampled queries.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EvaluationRow:
    """What one way to store and search the documents reaches.

    Attributes
    ----------
    name
        ``"float32"``, or the codec.
    bits
        Bits per dim of the code as asked; None for a codec that was given.
    bytes_per_vector
        All bytes of a code; vectors kept for re-ranking are not counted.
    reranked
        Candidates per query that were settled by float scores; 0 for code scores alone.
    ndcg
        nDCG@10.
    share
        nDCG@10 over that of float32, the same queries being drawn for both.
    recall
        Depth to the share of relevant documents found among that many, averaged over queries.
    """

    name: str
    bits: float | None
    bytes_per_vector: int
    reranked: int
    ndcg: Estimate
    share: Estimate
    recall: dict[int, Estimate]


def ndcg_at(found: IntArray, relevant: Sequence[Mapping[int, float]], k: int = 10) -> Values:
    """Compute nDCG@k of every query: gains are grades, discounts ``1 / log2(rank + 1)``.

    Parameters
    ----------
    found
        ``(nq, >= k)`` row numbers of documents, best first, -1 where there is none.
    relevant
        Per query: row number to grade; grades at or below 0 count as not relevant.
    k
        Ranks that count, at least 1.

    Returns
    -------
    ``(nq,)`` float64, 0 … 1; 0 for a query without relevant documents.

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> rz.evaluation.ndcg_at(np.array([[3, 7, 1]]), [{7: 1.0}], k=3).round(4).tolist()
    [0.6309]
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    out = np.zeros(len(found))
    for i, (rows, grades) in enumerate(zip(found[:, :k].tolist(), relevant, strict=True)):
        ideal = np.sort([g for g in grades.values() if g > 0])[::-1][:k]
        if len(ideal):
            gains = np.array([max(grades.get(row, 0.0), 0.0) for row in rows])
            out[i] = (gains @ discount[: len(gains)]) / (ideal @ discount[: len(ideal)])
    return out


def recall_of_relevant(found: IntArray, relevant: Sequence[Mapping[int, float]], k: int) -> Values:
    """Compute the share of its relevant documents that every query found among the first k.

    Parameters
    ----------
    found
        ``(nq, >= k)`` row numbers of documents, best first, -1 where there is none.
    relevant
        Per query: row number to grade; grades at or below 0 count as not relevant.
    k
        Ranks that count, at least 1.

    Returns
    -------
    ``(nq,)`` float64, 0 … 1; 0 for a query without relevant documents.
    """
    out = np.zeros(len(found))
    for i, (rows, grades) in enumerate(zip(found[:, :k].tolist(), relevant, strict=True)):
        wanted = {row for row, grade in grades.items() if grade > 0}
        if wanted:
            out[i] = len(wanted.intersection(rows)) / len(wanted)
    return out


def evaluate(
    documents: ArrayLike,
    queries: ArrayLike,
    relevant: Sequence[Mapping[int, float]],
    *,
    bits: Sequence[float] = (8, 4, 2, 1),
    codecs: Sequence[Codec] = (),
    metric: Metric = "cosine",
    rerank: int | Literal["auto"] = "auto",
    resamples: int = 1000,
    num_threads: int | None = None,
    progress: Progress = False,
    seed: int = 0,
) -> list[EvaluationRow]:
    """Measure nDCG@10 and recall of relevant documents, for float32, for codes, and for codes re-ranked.

    Parameters
    ----------
    documents
        ``(n, dim)`` vectors.
    queries
        ``(nq, dim)`` vectors.
    relevant
        One mapping per query: row number of a document to its grade. Queries without a grade above 0 are
        left out, as in BEIR.
    bits
        Bits per dim of the recurrent codecs that are fitted to the documents; the queries take no part.
    codecs
        More codecs, fitted for ``metric``; an untrained one is fitted to the documents.
    metric
        ``"cosine"``, ``"ip"`` or ``"l2"``.
    rerank
        Candidates per query that float scores settle, at least 1; below 100, the depth of the deepest recall,
        it acts as 100. ``"auto"`` leaves it to the index.
    resamples
        Bootstrap samples of the queries, at least 1.
    num_threads
        At least 1; None uses the CPUs that the process may use.
    progress
        True draws a progress bar; a callable gets ``(done, total)``.
    seed
        Seed of the codecs and of the bootstrap.

    Returns
    -------
    float32 first, then every codec without and with re-ranking.

    Raises
    ------
    InvalidValueError
        No query has a relevant document, or a row number is not one of a document.
    ShapeError, DtypeError, NonFiniteError, InvalidTypeError

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> x = np.random.default_rng(0).standard_normal((400, 64)).astype("float32")
    >>> rows = rz.evaluate(x, x[:20], [{i: 1} for i in range(20)], bits=[2])
    >>> [(row.name, row.ndcg.value) for row in rows][0]
    ('float32', 1.0)
    """
    as_choice(metric, "metric", METRICS)
    x, _ = as_vectors(documents, None, "documents")
    q, _ = as_vectors(queries, x.shape[1], "queries")
    for rows_, name in ((x, "documents"), (q, "queries")):
        if metric == "cosine":
            refuse_zero_rows(rows_, name)
    grades = _as_grades(relevant, len(q), len(x))
    settled = None if rerank == "auto" else as_int(rerank, "rerank", 1, 2**31 - 1)
    draws = as_int(resamples, "resamples", 1, 1_000_000)
    seed = as_seed(seed)
    as_threads(num_threads)
    chosen = [(as_number(b, "bits"), RecurrentBinaryCodec(x.shape[1], b, seed=seed)) for b in bits]
    for codec in codecs:
        check_codec(codec, x.shape[1])
    judged = np.array([any(g > 0 for g in one.values()) for one in grades], dtype=bool)
    if not judged.any():
        raise InvalidValueError("relevant: no query has a relevant document, so nothing can be measured")
    asked, answers = q[judged], [one for one, take in zip(grades, judged, strict=True) if take]
    every: list[tuple[float | None, Codec]] = [*chosen, *((None, codec) for codec in codecs)]

    report = reporter(progress, "evaluate")
    total = 1 + len(every)
    depth = min(max(_DEPTHS), len(x))
    score = _Scores(answers, draws, seed)
    report(0, total)
    exact = FlatIndex(x.shape[1], metric=metric)
    exact.add(x, num_threads=num_threads)
    hits = exact.search(asked, depth, num_threads=num_threads)
    out = [score.row("float32", None, 4 * x.shape[1], 0, hits.ids)]
    report(1, total)
    for done, (b, codec) in enumerate(every, 2):
        index = _index_of(codec, x, metric, num_threads)
        for candidates in (False, settled):
            hits = index.search(asked, depth, rerank=candidates, num_threads=num_threads)
            out.append(score.row(_name(codec), b, codec.code_bytes, hits.stats["reranked"], hits.ids))
        report(done, total)
    return out


def _as_grades(relevant: Any, nq: int, n: int) -> list[Mapping[int, float]]:
    if isinstance(relevant, Mapping) or not isinstance(relevant, Sequence):
        raise InvalidTypeError(
            f"relevant must be a list of one mapping {{row: grade}} per query, got {type(relevant).__name__}"
        )
    if len(relevant) != nq:
        raise ShapeError(f"relevant: {len(relevant)} mappings for {nq} queries")
    for i, one in enumerate(relevant):
        if not isinstance(one, Mapping):
            raise InvalidTypeError(f"relevant: entry {i} must be a mapping {{row: grade}}, got {one!r}")
        for row, grade in one.items():
            as_int(row, f"relevant: row in entry {i}", 0, n - 1)
            if not np.isfinite(as_number(grade, f"relevant: grade in entry {i}")):
                raise InvalidValueError(f"relevant: grade in entry {i} must be finite, got {grade!r}")
    return list(relevant)


def _index_of(codec: Codec, x: FloatArray, metric: Metric, num_threads: int | None) -> FlatIndex:
    if not codec.is_trained:
        codec.fit(x, metric=metric, num_threads=num_threads)
    index = FlatIndex(x.shape[1], metric=metric, codec=codec, vectors="float32")
    index.add(x, num_threads=num_threads)
    return index


def _name(codec: Codec) -> str:
    return type(codec).__name__.removesuffix("Codec")


class _Scores:
    """Turns what was found into rows; the first row is what shares refer to."""

    def __init__(self, answers: list[Mapping[int, float]], resamples: int, seed: int) -> None:
        self._answers = answers
        self._reference: Values | None = None
        # One set of draws for all rows: shares compare the same queries.
        n = len(answers)
        draws = np.random.Generator(np.random.PCG64(seed)).multinomial(n, np.full(n, 1 / n), size=resamples)
        self._weights = np.vstack([np.full(n, 1 / n), draws / n])  # the sample itself, then the draws

    def row(self, name: str, bits: float | None, size: int, reranked: int, found: IntArray) -> EvaluationRow:
        ndcg = ndcg_at(found, self._answers, _K)
        if self._reference is None:
            self._reference = ndcg
        recall = {k: _estimate(self._weights @ recall_of_relevant(found, self._answers, k)) for k in _DEPTHS}
        means, reference = self._weights @ ndcg, self._weights @ self._reference
        share = np.divide(means, reference, out=np.zeros_like(means), where=reference > 0)
        return EvaluationRow(name, bits, size, reranked, _estimate(means), _estimate(share), recall)


def _estimate(means: Values) -> Estimate:
    low, high = np.quantile(means[1:], [0.025, 0.975])
    return Estimate(float(means[0]), float(low), float(high))
