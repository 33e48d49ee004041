# SPDX-License-Identifier: Apache-2.0
"""The fit of :class:`residua.PQCodec`: codebooks by k-means, and the rotation of OPQ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from residua import _core
from residua._recurrent_fit import _as_metric, _sample, _trial
from residua._typing import FloatArray

SAMPLE = 100_000  # rows that codebooks are learned from, at most
ITERATIONS = 25  # of k-means
MAX_OPQ_DIMS = 4096  # its rotation is one dense matrix, and finding it takes a decomposition of such matrices

_SAMPLE_VALUES = 2**28  # floats of the sample
_SCORE_ROWS = 8_192  # rows, queries, and the rank of the scores, that the score is set from
_SCORE_QUERIES = 256
_SCORE_RANK = 3
_OPQ_ROWS = 32_768  # rows that the rotation is learned from
_OPQ_ROUNDS = 20
EXPANSION_UNKNOWN = 20.0  # candidates per result for a codec that could not be tried
MAX_WEIGHTED_DIMS = 2048  # the weights of errors are a dense matrix, too
NONE = np.empty(0, np.float32)  # no rotation, or no weights

_WEIGHT_ROWS = 16_384  # rows, and queries and neighbours of each, that these weights are learned from
_WEIGHT_QUERIES = 256
_WEIGHT_NEIGHBOURS = 50


def fit(
    x: FloatArray,
    queries: FloatArray | None,
    *,
    n_subspaces: int,
    bits: int,
    rotation: str,
    metric: str,
    seed: int,
    num_threads: int,
    report: Callable[[int, int], None],
) -> _core.Codec:
    """Fit a codec to rows ``x``, at least ``2**bits`` of them; ``queries`` only size the re-ranking."""
    dim = x.shape[1]
    rounds = _OPQ_ROUNDS if rotation == "opq" else 0
    total = rounds + n_subspaces + 1
    report(0, total)
    most = max(2**bits, min(SAMPLE, _SAMPLE_VALUES // dim))
    rows = _as_metric(_sample(x, most, seed), metric)
    turn = NONE
    y = rows
    if rotation == "opq":
        turn = learn_rotation(
            _sample(rows, _OPQ_ROWS, seed + 1),
            n_subspaces,
            bits,
            seed,
            num_threads,
            lambda i: report(i, total),
        )
        y = _core.transform(rows, turn, num_threads)
    books = train_codebooks(y, n_subspaces, bits, seed, num_threads, lambda i: report(rounds + i, total))
    weights = error_weights(y, seed, num_threads) if dim <= MAX_WEIGHTED_DIMS else NONE

    def build(weight: float, square: float, expansion: float) -> _core.Codec:
        return _core.pq_codec(dim, n_subspaces, bits, metric, turn, books, weights, weight, square, expansion)

    asked = None
    if queries is not None:
        asked = _as_metric(_sample(queries, most, seed), metric)
    weight, square = (
        (0.0, 0.0) if metric == "l2" else _score_terms(build(0.0, 0.0, 1.0), rows, asked, seed, num_threads)
    )
    trial = _trial(rows, asked, metric, seed, num_threads)
    expansion = EXPANSION_UNKNOWN
    if trial is not None:
        recall, expansion = trial.run(build(weight, square, 1.0), num_threads)
        if metric == "ip":  # lengths may mean something: the term has to prove itself
            plain = trial.run(build(0.0, 0.0, 1.0), num_threads)
            if plain[0] >= recall:
                weight, expansion = 0.0, plain[1]
    elif metric == "ip":
        weight = 0.0
    report(total, total)
    return build(weight, square, expansion)


def _score_terms(
    codec: _core.Codec, rows: FloatArray, asked: FloatArray | None, seed: int, threads: int
) -> tuple[float, float]:
    """Return the weight of squared lengths in scores, and their mean.

    To first order in ``|y|^2``, ``<q, y> - w |y|^2`` ranks as ``<q, y> / |y|`` does near the scores of
    the best when ``w`` is half of their mean over the mean of ``|y|^2``.
    """
    some = _sample(rows, _SCORE_ROWS, seed + 2)
    decoded = codec.decode(codec.encode(some, threads), threads)
    square = float(np.einsum("ij,ij->", decoded, decoded, dtype=np.float64)) / len(some)
    probes = _sample(rows if asked is None else asked, _SCORE_QUERIES, seed + 3)
    products = _core.transform(probes, decoded, threads)
    rank = min(_SCORE_RANK, products.shape[1])  # past a row itself, where rows are the queries
    best = float(np.partition(products, -rank, axis=1)[:, -rank].mean())
    if not (square > 0 and best > 0):
        return 0.0, square
    return best / (2 * square), square


def error_weights(y: FloatArray, seed: int, threads: int) -> FloatArray:
    """Return W such that ``e^T W e`` tells how far an error ``e`` moves the scores of neighbours apart.

    Up to scale, that of ``<e, a - b>`` for near neighbours ``a`` and ``b`` is the second moment of their
    differences; errors of their codes, which have no direction, add the identity.
    """
    rows = _sample(y, _WEIGHT_ROWS, seed + 4)
    probes = _sample(rows, _WEIGHT_QUERIES, seed + 5)
    nearness = 2 * _core.transform(probes, rows, threads) - np.einsum("ij,ij->i", rows, rows)
    near = min(_WEIGHT_NEIGHBOURS, len(rows))
    around = rows[np.argpartition(-nearness, near - 1, axis=1)[:, :near]]
    around -= around.mean(axis=1, keepdims=True)
    moment = _core.gram(around.reshape(-1, rows.shape[1]), threads)
    mean = float(np.trace(moment)) / len(moment)
    if not 0 < mean < np.inf:
        return NONE
    return np.ascontiguousarray(moment / mean + np.eye(len(moment)), np.float32)


def subspaces(dims: int, n_subspaces: int) -> list[slice]:
    """Return the dims of every sub-space; the first ones have one more where they are not equal."""
    width, rest = divmod(dims, n_subspaces)
    ends = np.cumsum([width + (m < rest) for m in range(n_subspaces)]).tolist()
    return [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]


def train_codebooks(
    y: FloatArray,
    n_subspaces: int,
    bits: int,
    seed: int,
    threads: int,
    done: Callable[[int], None],
    start: FloatArray | None = None,
    iterations: int = ITERATIONS,
) -> FloatArray:
    """Return codebooks (n_subspaces, 2**bits, dims of the widest sub-space); zeros fill up the others."""
    parts = subspaces(y.shape[1], n_subspaces)
    books = np.zeros((n_subspaces, 2**bits, parts[0].stop), np.float32)
    for m, part in enumerate(parts):
        width = part.stop - part.start
        first = None if start is None else np.ascontiguousarray(start[m, :, :width])
        books[m, :, :width] = _core.kmeans(
            np.ascontiguousarray(y[:, part]),
            2**bits,
            iterations,
            seed=seed + m,
            num_threads=threads,
            start=first,
        )[0]
        done(m + 1)
    return books


def learn_rotation(
    x: FloatArray, n_subspaces: int, bits: int, seed: int, threads: int, done: Callable[[int], None]
) -> FloatArray:
    """Return the rotation (dim, dim) of OPQ: codebooks and a Procrustes step take turns."""
    dim = x.shape[1]
    turn = balanced_components(x, n_subspaces, threads)
    books = None
    for i in range(_OPQ_ROUNDS):
        y = _core.transform(x, turn, threads)
        books = train_codebooks(
            y, n_subspaces, bits, seed, threads, lambda _: None, books, 6 if books is None else 1
        )
        codec = _core.pq_codec(dim, n_subspaces, bits, "ip", NONE, books, NONE, 0.0, 0.0, 1.0)
        decoded = codec.decode(codec.encode(y, threads), threads)
        # The orthonormal R that brings R x closest to what the codes stand for.
        product = _core.transform(np.ascontiguousarray(decoded.T), np.ascontiguousarray(x.T), threads)
        u, _, vt = np.linalg.svd(product.astype(np.float64))
        turn = np.ascontiguousarray(u @ vt, np.float32)
        done(i + 1)
    return turn


def balanced_components(x: FloatArray, n_subspaces: int, threads: int) -> FloatArray:
    """Return principal components, dealt out so that the products of the variances of sub-spaces are even.

    The allocation of eigenvalues of parametric OPQ (Ge, He, Ke and Sun, CVPR 2013, section 3.3).
    """
    mean = x.mean(axis=0, dtype=np.float64)
    covariance = _core.gram(x, threads) / len(x) - np.outer(mean, mean)
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(-values, kind="stable")
    logs = np.log(np.maximum(values[order], max(values[order[0]], 1e-30) * 1e-9))
    logs -= logs.min()  # every component counts, the last ones as nothing
    room = np.array([p.stop - p.start for p in subspaces(len(values), n_subspaces)])
    dealt: list[list[int]] = [[] for _ in room]
    size = np.zeros(n_subspaces)
    for rank, value in enumerate(logs):
        free = np.array([len(d) < r for d, r in zip(dealt, room, strict=True)])
        to = int(np.argmin(np.where(free, size, np.inf)))
        dealt[to].append(rank)
        size[to] += value
    rows = [order[rank] for ranks in dealt for rank in ranks]
    return np.ascontiguousarray(vectors.T[rows], np.float32)
