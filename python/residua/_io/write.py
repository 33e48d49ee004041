# SPDX-License-Identifier: Apache-2.0
"""Outputs: complete under their name or not there at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from residua._io.raw_rows import BIN_DTYPES, VECS_DTYPES
from residua._typing import AnyArray
from residua.errors import DtypeError, FileError, InvalidValueError, ShapeError, UnsupportedError

__all__ = ["RowWriter", "atomic_output", "check_output", "suffix_of"]


def suffix_of(path: str | os.PathLike[str]) -> str:
    """Return the suffix in lower case, with its dot."""
    return os.path.splitext(os.fsdecode(path))[1].lower()


def check_output(path: str | os.PathLike[str], inputs: tuple[str, ...] = ()) -> None:
    """Refuse, before any work, an output that cannot be written or that is one of the inputs."""
    name = os.fsdecode(path)
    folder = os.path.dirname(os.path.abspath(name))
    if not os.path.isdir(folder):
        raise FileError(f"{name}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FileError(f"{name}: the folder {folder} cannot be written to")
    if not os.path.exists(name):
        return
    if not stat.S_ISREG(os.stat(name).st_mode):
        raise FileError(f"{name}: exists and is not a regular file")
    for given in inputs:
        if os.path.exists(given) and os.path.samefile(given, name):
            raise InvalidValueError(f"{name}: is an input and cannot be the output too")


@contextlib.contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file in the same folder; it takes its name when the block ends without an error."""
    check_output(path)
    target = os.path.realpath(os.fsdecode(path))  # a link keeps pointing to what it points to
    folder, base = os.path.split(target)
    temporary = os.path.join(folder, f".{base[:100]}.{secrets.token_hex(6)}.part")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


class RowWriter:
    """Write a matrix of known shape row by row, in the format that a suffix names."""

    SUFFIXES = (".npy", *VECS_DTYPES, *BIN_DTYPES)

    def __init__(self, file: IO[bytes], suffix: str, n: int, dim: int, dtype: Any) -> None:
        self._file, self._n, self._dim, self._done = file, n, dim, 0
        self._prefix = b""
        dtype = np.dtype(dtype)
        if suffix == ".npy":
            self._dtype = dtype
            header = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n, dim)}
            npy_format.write_array_header_1_0(file, header)
            return
        known = {**VECS_DTYPES, **BIN_DTYPES}
        if suffix not in known:
            raise UnsupportedError(f"{suffix!r} cannot be written; use one of {', '.join(self.SUFFIXES)}")
        self._dtype = np.dtype(known[suffix])
        if dtype.kind != self._dtype.kind:
            raise DtypeError(
                f"{dtype} values cannot be written as {suffix}, which holds {self._dtype}; use .npy"
            )
        if suffix in VECS_DTYPES:
            self._prefix = struct.pack("<i", dim)
        else:
            file.write(struct.pack("<II", n, dim))

    def write(self, rows: AnyArray) -> None:
        """Append rows; integers that the format cannot hold are refused."""
        if rows.ndim != 2 or rows.shape[1] != self._dim:
            raise ShapeError(f"rows of {self._dim} values expected, got shape {rows.shape}")
        limits = np.iinfo(self._dtype) if self._dtype.kind in "iu" else None
        if limits and rows.size and not limits.min <= rows.min() <= rows.max() <= limits.max:
            raise InvalidValueError(
                f"values from {rows.min()} to {rows.max()} do not fit {self._dtype}; write .npy instead"
            )
        values = np.ascontiguousarray(rows, dtype=self._dtype)
        if self._prefix:
            records = np.empty((len(rows), 4 + values.itemsize * self._dim), np.uint8)
            records[:, :4] = np.frombuffer(self._prefix, np.uint8)
            records[:, 4:] = values.view(np.uint8).reshape(len(rows), records.shape[1] - 4)
            values = records
        self._file.write(values.tobytes())
        self._done += len(rows)

    def close(self) -> None:
        """Check that all announced rows were written."""
        if self._done != self._n:
            raise ShapeError(f"{self._done} rows were written, {self._n} were announced")
