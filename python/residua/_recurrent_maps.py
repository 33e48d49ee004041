# SPDX-License-Identifier: Apache-2.0
"""The transforms of :class:`residua.RecurrentBinaryCodec`; docs/codecs.md derives them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from residua import _core
from residua._typing import FloatArray

GROUP = 32

_SHRINK = 0.1  # of a query covariance towards its mean diagonal
_FLOOR = 1e-4  # smallest eigenvalue, relative to the largest

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Maps:
    """Maps of whole groups, block by block; <Mq q, M x> is close to <q, x> (equal before rounding)."""

    encode: list[FloatArray]  # M: (32 * groups of the block, dims of the block)
    query: list[FloatArray] | None  # Mq alike; None: scale * M
    scale: FloatArray  # (groups,), empty when there are query maps


class Space(Protocol):
    """What all transforms of one fit share."""

    @property
    def blocks(self) -> list[slice]: ...

    def maps(self, exponent: float) -> Maps:
        """Return the maps for weights that are this power of the (query) variances."""


def blocks_of(dim: int, most: int) -> list[slice]:
    """Cut dims into nearly equal blocks of whole groups, of at most ``most`` dims where possible.

    A rest of fewer dims than a group would cost the bits of a whole one: it joins the block before it.
    """
    if dim <= most:
        return [slice(0, dim)]
    equal = -(-dim // (-(-dim // most) * GROUP)) * GROUP
    width = next((w for w in range(equal, 0, -GROUP) if not 0 < dim % w < GROUP), equal)
    count = max(1, (dim + width - GROUP) // width)
    return [slice(b * width, (b + 1) * width if b + 1 < count else dim) for b in range(count)]


class BlockSpace:
    """Principal components of every block of dims, one weight per group."""

    def __init__(
        self,
        rows: FloatArray,
        center: FloatArray,
        queries: FloatArray | None,
        query_mean: FloatArray,
        blocks: list[slice],
        seed: int,
        threads: int,
    ) -> None:
        self.blocks = blocks
        self._mixes = _hadamard(seed, sum(-(-(b.stop - b.start) // GROUP) for b in blocks))
        self._vectors: list[Matrix] = []
        spread: list[Matrix] = []
        for block in blocks:
            part = rows[:, block] - center[block]
            values, vectors = _eigh(_core.gram(part, threads) / len(rows))
            if queries is not None:
                asked = queries[:, block] - query_mean[block]
                values = ((asked @ vectors.astype(np.float32)) ** 2).mean(axis=0, dtype=np.float64)
            self._vectors.append(vectors)
            padded = np.zeros(-(-len(values) // GROUP) * GROUP)
            padded[: len(values)] = np.maximum(values, 0)
            spread.append(padded.reshape(-1, GROUP).mean(axis=1))
        variance = np.concatenate(spread)
        if queries is not None:
            variance = (1 - _SHRINK) * variance + _SHRINK * variance.mean()
        self._variance = variance  # per group: of the queries, or of the rows where there are none

    def maps(self, exponent: float) -> Maps:
        weight = _weights(self._variance, exponent).astype(np.float32)
        encode, first = [], 0
        for vectors in self._vectors:
            groups = -(-len(vectors) // GROUP)
            padded = np.zeros((groups * GROUP, len(vectors)), np.float32)
            padded[: len(vectors)] = vectors.T
            for g in range(groups):
                part = slice(g * GROUP, (g + 1) * GROUP)
                padded[part] = weight[first + g] * (self._mixes[first + g] @ padded[part])
            encode.append(padded)
            first += groups
        return Maps(encode, None, weight**-2)


class DenseSpace:
    """Principal components of all dims after weights along the eigenvectors of queries or rows."""

    def __init__(
        self,
        rows: FloatArray,
        center: FloatArray,
        queries: FloatArray | None,
        query_mean: FloatArray,
        seed: int,
        threads: int,
    ) -> None:
        dim = rows.shape[1]
        self.blocks = [slice(0, dim)]
        self._seed = seed
        self._covariance = _core.gram(rows - center, threads) / len(rows)
        self._spread: Matrix | None = None  # of the queries; None: the rows' own is taken
        if queries is not None:
            spread = _core.gram(queries - query_mean, threads) / len(queries)
            # A sample of queries is small: its covariance is drawn towards its mean diagonal.
            self._spread = (1 - _SHRINK) * spread + _SHRINK * np.trace(spread) / dim * np.eye(dim)

    @cached_property
    def _row_eigen(self) -> tuple[npt.NDArray[np.float64], Matrix]:
        return _eigh(self._covariance)

    @cached_property
    def _query_eigen(self) -> tuple[npt.NDArray[np.float64], Matrix]:
        return _eigh(self._covariance if self._spread is None else self._spread)

    def _components(self, exponent: float) -> tuple[Matrix, Matrix]:
        """Return (M, Mq) before grouping, rows by decreasing weighted variance."""
        if self._spread is None or exponent == 0.0:
            # The weights share the eigenvectors of the rows, so they only scale the principal components.
            values, vectors = self._row_eigen
            weight = _weights(values, exponent)
            return vectors.T * weight[:, None], vectors.T / weight[:, None]
        values, vectors = self._query_eigen
        weight = _weights(values, exponent)
        forward = (vectors * weight) @ vectors.T
        backward = (vectors / weight) @ vectors.T
        _, basis = _eigh(forward @ self._covariance @ forward)
        return basis.T @ forward, basis.T @ backward

    def maps(self, exponent: float) -> Maps:
        forward, backward = self._components(exponent)
        groups = -(-len(forward) // GROUP)
        both = np.zeros((2, groups * GROUP, len(forward)))
        both[:, : len(forward)] = forward, backward
        for g, mix in enumerate(_hadamard(self._seed, groups)):
            part = slice(g * GROUP, (g + 1) * GROUP)
            both[:, part] = mix @ both[:, part]
        encode, query = both.astype(np.float32)
        return Maps([encode], [query], np.empty(0, np.float32))


def _eigh(s: Matrix) -> tuple[npt.NDArray[np.float64], Matrix]:
    """Eigenvalues, descending, and eigenvectors in columns of fixed sign."""
    values, vectors = np.linalg.eigh(s)
    values, vectors = values[::-1], vectors[:, ::-1]
    pivot = np.abs(vectors).argmax(axis=0)
    return values, vectors * np.sign(vectors[pivot, np.arange(len(s))])


def _weights(values: npt.NDArray[np.float64], exponent: float) -> npt.NDArray[np.float64]:
    """Powers of the floored variances, the largest being 1."""
    largest = max(float(values.max()), 1e-30)
    return np.maximum(values / largest, _FLOOR) ** exponent


def _hadamard(seed: int, groups: int) -> list[Matrix]:
    """One orthogonal mix per group: random signs, then Hadamard, so that its dims are exchangeable."""
    h = np.ones((1, 1))
    while len(h) < GROUP:
        h = np.block([[h, h], [h, -h]])
    words = np.atleast_1d(np.random.PCG64(seed).random_raw(groups))
    signs = [1.0 - 2.0 * ((int(w) % 2**GROUP >> np.arange(GROUP)) & 1) for w in words]
    return [h / math.sqrt(GROUP) * s for s in signs]
