# SPDX-License-Identifier: Apache-2.0
"""What fits in Python take from the native trainer; tests/cpp/test_train.cpp tests the trainer itself."""

from __future__ import annotations

import numpy as np
import pytest

from residua import _core
from residua.errors import ShapeError

X = np.random.default_rng(0).standard_normal((2000, 9)).astype(np.float32)


def test_kmeans_returns_means_of_the_nearest_rows() -> None:
    centroids, sizes, error, iterations = _core.kmeans(X, 12, 200)
    assert centroids.shape == (12, 9)
    assert 1 < iterations < 200  # it ended because no row moved
    distances = np.square(X[:, None] - centroids.astype(np.float64)).sum(-1)
    nearest = distances.argmin(1)
    np.testing.assert_array_equal(np.bincount(nearest, minlength=12), sizes)
    for c in range(12):
        np.testing.assert_allclose(centroids[c], X[nearest == c].mean(0), atol=1e-5)
    np.testing.assert_allclose(error, distances.min(1).mean(), rtol=1e-5)


def test_kmeans_goes_on_from_centroids() -> None:
    done = _core.kmeans(X, 12, 200)
    again = _core.kmeans(X, 12, 200, start=done[0])
    assert again[3] == 1
    np.testing.assert_allclose(again[0], done[0], atol=1e-6)


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("m", [1, 3, 40])
def test_nearest_centroids(m: int, product: bool) -> None:
    centroids = X[:40] * np.linspace(0.5, 2, 40, dtype=np.float32)[:, None]
    which, values = _core.nearest_centroids(X, centroids, m, product, 2)
    if product:
        order = -(X.astype(np.float64) @ centroids.T)
    else:
        order = np.square(X[:, None].astype(np.float64) - centroids).sum(-1)
    np.testing.assert_array_equal(which, np.argsort(order, axis=1, kind="stable")[:, :m])
    best = np.sort(order, axis=1)[:, :m]
    np.testing.assert_allclose(values, -best if product else best, rtol=1e-4, atol=1e-4)


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ShapeError):
        _core.kmeans(X, 0)
    with pytest.raises(ShapeError):
        _core.kmeans(X[:0], 4)
    with pytest.raises(ShapeError):
        _core.kmeans(X, 4, start=X[:5])
    with pytest.raises(ShapeError):
        _core.nearest_centroids(X, X[:5], 6, False, 1)
