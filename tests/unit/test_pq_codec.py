# SPDX-License-Identifier: Apache-2.0
"""PQCodec: codes and scores against NumPy, scans that lose nothing, OPQ, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua import _core
from residua.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    NotTrainedError,
    ShapeError,
    UnsupportedError,
)

METRICS = ("cosine", "ip", "l2")
DIM = 22
X = (np.random.default_rng(0).standard_normal((1200, DIM)) @ np.diag(np.linspace(2, 0.2, DIM)) + 0.3).astype(
    "f4"
)
Q = (np.random.default_rng(1).standard_normal((40, DIM)) @ np.diag(np.linspace(2, 0.2, DIM))).astype("f4")
BOOKS = np.zeros((2, 16, 3))
KINDS = [(5, 8, "none"), (7, 4, "none"), (5, 8, "opq"), (8, 4, "opq")]  # uneven sub-spaces, odd and even


def fitted(n_subspaces: int, bits: Any, rotation: Any, metric: Any) -> rz.PQCodec:
    return rz.PQCodec(DIM, n_subspaces, bits, rotation).fit(X, metric=metric)


def as_metric(x: np.ndarray, metric: str) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True) if metric == "cosine" else x


def numbers(codec: rz.PQCodec, codes: np.ndarray) -> np.ndarray:
    if codec.bits == 8:
        return codes
    both = np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(codes), -1)
    return both[:, : codec.n_subspaces]


def widths(codec: rz.PQCodec) -> list[int]:
    width, rest = divmod(codec.dim, codec.n_subspaces)
    return [width + (m < rest) for m in range(codec.n_subspaces)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n_subspaces", "bits", "rotation"), KINDS)
def test_codes_are_the_nearest_codewords(n_subspaces: int, bits: int, rotation: str, metric: str) -> None:
    codec = fitted(n_subspaces, bits, rotation, metric)
    books, turn = codec.codebooks, codec.rotation_matrix
    assert books.shape == (n_subspaces, 2**bits, -(-DIM // n_subspaces))
    y = as_metric(X, metric)
    if rotation == "opq":
        assert turn is not None
        np.testing.assert_allclose(turn @ turn.T, np.eye(DIM), atol=1e-5)
        y = y @ turn.T.astype(np.float64)
    else:
        assert turn is None
    codes = codec.encode(X)
    got, decoded, at = numbers(codec, codes), [], 0
    for m, width in enumerate(widths(codec)):
        words = books[m, :, :width].astype(np.float64)
        assert not books[m, :, width:].any()
        distances = np.square(y[:, at : at + width, None] - words.T).sum(axis=1)
        chosen = distances[np.arange(len(X)), got[:, m]]
        np.testing.assert_allclose(chosen, distances.min(axis=1), atol=1e-4)
        decoded.append(words[got[:, m]])
        at += width
    back = np.concatenate(decoded, axis=1)
    np.testing.assert_allclose(codec.decode(codes), back if turn is None else back @ turn, atol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n_subspaces", "bits", "rotation"), KINDS)
def test_scores_are_those_of_what_codes_stand_for(
    n_subspaces: int, bits: int, rotation: str, metric: str
) -> None:
    codec = fitted(n_subspaces, bits, rotation, metric)
    codes = codec.encode(X)
    decoded, q = codec.decode(codes).astype(np.float64), as_metric(Q, metric)
    own = codec.decode(codec.encode(Q)).astype(np.float64)
    for left, scores in ((q, codec.scores(Q, codes)), (own, codec.symmetric_scores(codec.encode(Q), codes))):
        if metric == "l2":
            wanted = np.square(left[:, None] - decoded).sum(axis=2)
            np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-3)
            continue
        # <q, y> - w (|y|^2 - s): what scores have beside the product is linear in the squared lengths.
        squares = np.square(decoded).sum(axis=1)
        beside = scores - left @ decoded.T
        slope, offset = np.polyfit(np.tile(squares, len(left)), beside.ravel(), 1)
        np.testing.assert_allclose(beside, np.tile(slope * squares + offset, (len(left), 1)), atol=2e-4)
        assert slope < 0 if metric == "cosine" else slope <= 1e-6


def weighted_errors(codec: rz.PQCodec, x: np.ndarray, codes: np.ndarray, metric: str) -> np.ndarray:
    """Return e^T W e of every row, e being what its code lacks, in the dims of codewords."""
    _, turn, _, _, flat = _core.pq_parts(codec._native)
    error = as_metric(x, metric) - codec.decode(codes).astype(np.float64)
    error = error if turn is None else error @ turn.T.astype(np.float64)
    weights = flat.reshape(error.shape[1], -1).astype(np.float64)
    np.testing.assert_allclose(weights, weights.T, atol=1e-5)
    assert np.linalg.eigvalsh(weights).min() > 0.5
    return np.einsum("ij,jk,ik->i", error, weights, error)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n_subspaces", "bits", "rotation"), KINDS)
def test_refined_codes_have_smaller_weighted_errors(
    n_subspaces: int, bits: int, rotation: str, metric: str
) -> None:
    codec = fitted(n_subspaces, bits, rotation, metric)
    codes = [codec.encode(X, refine=refine) for refine in (False, "scale", True)]  # type: ignore[arg-type]
    plain, scaled, refined = (weighted_errors(codec, X, c, metric) for c in codes)
    assert (scaled <= plain * (1 + 1e-4) + 1e-6).all()
    assert (refined <= scaled * (1 + 1e-4) + 1e-6).all()
    if n_subspaces > 1:
        assert scaled.mean() < plain.mean()
    # Rows do not depend on each other or on threads, and symmetric searches take two sweeps for queries.
    np.testing.assert_array_equal(codec.encode(X[5:9], refine=True), codes[2][5:9])
    np.testing.assert_array_equal(codec.encode(X, refine=True, num_threads=3), codes[2])
    index = rz.FlatIndex(DIM, metric=metric, codec=codec, vectors="none")  # type: ignore[arg-type]
    index.add(X)
    hits = index.search(Q, 5, scoring="symmetric")
    same = index.search_codes(codec.encode(Q, refine="scale"), 5)
    np.testing.assert_array_equal(hits.ids, same.ids)


def test_codecs_without_weights_do_not_refine() -> None:
    codec = fitted(4, 8, "none", "cosine")
    plain = rz.PQCodec.from_codebooks(codec.codebooks, metric="cosine", dim=DIM)
    np.testing.assert_array_equal(plain.encode(X, refine=True), plain.encode(X))
    with pytest.raises(rz.errors.InvalidTypeError, match="refine must be True, False or 'scale'"):
        plain.encode(X, refine="more")  # type: ignore[arg-type]


def test_memory_counts_the_tables_of_symmetric_scores() -> None:
    codec = rz.PQCodec(DIM, 4).fit(X)
    index = rz.FlatIndex(DIM, codec=codec, vectors="none")
    index.add(X)
    before = index.memory()["codec"]
    index.search(Q, 5, scoring="symmetric")
    grown = index.memory()["codec"] - before
    assert grown == 4 * 256 * 256 + 4 * 4 * 256


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n_subspaces", "bits", "rotation"), KINDS)
def test_a_scan_loses_nothing(n_subspaces: int, bits: int, rotation: str, metric: str, isa: str) -> None:
    """The scan keeps every row of the top 10 of all scores, with filters and any number of rows."""
    del isa
    codec = fitted(n_subspaces, bits, rotation, metric)
    for n in (1, 33, 1199):
        index = rz.FlatIndex(DIM, metric=metric, codec=codec, vectors="none")  # type: ignore[arg-type]
        index.add(X[:n])
        for allowed in (None, np.arange(0, n, 3)):
            rows = np.arange(n) if allowed is None else allowed
            k = min(10, len(rows))
            for symmetric in (False, True):
                if symmetric:
                    hits = index.search_codes(codec.encode(Q), k, filter=allowed)
                    scores = codec.symmetric_scores(codec.encode(Q), codec.encode(X[rows]))
                else:
                    hits = index.search(Q, k, filter=allowed)
                    scores = codec.scores(Q, codec.encode(X[rows]))
                order = np.argsort(scores if metric == "l2" else -scores, axis=1, kind="stable")[:, :k]
                np.testing.assert_array_equal(hits.ids, rows[order])
                np.testing.assert_array_equal(hits.scores, np.take_along_axis(scores, order, axis=1))


def test_data_far_from_the_origin_keep_their_order() -> None:
    far = X + np.float32(3000)
    for bits in (4, 8):
        codec = rz.PQCodec(DIM, 11, bits).fit(far, metric="l2")  # type: ignore[arg-type]
        decoded = codec.decode(codec.encode(far)).astype(np.float64)
        wanted = np.square(far[:20, None].astype(np.float64) - decoded).sum(axis=2)
        np.testing.assert_allclose(codec.scores(far[:20], codec.encode(far)), wanted, rtol=1e-2, atol=0.05)


def test_opq_codes_correlated_dims_better() -> None:
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((DIM, DIM)))[0]
    x = (X @ turn.T).astype("f4")
    errors = {}
    for rotation in ("none", "opq"):
        codec = rz.PQCodec(DIM, 6, 4, rotation).fit(x, metric="l2")  # type: ignore[arg-type]
        errors[rotation] = np.square(codec.decode(codec.encode(x)) - x).sum(axis=1).mean()
    assert errors["opq"] < 0.9 * errors["none"]


def test_fits_do_not_depend_on_threads_and_depend_on_the_seed() -> None:
    def prints(seed: int, threads: int) -> str:
        return rz.PQCodec(DIM, 5, 4, "opq", seed=seed).fit(X, num_threads=threads).fingerprint

    assert prints(0, 1) == prints(0, 3)
    assert prints(0, 1) != prints(1, 1)


def test_codes_of_equal_rows() -> None:
    """Equal rows train equal codewords, and are kept exactly."""
    x = np.tile(X[3], (300, 1))
    for metric in METRICS:
        codec = rz.PQCodec(DIM, 4).fit(x, metric=metric)  # type: ignore[arg-type]
        assert not codec.encode(x).any()
        np.testing.assert_allclose(codec.decode(codec.encode(x)), as_metric(x, metric), atol=1e-5)
    few = np.repeat(X[:5], 60, axis=0)
    codec = rz.PQCodec(DIM, 4).fit(few, metric="l2")
    np.testing.assert_allclose(codec.decode(codec.encode(few)), few, atol=1e-5)


def test_progress_is_reported() -> None:
    calls: list[tuple[int, int]] = []
    rz.PQCodec(DIM, 3, 4, "opq").fit(X, progress=lambda done, total: calls.append((done, total)))
    assert calls[0][0] == 0
    assert calls[-1][0] == calls[-1][1]
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rotation", [False, True])
def test_from_codebooks(metric: Any, rotation: bool, tmp_path: Path) -> None:
    source = fitted(5, 8, "opq" if rotation else "none", metric)
    made = rz.PQCodec.from_codebooks(
        source.codebooks, metric=metric, dim=DIM, rotation=source.rotation_matrix
    )
    assert (made.n_subspaces, made.bits, made.rotation) == (5, 8, source.rotation)
    codes = source.encode(X)
    np.testing.assert_array_equal(made.encode(X), codes)
    np.testing.assert_array_equal(made.decode(codes), source.decode(codes))
    decoded, q = made.decode(codes).astype(np.float64), as_metric(Q, metric)
    wanted = np.square(q[:, None] - decoded).sum(axis=2) if metric == "l2" else q @ decoded.T
    np.testing.assert_allclose(made.scores(Q, codes), wanted, rtol=1e-4, atol=1e-3)
    made.save(tmp_path / "codec")
    loaded = rz.load(tmp_path / "codec")
    assert isinstance(loaded, rz.PQCodec)
    assert repr(loaded) == repr(made)
    assert loaded.fingerprint == made.fingerprint


def test_an_index_waits_for_its_rows(tmp_path: Path) -> None:
    index = rz.FlatIndex(DIM, codec=rz.PQCodec(DIM, 11, rotation="opq", seed=3))
    index.add(X[:100])
    index.save(tmp_path / "index")
    loaded = rz.load(tmp_path / "index")
    assert isinstance(loaded, rz.FlatIndex)
    loaded.add(X[100:400])
    assert loaded.codec is not None
    assert (
        repr(loaded.codec)
        == "PQCodec(dim=22, n_subspaces=11, bits=8, rotation='opq', 11 bytes/vector, cosine)"
    )
    np.testing.assert_array_equal(loaded.search(X[:50], 1).ids[:, 0], np.arange(50))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: rz.PQCodec(DIM, 0), InvalidValueError, "n_subspaces"),
        (lambda: rz.PQCodec(DIM, DIM + 1), InvalidValueError, "at most dim"),
        (lambda: rz.PQCodec(DIM, 2.5), InvalidTypeError, "n_subspaces"),  # type: ignore[arg-type]
        (lambda: rz.PQCodec(DIM, 2, 5), InvalidValueError, "8 or 4"),  # type: ignore[arg-type]
        (lambda: rz.PQCodec(DIM, 2, 16), InvalidValueError, "bits"),  # type: ignore[arg-type]
        (lambda: rz.PQCodec(DIM, 2, rotation="pca"), InvalidValueError, "opq"),  # type: ignore[arg-type]
        (lambda: rz.PQCodec(5000, 2, rotation="opq"), UnsupportedError, "4096"),
        (lambda: rz.PQCodec(DIM, 2).fit(X[:255]), InvalidValueError, "at least 256 vectors.*255"),
        (lambda: rz.PQCodec(DIM, 2, 4).fit(X[:15]), InvalidValueError, "at least 16 vectors.*15"),
        (lambda: rz.PQCodec(DIM, 2, 4).fit(X[:, 1:]), ShapeError, "x"),
        (lambda: rz.PQCodec(DIM, 2, 4).fit(np.where(X[0, 0] == X, np.nan, X)), NonFiniteError, "x"),
        (lambda: rz.PQCodec(DIM, 2, 4).fit(X).fit(X), InvalidValueError, "fitted already"),
        (lambda: rz.PQCodec(DIM, 2).encode(X), NotTrainedError, "not trained"),
        (lambda: rz.PQCodec.from_codebooks(BOOKS[:, :15], metric="l2"), ShapeError, "256 or 16"),
        (lambda: rz.PQCodec.from_codebooks(BOOKS[0], metric="l2"), ShapeError, "3-D"),
        (
            lambda: rz.PQCodec.from_codebooks(BOOKS, metric="l2", dim=8),
            ShapeError,
            "codewords",
        ),
        (
            lambda: rz.PQCodec.from_codebooks(BOOKS + np.inf, metric="l2"),
            NonFiniteError,
            "finite",
        ),
        (
            lambda: rz.PQCodec.from_codebooks(BOOKS, metric="l2", dim=6, rotation=np.eye(5)),
            ShapeError,
            "rotation",
        ),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make()
