# SPDX-License-Identifier: Apache-2.0
"""What a learned encoder holds, and how it is fitted: docs/multivector.md derives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residua import _core
from residua._tokens import Tokens
from residua._typing import AnyArray, FloatArray, IntArray

__all__ = ["Maps", "fit_maps", "query_vectors", "solver_of"]

_DOCUMENTS = 2048  # whose targets choose the directions
_QUANTILE = 0.99  # of the inner products with an anchor: where its feature begins
_RIDGE = 1e-3  # of the features, relative to their mean square
_SOLVER_RIDGE = 1e-3  # of the values of a document
_SUMMED = 4096  # tokens whose features stand in memory at once


@dataclass(frozen=True)
class Maps:
    """The features of a token, their map to the values of a vector, and the sample of tokens.

    A token x has the features ``max(0, anchors @ (scale * x) - starts)``, ``scale * x`` and 1. Anchors, map
    and samples are float16 in files, and hold only values of float16, so that a file gives the same vectors.
    """

    scale: float
    anchors: FloatArray  # (features, dim)
    starts: FloatArray  # (features,)
    map: FloatArray  # (features + dim + 1, output_dim)
    samples: FloatArray  # (samples, dim) tokens, times scale
    mean: FloatArray  # (samples,) their best inner product with a document, on average


def _half(x: AnyArray) -> FloatArray:
    return np.ascontiguousarray(x.astype(np.float16), np.float32)


def query_vectors(maps: Maps, sets: Tokens, num_threads: int) -> FloatArray:
    """Return ``(n, output_dim)``: the mapped sums of features; 0 without tokens."""
    sums = _sums_of_features(maps, sets, num_threads)
    out = np.zeros((len(sets), maps.map.shape[1]), np.float32)
    for i, row in enumerate(sums):
        used = np.flatnonzero(row)  # few: most features begin above most tokens
        np.dot(row[used], maps.map[used], out=out[i])
    return out


def _sums_of_features(maps: Maps, sets: Tokens, num_threads: int) -> FloatArray:
    """Sum the features of the tokens of every set, ``(n, features + dim + 1)``; 0 without tokens."""
    n_features, dim = maps.anchors.shape
    out = np.zeros((len(sets), n_features + dim + 1), np.float32)
    offsets, first = sets.offsets, 0
    while first < len(sets):
        # Whole sets of at most _SUMMED tokens, or one set.
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + _SUMMED, side="right")) - 1)
        tokens = sets.flat[offsets[first] : offsets[last]].astype(np.float32) * np.float32(maps.scale)
        features = _features(maps, tokens, num_threads)
        filled = first + np.flatnonzero(np.diff(offsets[first : last + 1]))
        if len(filled):
            out[filled] = np.add.reduceat(features, offsets[filled] - offsets[first], axis=0)
        first = last
    return out


def _features(maps: Maps, x: FloatArray, num_threads: int) -> FloatArray:
    """Return the features of tokens that are scaled already."""
    n_features, dim = maps.anchors.shape
    out = np.empty((len(x), n_features + dim + 1), np.float32)
    np.subtract(_core.transform(x, maps.anchors, num_threads), maps.starts, out=out[:, :n_features])
    np.maximum(out[:, :n_features], 0, out=out[:, :n_features])
    out[:, n_features:-1] = x
    out[:, -1] = 1
    return out


def _ridge(gram: AnyArray, right: AnyArray, strength: float) -> AnyArray:
    """Solve ``gram @ b = right``, with a ridge relative to the mean of the diagonal."""
    size = len(gram)
    load = strength * float(np.trace(gram)) / size + 1e-30
    return np.linalg.solve(gram + load * np.eye(size, dtype=gram.dtype), right)


def solver_of(maps: Maps, num_threads: int) -> FloatArray:
    """Return the ``(output_dim, samples)`` map from the targets of a document to its values."""
    across = np.ascontiguousarray(maps.map.T)
    z = _core.transform(_features(maps, maps.samples, num_threads), across, num_threads)
    return np.ascontiguousarray(_ridge(z.T @ z, z.T, _SOLVER_RIDGE), np.float32)


def fit_maps(
    documents: Tokens,
    queries: Tokens | None,
    *,
    output_dim: int,
    features: int,
    samples: int,
    seed: int,
    num_threads: int,
    report: Callable[[int, int], None],
) -> Maps:
    """Choose features, and the directions among them in which documents differ most.

    The best inner products of the sample tokens with some documents are regressed on the features, and the
    leading singular vectors of what the regression predicts become the map (reduced-rank regression).
    """
    steps = 4
    report(0, steps)
    rng = np.random.default_rng(seed)
    tokens = _draw(documents, queries, samples, rng)
    norm = float(np.sqrt(np.mean(np.sum(tokens.astype(np.float64) ** 2, axis=1))))
    scale = float(np.float32(1 / norm)) if norm > 0 else 1.0
    drawn = _half(tokens * np.float32(scale))
    anchors = _half(_draw(documents, queries, features, rng) * np.float32(scale))
    starts = np.quantile(_core.transform(drawn, anchors, num_threads), _QUANTILE, axis=0)
    dim = anchors.shape[1]
    empty = np.zeros((len(anchors) + dim + 1, output_dim), np.float32)
    maps = Maps(scale, anchors, starts.astype(np.float32), empty, drawn, np.zeros(len(drawn), np.float32))
    filled = np.flatnonzero(np.diff(documents.offsets))
    chosen = np.sort(rng.choice(filled, min(len(filled), _DOCUMENTS), replace=False))
    report(1, steps)
    targets, _ = _core.best_tokens(
        drawn, documents.flat, documents.offsets, None, chosen.astype(np.int64), num_threads
    )
    mean = targets.mean(axis=1, dtype=np.float64).astype(np.float32)
    report(2, steps)
    rows = _features(maps, drawn, num_threads)
    directions = _directions(rows, targets - mean[:, None], output_dim)
    report(3, steps)
    fitted = Maps(scale, anchors, maps.starts, _half(directions), drawn, mean)
    report(steps, steps)
    return fitted


def _directions(rows: FloatArray, targets: FloatArray, output_dim: int) -> FloatArray:
    """Return ``(columns of rows, output_dim)``; columns past the rank of the targets are zero."""
    gram = rows.T @ rows
    weights = _ridge(gram, rows.T @ targets, _RIDGE)
    power, vectors = np.linalg.eigh(weights.T @ (gram @ weights))
    power, vectors = power[::-1][:output_dim], vectors[:, ::-1][:, :output_dim]
    strong = power > 1e-6 * max(float(power[0]), 1e-30)
    out = np.zeros((rows.shape[1], output_dim), np.float32)
    out[:, : strong.sum()] = weights @ (vectors[:, strong] / np.sqrt(power[strong] / len(rows)))
    return out


def _draw(documents: Tokens, queries: Tokens | None, n: int, rng: np.random.Generator) -> FloatArray:
    """Draw tokens, from documents and up to half of them from queries."""
    from_queries = 0 if queries is None else min(n // 2, len(queries.flat))
    parts = [documents.flat[_some(len(documents.flat), n - from_queries, rng)]]
    if queries is not None:
        parts.append(queries.flat[_some(len(queries.flat), from_queries, rng)])
    return np.concatenate([p.astype(np.float32) for p in parts])


def _some(n: int, wanted: int, rng: np.random.Generator) -> npt.NDArray[np.int64] | IntArray:
    return np.sort(rng.choice(n, min(n, wanted), replace=False))
