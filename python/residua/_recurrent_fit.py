# SPDX-License-Identifier: Apache-2.0
"""The closed-form fit of :class:`residua.RecurrentBinaryCodec`; docs/codecs.md derives it.

Everything that grows with the sample runs in native code; what is left here is the eigenvectors,
which are LAPACK's work, and the choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from residua import _core
from residua._typing import FloatArray

GROUP = 32
MAX_BITS = 8
SCALAR_BYTES = 6

_SAMPLE = 100_000  # rows that the moments are taken from
_EXPONENT = 0.125  # the one that wins or nearly wins on every set measured (docs/codecs.md)
_EXPONENTS = (_EXPONENT, 0.25)  # tried when there are queries to try them on
_MARGIN = 0.005  # gain in held-out recall for which another exponent is taken
_STEP_ROWS = 4_000  # rows that the steps are fitted to
_TRIAL_ROWS = 10_240  # rows that a trial ranks
_TRIAL_QUERIES = 512
_LEVEL_WEIGHT = 32.0  # values that the middle of a level counts for
_SHRINK = 0.1  # of a query covariance towards its mean diagonal
_FLOOR = 1e-4  # smallest eigenvalue, relative to the largest
_NEIGHBOURS = 10
_EXPANSION_UNKNOWN = 50.0  # candidates per result for a codec that could not be tried

Matrix = npt.NDArray[np.float64]


def group_budget(dim: int, bits: float) -> int:
    """Return how many bits the groups of 32 dims share out between them."""
    groups = -(-dim // GROUP)
    wanted = max(math.ceil(dim * bits / GROUP - 1e-9), math.ceil(bits))
    return min(wanted, groups * MAX_BITS)


def code_bytes(dim: int, bits: float) -> int:
    """Return all bytes of a code, scalars included."""
    return group_budget(dim, bits) * GROUP // 8 + SCALAR_BYTES


@dataclass
class _Space:
    """What all candidates of one fit share."""

    rows: FloatArray  # sample, as the metric sees it
    center: FloatArray
    query_mean: FloatArray
    covariance: Matrix  # of the rows
    query_covariance: Matrix | None  # None: the rows' own is taken
    budget: int
    seed: int
    threads: int

    @cached_property
    def row_eigen(self) -> tuple[npt.NDArray[np.float64], Matrix]:
        return _eigh(self.covariance)

    @cached_property
    def query_eigen(self) -> tuple[npt.NDArray[np.float64], Matrix]:
        return _eigh(self.covariance if self.query_covariance is None else self.query_covariance)


def fit(
    x: FloatArray,
    queries: FloatArray | None,
    *,
    bits: float,
    metric: str,
    query_aware: bool,
    seed: int,
    num_threads: int,
    report: Callable[[int, int], None],
) -> _core.Codec:
    """Fit a codec to rows ``x`` and, where given, a sample of queries."""
    exponents = ((_EXPONENT,) if queries is None else _EXPONENTS) if query_aware else (0.0,)
    total = len(exponents) + 2
    report(0, total)
    rows = _as_metric(_sample(x, _SAMPLE, seed), metric)
    asked = None if queries is None else _as_metric(_sample(queries, _SAMPLE, seed), metric)
    space = _space(rows, asked, group_budget(x.shape[1], bits), seed, num_threads)
    report(1, total)
    trial = _trial(rows, asked, metric, seed, num_threads)
    if trial is None:
        codec = _build(space, _EXPONENT if query_aware else 0.0, bits, metric)
        report(total, total)
        return _core.with_expansion(codec, _EXPANSION_UNKNOWN)

    outcomes: dict[float, tuple[float, float, _core.Codec]] = {}
    for i, exponent in enumerate(exponents):
        codec = _build(space, exponent, bits, metric)
        outcomes[exponent] = (*trial.run(codec, num_threads), codec)
        report(i + 2, total)
    best = max(outcomes, key=lambda e: outcomes[e][0])
    if query_aware and outcomes[best][0] < outcomes[_EXPONENT][0] + _MARGIN:
        best = _EXPONENT
    _, expansion, codec = outcomes[best]
    report(total, total)
    return _core.with_expansion(codec, expansion)


@dataclass(frozen=True)
class _Trial:
    """Queries and rows that a codec is tried on."""

    queries: FloatArray
    rows: FloatArray
    nearest: npt.NDArray[np.int64]  # (queries, _NEIGHBOURS), exact

    def run(self, codec: _core.Codec, threads: int) -> tuple[float, float]:
        """Return (recall of code scores, candidates per result at 100,000 rows)."""
        scores = codec.scores(self.queries, codec.encode(self.rows, threads), threads)
        if codec.metric == "l2":
            scores = -scores
        near = np.take_along_axis(scores, self.nearest, axis=1)
        ordered = np.sort(scores, axis=1)
        ranks = np.stack([len(o) - np.searchsorted(o, s) for o, s in zip(ordered, near, strict=True)])
        needed = float(np.quantile(ranks, 0.998)) / _NEIGHBOURS
        return float((ranks <= _NEIGHBOURS).mean()), max(
            2.0, 1.5 * needed * math.sqrt(100_000 / len(self.rows))
        )


def _trial(
    rows: FloatArray, queries: FloatArray | None, metric: str, seed: int, threads: int
) -> _Trial | None:
    """Return a trial on part of the sample, or None when the sample is too small for one.

    Without queries, rows stand in for them; they are then not among the rows that are ranked.
    """
    order = _core.permutation(len(rows), seed)
    base = min(_TRIAL_ROWS, len(rows) * 3 // 4)
    if queries is not None and len(queries) >= 64:
        asked = queries[_core.permutation(len(queries), seed)[:_TRIAL_QUERIES]]
    else:
        asked = rows[order[base : base + _TRIAL_QUERIES]]
    if len(asked) < 64 or base < 500:
        return None
    ranked = rows[order[:base]]
    nearest, _ = _core.exact_search(asked, ranked, _NEIGHBOURS, metric, threads)
    return _Trial(asked, ranked, nearest)


def _sample(x: FloatArray, count: int, seed: int) -> FloatArray:
    return x if len(x) <= count else x[_core.sample_rows(len(x), count, seed)]


def _as_metric(x: FloatArray, metric: str) -> FloatArray:
    return _core.normalize(x) if metric == "cosine" else x


def _space(rows: FloatArray, queries: FloatArray | None, budget: int, seed: int, threads: int) -> _Space:
    center = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    covariance = _core.gram(rows - center, threads) / len(rows)
    if queries is None:
        return _Space(rows, center, center, covariance, None, budget, seed, threads)
    query_mean = queries.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = _core.gram(queries - query_mean, threads) / len(queries)
    # A sample of queries is small: its covariance is drawn towards its mean diagonal.
    spread = (1 - _SHRINK) * spread + _SHRINK * np.trace(spread) / len(spread) * np.eye(len(spread))
    return _Space(rows, center, query_mean, covariance, spread, budget, seed, threads)


def _eigh(s: Matrix) -> tuple[npt.NDArray[np.float64], Matrix]:
    """Eigenvalues, descending, and eigenvectors in columns of fixed sign."""
    values, vectors = np.linalg.eigh(s)
    values, vectors = values[::-1], vectors[:, ::-1]
    pivot = np.abs(vectors).argmax(axis=0)
    return values, vectors * np.sign(vectors[pivot, np.arange(len(s))])


def _weights(values: npt.NDArray[np.float64], exponent: float) -> npt.NDArray[np.float64]:
    """Powers of the floored eigenvalues, the largest being 1."""
    largest = max(float(values[0]), 1e-30)
    return np.maximum(values / largest, _FLOOR) ** exponent


def _maps(space: _Space, exponent: float) -> tuple[Matrix, Matrix]:
    """Return (M, Mq) before grouping, rows by decreasing weighted variance, <Mq q, M x> = <q, x>."""
    if space.query_covariance is None or exponent == 0.0:
        # The weights share the eigenvectors of the rows, so they only scale the principal components.
        values, vectors = space.row_eigen
        weight = _weights(values, exponent)
        return vectors.T * weight[:, None], vectors.T / weight[:, None]
    values, vectors = space.query_eigen
    weight = _weights(values, exponent)
    forward = (vectors * weight) @ vectors.T
    backward = (vectors / weight) @ vectors.T
    _, basis = _eigh(forward @ space.covariance @ forward)
    return basis.T @ forward, basis.T @ backward


def _hadamard(seed: int, groups: int) -> list[Matrix]:
    """One orthogonal mix per group: random signs, then Hadamard, so that its dims are exchangeable."""
    h = np.ones((1, 1))
    while len(h) < GROUP:
        h = np.block([[h, h], [h, -h]])
    words = np.atleast_1d(np.random.PCG64(seed).random_raw(groups))
    signs = [1.0 - 2.0 * ((int(w) % 2**GROUP >> np.arange(GROUP)) & 1) for w in words]
    return [h / math.sqrt(GROUP) * s for s in signs]


def _build(space: _Space, exponent: float, bits: float, metric: str) -> _core.Codec:
    dim = space.rows.shape[1]
    groups = -(-dim // GROUP)
    forward, backward = np.zeros((2, groups * GROUP, dim))
    forward[:dim], backward[:dim] = _maps(space, exponent)
    for g, mix in enumerate(_hadamard(space.seed, groups)):
        part = slice(g * GROUP, (g + 1) * GROUP)
        forward[part], backward[part] = mix @ forward[part], mix @ backward[part]

    sample = _sample(space.rows, _STEP_ROWS, space.seed + 1) - space.center
    y = _core.transform(sample, forward.astype(np.float32), space.threads)
    steps, distortion = _core.fit_steps(y, GROUP, space.threads)
    allocation = _allocate(distortion, space.budget)

    order = np.argsort(-allocation, kind="stable")
    kept = order[allocation[order] > 0]
    dims = (kept[:, None] * GROUP + np.arange(GROUP)).ravel()
    step = np.repeat(steps[allocation[kept] - 1, kept], GROUP)
    return _core.recurrent_codec(
        dim=dim,
        bits=bits,
        metric=metric,
        group_bits=allocation[kept].astype(np.uint8),
        center=space.center,
        query_mean=space.query_mean,
        encode_map=np.ascontiguousarray(forward[dims], np.float32),
        query_map=np.ascontiguousarray(backward[dims], np.float32),
        step=step,
        levels=_levels(y[:, dims] / step, allocation[kept]),
    )


def _levels(y: FloatArray, bits: npt.NDArray[np.int64]) -> FloatArray:
    """Mean of the values that fall on every level of every group, in steps; y is (n, 32 * groups), in steps.

    A level that the sample rarely reaches stays near its middle.
    """
    out = []
    for g, b in enumerate(bits):
        values = y[:, g * GROUP : (g + 1) * GROUP].ravel()
        middle = np.arange(2**b) - (2**b - 1) / 2
        level = np.clip(np.floor(values + 2 ** (b - 1)), 0, 2**b - 1).astype(np.int64)
        count = np.bincount(level, minlength=2**b)
        total = np.bincount(level, weights=values, minlength=2**b)
        out.append((total + _LEVEL_WEIGHT * middle) / (count + _LEVEL_WEIGHT))
    return np.concatenate(out).astype(np.float32)


def _allocate(distortion: Matrix, budget: int) -> npt.NDArray[np.int64]:
    """Give one bit per dim at a time to the group whose squared error falls most."""
    groups = distortion.shape[1]
    bits = np.zeros(groups, np.int64)
    columns = np.arange(groups)
    for _ in range(budget):
        gain = distortion[bits, columns] - distortion[np.minimum(bits + 1, MAX_BITS), columns]
        gain[bits == MAX_BITS] = -np.inf
        bits[gain.argmax()] += 1
    return bits
