# SPDX-License-Identifier: Apache-2.0
"""The exact scan against NumPy in float64."""

from __future__ import annotations

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from residua import _core

METRICS = ["cosine", "ip", "l2"]
DTYPES = ["float32", "float16", "bfloat16", "int8"]
Array = np.ndarray


def data(dtype: str, n: int, d: int, seed: int = 0) -> tuple[Array, Array | None]:
    rng = np.random.default_rng(seed)
    if dtype == "int8":
        signs = rng.choice([-1, 1], (n, d))  # no zeros: a zero row has no cosine
        return (signs * rng.integers(1, 128, (n, d))).astype(np.int8), rng.uniform(0.01, 0.02, n).astype(
            np.float32
        )
    return rng.standard_normal((n, d)).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype), None


def oracle(q: Array, x: Array, metric: str, scale: Array | None = None) -> Array:
    q64, x64 = q.astype(np.float64), x.astype(np.float64)
    if scale is not None:
        x64 = x64 * scale.astype(np.float64)[:, None]
    if metric == "l2":
        return ((q64[:, None, :] - x64[None]) ** 2).sum(-1)
    if metric == "cosine":
        q64 = q64 / np.linalg.norm(q64, axis=1, keepdims=True)
        x64 = x64 / np.linalg.norm(x64, axis=1, keepdims=True)
    return q64 @ x64.T


def check(ids: Array, scores: Array, truth: Array, k: int, metric: str, allowed: Array | None = None) -> None:
    """Scores are right for their ids, and are the best there are (to float32 rounding)."""
    sign = -1.0 if metric == "l2" else 1.0
    rows = np.arange(truth.shape[1]) if allowed is None else np.flatnonzero(allowed)
    real = min(k, len(rows))
    best = sign * np.sort(sign * truth[:, rows], axis=1)[:, ::-1][:, :real]
    tolerance = {"rtol": 3e-7, "atol": 3e-7}
    assert np.isin(ids[:, :real], rows).all()
    np.testing.assert_allclose(scores[:, :real], np.take_along_axis(truth, ids[:, :real], 1), **tolerance)
    np.testing.assert_allclose(scores[:, :real], best, **tolerance)
    assert all(len(set(row)) == real for row in ids[:, :real].tolist())
    assert (ids[:, real:] == -1).all()
    assert (scores[:, real:] == -sign * np.inf).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 3, 33, 100])
def test_against_numpy(metric: str, dtype: str, d: int) -> None:
    x, scale = data(dtype, 700, d)
    rng = np.random.default_rng(1)
    q = rng.standard_normal((29, d)).astype(np.float32)
    truth = oracle(q, x, metric, scale)
    mask = rng.random(700) < 0.2
    for k in (1, 10, 300, 800):
        for allowed in (None, mask, np.zeros(700, bool)):
            ids, scores = _core.exact_search(q, x, k, metric, 1, scale, allowed)
            check(ids, scores, truth, k, metric, allowed)
            for threads in (2, 3):
                again = _core.exact_search(q, x, k, metric, threads, scale, allowed)
                np.testing.assert_array_equal(again[0], ids)
                np.testing.assert_array_equal(again[1], scores)
            one = _core.exact_search(q[:2], x, k, metric, 2, scale, allowed)
            np.testing.assert_array_equal(one[0], ids[:2])
            np.testing.assert_array_equal(one[1], scores[:2])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("nq", [1, 40])
def test_ties_return_the_smallest_ids(metric: str, nq: int) -> None:
    x = np.tile(np.random.default_rng(2).standard_normal((1, 48)).astype(np.float32), (6000, 1))
    q = np.repeat(x[:1], nq, axis=0)
    for threads in (1, 2, 3):
        ids, _ = _core.exact_search(q, x, 25, metric, threads)
        np.testing.assert_array_equal(ids, np.tile(np.arange(25), (nq, 1)))


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nq", [1, 20])
def test_small_integers_give_the_exact_order(metric: str, dtype: str, nq: int) -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(-2, 3, (5000, 12)).astype(dtype)  # many ties, every sum exact
    q = rng.integers(-2, 3, (nq, 12)).astype(np.float32)
    truth = oracle(q, x, metric)
    order = np.argsort(truth if metric == "l2" else -truth, axis=1, kind="stable")
    for k in (1, 7, 500):
        ids, scores = _core.exact_search(q, x, k, metric, 2)
        np.testing.assert_array_equal(ids, order[:, :k])
        np.testing.assert_array_equal(scores, np.take_along_axis(truth, order, 1)[:, :k])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("nq", [1, 8])
def test_far_from_the_origin_and_of_any_size(metric: str, nq: int) -> None:
    rng = np.random.default_rng(4)
    base = rng.standard_normal((600, 24))
    for x in (base + 1e4, base * 1e-15, base * 1e15, base * 10.0 ** rng.integers(-15, 15, (600, 1))):
        rows = x.astype(np.float32)
        q = rows[:nq] + np.abs(rows[:nq]) * np.float32(1e-3)
        ids, scores = _core.exact_search(q, rows, 10, metric, 1)
        truth = oracle(q, rows, metric)
        np.testing.assert_allclose(scores, np.take_along_axis(truth, ids, 1), rtol=3e-7, atol=1e-45)
        best = np.sort(truth if metric == "l2" else -truth, axis=1)[:, :10]
        np.testing.assert_allclose(scores, best if metric == "l2" else -best, rtol=3e-7, atol=1e-45)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nq", [2, 15])
def test_range_search(metric: str, dtype: str, nq: int) -> None:
    x, scale = data(dtype, 900, 20, seed=5)
    q = np.random.default_rng(6).standard_normal((nq, 20)).astype(np.float32)
    all_ids, all_scores = _core.exact_search(q, x, 900, metric, 1, scale)
    threshold = float(np.median(all_scores[0, :50]))  # also a score that occurs, or lies next to one
    for limit in (threshold, float(all_scores[0, 7])):
        keep = all_scores <= np.float32(limit) if metric == "l2" else all_scores >= np.float32(limit)
        for threads in (1, 2, 3):
            offsets, ids, scores = _core.exact_range(q, x, limit, metric, threads, scale)
            np.testing.assert_array_equal(np.diff(offsets), keep.sum(1))
            np.testing.assert_array_equal(ids, all_ids[keep])
            np.testing.assert_array_equal(scores, all_scores[keep])


def test_empty_inputs() -> None:
    x, q = np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32)
    ids, scores = _core.exact_search(q, x, 2, "l2")
    assert (ids == -1).all()
    assert (scores == np.inf).all()
    assert _core.exact_search(q[:0], np.ones((2, 4), np.float32), 2, "ip")[0].shape == (0, 2)


PROGRAM = """
import hashlib, numpy as np
from residua import _core
rng = np.random.default_rng(7)
digest = hashlib.sha256()
for dtype in ("float32", "float16"):
    x = rng.standard_normal((2000, 71)).astype(dtype)
    for metric in ("cosine", "ip", "l2"):
        for nq in (1, 30):
            for part in _core.exact_search(x[:nq].astype(np.float32) + 1, x, 20, metric, 1):
                digest.update(part.tobytes())
print(digest.hexdigest())
"""


def test_results_do_not_depend_on_the_instruction_set() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "RESIDUA_ISA": isa},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for isa in _core.kernels.available()
    }
    assert len(digests) == 1
