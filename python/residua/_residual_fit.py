# SPDX-License-Identifier: Apache-2.0
"""The fit of :class:`residua.ResidualCodec`: codebooks, trained on principal components, and levels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from residua import _core
from residua._recurrent_fit import _as_metric, _sample, _trial
from residua._typing import FloatArray

LEVELS = 256

_SAMPLE = 65_536  # rows that codebooks are trained on, 256 per codeword
_SAMPLE_VALUES = 2**25  # and how many numbers they may hold
_LEVEL_ROWS = 8_192
_LEVEL_ITERATIONS = 10
_OUTER_LEVELS = 16  # at either end: rows outside the sample are coded worse than those in it
_ROTATED_DIMS = 2_048  # above, codebooks are trained in the given dims
_EXPANSION_UNKNOWN = 50.0  # candidates per result for a codec that could not be tried


def fit(
    x: FloatArray,
    queries: FloatArray | None,
    *,
    n_codebooks: int,
    beam: int,
    metric: str,
    seed: int,
    num_threads: int,
    report: Callable[[int, int], None],
) -> _core.Codec:
    """Fit a codec to rows ``x``; ``queries``, where given, are what candidates are tried with."""
    dim = x.shape[1]
    total = n_codebooks + 2
    report(0, total)
    count = max(LEVELS, min(_SAMPLE, _SAMPLE_VALUES // dim))
    rows = _as_metric(_sample(x, count, seed), metric)
    asked = None if queries is None else _as_metric(_sample(queries, count, seed), metric)
    center = rows.mean(axis=0, dtype=np.float64).astype(np.float32)

    def build(of_metric: str, levels: FloatArray, expansion: float) -> _core.Codec:
        return _core.residual_codec(dim, beam, of_metric, center, books, levels, expansion)

    away = rows - center
    axes = _principal_axes(away, num_threads)
    turned = away if axes is None else _core.transform(away, axes, num_threads)
    books = _core.train_residual(
        turned, n_codebooks, beam, seed, num_threads, lambda done, _: report(done, total)
    )
    if axes is not None:
        books = _core.transform(books, np.ascontiguousarray(axes.T), num_threads)
    some = _sample(rows, _LEVEL_ROWS, seed + 1)
    plain = build("l2", np.zeros(LEVELS, np.float32), 1.0)
    sums = plain.decode(plain.encode(some, num_threads), num_threads)
    levels = _levels(_lengths(some, sums, center, metric), seed)
    codec = build(metric, levels, _EXPANSION_UNKNOWN)
    trial = _trial(rows, asked, metric, seed, num_threads)
    if trial is not None:
        codec = build(metric, levels, trial.run(codec, num_threads)[1])
    report(total, total)
    return codec


def _principal_axes(away: FloatArray, threads: int) -> FloatArray | None:
    """Return principal components as rows, by decreasing variance; None where dims are too many for them."""
    if away.shape[1] > _ROTATED_DIMS:
        return None
    # In units of the largest value, so that products neither overflow nor vanish.
    unit = np.float32(np.abs(away).max()) or np.float32(1)
    _, vectors = np.linalg.eigh(_core.gram(away / unit, threads))
    return np.ascontiguousarray(vectors.T[::-1], dtype=np.float32)


def _lengths(rows: FloatArray, sums: FloatArray, center: FloatArray, metric: str) -> FloatArray:
    """Return what the last byte of every code stands for; ``sums`` are rows as codewords give them."""
    if metric == "l2":
        return np.asarray(np.square(sums - center, dtype=np.float64).sum(axis=1), np.float32)
    length = np.sqrt(np.square(sums, dtype=np.float64).sum(axis=1))
    wanted = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1)) if metric == "ip" else 1.0
    ratio = np.divide(wanted, length, out=np.ones_like(length), where=length > 0)
    return np.asarray(np.minimum(ratio, np.finfo(np.float32).max), np.float32)


def _levels(values: FloatArray, seed: int) -> FloatArray:
    """Return 256 levels, ascending: most of least squared error on the sample, some beyond its ends."""
    unit = values.max() or np.float32(1)
    inner = LEVELS - 2 * _OUTER_LEVELS
    centroids, *_ = _core.kmeans((values / unit)[:, None], inner, _LEVEL_ITERATIONS, seed=seed)
    low, middle, high = np.quantile(centroids, (0, 0.5, 1))
    away = 4 * np.square(np.arange(1, _OUTER_LEVELS + 1) / _OUTER_LEVELS)
    levels = np.concatenate([low - away * (middle - low), centroids[:, 0], high + away * (high - middle)])
    return np.asarray(np.sort(np.maximum(levels, 0)) * unit, np.float32)
