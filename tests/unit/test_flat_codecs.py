# SPDX-License-Identifier: Apache-2.0
"""FlatIndex: what it keeps of vectors, and when its codec is fitted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import ShapeError

METRICS = ("cosine", "ip", "l2")
DIM = 40
N = 600


def vectors(n: int, seed: int = 0) -> np.ndarray:
    """Rows around 30 centres, so that there are neighbours to find."""
    centres = np.random.default_rng(77).standard_normal((30, DIM))
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(30, size=n)] + 0.5 * rng.standard_normal((n, DIM))).astype(np.float32)


X, Q = vectors(N), vectors(16, 1)


def codec_of(kind: str) -> rz.Codec | None:
    return {
        "none": lambda: None,
        "float32": lambda: rz.FloatCodec(DIM),
        "float16": lambda: rz.FloatCodec(DIM, "float16"),
        "bfloat16": lambda: rz.FloatCodec(DIM, "bfloat16"),
        "binary": lambda: rz.BinaryCodec(DIM),
        "recurrent": lambda: rz.RecurrentBinaryCodec(DIM, 2),
        "recurrent4": lambda: rz.RecurrentBinaryCodec(DIM, 4),
    }[kind]()


def made(kind: str = "none", metric: str = "cosine", ids: Any = None, **options: Any) -> rz.FlatIndex:
    index = rz.FlatIndex(DIM, metric=metric, codec=codec_of(kind), **options)
    index.add(X, ids)
    return index


def same(a: rz.Hits, b: rz.Hits) -> None:
    assert a.ids.tolist() == b.ids.tolist()
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.counts, b.counts)


def close(a: rz.Hits, b: rz.Hits) -> None:
    """Equal but for the last bits of scores, which two ways of summing may round apart."""
    assert a.ids.tolist() == b.ids.tolist()
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(a.counts, b.counts)


class TestKeptVectors:
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize(
        ("kind", "mode", "error"),
        [
            ("none", "auto", 0.0),
            ("none", "float32", 0.0),
            ("none", "float16", 1e-3),
            ("none", "int8", 2e-2),
            ("none", "disk", 0.0),
            ("recurrent", "auto", 1e-3),
            ("recurrent", "float32", 0.0),
            ("recurrent", "float16", 1e-3),
            ("recurrent", "int8", 2e-2),
            ("recurrent", "disk", 0.0),
            ("binary", "auto", 1e-3),
            ("recurrent4", "none", 0.3),
        ],
    )
    def test_get_returns_what_was_added(self, kind: str, mode: str, error: float, metric: str) -> None:
        index = made(kind, metric, vectors=mode)
        ids = np.random.default_rng(3).permutation(N)[:50]
        got = index.get(ids)
        assert got.dtype == np.float32
        wanted = X[ids]
        if mode == "none" and metric == "cosine":
            wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
        off = np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
        assert off.max() <= error
        hits = index.search(X[:20], 1)
        if mode != "none" and metric != "ip":
            assert hits.ids[:, 0].tolist() == list(range(20))

    @pytest.mark.parametrize(
        "row",
        [np.full(DIM, 1e5), np.full(DIM, 1e-7), np.r_[1e-9, np.zeros(DIM - 1)]],
        ids=["big", "small", "tiny"],
    )
    def test_auto_widens_and_loses_nothing(self, row: np.ndarray, tmp_path: Any) -> None:
        codec = rz.RecurrentBinaryCodec(DIM, 2).fit(X, metric="l2")
        narrow = rz.FlatIndex(DIM, metric="l2", codec=codec)
        narrow.add(X)
        before, size = narrow.get(np.arange(N)), narrow.memory()["vectors"]
        assert N * DIM * 2 <= size < N * DIM * 3
        narrow.add(row[None].astype(np.float32))
        np.testing.assert_array_equal(narrow.get(np.arange(N)), before)
        np.testing.assert_array_equal(narrow.get([N])[0], row.astype(np.float32))
        assert narrow.memory()["vectors"] >= (N + 1) * DIM * 4
        narrow.add(X)
        np.testing.assert_array_equal(narrow.get(np.arange(N + 1, 2 * N + 1)), X)
        narrow.save(tmp_path / "x")
        np.testing.assert_array_equal(rz.load(tmp_path / "x").get([N])[0], row.astype(np.float32))

    def test_without_a_codec_or_vectors_there_is_nothing(self) -> None:
        with pytest.raises(ValueError, match=r"none.*codec"):
            rz.FlatIndex(DIM, vectors="none")
        with pytest.raises(ValueError, match="'float8'"):
            rz.FlatIndex(DIM, vectors="float8")


class TestCodecs:
    @pytest.mark.parametrize("mode", ["auto", "none", "int8", "disk"])
    def test_an_untrained_codec_is_fitted_at_256_rows(self, mode: str, tmp_path: Any) -> None:
        codec = rz.RecurrentBinaryCodec(DIM, 2)
        index = rz.FlatIndex(DIM, codec=codec, vectors=mode)
        index.add(X[:200])
        index.add(X[200:255])
        assert not index.codec.is_trained
        close(index.search(Q, 10), rz.exact_search(Q, X[:255], 10))
        index.save(tmp_path / "waits")
        np.testing.assert_array_equal(index.get([7]), X[7:8])
        index.add(X[255:256])
        assert index.codec.is_trained
        assert index.codec is codec
        fitted = rz.RecurrentBinaryCodec(DIM, 2).fit(X[:256])
        assert codec.fingerprint == fitted.fingerprint
        other = rz.FlatIndex(DIM, codec=fitted, vectors=mode)
        other.add(X[:256])
        same(index.search(Q, 10), other.search(Q, 10))
        assert index.memory() == other.memory()
        loaded = rz.load(tmp_path / "waits")
        assert not loaded.codec.is_trained
        loaded.add(X[255:256])
        assert loaded.codec.fingerprint == fitted.fingerprint
        same(loaded.search(Q, 10), index.search(Q, 10))

    def test_train(self) -> None:
        index = rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 1), metric="ip", vectors="float32")
        index.add(X[:100])
        assert index.train(X, queries=Q) in (index, None)
        assert index.codec.fingerprint == (
            rz.RecurrentBinaryCodec(DIM, 1).fit(X, queries=Q, metric="ip").fingerprint
        )
        assert len(index) == 100
        close(index.search(Q, 10, rerank=100), rz.exact_search(Q, X[:100], 10, metric="ip"))
        with pytest.raises(ValueError, match="trained already"):
            index.train(X)
        made().train(X)
        for bad, error in [(X[:, :3], ValueError), (X.astype(int), TypeError), (X * np.nan, ValueError)]:
            waiting = rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 1))
            with pytest.raises(error):
                waiting.train(bad)
            assert not waiting.codec.is_trained

    def test_a_codec_that_was_fitted_for_another_metric_in_the_meantime_is_refused(self) -> None:
        codec = rz.RecurrentBinaryCodec(DIM, 4)
        early = rz.FlatIndex(DIM, metric="l2", codec=codec)
        early.add(X[:10])
        codec.fit(X)
        for change in (lambda: early.add(X[10:300]), lambda: early.train(X)):
            with pytest.raises(ValueError, match="metric 'cosine', the index uses 'l2'"):
                change()
        assert len(early) == 10
        assert early.search(Q, 3).stats["plan"] == "exact"

    def test_a_codec_serves_many_indexes(self) -> None:
        codec = rz.RecurrentBinaryCodec(DIM, 2)
        first, second = (rz.FlatIndex(DIM, codec=codec) for _ in range(2))
        first.add(X)
        second.add(X)
        same(first.search(Q, 5), second.search(Q, 5))

    def test_refused(self) -> None:
        with pytest.raises(ShapeError, match=rf"{DIM + 1}.*{DIM}"):
            rz.FlatIndex(DIM, codec=rz.BinaryCodec(DIM + 1))
        for codec in (rz.RecurrentBinaryCodec(DIM, 1), rz.BinaryCodec(DIM), rz.FloatCodec(DIM)):
            codec.fit(X, metric="l2")
            with pytest.raises(ValueError, match=r"'l2'.*'cosine'"):
                rz.FlatIndex(DIM, codec=codec)
        for bad in ("auto?", 3, rz.BinaryCodec):
            with pytest.raises(TypeError, match="codec"):
                rz.FlatIndex(DIM, codec=bad)
        for bad, error in [
            (0, ValueError),
            (-1, ValueError),
            (1.5, TypeError),
            (10**6, ValueError),
            ("8", TypeError),
        ]:
            for make in (rz.FlatIndex, rz.BinaryCodec, rz.FloatCodec, rz.RecurrentBinaryCodec):
                with pytest.raises(error, match="dim"):
                    make(bad)
        for bad, error in [
            (0.4, ValueError),
            (9, ValueError),
            (np.nan, ValueError),
            ("2", TypeError),
            (True, TypeError),
        ]:
            with pytest.raises(error, match="bits"):
                rz.RecurrentBinaryCodec(DIM, bad)
        for bad, error in [("l1", ValueError), (None, TypeError)]:
            with pytest.raises(error, match="metric"):
                rz.FlatIndex(DIM, metric=bad)
        with pytest.raises(ValueError, match="columns"):
            rz.FlatIndex(DIM, columns={"year": "integer"})
