# SPDX-License-Identifier: Apache-2.0
"""Formats whose rows stand at fixed distances: .npy, the .*vecs family and the .*bin family."""

from __future__ import annotations

import ast
import struct
import warnings
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from residua._io.vector_file import VectorFile, file_size
from residua._typing import AnyArray, IntArray
from residua.errors import CorruptFileError, DtypeError, ShapeError

__all__ = [
    "BIN_DTYPES",
    "VECS_DTYPES",
    "matrix_shape",
    "open_bin",
    "open_npy",
    "open_vecs",
    "read_npy_header",
]

VECS_DTYPES = {".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}
BIN_DTYPES = {".fbin": "<f4", ".hbin": "<f2", ".u8bin": "u1", ".i8bin": "i1", ".ibin": "<i4"}
_NPY_VERSIONS = {b"\1\0": ("<H", "latin1"), b"\2\0": ("<I", "latin1"), b"\3\0": ("<I", "utf-8")}
_MAX_HEADER = 2**16
_MAX_DIM = 10_000_000  # a first record that announces more is not one


class RawRows(VectorFile):
    """Rows of `stride` bytes from `offset` on; the first `skip` bytes of each are not values."""

    is_seekable = True

    def __init__(
        self,
        path: str,
        format: str,
        n: int,
        dim: int,
        dtype: np.dtype[Any],
        *,
        offset: int,
        skip: int = 0,
    ) -> None:
        super().__init__(path, format, n, dim, dtype)
        self._offset, self._skip = offset, skip
        self._stride = skip + dim * dtype.itemsize

    def chunks(self, rows: int) -> Iterator[AnyArray]:
        with open(self.path, "rb") as file:
            for start in range(0, self.n, rows):
                yield self._block(file, start, min(start + rows, self.n))

    def take(self, rows: IntArray) -> AnyArray:
        out = np.empty((len(rows), self.dim), self.dtype)
        runs = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) > 1) + 1)
        with open(self.path, "rb", buffering=0) as file:
            for run in runs:
                if len(run):
                    out[run] = self._block(file, int(rows[run[0]]), int(rows[run[-1]]) + 1)
        return out

    def _block(self, file: IO[bytes], start: int, stop: int) -> AnyArray:
        data = self._bytes(file, self._offset + start * self._stride, (stop - start) * self._stride)
        records = np.frombuffer(data, np.uint8).reshape(stop - start, self._stride)
        if self._skip:
            self._check_dims(records, start)
        return records[:, self._skip :].view(self.dtype)

    def _bytes(self, file: IO[bytes], at: int, size: int) -> bytearray:
        data = bytearray(size)
        view, done = memoryview(data), 0
        file.seek(at)
        while done < size:
            got = file.readinto(view[done:])  # type: ignore[attr-defined]
            if not got:
                raise CorruptFileError(f"{self.name}: ended at byte {at + done} while it was read")
            done += got
        return data

    def _check_dims(self, records: AnyArray, start: int) -> None:
        dims = records[:, :4].copy().view("<i4")[:, 0]
        wrong = np.flatnonzero(dims != self.dim)
        if len(wrong):
            raise CorruptFileError(
                f"{self.path}: row {start + int(wrong[0])} has {dims[wrong[0]]} dims, "
                f"the first row has {self.dim}"
            )


class ColumnMajorRows(RawRows):
    """A .npy file in Fortran order: one contiguous piece per dim and chunk."""

    def _block(self, file: IO[bytes], start: int, stop: int) -> AnyArray:
        out = np.empty((stop - start, self.dim), self.dtype)
        item = self.dtype.itemsize
        for j in range(self.dim):
            piece = self._bytes(file, self._offset + (j * self.n + start) * item, (stop - start) * item)
            out[:, j] = np.frombuffer(piece, self.dtype)
        return out


def read_npy_header(file: IO[bytes], path: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return (shape, Fortran order, dtype) and leave the file at the first element.

    NumPy's own reader warns and raises a dozen kinds of errors on damaged headers; this one is strict.
    """
    start = file.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:] not in _NPY_VERSIONS:
        raise CorruptFileError(f"{path}: is not a .npy array of version 1 to 3: it begins with {start!r}")
    length_format, encoding = _NPY_VERSIONS[start[6:]]
    try:
        (length,) = struct.unpack(length_format, file.read(struct.calcsize(length_format)))
        text = file.read(min(length, _MAX_HEADER + 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of literals and type names that are odd, and refused below
            header = ast.literal_eval(text.decode(encoding).strip())
            shape, fortran = header["shape"], header["fortran_order"]
            dtype = npy_format.descr_to_dtype(header["descr"])
        sizes = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        if len(text) != length or len(header) != 3 or not sizes or type(fortran) is not bool:
            raise ValueError
    except (
        ValueError,
        TypeError,
        LookupError,
        SyntaxError,
        RecursionError,
        MemoryError,
        struct.error,
    ) as error:
        raise CorruptFileError(f"{path}: is not a readable .npy array: its header is damaged") from error
    if dtype.hasobject:
        raise DtypeError(f"{path}: holds Python objects, which are not loaded; save plain numbers")
    if dtype.kind == "V":
        raise DtypeError(f"{path}: holds elements of type {dtype}; save it as float32 or float16")
    return shape, fortran, dtype


def matrix_shape(shape: tuple[int, ...], path: str) -> tuple[int, int]:
    if len(shape) != 2:
        raise ShapeError(f"{path}: has shape {shape}, expected (n, dim)")
    return shape[0], shape[1]


def _length_fault(given: int, wanted: int) -> str:
    return "truncated" if given < wanted else "too long"


def open_npy(path: str) -> VectorFile:
    size = file_size(path)
    with open(path, "rb") as file:
        shape, fortran, dtype = read_npy_header(file, path)
        offset = file.tell()
    n, dim = matrix_shape(shape, path)
    wanted = n * dim * dtype.itemsize
    if size - offset != wanted:
        raise CorruptFileError(
            f"{path}: {_length_fault(size - offset, wanted)}: the header says ({n}, {dim}) {dtype}, "
            f"{wanted} bytes, but {size - offset} bytes follow"
        )
    rows = ColumnMajorRows if fortran and dim > 1 and n > 1 else RawRows
    return rows(path, "npy", n, dim, dtype, offset=offset)


def open_vecs(path: str, suffix: str) -> VectorFile:
    """TEXMEX files: every row is an int32 count of dims and then its values."""
    size = file_size(path)
    dtype = np.dtype(VECS_DTYPES[suffix])
    with open(path, "rb") as file:
        start = file.read(4)
    dim = struct.unpack("<i", start)[0] if len(start) == 4 else 0
    if not 1 <= dim <= _MAX_DIM:
        raise CorruptFileError(f"{path}: is not a {suffix} file: its first row announces {dim} dims")
    stride = 4 + dim * dtype.itemsize
    rows = RawRows(path, suffix[1:], size // stride, dim, dtype, offset=0, skip=4)
    if size % stride:
        # Says which row is at fault where that can be told; reads the file once.
        for _ in rows.chunks(max(1, 2**24 // stride)):
            pass
        with open(path, "rb") as file:
            file.seek(rows.n * stride)
            last = file.read(4)
        if len(last) == 4 and (last_dim := struct.unpack("<i", last)[0]) != dim:
            raise CorruptFileError(f"{path}: row {rows.n} has {last_dim} dims, the first row has {dim}")
        raise CorruptFileError(
            f"{path}: truncated: {size % stride} bytes follow row {rows.n - 1}, "
            f"a row of {dim} dims takes {stride}"
        )
    return rows


def open_bin(path: str, suffix: str) -> VectorFile:
    """Files of the billion-scale benchmarks: uint32 n, uint32 dim, then the values row by row.

    Ground truth (.ibin) may have as many float32 distances behind its ids; they are left alone.
    """
    size = file_size(path)
    dtype = np.dtype(BIN_DTYPES[suffix])
    with open(path, "rb") as file:
        header = file.read(8)
    if len(header) < 8:
        raise CorruptFileError(f"{path}: truncated: {size} bytes, a {suffix} header takes 8")
    n, dim = struct.unpack("<II", header)
    wanted = n * dim * dtype.itemsize
    with_distances = suffix == ".ibin" and size - 8 == 2 * wanted
    if size - 8 != wanted and not with_distances:
        raise CorruptFileError(
            f"{path}: {_length_fault(size - 8, wanted)}: the header says {n} rows of {dim} dims, "
            f"{wanted} bytes as {dtype}, but {size - 8} bytes follow"
        )
    return RawRows(path, suffix[1:], n, dim, dtype, offset=8)
