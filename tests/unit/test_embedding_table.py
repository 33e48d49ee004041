# SPDX-License-Identifier: Apache-2.0
"""EmbeddingTable: rows by number, from any codec, in memory or mapped."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import (
    CorruptFileError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    OutOfRangeError,
    ShapeError,
)

DIM = 20
CODECS = {
    "scalar4": lambda: rz.ScalarCodec(DIM, 4),
    "scalar8": lambda: rz.ScalarCodec(DIM, 8),
    "recurrent": lambda: rz.RecurrentBinaryCodec(DIM, 4),
    "binary": lambda: rz.BinaryCodec(DIM),
    "float16": lambda: rz.FloatCodec(DIM, "float16"),
    "float32": lambda: rz.FloatCodec(DIM),
}


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)


X = vectors(500)


@pytest.fixture(params=CODECS)
def table(request: pytest.FixtureRequest) -> rz.EmbeddingTable:
    return rz.EmbeddingTable(X, CODECS[request.param]())


def test_rows_are_what_the_codec_decodes(table: rz.EmbeddingTable) -> None:
    assert (len(table), table.dim, table.shape) == (500, DIM, (500, DIM))
    assert table.codec.metric == "ip"
    rows = table.codec.decode(table.codec.encode(X))
    every = table[:]
    assert every.dtype == np.float32
    np.testing.assert_array_equal(every, rows)
    some = np.random.default_rng(1).integers(-500, 500, 2000)
    for ids in (some, some.astype(np.int16), some.tolist(), some.reshape(4, 50, 10), some[::-3], [], 7, -500,
                np.int8(3), np.array(4), np.empty(0, np.int64), np.array([3, 499], np.uint64),
                slice(None, None, -1), slice(10, 400, 7), slice(-3, None), slice(9, 3), slice(400, 10**20),
                rows[:, 0] > 0, np.zeros(500, bool)):  # fmt: skip
        wanted = rows[np.asarray(ids, np.int64)] if isinstance(ids, list) else rows[ids]
        found = table[ids]
        assert found.shape == wanted.shape
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, wanted)


def test_threads_give_the_same_rows() -> None:
    x = np.tile(X, (40, 1))
    table = rz.EmbeddingTable(x, rz.ScalarCodec(DIM, 4), num_threads=2)
    ids = np.random.default_rng(2).integers(len(x), size=30_000)
    one = table.take(ids, num_threads=1)
    for threads in (2, 5, None):
        np.testing.assert_array_equal(table.take(ids, num_threads=threads), one)
        np.testing.assert_array_equal(
            table.take(slice(3, 19_000), num_threads=threads), table[np.arange(3, 19_000)]
        )
    found: list[Any] = [None] * 8
    readers = [threading.Thread(target=lambda i=i: found.__setitem__(i, table[ids[i::8]])) for i in range(8)]
    for r in readers:
        r.start()
    for r in readers:
        r.join()
    for i in range(8):
        np.testing.assert_array_equal(found[i], one[i::8])


@pytest.mark.parametrize("mmap", [False, True])
def test_saved_and_loaded(table: rz.EmbeddingTable, mmap: bool, tmp_path: Path) -> None:
    table.save(tmp_path / "table")
    loaded = rz.load(tmp_path / "table", mmap=mmap, verify="full")
    assert isinstance(loaded, rz.EmbeddingTable)
    assert repr(loaded) == repr(table)
    assert loaded.codec.fingerprint == table.codec.fingerprint
    np.testing.assert_array_equal(loaded[:], table[:])
    np.testing.assert_array_equal(loaded[[7, -7]], table[[7, -7]])
    assert loaded.memory()["codes"] == 500 * table.codec.code_bytes
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "table").read_bytes()


def test_bytes_and_lengths() -> None:
    """Untrained codecs are fitted so that vectors keep their lengths; one for cosine gives unit vectors."""
    table = rz.EmbeddingTable(5 * X, rz.ScalarCodec(DIM, 8))
    assert np.abs(table[:] - 5 * X).max() < 0.15
    assert table.memory()["codes"] == 500 * (DIM + 8)
    assert sum(table.memory().values()) < X.nbytes
    assert repr(table) == "EmbeddingTable(500 rows, ScalarCodec(dim=20, bits=8, 28 bytes/vector, ip))"
    codec = rz.ScalarCodec(DIM, 8).fit(X)
    again = rz.EmbeddingTable(5 * X, codec)
    assert again.codec is codec
    np.testing.assert_allclose(np.linalg.norm(again[:], axis=1), 1, atol=0.02)
    with pytest.raises(InvalidValueError, match="row 3 is a zero"):
        rz.EmbeddingTable(np.where(np.arange(500)[:, None] == 3, 0, X), codec)
    zero = rz.EmbeddingTable(np.zeros((4, DIM), "f4"), rz.ScalarCodec(DIM, 4))
    np.testing.assert_allclose(zero[:], 0, atol=1e-6)
    assert len(rz.EmbeddingTable(X[:0], codec)) == 0


def test_a_memory_map_goes_in(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    codec = rz.ScalarCodec(DIM, 4).fit(X, metric="ip")
    np.testing.assert_array_equal(rz.EmbeddingTable(x, codec)[:], rz.EmbeddingTable(X, codec)[:])
    half = rz.EmbeddingTable(X.astype(np.float16), codec)
    np.testing.assert_allclose(half[:], codec.decode(codec.encode(X.astype("f2").astype("f4"))))


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (500, IndexError, r"row 500 is outside a table of 500 rows: expected -500 … 499"),
        (-501, IndexError, "row -501"),
        ([3, 499, 700, 800], IndexError, "row 700"),
        (np.array([2**64 - 1], np.uint64), IndexError, str(2**64 - 1)),
        (np.array([-129], np.int16).repeat(3) * 10, IndexError, "row -1290"),
        (1.0, TypeError, "ids must be integers.*1.0"),
        ([0.5], TypeError, "array of float64"),
        (True, TypeError, "True"),
        ("7", TypeError, "'7'"),
        (None, TypeError, "None"),
        (..., TypeError, "Ellipsis"),
        ((1, 2), TypeError, "not a tuple"),
        (np.empty((0,), "f4"), TypeError, "float32"),
        ([10**30], IndexError, "row 1000000"),
        (np.array([1, True], object), TypeError, "array of object"),
        ([[1, 2], [3]], ValueError, "unequal length"),
        (np.zeros(499, bool), ValueError, r"mask needs shape \(500,\), got \(499,\)"),
        (slice(0, 5, 0), TypeError, "not a slice"),
        (slice("a", None), TypeError, "not a slice"),
    ],
)
def test_refused_rows(ids: Any, error: type[Exception], message: str) -> None:
    table = rz.EmbeddingTable(X, rz.ScalarCodec(DIM, 4))
    with pytest.raises(error, match=message) as caught:
        table[ids]
    assert isinstance(caught.value, rz.errors.ResiduaError)
    assert issubclass(OutOfRangeError, IndexError)


def test_refused_tables() -> None:
    for bad, error in (
        (None, InvalidTypeError),
        ("scalar", InvalidTypeError),
        (rz.ScalarCodec, InvalidTypeError),
    ):
        with pytest.raises(error, match="codec must be"):
            rz.EmbeddingTable(X, bad)
    for bad, error in (
        (X[:, :3], ShapeError),
        (X[0], ShapeError),
        (X[:0], InvalidValueError),
        (np.where(X > 2.5, np.nan, X), NonFiniteError),
        (X.astype(int), TypeError),
    ):
        codec = rz.ScalarCodec(DIM, 4)
        with pytest.raises(error):
            rz.EmbeddingTable(bad, codec)
        assert not codec.is_trained
    with pytest.raises(InvalidValueError, match="num_threads"):
        rz.EmbeddingTable(X, rz.ScalarCodec(DIM), num_threads=0)
    with pytest.raises(TypeError):
        rz.EmbeddingTable(X, rz.ScalarCodec(DIM))[0] = X[0]


def test_a_file_whose_rows_do_not_fit_its_codes(tmp_path: Path) -> None:
    from residua._core import store

    table = rz.EmbeddingTable(X[:3], rz.ScalarCodec(DIM, 8))
    table.save(tmp_path / "good")
    good = store.Reader.open(str(tmp_path / "good"))
    for rows in (2, 4, -1, 2**62):
        writer, inner = store.Writer("embedding_table"), store.Writer("scalar_codec")
        codec = good.nested("codec")
        for key in ("dim", "bits", "per_vector"):
            inner.put_int(key, codec.get_int(key))
        inner.put_string("metric", codec.get_string("metric"))
        inner.put_double("expansion", codec.get_double("expansion"))
        for name in ("center", "query_mean", "step"):
            inner.put(name, codec.section(name))
        writer.nest("codec", inner)
        writer.put_int("rows", rows)
        writer.put("codes", good.section("codes"))
        writer.write_file(str(tmp_path / "bad"))
        with pytest.raises(CorruptFileError, match=r"codes|rows"):
            rz.load(tmp_path / "bad")
