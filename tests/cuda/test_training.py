# SPDX-License-Identifier: Apache-2.0
"""k-means and encoding on a CUDA device against the CPU."""

from __future__ import annotations

from functools import cache
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
    OutOfMemoryError,
    ShapeError,
    UnsupportedError,
)

DIM = 40


def rows(n: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(6, DIM))
    return np.asarray(centers[np.arange(n) % 6] + 0.1 * rng.normal(size=(n, DIM)), np.float32)


@cache
def codec(metric: Any, bits: float) -> rz.RecurrentBinaryCodec:
    return rz.RecurrentBinaryCodec(DIM, bits).fit(rows(600), metric=metric)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_kmeans_ends_where_the_cpu_ends(metric: str) -> None:
    x = rows(200)
    centroids, labels = rz.cuda.kmeans(x, 6, metric=metric, seed=3)
    expected = _core.kmeans(x, 6, 25, metric == "cosine", seed=3)[0]
    np.testing.assert_allclose(centroids, expected, rtol=1e-5, atol=1e-6)
    assert centroids.dtype == np.float32
    assert labels.dtype == np.uint32
    values = x @ centroids.T if metric == "cosine" else -((x[:, None] - centroids[None]) ** 2).sum(2)
    np.testing.assert_array_equal(labels, values.argmax(1))
    assert len(np.unique(labels)) == 6
    again = rz.cuda.kmeans(rz.cuda.to_device(x), 6, metric=metric, seed=3)
    np.testing.assert_array_equal(centroids, again[0])
    np.testing.assert_array_equal(labels, again[1])


def test_kmeans_of_a_sample_gives_labels_to_all_rows() -> None:
    centroids, labels = rz.cuda.kmeans(rows(300), 6, max_rows=60, n_iter=5)
    assert labels.shape == (300,)
    assert all(len(np.unique(labels[i::6])) == 1 for i in range(6))
    assert np.isfinite(centroids).all()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"k": 0}, InvalidValueError),
        ({"k": 2.5}, InvalidTypeError),
        ({"metric": "ip"}, InvalidValueError),
        ({"n_iter": -1}, InvalidValueError),
        ({"max_rows": 0}, InvalidValueError),
        ({"x": np.zeros((0, 3), np.float32)}, InvalidValueError),
        ({"x": np.zeros(3, np.float32)}, ShapeError),
        ({"x": np.full((2, 3), np.nan, np.float32)}, NonFiniteError),
        ({"x": np.zeros((2, 3), np.float32), "metric": "cosine"}, InvalidValueError),
        ({"device": "cpu"}, InvalidValueError),
        ({"memory_limit": 1000}, OutOfMemoryError),
    ],
)
def test_bad_arguments_of_kmeans(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        rz.cuda.kmeans(**{"x": rows(60), "k": 2, **change})


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("refine", [False, "scale", True])
def test_codes_are_those_of_the_cpu(metric: str, refine: Any) -> None:
    x = rows(150, 2)
    made = codec(metric, 1.5)
    found, expected = rz.cuda.encode(made, x, refine=refine), made._encode(x, 1, refine)
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    assert (found == expected).mean() > 0.999
    same = (found == expected).all(axis=1)
    np.testing.assert_allclose(made.scores(x[:5], found[same]), made.scores(x[:5], expected[same]), rtol=1e-5)
    assert same.mean() > 0.9


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_on_the_device_are_read_there(dtype: str) -> None:
    x = rows(70).astype(dtype)
    made = codec("cosine", 2)
    found = rz.cuda.encode(made, rz.cuda.to_device(x), out="device")
    assert isinstance(found, rz.cuda.DeviceArray)
    assert found.shape == (70, made.code_bytes)
    np.testing.assert_array_equal(found.to_numpy(), rz.cuda.encode(made, x))
    np.testing.assert_array_equal(found.to_numpy(), rz.cuda.encode(made, rz.cuda.to_device(x)))
    assert rz.cuda.encode(made, x[:0]).shape == (0, made.code_bytes)


def test_codes_do_not_depend_on_the_memory_there_is() -> None:
    x, made = rows(100), codec("l2", 2)
    np.testing.assert_array_equal(rz.cuda.encode(made, x, memory_limit=200_000), rz.cuda.encode(made, x))
    with pytest.raises(OutOfMemoryError):
        rz.cuda.encode(made, x, memory_limit=1000)


def test_bad_arguments_of_encode() -> None:
    x, made = rows(10), codec("cosine", 2)
    bad = x.copy()
    bad[7, 3] = np.inf
    for array, error in (
        (bad, NonFiniteError),
        (x * (np.arange(10) != 4)[:, None], InvalidValueError),
        (x[:, 1:], ShapeError),
    ):
        for given in (array, rz.cuda.to_device(array)):
            with pytest.raises(error):
                rz.cuda.encode(made, given)
    with pytest.raises(ShapeError):
        rz.cuda.encode(made, x[0])
    with pytest.raises(InvalidTypeError):
        rz.cuda.encode(made, x, refine="levels")
    with pytest.raises(InvalidValueError):
        rz.cuda.encode(made, x, out="cpu")
    with pytest.raises(InvalidTypeError):
        rz.cuda.encode("recurrent", x)  # type: ignore[arg-type]
    with pytest.raises(NotTrainedError):
        rz.cuda.encode(rz.RecurrentBinaryCodec(DIM, 2), x)
    with pytest.raises(UnsupportedError, match="scalar"):
        rz.cuda.encode(rz.ScalarCodec(DIM).fit(x), x)
