# SPDX-License-Identifier: Apache-2.0
"""The closed-form fit of :class:`residua.RecurrentBinaryCodec`; docs/codecs.md derives it.

Everything that grows with the sample runs in native code; what is left here is the eigenvectors,
which are LAPACK's work, and the choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residua import _core
from residua._recurrent_maps import GROUP, BlockSpace, DenseSpace, Space, blocks_of
from residua._typing import FloatArray

MAX_BITS = 8
SCALAR_BYTES = 6

_DENSE_DIMS = 2048  # above, the transform is made of blocks
_BLOCK_DIMS = 512  # at most, in a block
_SAMPLE = 100_000  # rows that the moments are taken from
_SAMPLE_VALUES = 2**28  # and how many numbers they may hold
_EXPONENT = 0.125  # the one that wins or nearly wins on every set measured (docs/codecs.md)
_EXPONENTS = (_EXPONENT, 0.25)  # tried when there are queries to try them on
_MARGIN = 0.005  # gain in held-out recall for which another exponent is taken
_STEP_ROWS = 4_000  # rows that the steps are fitted to
_TRIAL_ROWS = 10_240  # rows that a trial ranks
_TRIAL_QUERIES = 512
_LEVEL_WEIGHT = 32.0  # values that the middle of a level counts for
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


@dataclass(frozen=True)
class _Sample:
    """What all candidates of one fit share."""

    rows: FloatArray  # as the metric sees them
    center: FloatArray
    query_mean: FloatArray
    space: Space
    budget: int
    seed: int
    threads: int


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
    dim = x.shape[1]
    most = min(_SAMPLE, _SAMPLE_VALUES // dim)
    rows = _as_metric(_sample(x, most, seed), metric)
    asked = None if queries is None else _as_metric(_sample(queries, most, seed), metric)
    sample = _prepare(rows, asked, group_budget(dim, bits), seed, num_threads)
    report(1, total)
    trial = _trial(rows, asked, metric, seed, num_threads)
    if trial is None:
        codec = _build(sample, _EXPONENT if query_aware else 0.0, bits, metric)
        report(total, total)
        return _core.with_expansion(codec, _EXPANSION_UNKNOWN)

    outcomes: dict[float, tuple[float, float, _core.Codec]] = {}
    for i, exponent in enumerate(exponents):
        codec = _build(sample, exponent, bits, metric)
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


def _block_dims(rows: int, dim: int) -> int:
    """Return the most dims of a block: all of them, or as few as the rows can tell a covariance of."""
    if dim <= _DENSE_DIMS and rows >= dim // 2:
        return dim
    return max(GROUP, min(_BLOCK_DIMS, rows) // GROUP * GROUP)


def _prepare(rows: FloatArray, queries: FloatArray | None, budget: int, seed: int, threads: int) -> _Sample:
    center = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    asked = center if queries is None else queries.mean(axis=0, dtype=np.float64).astype(np.float32)
    blocks = blocks_of(rows.shape[1], _block_dims(*rows.shape))
    if len(blocks) == 1:
        space: Space = DenseSpace(rows, center, queries, asked, seed, threads)
    else:
        space = BlockSpace(rows, center, queries, asked, blocks, seed, threads)
    return _Sample(rows, center, asked, space, budget, seed, threads)


def _build(sample: _Sample, exponent: float, bits: float, metric: str) -> _core.Codec:
    maps, blocks = sample.space.maps(exponent), sample.space.blocks
    # Of high dims fewer rows are taken: the groups of one vector are many.
    rows = _sample(sample.rows, _STEP_ROWS if len(blocks) == 1 else _STEP_ROWS // 2, sample.seed + 1)
    y = np.hstack(
        [
            _core.transform(rows[:, block] - sample.center[block], part, sample.threads)
            for block, part in zip(blocks, maps.encode, strict=True)
        ]
    )
    steps, distortion = _core.fit_steps(y, GROUP, sample.threads)
    allocation = _allocate(distortion, sample.budget)

    order = np.argsort(-allocation, kind="stable")
    kept = order[allocation[order] > 0]
    dims = (kept[:, None] * GROUP + np.arange(GROUP)).ravel()
    step = np.repeat(steps[allocation[kept] - 1, kept], GROUP)
    owner = np.repeat(np.arange(len(blocks)), [len(part) // GROUP for part in maps.encode])
    first = np.searchsorted(owner, owner)  # the first group of a group's block

    def chosen(parts: list[FloatArray]) -> FloatArray:
        groups = [parts[owner[g]][(g - first[g]) * GROUP : (g - first[g] + 1) * GROUP] for g in kept]
        return np.concatenate(groups, axis=None, dtype=np.float32)

    return _core.recurrent_codec(
        dim=sample.rows.shape[1],
        bits=bits,
        metric=metric,
        group_bits=allocation[kept].astype(np.uint8),
        center=sample.center,
        query_mean=sample.query_mean,
        block_dims=blocks[0].stop,
        group_block=owner[kept].astype(np.uint16) if len(blocks) > 1 else np.empty(0, np.uint16),
        encode_map=chosen(maps.encode),
        query_map=chosen(maps.query) if maps.query is not None else np.empty(0, np.float32),
        query_scale=maps.scale[kept] if maps.query is None else maps.scale,
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
