# SPDX-License-Identifier: Apache-2.0
"""Rotations for :class:`residua.BinaryCodec`: random, and iterative quantization (ITQ)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from residua import _core
from residua._recurrent_maps import GROUP, blocks_of
from residua._typing import FloatArray

DENSE_DIMS = 2048  # above, a random rotation is made of blocks, and there is no ITQ
_BLOCK_DIMS = 512
_SAMPLE_VALUES = 2**26  # numbers in the rows that centre and amplitude are taken from
_ITQ_ROWS = 4_000
_ITQ_ROUNDS = 30

Matrix = npt.NDArray[np.float64]


def fit(
    x: FloatArray,
    *,
    bits: int,
    rotation: str,
    metric: str,
    seed: int,
    num_threads: int,
    report: Callable[[int, int], None],
) -> _core.Codec:
    """Fit a rotation to rows ``x``: codes are the signs of its rows times what is left of the mean."""
    dim = x.shape[1]
    most = max(1, _SAMPLE_VALUES // dim)
    rows = x if len(x) <= most else x[_core.sample_rows(len(x), most, seed)]
    rows = _core.normalize(rows) if metric == "cosine" else rows
    center = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    total = _ITQ_ROUNDS + 1 if rotation == "itq" else 1
    report(0, total)
    if rotation == "itq":
        covariance = _core.gram(rows - center, num_threads) / len(rows)
        few = rows[_core.permutation(len(rows), seed)[:_ITQ_ROWS]] - center
        turned = _itq(covariance, few, bits, seed, lambda done: report(done, total))
        blocks, owner = [slice(0, dim)], np.zeros(-(-bits // GROUP), np.uint16)
        parts = [_whole_groups(turned, bits, dim)]
    else:
        blocks = blocks_of(dim, dim if dim <= DENSE_DIMS else _BLOCK_DIMS)
        owner, parts = _random(blocks, bits, seed)
    amplitude = _amplitude(rows[:_ITQ_ROWS] - center, blocks, owner, parts, bits, num_threads)
    report(total, total)
    return _core.rotated_binary_codec(
        dim,
        bits,
        metric,
        rotation,
        blocks[0].stop,
        owner,
        np.concatenate([p.ravel() for p in parts]),
        center,
        amplitude,
    )


def _orthogonal(size: int, generator: np.random.Generator) -> Matrix:
    """A random rotation: the QR factor of Gaussian values, of positive diagonal."""
    q, r = np.linalg.qr(generator.standard_normal((size, size)))
    signed: Matrix = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return signed


def _whole_groups(rows: Matrix, count: int, width: int) -> FloatArray:
    out = np.zeros((-(-count // GROUP) * GROUP, width), np.float32)
    out[: len(rows)] = rows
    return out


def _random(blocks: list[slice], bits: int, seed: int) -> tuple[npt.NDArray[np.uint16], list[FloatArray]]:
    """Groups of rows that take turns among the blocks, so that fewer bits than dims still see them all."""
    generator = np.random.default_rng(seed)
    turns: list[tuple[int, int, FloatArray]] = []
    for b, block in enumerate(blocks):
        width = block.stop - block.start
        matrix = _orthogonal(width, generator)
        for at in range(0, width, GROUP):
            part = _whole_groups(matrix[at : at + GROUP], GROUP, width)
            whole = at + GROUP <= width
            turns.append((at if whole else 2**30, b, part))  # the one group that is not whole comes last
    turns.sort(key=lambda turn: turn[:2])
    chosen = turns[: -(-bits // GROUP)]
    return np.array([b for _, b, _ in chosen], np.uint16), [part for _, _, part in chosen]


def _itq(covariance: Matrix, rows: FloatArray, bits: int, seed: int, report: Callable[[int], None]) -> Matrix:
    """Rotate principal components until their signs lie close: Gong and Lazebnik, CVPR 2011."""
    _, vectors = np.linalg.eigh(covariance)
    basis = vectors[:, ::-1][:, :bits]
    scale = max(float(np.sqrt(np.trace(covariance))), 1e-30)
    y = (rows @ (basis / scale).astype(np.float32)).astype(np.float32)
    turn = _orthogonal(bits, np.random.default_rng(seed)).astype(np.float32)
    for done in range(1, _ITQ_ROUNDS + 1):
        signs = np.where(y @ turn > 0, np.float32(1), np.float32(-1))
        left, _, right = np.linalg.svd(y.T @ signs)
        turn = left @ right
        report(done)
    turned: Matrix = (basis @ turn.astype(np.float64)).T
    return turned


def _amplitude(
    rows: FloatArray,
    blocks: list[slice],
    owner: npt.NDArray[np.uint16],
    parts: list[FloatArray],
    bits: int,
    threads: int,
) -> float:
    """Mean size of what the signs stand for: the least squares error of a code that decodes to one size."""
    if len(parts) == 1:
        y = _core.transform(rows, parts[0], threads)
    else:
        y = np.hstack(
            [
                _core.transform(np.ascontiguousarray(rows[:, blocks[b]]), part, threads)
                for b, part in zip(owner, parts, strict=True)
            ]
        )
    return max(float(np.abs(y[:, :bits]).mean(dtype=np.float64)), 1e-30)
