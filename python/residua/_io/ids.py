# SPDX-License-Identifier: Apache-2.0
"""Ids of vectors, one per row: .txt (one a line), .npy, .npz, .parquet, .ivecs/.ibin with one column."""

from __future__ import annotations

import zipfile
from typing import IO, Any

import numpy as np

from residua._io.archives import parquet_file, zip_errors
from residua._io.raw_rows import BIN_DTYPES, VECS_DTYPES, open_bin, open_vecs, read_npy_header
from residua._io.vector_file import choose, file_size
from residua._io.write import suffix_of
from residua._typing import AnyArray
from residua.errors import CorruptFileError, InvalidValueError, ShapeError, UnsupportedError

__all__ = ["read_ids"]

_SUFFIXES = ".txt .npy .npz .parquet .ivecs .ibin"


def read_ids(path: str, key: str | None, n: int) -> AnyArray:
    """Return `(n,)` ids, integers or str; anything else is an error that names the file."""
    size = file_size(path)
    ids = _read(path, key, suffix_of(path), size)
    if ids.ndim == 2 and ids.shape[1] == 1:
        ids = ids[:, 0]
    if ids.ndim != 1:
        raise ShapeError(f"{path}: ids have shape {ids.shape}, expected (n,)")
    if len(ids) != n:
        raise ShapeError(f"{path}: holds {len(ids)} ids for {n} vectors")
    if ids.dtype.kind not in "iuUO":
        raise InvalidValueError(f"{path}: ids are {ids.dtype}, expected integers or text")
    return ids


def _read(path: str, key: str | None, suffix: str, size: int) -> AnyArray:
    if suffix == ".npz":
        with zip_errors(path), zipfile.ZipFile(path) as archive:
            names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
            name = choose(path, names, key, ("ids",), "array", "holds no array")
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as member:
                return _read_array(member, path, info.file_size)
    if suffix == ".parquet":
        return _read_column(path, key)
    if key is not None:
        raise UnsupportedError(f"{path}: a {suffix} file holds one array and takes no key, got {key!r}")
    if suffix == ".txt":
        return _read_lines(path)
    if suffix == ".npy":
        with open(path, "rb") as file:
            return _read_array(file, path, size)
    if suffix in VECS_DTYPES:
        return open_vecs(path, suffix).read()
    if suffix in BIN_DTYPES:
        return open_bin(path, suffix).read()
    raise UnsupportedError(f"{path}: ids are read from {_SUFFIXES}, got {suffix or '(no suffix)'!r}")


def _read_array(file: IO[bytes], path: str, size: int) -> AnyArray:
    shape, fortran, dtype = read_npy_header(file, path)
    count = int(np.prod(shape, dtype=object))
    if count * dtype.itemsize != size - file.tell():
        raise CorruptFileError(
            f"{path}: the header says {shape} {dtype}, but {size - file.tell()} bytes follow"
        )
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise CorruptFileError(f"{path}: truncated: {len(data)} of {count * dtype.itemsize} bytes are there")
    values = np.frombuffer(data, dtype) if dtype.itemsize else np.zeros(count, dtype)
    return values.reshape(shape, order="F" if fortran else "C")


def _read_lines(path: str) -> AnyArray:
    """Text ids, or integers where every line is one."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"{path}: is not UTF-8 text: byte {error.start}") from error
    if all(line.isascii() and line.isdigit() for line in lines):
        try:
            return np.array([int(line) for line in lines], np.int64)
        except OverflowError:
            raise InvalidValueError(f"{path}: integer ids go up to 2**63 - 1") from None
    return np.array(lines, dtype=object)


def _read_column(path: str, key: str | None) -> AnyArray:
    with parquet_file(path) as file:
        names: list[str] = file.schema_arrow.names
        name = choose(path, names, key, ("id", "ids"), "column", "has no column")
        column: Any = file.read(columns=[name]).column(0)
    if column.null_count:
        raise InvalidValueError(f"{path}::{name}: contains null, every vector needs an id")
    return np.asarray(column.to_numpy())
