# SPDX-License-Identifier: Apache-2.0
"""Linear maps between the embeddings of two models, fitted to pairs; docs/upgrades.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from residua import _core
from residua._recurrent_maps import GROUP
from residua._typing import FloatArray

METHODS = ("mean_shift", "procrustes", "ridge", "low_rank", "adjoint")
LEAST_AUTO = 8

_FOLDS = 4
_FEW = 400  # pairs below which every fold is held out once; above, one is enough
_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the ridge, relative to the mean variance of a dim
_LOW_RANK_STRENGTH = 1e-2
_RANKS = (8, 32, 96)
_NEIGHBOURS = 10
_TRIAL_ROWS = 4_000
_MARGIN = 0.002  # gain in recall for which a method later in the list is taken

Matrix: TypeAlias = npt.NDArray[np.float64]
Map: TypeAlias = tuple[Matrix, Matrix]  # (old dim, new dim) and (old dim,)
Score: TypeAlias = Callable[[Matrix, Matrix, FloatArray], FloatArray]


@dataclass(frozen=True)
class Pairs:
    """Embeddings of the same texts, as the metric sees them."""

    old: FloatArray
    new: FloatArray
    metric: str

    def rows(self, chosen: npt.NDArray[np.int64]) -> Pairs:
        return Pairs(self.old[chosen], self.new[chosen], self.metric)


def fit(method: str, pairs: Pairs, seed: int) -> Map:
    """Fit one map; the strength of a ridge, or a rank, is the one of least error on held-out pairs."""
    if method == "mean_shift":
        # In double precision: the mean of many rows.
        shift = pairs.old.mean(axis=0, dtype=np.float64) - pairs.new.mean(axis=0, dtype=np.float64)
        return np.eye(len(shift)), shift
    if method == "adjoint":
        back = fit("ridge", Pairs(pairs.new, pairs.old, pairs.metric), seed)
        # <q, V x + s> = <V^T q, x> + a constant of the query; under l2 V is taken for an isometry.
        offset = -back[0].T @ back[1] if pairs.metric == "l2" else np.zeros(pairs.old.shape[1])
        return back[0].T, offset
    center_old = pairs.old.mean(axis=0, dtype=np.float64)
    center_new = pairs.new.mean(axis=0, dtype=np.float64)
    x, y = pairs.new - center_new, pairs.old - center_old
    if method == "procrustes":
        matrix = _orthogonal(x, y)
    else:
        matrix = _Corrected(x, y).matrix(method, _best_setting(x, y, method, seed))
    return matrix, center_old - matrix @ center_new


def choose(pairs: Pairs, score: Score, seed: int) -> str:
    """Return the method that finds most neighbours for held-out pairs.

    ``score(matrix, offset, queries)`` are similarities of queries to the codes of all pairs. True neighbours
    are those of the new model, which is what re-encoding would search.
    """
    order = _core.permutation(len(pairs.new), seed)[:_TRIAL_ROWS]
    methods = [m for m in METHODS if m != "mean_shift" or pairs.old.shape[1] == pairs.new.shape[1]]
    k = max(1, min(_NEIGHBOURS, len(order) // 4))
    found, tried = dict.fromkeys(methods, 0), 0
    parts = np.array_split(order, _FOLDS)
    for part in parts if len(order) < _FEW else parts[:1]:
        held_out = np.zeros(len(pairs.new), bool)
        held_out[part] = True
        rest = pairs.rows(np.flatnonzero(~held_out))
        queries = pairs.new[part]
        others = np.arange(len(part)), part  # a query does not look for itself
        truth = queries @ pairs.new.T
        if pairs.metric == "l2":
            truth = 2 * truth - (pairs.new * pairs.new).sum(axis=1)
        truth[others] = -np.inf
        wanted = _top(truth, k)
        tried += len(part)
        for method in methods:
            scores = score(*fit(method, rest, seed), queries)
            scores[others] = -np.inf
            found[method] += int((_top(scores, k) & wanted).sum())
    best = methods[0]
    for method in methods[1:]:
        if found[method] > found[best] + _MARGIN * k * tried:
            best = method
    return best


def _top(scores: FloatArray, k: int) -> npt.NDArray[np.bool_]:
    marks = np.zeros(scores.shape, bool)
    np.put_along_axis(marks, np.argpartition(-scores, k - 1, axis=1)[:, :k], True, axis=1)
    return marks


def _orthogonal(x: Matrix, y: Matrix) -> Matrix:
    """Orthogonal map of least squares from x to y; of unequal dims, with orthonormal sides."""
    u, _, v = np.linalg.svd(y.T @ x, full_matrices=False)
    return np.asarray(u @ v)


class _Corrected:
    """The orthogonal map and corrections of it: by a ridge, or of low rank."""

    def __init__(self, x: Matrix, y: Matrix) -> None:
        self._start = _orthogonal(x, y)
        self._square = x.T @ x
        self._values, self._vectors = np.linalg.eigh(self._square)
        self._cross = self._vectors.T @ (x.T @ (y - x @ self._start.T))

    def matrix(self, method: str, setting: float) -> Matrix:
        strength = setting if method == "ridge" else _LOW_RANK_STRENGTH
        shrunk = np.maximum(self._values, 0) + strength * max(self._values.mean(), 1e-30)
        correction = (self._vectors @ (self._cross / shrunk[:, None])).T
        if method == "low_rank":
            # Reduced-rank regression: the principal components of the fitted values.
            _, components = np.linalg.eigh(correction @ self._square @ correction.T)
            kept = components[:, -int(setting) :]
            correction = kept @ (kept.T @ correction)
        return np.asarray(self._start + correction)


def _best_setting(x: Matrix, y: Matrix, method: str, seed: int) -> float:
    order = _core.permutation(len(x), seed + 1)
    cut = max(1, len(x) // 5)
    test, train = order[:cut], order[cut:]
    corrected = _Corrected(x[train], y[train])
    settings = _STRENGTHS if method == "ridge" else _RANKS

    def error(setting: float) -> float:
        residue = y[test] - x[test] @ corrected.matrix(method, setting).T
        return float((residue * residue).sum())

    return min(settings, key=error)


def fuse(native: _core.Codec, matrix: Matrix, offset: Matrix) -> _core.Codec:
    """Return a native codec of the same codes for queries ``(q, 1)``, the map being part of its own.

    With W the map and t the offset, Mq (W q + t - qm) = (Mq [W, t - qm]) (q, 1), and likewise for the part of
    the score that is linear in the query. Its scores are similarities: under l2 |q - c|^2 - |q - x|^2.
    """
    parts = _core.recurrent_parts(native)
    center, mean = (parts[name].astype(np.float64) for name in ("center", "query_mean"))
    rows = len(parts["step"])
    lifted = np.column_stack([matrix, offset - mean])
    factor = 2.0 if parts["metric"] == "l2" else 1.0
    query_map = factor * (_dense_query_map(parts) @ lifted)
    dim = lifted.shape[1]
    linear = np.zeros(dim) if parts["metric"] == "l2" else center @ lifted
    return _core.recurrent_codec(
        dim=dim,
        bits=parts["bits"],
        metric="ip",
        group_bits=parts["group_bits"],
        center=linear.astype(np.float32),
        query_mean=np.zeros(dim, np.float32),
        block_dims=dim,
        group_block=np.empty(0, np.uint16),
        encode_map=np.zeros(rows * dim, np.float32),
        query_map=query_map.astype(np.float32).ravel(),
        query_scale=np.empty(0, np.float32),
        step=parts["step"],
        levels=parts["levels"],
    )


def _dense_query_map(parts: dict[str, FloatArray]) -> Matrix:
    """Mq as one matrix, (rows, dim)."""
    dim, rows, width = int(parts["dim"]), len(parts["step"]), int(parts["block_dims"])
    flat = parts["query_map"] if len(parts["query_map"]) else parts["encode_map"]
    out = np.zeros((rows, dim))
    owner = np.repeat(parts["group_block"], GROUP) if len(parts["group_block"]) else np.zeros(rows, np.int64)
    # A rest of fewer dims than a group belongs to the block before it.
    last = max(1, (dim + width - GROUP) // width) - 1
    start = 0
    for row, block in enumerate(owner.tolist()):
        first = block * width
        end = dim if block == last else first + width
        out[row, first:end] = flat[start : start + end - first]
        start += end - first
    if len(parts["query_scale"]):
        out *= np.repeat(parts["query_scale"], GROUP)[:, None]
    return out
