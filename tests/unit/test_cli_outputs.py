# SPDX-License-Identifier: Apache-2.0
"""Files that the command line writes, and files of ids."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from residua import _io
from residua.errors import (
    CorruptFileError,
    DtypeError,
    FileError,
    InvalidValueError,
    ShapeError,
    UnsupportedError,
)


def test_outputs_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    path.write_bytes(b"old")

    def write_half() -> None:
        with _io.atomic_output(path) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"old"
    link = tmp_path / "link.npy"
    link.symlink_to(path)
    with _io.atomic_output(link) as stream:
        stream.write(b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.npy", "out.npy"]


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        _io.check_output(tmp_path / "no" / "out.npy")
    with pytest.raises(FileError, match="not a regular file"):
        _io.check_output(tmp_path)
    with pytest.raises(FileError, match="not a regular file"), _io.atomic_output("/dev/null"):
        pass
    path = tmp_path / "x.npy"
    path.write_bytes(b"x")
    with pytest.raises(InvalidValueError, match="cannot be the output"):
        _io.check_output(path, (str(tmp_path / "." / "x.npy"),))


def test_the_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with open(tmp_path / "x", "wb") as stream:
        with pytest.raises(DtypeError, match="float32"):
            _io.RowWriter(stream, ".ivecs", 1, 1, "float32")
        with pytest.raises(UnsupportedError, match=r"\.txt"):
            _io.RowWriter(stream, ".txt", 1, 1, "float32")
        writer = _io.RowWriter(stream, ".ivecs", 2, 1, "int64")
        with pytest.raises(InvalidValueError, match="do not fit int32"):
            writer.write(np.array([[2**31]]))
        with pytest.raises(ShapeError):
            writer.write(np.zeros((1, 2), "i8"))
        with pytest.raises(ShapeError, match="0 rows were written, 2"):
            writer.close()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("ids.txt", b"a\nb b\n\xc3\xa9\n", ["a", "b b", "é"]),
        ("ids.txt", b"7\n8\n9\n", [7, 8, 9]),
        ("ids.ivecs", b"".join(struct.pack("<ii", 1, i) for i in (3, 1, 2)), [3, 1, 2]),
    ],
)
def test_ids_are_read(tmp_path: Path, name: str, content: bytes, expected: list[Any]) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert _io.read_ids(str(path), None, 3).tolist() == expected


def test_ids_of_arrays_and_columns(tmp_path: Path) -> None:
    for x in (np.array(["x", "yy"]), np.array([5, 6]), np.array([[5], [6]], order="F")):
        np.save(tmp_path / "ids.npy", x)
        np.savez(tmp_path / "ids.npz", ids=x, other=x)
        for name in ("ids.npy", "ids.npz"):
            assert _io.read_ids(str(tmp_path / name), None, 2).tolist() == x.ravel().tolist()
    path = tmp_path / "ids.parquet"
    pq.write_table(pa.table({"id": ["p", "q"], "other": [1, None]}), path)
    assert _io.read_ids(str(path), None, 2).tolist() == ["p", "q"]
    with pytest.raises(InvalidValueError, match="null"):
        _io.read_ids(str(path), "other", 2)


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("ids.txt", b"a\nb\n", ShapeError, "holds 2 ids for 3"),
        ("ids.txt", b"\xff\n", CorruptFileError, "UTF-8"),
        ("ids.txt", b"1\n2\n9223372036854775808\n", InvalidValueError, "2\\*\\*63"),
        ("ids.csv", b"1\n", UnsupportedError, "csv"),
        ("ids.npy", b"\x93NUMPY", CorruptFileError, "begins with"),
        ("ids.npz", b"PK", CorruptFileError, "npz"),
        ("ids.ivecs", struct.pack("<iii", 2, 1, 1), ShapeError, "holds 1|shape"),
    ],
)
def test_ids_that_cannot_be(
    tmp_path: Path, name: str, content: bytes, error: type[Exception], words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(error, match=words):
        _io.read_ids(str(path), None, 3)
