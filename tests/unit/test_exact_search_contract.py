# SPDX-License-Identifier: Apache-2.0
"""exact_search, recall and hamming against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

import residua as rz
from residua.errors import DtypeError, InvalidValueError, NonFiniteError, ShapeError

METRICS = ("cosine", "ip", "l2")


def oracle(q: np.ndarray, x: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The k best rows, ties by smaller row, and their scores."""
    q, x = q.astype(np.float64), x.astype(np.float64)
    if metric == "cosine":
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    scores = -((q[:, None] - x[None]) ** 2).sum(axis=2) if metric == "l2" else q @ x.T
    scores = scores.astype(np.float32)  # ties are those of the scores that are returned
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(scores, ids, axis=1)
    return ids, -best if metric == "l2" else best


def check(q: np.ndarray, x: np.ndarray, k: int, metric: str) -> None:
    hits = rz.exact_search(q, x, k, metric=metric)
    have = min(k, len(x))
    _ids, scores = oracle(q, x, have, metric)
    assert hits.ids.dtype == np.int64
    assert hits.scores.dtype == np.float32
    assert hits.ids.shape == hits.scores.shape == (len(q), k)
    np.testing.assert_array_equal(hits.counts, have)
    np.testing.assert_allclose(hits.scores[:, :have], scores, rtol=1e-6, atol=1e-6)
    # Sums in another order may swap rows whose scores are equal but for the last bits.
    found = np.take_along_axis(oracle_scores(q, x, metric), hits.ids[:, :have], axis=1)
    np.testing.assert_allclose(found, scores, rtol=1e-6, atol=1e-6)
    assert all(len(set(row.tolist())) == have for row in hits.ids[:, :have])
    assert (hits.ids[:, have:] == -1).all()
    assert (hits.scores[:, have:] == (np.inf if metric == "l2" else -np.inf)).all()
    order = hits.scores if metric == "l2" else -hits.scores
    assert (np.diff(order[:, :have]) >= 0).all()


def oracle_scores(q: np.ndarray, x: np.ndarray, metric: str) -> np.ndarray:
    ids, scores = oracle(q, x, len(x), metric)
    out = np.empty_like(scores)
    np.put_along_axis(out, ids, scores, axis=1)
    return out


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 2, 7, 8, 31, 32, 33, 100, 384, 769])
def test_against_the_oracle(metric: str, dim: int) -> None:
    rng = np.random.default_rng(dim)
    x = rng.standard_normal((333, dim)).astype(np.float32)
    x[~x.any(axis=1)] = 1
    for nq, k in [(1, 1), (3, 10), (64, 33)]:
        check(rng.standard_normal((nq, dim)).astype(np.float32), x, k, metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_dtypes(metric: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    x, q = rng.standard_normal((100, 33)).astype(dtype), rng.standard_normal((5, 33)).astype(dtype)
    check(q.astype(np.float32), x.astype(np.float32), 10, metric)
    given = rz.exact_search(q, x, 10, metric=metric)
    narrow = rz.exact_search(q.astype(np.float32), x.astype(np.float32), 10, metric=metric)
    np.testing.assert_array_equal(given.ids, narrow.ids)
    np.testing.assert_array_equal(given.scores, narrow.scores)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [1, 2, 9, 10, 11, 500])
def test_fewer_rows_than_asked_for(metric: str, n: int) -> None:
    rng = np.random.default_rng(n)
    check(rng.standard_normal((4, 20)), rng.standard_normal((n, 20)).astype(np.float32), 10, metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("nq", [1, 3, 64])
def test_ties_go_to_the_smaller_id(metric: str, nq: int) -> None:
    """Small whole numbers: all scores are exact, and most of them tie."""
    rng = np.random.default_rng(2)
    x = rng.integers(-1, 2, (700, 6)).astype(np.float32)
    x[~x.any(axis=1), 0] = 1
    q = rng.integers(-2, 3, (nq, 6)).astype(np.float32)
    q[~q.any(axis=1), 0] = 1
    for k in (1, 7, 100, 700):
        hits = rz.exact_search(q, x, k, metric=metric)
        same = hits.scores[:, 1:] == hits.scores[:, :-1]
        assert (np.diff(hits.ids)[same] > 0).all()
        if metric != "cosine":
            ids, scores = oracle(q, x, k, metric)
            np.testing.assert_array_equal(hits.ids, ids)
            np.testing.assert_array_equal(hits.scores, scores)


@pytest.mark.parametrize("metric", METRICS)
def test_duplicates_come_in_order(metric: str) -> None:
    rng = np.random.default_rng(3)
    x = np.tile(rng.standard_normal((10, 50)).astype(np.float32), (40, 1))
    for nq in (1, 64):
        hits = rz.exact_search(x[:nq], x, 40, metric=metric)
        for i, ids in enumerate(hits.ids):
            np.testing.assert_array_equal(ids, np.arange(i % 10, 400, 10))
        assert np.ptp(hits.scores, axis=1).max() == 0


def test_l2_is_the_squared_distance() -> None:
    hits = rz.exact_search([0.0, 0.0], [[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], 3, metric="l2")
    assert hits.ids.tolist() == [2, 1, 0]
    assert hits.scores.tolist() == [0.0, 1.0, 25.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_near_duplicates_keep_their_distances(dtype: str) -> None:
    """Norms of 1,000 and distances of 1e-3: |q|² + |x|² - 2 q·x in float32 would lose them all."""
    rng = np.random.default_rng(4)
    center = rng.standard_normal(128) * 100
    x = (center + rng.standard_normal((50, 128)) * 1e-3).astype(np.float32)
    q = (center + rng.standard_normal((6, 128)) * 1e-3).astype(dtype).astype(np.float32)
    ids, scores = oracle(q, x, 50, "l2")
    for queries in (q, q[:1]):
        hits = rz.exact_search(queries, x, 50, metric="l2")
        np.testing.assert_allclose(hits.scores, scores[: len(queries)], rtol=1e-5)
        np.testing.assert_array_equal(hits.ids[:, :10], ids[: len(queries), :10])


def test_a_vector_finds_itself() -> None:
    x = np.random.default_rng(5).standard_normal((200, 96)).astype(np.float32)
    for metric in ("cosine", "l2"):
        hits = rz.exact_search(x, x, 1, metric=metric)
        np.testing.assert_array_equal(hits.ids[:, 0], np.arange(200))
        np.testing.assert_allclose(hits.scores, 1.0 if metric == "cosine" else 0.0, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e15, 1e25])
def test_scales_far_from_one(metric: str, scale: float) -> None:
    """However far float32 scores leave the range of float32, k rows are returned, best first."""
    rng = np.random.default_rng(6)
    x = (rng.standard_normal((60, 24)) * scale).astype(np.float32)
    hits = rz.exact_search(x[:3], x, 10, metric=metric)
    assert (hits.counts == 10).all()
    assert (hits.ids >= 0).all()
    assert not np.isnan(hits.scores).any()
    if metric == "cosine":
        np.testing.assert_allclose(hits.scores, oracle(x[:3], x, 10, metric)[1], atol=1e-5)
        np.testing.assert_array_equal(hits.ids[:, 0], range(3))


def test_one_query_gives_one_row() -> None:
    x = np.random.default_rng(7).standard_normal((40, 12))
    one, batch = rz.exact_search(x[3], x, 50), rz.exact_search(x[3:4], x, 50)
    assert one.ids.shape == one.scores.shape == (50,)
    assert one.counts == 40
    np.testing.assert_array_equal(one.ids, batch.ids[0])
    np.testing.assert_array_equal(one.scores, batch.scores[0])


def test_empty_sides() -> None:
    x = np.ones((4, 3), np.float32)
    hits = rz.exact_search(x[:0], x, 2)
    assert hits.ids.shape == (0, 2)
    assert hits.counts.shape == (0,)
    hits = rz.exact_search(x, x[:0], 2)
    assert (hits.ids == -1).all()
    assert (hits.counts == 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_threads_change_nothing(metric: str) -> None:
    rng = np.random.default_rng(8)
    x, q = rng.standard_normal((5000, 40)), rng.standard_normal((100, 40))
    for queries in (q, q[:1]):
        first = rz.exact_search(queries, x, 20, metric=metric, num_threads=1)
        for threads in (2, 3, 64, None):
            other = rz.exact_search(queries, x, 20, metric=metric, num_threads=threads)
            np.testing.assert_array_equal(other.ids, first.ids)
            np.testing.assert_array_equal(other.scores, first.scores)


def test_bad_input() -> None:
    x = np.ones((5, 4), np.float32)
    bad = x.copy()
    bad[3, 1] = np.nan
    for call, error, message in [
        (lambda: rz.exact_search(x[:, :3], x), ShapeError, "q: vectors have 3 dims, expected 4"),
        (lambda: rz.exact_search(x, x[0]), ShapeError, r"x: expected shape \(n, dim\), got \(4,\)"),
        (lambda: rz.exact_search(bad, x), NonFiniteError, "q: row 3"),
        (lambda: rz.exact_search(x, bad), NonFiniteError, "x: row 3"),
        (lambda: rz.exact_search(x.astype(int), x), DtypeError, r'q: .*int64.*\.astype\("float32"\)'),
        (lambda: rz.exact_search(0 * x, x), InvalidValueError, "q: row 0 is a zero vector"),
        (lambda: rz.exact_search(x, 0 * x), InvalidValueError, "x: row 0 is a zero vector"),
        (lambda: rz.exact_search(x, x, 0), InvalidValueError, "k must be at least 1, got 0"),
        (lambda: rz.exact_search(x, x, 2**31), InvalidValueError, "k must be at most"),
        (lambda: rz.exact_search(x, x, 2.0), TypeError, "k must be an integer, got 2.0"),
        (lambda: rz.exact_search(x, x, metric="l1"), InvalidValueError, "'l1'"),
        (lambda: rz.exact_search(x, x, num_threads=0), InvalidValueError, "num_threads.* 0"),
        (lambda: rz.exact_search(x, x, ef=4), TypeError, "ef"),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_recall_counts_what_was_found() -> None:
    assert rz.recall([[1, 2, 3]], [[3, 2, 9]]) == pytest.approx(2 / 3)
    assert rz.recall([[1, 2], [3, 4]], [[1, 2], [5, 6]]) == 0.5
    assert rz.recall(np.array([[1, 1, 1]]), np.array([[1, 2, 3]])) == pytest.approx(1 / 3)
    assert rz.recall([[-1, -1]], [[-1, 4]]) == 0
    assert rz.recall(np.array([["a", None]], object), np.array([["a", "b"]], object)) == 0.5
    assert isinstance(rz.recall([[1]], [[1]]), float)
    for found, true in [([1, 2], [[1, 2]]), ([[1]], [[1], [2]]), ([[1]], np.empty((1, 0)))]:
        with pytest.raises(ShapeError):
            rz.recall(found, true)


def test_hamming_refuses_what_is_not_packed() -> None:
    codes = np.zeros((3, 5), np.uint8)
    for a, b, error, message in [
        (codes[:, :4], codes, ShapeError, r"a: shape \(3, 4\), expected \(n, 5\)"),
        (codes, codes.astype(np.int8), DtypeError, "b: dtype int8"),
        (codes.astype(np.float32), codes, DtypeError, "a: dtype float32"),
        (codes, codes[0], ShapeError, "b: expected shape"),
    ]:
        with pytest.raises(error, match=message):
            rz.hamming(a, b)
