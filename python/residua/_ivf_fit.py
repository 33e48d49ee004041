# SPDX-License-Identifier: Apache-2.0
"""What training gives an :class:`residua.IVFIndex`: centroids, a codec, and how well the lists fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from residua import _core
from residua._codec import Codec
from residua._typing import FloatArray, Metric
from residua.codecs import RecurrentBinaryCodec

_ITERATIONS = 12
_ROWS_PER_LIST = 128  # that k-means learns from, at most
_CODEC_ROWS = 50_000
_HELD_OUT = 2_000  # rows that k-means does not see, at most
_K = 10


@dataclass(frozen=True)
class Trained:
    """Centroids, and the codec with what it codes."""

    centroids: FloatArray
    codec: _core.Codec | None
    residual: bool
    error: float


def automatic_nlist(n: int) -> int:
    """Lists for ``n`` rows: twice the square root, which balances choosing lists and reading them."""
    return max(1, round(2 * math.sqrt(n)))


def train_lists(
    x: FloatArray,
    queries: FloatArray | None,
    codec: Codec | None,
    *,
    metric: Metric,
    nlist: int,
    seed: int,
    threads: int,
    report: Callable[[int, int], None],
) -> Trained:
    """Fit centroids, and the codec unless it is fitted."""
    steps = _ITERATIONS + 2
    report(0, steps)
    if metric == "cosine":
        x = _core.normalize(x)
        queries = None if queries is None else _core.normalize(queries)
    centroids, error = _centroids(x, nlist, seed, threads, lambda done: report(done, steps))
    if codec is None:
        report(steps, steps)
        return Trained(centroids, None, False, error)
    residual = not codec.is_trained and isinstance(codec, RecurrentBinaryCodec)
    if not codec.is_trained:
        sample = x[_core.sample_rows(len(x), _CODEC_ROWS, seed)]
        if residual:
            nearest = _core.nearest_centroids(sample, centroids, 1, False, threads)[0][:, 0]
            # A query scores residuals as it is: without a sample of queries, vectors stand for them.
            asked = sample if queries is None else queries
            codec.fit(sample - centroids[nearest], queries=asked, metric="ip", num_threads=threads or None)
            report(steps - 1, steps)
            codec._native = _with_candidates(
                codec._trained(), sample, queries, centroids, metric, seed, threads
            )
        else:
            codec.fit(sample, queries=queries, metric=metric, num_threads=threads or None)
    report(steps, steps)
    return Trained(centroids, codec._trained(), residual, error)


def _centroids(
    x: FloatArray, nlist: int, seed: int, threads: int, report: Callable[[int], None]
) -> tuple[FloatArray, float]:
    """Centroids, and the mean squared distance to them of rows that they were not learned from."""
    order = _core.permutation(len(x), seed)
    held = min(_HELD_OUT, len(x) // 10)
    learn = np.sort(order[held : held + nlist * _ROWS_PER_LIST])
    rows = np.ascontiguousarray(x[learn])
    centroids: FloatArray | None = None
    for i in range(_ITERATIONS):
        centroids = _core.kmeans(rows, nlist, 1, seed=seed, num_threads=threads, start=centroids)[0]
        report(i + 1)
    if centroids is None:
        centroids = rows
    others = x[np.sort(order[:held])] if held else rows
    distances = _core.nearest_centroids(np.ascontiguousarray(others), centroids, 1, False, threads)[1]
    return centroids, float(distances.astype(np.float64).mean())


def _with_candidates(
    codec: _core.Codec,
    x: FloatArray,
    queries: FloatArray | None,
    centroids: FloatArray,
    metric: str,
    seed: int,
    threads: int,
) -> _core.Codec:
    """Give the codec the number of candidates per result that re-ranking needs, measured on a sample."""
    rows = x[_core.sample_rows(len(x), 20_000, seed)]
    given = queries if queries is not None else rows
    q = np.ascontiguousarray(given[_core.sample_rows(len(given), 200, seed + 1)])
    if len(rows) < 10 * _K:
        return codec
    nearest = _core.nearest_centroids(rows, centroids, 1, False, threads)[0][:, 0]
    codes = codec.encode(rows - centroids[nearest], threads)
    scores = codec.scores(q, codes, threads) + (q @ centroids.T)[:, nearest]
    exact = q @ rows.T
    if metric == "l2":
        half = 0.5 * np.einsum("ij,ij->i", rows, rows)
        scores, exact = scores - half, exact - half
    best = np.argpartition(-exact, _K, axis=1)[:, :_K]
    worst = np.take_along_axis(scores, best, axis=1)
    depth = float(np.quantile(_ranks(scores, worst), 0.999)) + 1
    growth = math.sqrt(100_000 / len(rows))
    return _core.with_expansion(codec, max(1.0, depth / _K * growth))


def _ranks(scores: FloatArray, values: FloatArray) -> FloatArray:
    """How many scores of a row are above each value of the row."""
    ordered = np.sort(scores, axis=1)
    return np.stack(
        [len(s) - np.searchsorted(s, v, side="right") for s, v in zip(ordered, values, strict=True)]
    ).astype(np.float32)
