# SPDX-License-Identifier: Apache-2.0
"""Files of vectors: every format comes back as it was written, and no damage goes unnoticed."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import residua as rz
from residua import _io
from residua._io import raw_rows
from residua.errors import (
    CorruptFileError,
    DtypeError,
    InvalidValueError,
    NonFiniteError,
    ResiduaError,
    ShapeError,
    UnsupportedError,
)

Matrix = np.ndarray[Any, Any]

# Written here byte by byte from the formats' descriptions, not by the writers under test.
VECS = {".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}
BIN = {".fbin": "<f4", ".hbin": "<f2", ".u8bin": "u1", ".i8bin": "i1", ".ibin": "<i4"}


def write_vecs(path: Path, x: Matrix) -> None:
    path.write_bytes(b"".join(struct.pack("<i", len(row)) + row.tobytes() for row in x))


def write_bin(path: Path, x: Matrix) -> None:
    path.write_bytes(struct.pack("<II", *x.shape) + x.tobytes())


def write_npz(path: Path, x: Matrix) -> None:
    np.savez_compressed(path, x=x)


def write_hdf5(path: Path, x: Matrix) -> None:
    with h5py.File(path, "w") as file:
        file["group/x"] = x


def write_list_column(path: Path, x: Matrix) -> None:
    kind = pa.list_(pa.from_numpy_dtype(x.dtype))
    column = pa.array(list(x), type=kind)
    pq.write_table(pa.table({"x": column, "title": ["a"] * len(x)}), path, row_group_size=3)


def write_fixed_column(path: Path, x: Matrix) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
    pq.write_table(pa.table({"x": column}), path, row_group_size=3)


def write_wide(path: Path, x: Matrix) -> None:
    columns = {f"e{j}": np.ascontiguousarray(x[:, j]) for j in range(x.shape[1])}
    pq.write_table(pa.table(columns), path, row_group_size=3)


WRITERS: list[tuple[str, str, str, Callable[[Path, Matrix], None]]] = [
    *((suffix[1:], suffix, dtype, write_vecs) for suffix, dtype in VECS.items()),
    *((suffix[1:], suffix, dtype, write_bin) for suffix, dtype in BIN.items()),
    ("npy", ".npy", "<f4", lambda path, x: np.save(path, x)),
    ("npy big-endian", ".npy", ">f8", lambda path, x: np.save(path, x)),
    ("npy columns", ".npy", "<f2", lambda path, x: np.save(path, np.asfortranarray(x))),
    ("npz", ".npz", "<f4", write_npz),
    ("hdf5", ".hdf5", "<f4", write_hdf5),
    ("h5 float16", ".h5", "<f2", write_hdf5),
    ("parquet list", ".parquet", "<f4", write_list_column),
    ("parquet list float16", ".parquet", "<f2", write_list_column),
    ("parquet fixed list", ".parquet", "<f8", write_fixed_column),
    ("parquet columns", ".parquet", "<f4", write_wide),
]
FORMATS = pytest.mark.parametrize(
    ("suffix", "dtype", "write"), [pytest.param(*rest, id=name) for name, *rest in WRITERS]
)


@FORMATS
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), n=st.integers(1, 12), dim=st.integers(1, 6), step=st.integers(1, 13))
def test_what_is_written_is_read(
    tmp_path: Path,
    suffix: str,
    dtype: str,
    write: Callable[[Path, Matrix], None],
    data: st.DataObject,
    n: int,
    dim: int,
    step: int,
) -> None:
    size = n * dim * np.dtype(dtype).itemsize
    drawn = data.draw(st.binary(min_size=size, max_size=size))  # any bits, NaN and infinity included
    x = np.frombuffer(drawn, dtype).reshape(n, dim)
    path = tmp_path / f"x{suffix}"
    write(path, x)
    file = _io.open_vectors(path)
    assert (file.n, file.dim, file.dtype.newbyteorder("=")) == (n, dim, x.dtype.newbyteorder("="))
    chunks = list(file.chunks(step))
    assert all(1 <= len(chunk) <= step for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate(chunks), x)
    np.testing.assert_array_equal(file.head(3), x[:3])
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1)))), dtype=np.int64)
    np.testing.assert_array_equal(file.take(rows), x[rows])


@pytest.mark.parametrize("suffix", [".npy", *VECS, *BIN])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(1, 9), dim=st.integers(1, 5), cut=st.integers(0, 9), seed=st.integers(0, 99))
def test_the_writer_is_read_back(tmp_path: Path, suffix: str, n: int, dim: int, cut: int, seed: int) -> None:
    dtype = {**VECS, **BIN}.get(suffix, "<f4")
    x = np.random.default_rng(seed).integers(0, 100, (n, dim)).astype(dtype)
    path = tmp_path / f"out{suffix}"
    with _io.atomic_output(path) as stream:
        writer = _io.RowWriter(stream, suffix, n, dim, x.dtype)
        writer.write(x[:cut])
        writer.write(x[cut:])
        writer.close()
    np.testing.assert_array_equal(_io.open_vectors(path).read(), x)
    if suffix == ".npy":
        np.testing.assert_array_equal(np.load(path), x)


def expect(error: type[Exception], path: Path | str, *words: str, **options: Any) -> None:
    """Opening and reading fails with a message of one line that names the file and the words."""
    with pytest.raises(error) as caught:
        list(_io.open_vectors(path, **options).chunks(4))
    message = str(caught.value)
    assert isinstance(caught.value, (ResiduaError, OSError))
    assert Path(str(path).split("::")[0]).name in message
    for word in words:
        assert word in message


@FORMATS
def test_every_shortened_file_is_refused(
    tmp_path: Path, suffix: str, dtype: str, write: Callable[[Path, Matrix], None]
) -> None:
    x = np.arange(1, 21).reshape(5, 4).astype(dtype)
    path = tmp_path / f"x{suffix}"
    write(path, x)
    whole = path.read_bytes()
    for size in sorted({*range(0, min(len(whole), 120), 3), *range(len(whole) - 40, len(whole))}):
        if suffix in VECS and size and size % (4 + 4 * np.dtype(dtype).itemsize) == 0:
            continue  # a file of fewer rows
        path.write_bytes(whole[:size])
        expect(CorruptFileError, path)


@FORMATS
def test_every_flipped_byte_is_an_error_or_a_number(
    tmp_path: Path, suffix: str, dtype: str, write: Callable[[Path, Matrix], None]
) -> None:
    """A damaged header may announce anything: never a crash, a foreign exception, or a huge allocation."""
    x = np.arange(1, 21).reshape(5, 4).astype(dtype)
    path = tmp_path / f"x{suffix}"
    write(path, x)
    whole = bytearray(path.read_bytes())
    for at in range(0, len(whole), max(1, len(whole) // 150)):
        for value in (0x00, 0x7F, 0xFF):
            damaged = bytearray(whole)
            damaged[at] = value
            path.write_bytes(damaged)
            try:
                file = _io.open_vectors(path)
                rows = sum(len(chunk) for chunk in file.chunks(2))
            except (ResiduaError, OSError):
                continue
            assert rows == file.n


@pytest.mark.parametrize("suffix", _io.SUFFIXES)
def test_empty_missing_and_folder(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    expect(FileNotFoundError, path)
    path.write_bytes(b"")
    expect(CorruptFileError, path, "empty")
    path.unlink()
    path.mkdir()
    expect(IsADirectoryError, path)


def test_unknown_suffix_lists_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("1,2")
    expect(UnsupportedError, path, ".csv", ".parquet")
    expect(FileNotFoundError, tmp_path / "y.csv")


def test_records_of_different_dims_name_the_row(tmp_path: Path) -> None:
    path = tmp_path / "x.fvecs"
    rows = [np.ones(4, "<f4"), np.ones(4, "<f4"), np.ones(3, "<f4")]
    path.write_bytes(b"".join(struct.pack("<i", len(row)) + row.tobytes() for row in rows))
    expect(CorruptFileError, path, "row 2 has 3 dims", "first row has 4")
    # Of the right size, yet one record lies about itself.
    good = b"".join(struct.pack("<i", 4) + rows[0].tobytes() for _ in range(3))
    path.write_bytes(good[:40] + struct.pack("<i", 5) + good[44:])
    expect(CorruptFileError, path, "row 2 has 5 dims", "first row has 4")
    path.write_bytes(good[:40] + struct.pack("<i", 5) + good[44:] + b"x")
    expect(CorruptFileError, path, "row 2 has 5 dims")
    path.write_bytes(struct.pack("<i", -1) + bytes(16))
    expect(CorruptFileError, path, "-1 dims")


@pytest.mark.parametrize(("more", "fault"), [(-1, "truncated"), (1, "too long")])
def test_headers_are_compared_with_the_size(tmp_path: Path, more: int, fault: str) -> None:
    x = np.ones((3, 2), "<f4")
    for name, write in (("x.npy", np.save), ("x.fbin", write_bin)):
        path = tmp_path / name
        write(path, x)  # type: ignore[operator]
        data = path.read_bytes()
        path.write_bytes(data[:more] if more < 0 else data + b"0" * more)
        expect(CorruptFileError, path, fault, "24 bytes", f"{24 + more} bytes follow")


def test_ground_truth_with_distances_behind_it(tmp_path: Path) -> None:
    ids = np.arange(6, dtype="<i4").reshape(3, 2)
    path = tmp_path / "gt.ibin"
    path.write_bytes(struct.pack("<II", 3, 2) + ids.tobytes() + np.ones((3, 2), "<f4").tobytes())
    np.testing.assert_array_equal(_io.open_vectors(path).read(), ids)


def test_several_arrays_ask_for_a_name(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.zeros((2, 3), "f4"), b=np.ones((4, 5), "f4"))
    expect(InvalidValueError, path, "a, b", "--key")
    expect(InvalidValueError, path, "'c'", "a, b", key="c")
    assert _io.open_vectors(path, key="b").n == 4
    assert _io.open_vectors(f"{path}::b").dim == 5
    assert _io.open_vectors(path, prefer=("z", "a")).dim == 3
    expect(UnsupportedError, tmp_path / "x.npy", "takes no key", key="c")


def test_hdf5_chooses_by_the_kind_of_number(tmp_path: Path) -> None:
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        file["train"], file["test"] = np.zeros((9, 3), "f4"), np.ones((2, 3), "f4")
        file["truth"], file["distances"] = np.zeros((2, 5), "i4"), np.ones((2, 5), "f4")
        file["name"] = "x"
    assert _io.open_vectors(path, prefer=("train",)).n == 9
    assert _io.open_vectors(path, integers=True).key == "truth"
    assert _io.open_vectors(f"{path}::test").n == 2
    expect(InvalidValueError, path, "train", "test", "--key")
    assert set(_io.contents(str(path))) == {"train", "test", "truth", "distances", "name"}


def test_parquet_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    lists = pa.array([[1.0, 2.0], [3.0, 4.0]], type=pa.list_(pa.float32()))
    table = {"u": lists, "v": lists, "e0": [1.0, 2.0], "e1": [3.0, 4.0], "name": ["a", "b"]}
    pq.write_table(pa.table(table), path)
    expect(InvalidValueError, path, "u, v", "--key")
    expect(InvalidValueError, path, "'w'", "e0, e1", key="w")
    assert _io.open_vectors(path, key="v").dim == 2
    np.testing.assert_array_equal(_io.open_vectors(path, key="e*").read(), [[1, 3], [2, 4]])
    np.testing.assert_array_equal(_io.open_vectors(path, key="e1,e0").read(), [[3, 1], [4, 2]])
    pq.write_table(pa.table({"name": ["a"]}), path)
    expect(UnsupportedError, path, "no column of lists of numbers")


@pytest.mark.parametrize(
    ("column", "error", "words"),
    [
        (pa.array([[1.0], [2.0], [3.0, 4.0]]), ShapeError, "row 2 has 2 dims"),
        (pa.array([[1.0], None]), InvalidValueError, "row 1 is null"),
        (pa.array([None, [1.0]], type=pa.list_(pa.float32())), InvalidValueError, "row 0 is null"),
        (pa.array([[1.0, 2.0], [3.0, None]]), InvalidValueError, "row 1 contains a null"),
    ],
)
def test_parquet_rows_that_are_no_vectors(
    tmp_path: Path, column: pa.Array, error: type[Exception], words: str
) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": column}), path)
    expect(error, path, words)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (np.array([[None]], dtype=object), DtypeError, "objects"),
        (np.zeros((2, 2), [("a", "f4")]), DtypeError, "type"),
        (np.zeros((2, 2), complex), DtypeError, "complex128"),
        (np.zeros((2, 2, 2), "f4"), ShapeError, "(2, 2, 2)"),
        (np.zeros(3, "f4"), ShapeError, "(3,)"),
    ],
)
def test_arrays_that_are_no_matrix(tmp_path: Path, x: Matrix, error: type[Exception], words: str) -> None:
    path = tmp_path / "x.npy"
    np.save(path, x, allow_pickle=True)
    expect(error, path, words)


def test_vectors_must_be_vectors(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    for x, error in (
        (np.zeros((0, 3), "f4"), InvalidValueError),
        (np.zeros((3, 0), "f4"), InvalidValueError),
        (np.zeros((3, 2), "i8"), DtypeError),
    ):
        np.save(path, x)
        with pytest.raises(error, match=r"x\.npy"):
            _io.open_vectors(path).require_vectors()
    np.save(path, np.zeros((3, 2), "u1"))
    _io.open_vectors(path).require_vectors(2)
    with pytest.raises(InvalidValueError, match="2 dims, expected 5"):
        _io.open_vectors(path).require_vectors(5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_bad_rows_are_named_by_their_number(tmp_path: Path, bad: float) -> None:
    x = np.ones((50, 3))
    x[37, 1] = bad
    x[41] = 0
    path = tmp_path / "x.npy"
    np.save(path, x)
    file = _io.open_vectors(path)
    with pytest.raises(NonFiniteError, match="row 37"):
        list(_io.float_chunks(file, metric="cosine", rows=8))
    with pytest.raises(NonFiniteError, match="row 37"):
        _io.take_floats(file, np.arange(30, 45), metric="l2")
    with pytest.raises(InvalidValueError, match="row 41 is a zero vector"):
        _io.take_floats(file, np.array([3, 41]), metric="cosine")
    assert _io.take_floats(file, np.array([3, 41]), metric="l2").dtype == np.float32


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.ones((100_000, 8), "f4"))
    chunks = _io.open_vectors(path).chunks(10)
    next(chunks)
    with open(path, "r+b") as file:
        file.truncate(200_000)
    with pytest.raises(CorruptFileError, match="ended at byte"):
        list(chunks)


def test_a_zip_member_that_lies_about_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + repr({"descr": "<f4", "fortran_order": False, "shape": (10**12, 4)}).encode().ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header + bytes(64))
    expect(CorruptFileError, path, "1000000000000", "64 bytes")
    (tmp_path / "x.npy").write_bytes(header + bytes(64))
    expect(CorruptFileError, tmp_path / "x.npy", "truncated")


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 5000), count=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_samples_are_distinct_sorted_and_reproducible(n: int, count: int, seed: int) -> None:
    rows = _io.sample_rows(n, count, seed)
    assert len(rows) == min(n, count)
    assert np.all(np.diff(rows) > 0)
    assert rows[0] >= 0
    assert rows[-1] < n
    np.testing.assert_array_equal(rows, _io.sample_rows(n, count, seed))


@pytest.mark.parametrize("n", [300, 3_000])  # both ways of drawing
def test_samples_are_uniform(n: int) -> None:
    drawn = np.concatenate([_io.sample_rows(n, 30, seed) for seed in range(2000)])
    counts = np.bincount(drawn * 10 // n, minlength=10)
    # Multinomial with mean 6,000 and standard deviation below 74: five of them.
    assert np.abs(counts - 6000).max() < 370


def test_missing_packages_name_their_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for package, suffix, extra in (("pyarrow", ".parquet", "arrow"), ("h5py", ".h5", "hdf5")):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(b"x")
        for name in [package, *(m for m in sys.modules if m.startswith(f"{package}."))]:
            monkeypatch.setitem(sys.modules, name, None)
        expect(UnsupportedError, path, f"residua[{extra}]")


def test_readers_know_the_formats_of_the_tests() -> None:
    assert {k: np.dtype(v) for k, v in raw_rows.VECS_DTYPES.items()} == {
        k: np.dtype(v) for k, v in VECS.items()
    }
    assert {k: np.dtype(v) for k, v in raw_rows.BIN_DTYPES.items()} == {
        k: np.dtype(v) for k, v in BIN.items()
    }
    assert issubclass(rz.errors.FileError, OSError)
