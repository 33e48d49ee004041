# SPDX-License-Identifier: Apache-2.0
"""The fit of :class:`residua.ScalarCodec`: means, steps, and which of two kinds of ranges serves the data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from residua import _core
from residua._recurrent_fit import _as_metric, _sample, _trial
from residua._typing import FloatArray

SCALAR_BYTES = 8
EXPANSION_UNKNOWN = {8: 4.0, 4: 10.0}  # candidates per result for a codec that could not be tried

_SAMPLE_VALUES = 2**25  # floats of the sample
_ERROR_VALUES = 2**20  # floats of the rows that candidates are compared on
_ERROR_QUERIES = 256
_RANGE_VALUES = 2**20  # floats of the rows that ranges per dimension are fitted to
# Powers of a dim's deviation that ranges per vector are scaled by.
_EXPONENTS = (0.25, 0.0, 0.5)
_FLOOR = 1e-3  # smallest deviation, relative to the largest
_SHRINK = {8: (1, 0.97, 0.94, 0.9, 0.85, 0.8, 0.7), 4: tuple(1 - 0.05 * i for i in range(15))}
_MOVES = (0.8, 0.85, 0.9, 0.95, 1.05, 1.1, 1.2)


def code_bytes(dim: int, bits: int) -> int:
    """Return all bytes of a code: whole cells of 4 bytes, and two float32."""
    return -(-dim * bits // 32) * 4 + SCALAR_BYTES


def fit(
    x: FloatArray,
    queries: FloatArray | None,
    *,
    bits: int,
    metric: str,
    seed: int,
    num_threads: int,
    report: Callable[[int, int], None],
) -> _core.Codec:
    """Fit a codec to rows ``x`` and, where given, a sample of queries."""
    report(0, 3)
    dim = x.shape[1]
    limit = max(256, _SAMPLE_VALUES // dim)
    rows = _as_metric(_sample(x, limit, seed), metric)
    asked = None if queries is None else _as_metric(_sample(queries, limit, seed), metric)
    center = _mean(rows)
    query_mean = center if asked is None else _mean(asked)

    def build(per_vector: bool, middle: FloatArray, step: FloatArray, expansion: float) -> _core.Codec:
        return _core.scalar_codec(dim, bits, metric, per_vector, middle, query_mean, step, expansion)

    candidates = [(True, center, step) for step in _weights(rows)]
    some = _sample(rows, max(64, _RANGE_VALUES // dim), seed + 1)
    candidates.append((False, *_ranges(some, rows.min(axis=0), rows.max(axis=0), bits)))
    report(1, 3)
    some = _sample(rows, max(64, _ERROR_VALUES // dim), seed + 2)
    away = _sample(rows if asked is None else asked, _ERROR_QUERIES, seed + 3) - query_mean
    errors = [_score_error(build(*c, 1.0), some, away, num_threads) for c in candidates]
    best = candidates[int(np.argmin(errors))]  # the first of equals
    report(2, 3)
    trial = _trial(rows, asked, metric, seed, num_threads)
    expansion = EXPANSION_UNKNOWN[bits]
    if trial is not None:
        _, expansion = trial.run(build(*best, 1.0), num_threads)
    report(3, 3)
    return build(*best, expansion)


def _mean(x: FloatArray) -> FloatArray:
    return np.asarray(x.mean(axis=0, dtype=np.float64), np.float32)


def _score_error(codec: _core.Codec, rows: FloatArray, away: FloatArray, threads: int) -> float:
    """Mean squared error of inner products with queries less their mean: the part that is estimated."""
    missed = codec.decode(codec.encode(rows, threads), threads) - rows
    # In units of the largest, so that nothing overflows.
    size = float(np.abs(missed).max(initial=0)) or 1.0
    away = away / (float(np.abs(away).max(initial=0)) or 1.0)
    return size**2 * float(np.square(_core.transform(away, missed / np.float32(size), threads)).mean())


def _weights(rows: FloatArray) -> list[FloatArray]:
    """Steps of candidates with ranges per vector: powers of the deviations, at most 1; equal ones once."""
    deviation = rows.std(axis=0, dtype=np.float64)
    largest = float(deviation.max())
    if largest == 0:
        return [np.ones(rows.shape[1], np.float32)]
    scaled = np.maximum(deviation / largest, _FLOOR)
    return [(scaled**e).astype(np.float32) for e in _EXPONENTS]


def _ranges(
    rows: FloatArray, least: FloatArray, most: FloatArray, bits: int
) -> tuple[FloatArray, FloatArray]:
    """Middle and step of every dim: of the range of least squared error on ``rows``.

    It starts from the smallest and the largest value of a dim, and may cut off the tails.
    """
    top = 2**bits - 1
    x = rows.astype(np.float64)
    low, high, mean = least.astype(np.float64), most.astype(np.float64), x.mean(axis=0)
    tiny = max(float((high - low).max()), float(np.abs(x).max()) * 1e-6, 1e-30) * 1e-6

    def step_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(np.maximum((b - a) / top, tiny))

    def error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        step, middle = step_of(a, b), (a + b) / 2
        level = np.clip(np.floor((x - middle) / step + (top + 1) / 2), 0, top)
        return np.asarray(np.square((level - top / 2) * step + middle - x).sum(axis=0))

    best, smallest = (low, high), error(low, high)

    def try_range(a: np.ndarray, b: np.ndarray) -> None:
        nonlocal best, smallest
        e = error(a, b)
        better = e < smallest
        best = (np.where(better, a, best[0]), np.where(better, b, best[1]))
        smallest = np.where(better, e, smallest)

    # Steps of 1 hold whole numbers, such as pixels, without an error.
    try_range(low, np.where(high - low <= top, low + top, high))

    for part in _SHRINK[bits]:
        try_range(mean + (low - mean) * part, mean + (high - mean) * part)
    for _ in range(2):
        for move in _MOVES:
            try_range(mean + (best[0] - mean) * move, best[1])
        for move in _MOVES:
            try_range(best[0], mean + (best[1] - mean) * move)
    middle, step = (best[0] + best[1]) / 2, step_of(*best)
    return middle.astype(np.float32), np.maximum(step, 1e-37).astype(np.float32)
