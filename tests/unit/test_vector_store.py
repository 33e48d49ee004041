# SPDX-License-Identifier: Apache-2.0
"""Kept vectors: every type, changes of loaded files, the automatic type, and the file of mode disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from residua._core import store
from residua.errors import (
    CorruptFileError,
    InvalidValueError,
    ResiduaError,
    ShapeError,
    UnsupportedError,
)

MODES = ["float32", "float16", "int8", "disk", "auto"]


def rows_of(n: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)


def kept(vectors: store.VectorStore) -> np.ndarray:
    return np.array([vectors.get(i) for i in range(len(vectors))], dtype=np.float32)


def expected_rows(x: np.ndarray, mode: str) -> np.ndarray:
    if mode in ("float16", "auto"):
        return x.astype(np.float16).astype(np.float32)
    if mode == "int8":
        scale = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
        return (scale * np.clip(np.rint(x / scale), -127, 127)).astype(np.float32)
    return x.copy()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("dim", [1, 3, 64])
def test_rows_come_back_as_kept(mode: str, metric: str, dim: int) -> None:
    x = rows_of(700, dim)
    vectors = store.VectorStore(mode, dim, metric)
    vectors.append(x[:10])
    vectors.append(x[10:], num_threads=2)
    vectors.append(x[:0])
    expected = expected_rows(x, mode)
    assert np.array_equal(kept(vectors), expected)
    if metric == "cosine":
        norms = np.linalg.norm(expected.astype(np.float64), axis=1)
        np.testing.assert_allclose(vectors.inv_norm, 1 / norms, rtol=1e-6)
    else:
        assert vectors.inv_norm is None
    assert (vectors.row_scale is not None) == (mode == "int8")
    vectors.assign(5, x[6])
    expected[5] = expected[6]
    vectors.truncate(600)
    vectors.compact(list(range(0, 600, 7)))
    assert np.array_equal(kept(vectors), expected[:600:7])


@pytest.mark.parametrize("mode", MODES)
def test_strided_rows(mode: str) -> None:
    x = rows_of(20, 10)
    vectors = store.VectorStore(mode, 7, "l2")
    vectors.append_strided(x, 7)
    assert np.array_equal(kept(vectors), expected_rows(np.ascontiguousarray(x[:, :7]), mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mmap", [False, True])
def test_vectors_round_trip_and_change_after_loading(tmp_path: Path, mode: str, mmap: bool) -> None:
    x = rows_of(300, 17)
    path = str(tmp_path / "v")
    vectors = store.VectorStore(mode, 17, "cosine")
    vectors.append(x)
    vectors.write_file(path)
    image = Path(path).read_bytes()
    for change in ("append", "assign", "truncate", "compact", "widen"):
        loaded = store.VectorStore.open(path, 17, "cosine", mmap=mmap)
        assert loaded.to_bytes() == image
        if mmap:
            assert loaded.memory()["rows"] == 0
            assert loaded.memory()["file"] > 0
        expected = expected_rows(x, mode)
        if change == "append":
            loaded.append(x[:3])
            expected = np.concatenate([expected, expected[:3]])
        elif change == "assign":
            loaded.assign(2, x[9])
            expected[2] = expected[9]
        elif change == "truncate":
            loaded.truncate(100)
            expected = expected[:100]
        elif change == "compact":
            loaded.compact([1, 5, 299])
            expected = expected[[1, 5, 299]]
        elif mode == "auto":
            loaded.append(x[:1] * 1e6)
            assert loaded.row_type == "float32"
            expected = np.concatenate([expected, x[:1] * np.float32(1e6)])
        assert np.array_equal(kept(loaded), expected)
    assert Path(path).read_bytes() == image


def test_automatic_type() -> None:
    x = rows_of(50, 8)
    vectors = store.VectorStore("auto", 8, "ip")
    vectors.append(x)
    assert vectors.row_type == "float16"
    vectors.assign(3, np.full(8, 1e5, np.float32))  # overflows float16
    assert vectors.row_type == "float32"
    expected = expected_rows(x, "float16")
    expected[3] = 1e5
    assert np.array_equal(kept(vectors), expected)
    small = store.VectorStore("auto", 8, "ip")
    small.append(x * 1e-6)  # subnormal as float16: too coarse
    assert small.row_type == "float32"
    assert np.array_equal(kept(small), x * np.float32(1e-6))
    zeros = store.VectorStore("auto", 8, "ip")
    zeros.append(np.zeros((2, 8), np.float32))
    assert zeros.row_type == "float16"


def test_float16_refuses_what_it_cannot_hold() -> None:
    x = rows_of(600, 4)
    x[555, 2] = 7e4
    x[556, 2] = 7e4
    vectors = store.VectorStore("float16", 4, "cosine")
    vectors.append(x[:5])
    with pytest.raises(InvalidValueError, match="row 555 has a value beyond 65504"):
        vectors.append(x, num_threads=2)
    with pytest.raises(InvalidValueError, match="row 0 is so small that it becomes zero"):
        vectors.append(np.full((1, 4), 1e-9, np.float32))
    assert np.array_equal(kept(vectors), expected_rows(x[:5], "float16"))


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e30, 3e38])
def test_extreme_magnitudes_stay_finite(scale: float) -> None:
    x = np.array([[1, -1, 0.5, 0]], np.float32) * np.float32(scale)
    for mode in ("int8", "float32", "auto"):
        vectors = store.VectorStore(mode, 4, "cosine")
        vectors.append(x)
        assert np.isfinite(vectors.inv_norm).all()
        assert vectors.inv_norm[0] > 0
        assert np.isfinite(vectors.get(0)).all()
        np.testing.assert_allclose(vectors.get(0), x[0], atol=scale / 100)


def test_mode_none_only_counts() -> None:
    vectors = store.VectorStore("none", 4, "cosine")
    vectors.append(rows_of(5, 4))
    vectors.compact([0, 1])
    assert len(vectors) == 2
    assert sum(vectors.memory().values()) == 0
    assert len(store.VectorStore.from_bytes(vectors.to_bytes(), 4, "cosine")) == 2
    with pytest.raises(UnsupportedError, match="no vectors are kept"):
        vectors.get(0)


def test_vector_arguments() -> None:
    with pytest.raises(InvalidValueError, match=r"vectors must be 'auto'.*got 'half'"):
        store.VectorStore("half", 4)
    vectors = store.VectorStore("auto", 4)
    with pytest.raises(ShapeError, match="vectors have 5 dims, expected 4"):
        vectors.append(rows_of(2, 5))
    for call in (
        lambda: vectors.get(0),
        lambda: vectors.assign(0, rows_of(1, 4)[0]),
        lambda: vectors.compact([0]),
    ):
        with pytest.raises(ResiduaError):
            call()
    with pytest.raises(CorruptFileError, match=r"key 'vectors\.dim' is 4, expected 5 to 5"):
        store.VectorStore.from_bytes(vectors.to_bytes(), 5, "cosine")


def test_disk_vectors_lie_in_a_file_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    vectors = store.VectorStore("disk", 16, "ip")
    x = rows_of(1000, 16)
    for start in range(0, 1000, 100):
        vectors.append(x[start : start + 100])
    assert list(tmp_path.iterdir()) == []
    assert vectors.memory() == {"rows": 0, "scalars": 0, "file": x.nbytes}
    assert np.array_equal(kept(vectors), x)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(OSError, match="TMPDIR"):
        store.VectorStore("disk", 16, "ip").append(x)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_disk_vectors_of_a_forked_child_are_its_own() -> None:
    x = rows_of(4, 8)
    vectors = store.VectorStore("disk", 8, "ip")
    vectors.append(x[:2])
    child = os.fork()
    if child == 0:
        try:
            vectors.append(x[3:])
            vectors.assign(0, x[2])
            os._exit(0 if np.array_equal(kept(vectors), x[[2, 1, 3]]) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(kept(vectors), x[:2])
    vectors.append(x[2:3])
    assert np.array_equal(kept(vectors), x[:3])
