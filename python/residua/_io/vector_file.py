# SPDX-License-Identifier: Apache-2.0
"""What every reader of vector files offers: rows in chunks, never the whole file at once.

Files are read, not mapped: memory stays at one chunk whatever the size of the file, and a file that shrinks
while it is read gives an error, where a mapping would end the process.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from residua import _core
from residua._typing import AnyArray, FloatArray, IntArray
from residua._validate import to_float32
from residua.errors import (
    CorruptFileError,
    DtypeError,
    InvalidValueError,
    NonFiniteError,
    UnsupportedError,
)

__all__ = [
    "VectorFile",
    "choose",
    "file_size",
    "float_chunks",
    "need",
    "rows_per_chunk",
    "sample_rows",
    "take_floats",
]

_CHUNK_BYTES = 16 * 2**20
_FLOATS = ("float16", "float32", "float64")
_BYTES = ("int8", "uint8")
_NUMBERS = "iuf"


class VectorFile(abc.ABC):
    """A matrix of numbers in a file.

    Attributes
    ----------
    path, format, key
        Where it is; `key` names an array or column inside the file, empty where there is only one.
    n, dim, dtype
        Rows, columns, and the element type as it is stored.
    """

    is_seekable = False  # whether `take` costs what it takes, not a pass over the file

    def __init__(self, path: str, format: str, n: int, dim: int, dtype: np.dtype[Any], key: str = "") -> None:
        self.path, self.format, self.key = path, format, key
        self.n, self.dim, self.dtype = n, dim, dtype
        if dtype.kind not in _NUMBERS or dtype.itemsize > 8:
            raise DtypeError(f"{self.name}: holds {dtype}, expected float16, float32, float64 or integers")

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.path}::{self.key}" if self.key else self.path

    @abc.abstractmethod
    def chunks(self, rows: int) -> Iterator[AnyArray]:
        """Yield all rows in order as `(m, dim)` arrays of at most `rows` rows and at least one."""

    def take(self, rows: IntArray) -> AnyArray:
        """Return some rows; `rows` is sorted and within the file. Reads up to the last of them."""
        parts, start, done = [], 0, 0
        for chunk in self.chunks(rows_per_chunk(self.dim)):
            stop = start + len(chunk)
            end = int(np.searchsorted(rows, stop))
            parts.append(chunk[rows[done:end] - start])
            start, done = stop, end
            if done == len(rows):
                break
        return np.concatenate(parts) if parts else np.empty((0, self.dim), self.dtype)

    def head(self, count: int) -> AnyArray:
        """Return the first rows, at most `count`."""
        return self.take(np.arange(min(count, self.n)))

    def read(self) -> AnyArray:
        """Return all rows; for files that are known to be small, such as queries and ground truth."""
        parts = list(self.chunks(rows_per_chunk(self.dim)))
        return np.concatenate(parts) if parts else np.empty((0, self.dim), self.dtype)

    def require_vectors(self, dim: int | None = None) -> None:
        """Refuse what cannot be vectors: no rows, no dims, elements of a wrong type, another dim."""
        if self.n == 0 or self.dim == 0:
            raise InvalidValueError(f"{self.name}: holds no vectors, its shape is ({self.n}, {self.dim})")
        if self.dtype.name not in (*_FLOATS, *_BYTES):
            raise DtypeError(
                f"{self.name}: holds {self.dtype}, "
                "expected float32, float16, float64, int8 or uint8 for vectors"
            )
        if dim is not None and self.dim != dim:
            raise InvalidValueError(f"{self.name}: vectors have {self.dim} dims, expected {dim}")

    def __repr__(self) -> str:
        return f"VectorFile({self.name!r}, {self.format}, n={self.n}, dim={self.dim}, dtype={self.dtype})"


def rows_per_chunk(dim: int) -> int:
    """Rows whose float32 values take about 16 MiB."""
    return max(1, _CHUNK_BYTES // (4 * max(dim, 1)))


def _as_floats(chunk: AnyArray, rows: IntArray | int, file: VectorFile, metric: str | None) -> FloatArray:
    """Return float32; `rows` are the numbers of the chunk's rows, or the first of consecutive ones."""
    floats = to_float32(chunk)
    bad = _core.first_non_finite(floats)
    zero = _core.first_zero_row(floats) if bad < 0 and metric == "cosine" else -1
    if bad < 0 and zero < 0:
        return floats
    row = max(bad, zero) + rows if isinstance(rows, int) else int(rows[max(bad, zero)])
    if bad >= 0:
        raise NonFiniteError(
            f"{file.name}: row {row} contains NaN or infinity (as float32); remove or repair it"
        )
    raise InvalidValueError(
        f"{file.name}: row {row} is a zero vector, which has no cosine; remove it or use another metric"
    )


def float_chunks(file: VectorFile, *, metric: str | None, rows: int | None = None) -> Iterator[FloatArray]:
    """Yield all rows as float32; a bad row (NaN, infinity, zero under cosine) is named by its number."""
    start = 0
    for chunk in file.chunks(rows or rows_per_chunk(file.dim)):
        yield _as_floats(chunk, start, file, metric)
        start += len(chunk)
    if start != file.n:
        raise CorruptFileError(f"{file.name}: {start} rows were read, {file.n} were announced")


def take_floats(file: VectorFile, rows: IntArray, *, metric: str | None) -> FloatArray:
    """Return some rows (sorted numbers) as float32, checked as `float_chunks` checks them."""
    return _as_floats(file.take(rows), rows, file, metric)


def sample_rows(n: int, count: int, seed: int) -> IntArray:
    """Draw min(n, count) distinct row numbers uniformly; sorted. Memory follows `count`, not `n`."""
    if n <= count:
        return np.arange(n)
    if n <= 16 * count:
        return _core.sample_rows(n, count, seed)
    # Few of many: the first `count` distinct draws. A 64-bit draw modulo n is uniform to n / 2**64.
    draws = np.atleast_1d(np.random.PCG64(seed).random_raw(count + count // 4 + 64)) % np.uint64(n)
    distinct, first = np.unique(draws, return_index=True)
    kept = distinct[np.argsort(first)[:count]]
    return np.sort(kept.astype(np.int64))


def file_size(path: str) -> int:
    """Return the bytes of a regular file that is not empty."""
    if os.path.isdir(path):
        raise IsADirectoryError(21, "is a folder, expected a file", path)
    size = os.stat(path).st_size
    if size == 0:
        raise CorruptFileError(f"{path}: is empty (0 bytes)")
    return size


def choose(
    path: str, names: Iterable[str], key: str | None, prefer: tuple[str, ...], what: str, none: str
) -> str:
    """Return the array of a file that is meant: the one asked for, the only one, or a conventional one."""
    names = list(names)
    if key is not None:
        if key in names:
            return key
        raise InvalidValueError(f"{path}: has no {what} {key!r}; it has {', '.join(names) or 'none'}")
    if len(names) == 1:
        return names[0]
    if not names:
        raise UnsupportedError(f"{path}: {none}")
    for name in prefer:
        if name in names:
            return name
    raise InvalidValueError(
        f"{path}: has several {what}s ({', '.join(names)}); choose one with --key NAME or {path}::NAME"
    )


def need(module: str, extra: str, path: str) -> Any:
    """Import an optional package, or say which extra brings it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise UnsupportedError(
            f'{path}: reading it needs {package}; run: pip install "residua[{extra}]"'
        ) from error
