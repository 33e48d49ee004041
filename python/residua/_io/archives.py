# SPDX-License-Identifier: Apache-2.0
"""Files that hold several arrays: .npz (NumPy alone), .hdf5 (h5py), .parquet (pyarrow)."""

from __future__ import annotations

import contextlib
import fnmatch
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from residua._io.raw_rows import matrix_shape, read_npy_header
from residua._io.vector_file import VectorFile, choose, file_size, need
from residua._typing import AnyArray
from residua.errors import (
    CorruptFileError,
    DtypeError,
    InvalidValueError,
    ResiduaError,
    ShapeError,
    UnsupportedError,
)

__all__ = [
    "hdf5_contents",
    "npz_contents",
    "open_hdf5",
    "open_npz",
    "open_parquet",
    "parquet_contents",
    "parquet_file",
    "zip_errors",
]


@contextlib.contextmanager
def zip_errors(path: str) -> Iterator[None]:
    """Damage of a zip file as CorruptFileError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise CorruptFileError(f"{path}: is not a readable .npz file: {error}") from error


class NpzRows(VectorFile):
    """One array of a .npz file, compressed or not, read as a stream."""

    def __init__(self, path: str, key: str, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        super().__init__(path, "npz", *shape, dtype, key)

    def chunks(self, rows: int) -> Iterator[AnyArray]:
        row_bytes = self.dim * self.dtype.itemsize
        with (
            zip_errors(self.path),
            zipfile.ZipFile(self.path) as archive,
            archive.open(f"{self.key}.npy") as member,
        ):
            read_npy_header(member, self.name)
            for start in range(0, self.n, rows):
                count = min(rows, self.n - start)
                data = _read_fully(member, count * row_bytes, self.name)
                yield np.frombuffer(data, self.dtype).reshape(count, self.dim)
            member.read(1)  # the end of the member is where its checksum is compared


def _read_fully(member: IO[bytes], size: int, name: str) -> bytes:
    parts, left = [], size
    while left:
        part = member.read(left)
        if not part:
            raise CorruptFileError(f"{name}: truncated: {left} of {size} bytes are missing")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def npz_contents(path: str) -> dict[str, str]:
    """Return the arrays of a file with their shapes and types, in words."""
    file_size(path)
    found = {}
    with zip_errors(path), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                name = info.filename[:-4]
                with archive.open(info) as member:
                    shape, _, dtype = read_npy_header(member, f"{path}::{name}")
                found[name] = f"{shape} {dtype}"
    return found


def open_npz(path: str, key: str | None, prefer: tuple[str, ...]) -> VectorFile:
    file_size(path)
    with zip_errors(path), zipfile.ZipFile(path) as archive:
        names = [i.filename[:-4] for i in archive.infolist() if i.filename.endswith(".npy")]
        name = choose(path, names, key, prefer, "array", "holds no array")
        full = f"{path}::{name}"
        info = archive.getinfo(f"{name}.npy")
        with archive.open(info) as member:
            shape, fortran, dtype = read_npy_header(member, full)
            data_bytes = info.file_size - member.tell()
    n, dim = matrix_shape(shape, full)
    if fortran and n > 1 and dim > 1:
        raise UnsupportedError(
            f"{full}: is stored column by column, which cannot be streamed; save np.ascontiguousarray(x)"
        )
    if n * dim * dtype.itemsize != data_bytes:
        raise CorruptFileError(f"{full}: the header says ({n}, {dim}) {dtype}, but {data_bytes} bytes follow")
    return NpzRows(path, name, (n, dim), dtype)


class Hdf5Rows(VectorFile):
    """One two-dimensional dataset of an HDF5 file."""

    def __init__(self, path: str, key: str, shape: tuple[int, int], dtype: np.dtype[Any], h5py: Any) -> None:
        super().__init__(path, "hdf5", *shape, dtype, key)
        self._h5py = h5py

    def chunks(self, rows: int) -> Iterator[AnyArray]:
        with _hdf5_errors(self.path), self._h5py.File(self.path, "r") as file:
            dataset = file[self.key]
            for start in range(0, self.n, rows):
                yield np.asarray(dataset[start : start + rows])


@contextlib.contextmanager
def _hdf5_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CorruptFileError(f"{path}: is not a readable HDF5 file: {error}") from error


def hdf5_contents(path: str) -> dict[str, str]:
    """Return the datasets of a file with their shapes and types, in words."""
    file_size(path)
    h5py = need("h5py", "hdf5", path)
    found: dict[str, str] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = f"{item.shape} {item.dtype}"

    with _hdf5_errors(path), h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


def open_hdf5(path: str, key: str | None, prefer: tuple[str, ...], integers: bool) -> VectorFile:
    """Open a dataset. Among several, one of the wanted kind (`integers`: row numbers) may be the only one."""
    file_size(path)
    h5py = need("h5py", "hdf5", path)
    found: dict[str, tuple[tuple[int, int], np.dtype[Any]]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 2 and item.dtype.kind in "iuf":
            found[name] = (item.shape, item.dtype)

    with _hdf5_errors(path), h5py.File(path, "r") as file:
        file.visititems(visit)
    fitting = [name for name, (_, dtype) in found.items() if (dtype.kind in "iu") == integers]
    names = fitting if key is None and fitting else list(found)
    name = choose(path, names, key, prefer, "dataset", "holds no two-dimensional dataset of numbers")
    return Hdf5Rows(path, name, *found[name], h5py)


class ParquetRows(VectorFile):
    """One list column of a Parquet file, or several columns of numbers side by side."""

    def __init__(
        self,
        path: str,
        key: str,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        columns: list[str],
        wide: bool,
    ) -> None:
        super().__init__(path, "parquet", *shape, dtype, key)
        self._columns, self._wide = columns, wide

    def chunks(self, rows: int) -> Iterator[AnyArray]:
        with parquet_file(self.path) as file, _arrow_errors(self.path):
            start = 0
            for batch in file.iter_batches(batch_size=rows, columns=self._columns):
                yield self._stack(batch, start) if self._wide else self._flat(batch.column(0), start)
                start += batch.num_rows
        if start != self.n:
            raise CorruptFileError(f"{self.name}: holds {start} rows, its footer says {self.n}")

    def _stack(self, batch: Any, start: int) -> AnyArray:
        out = np.empty((batch.num_rows, self.dim), self.dtype)
        for j, name in enumerate(self._columns):
            column = batch.column(name)
            self._refuse_null(column, start, f" in column {name!r}")
            out[:, j] = column.to_numpy(zero_copy_only=False)
        return out

    def _flat(self, column: Any, start: int) -> AnyArray:
        self._refuse_null(column, start, "")
        compute = need("pyarrow.compute", "arrow", self.path)
        lengths = compute.list_value_length(column).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != self.dim)
        if len(wrong):
            raise ShapeError(
                f"{self.name}: row {start + int(wrong[0])} has {lengths[wrong[0]]} dims, expected {self.dim}"
            )
        values = column.flatten()
        if values.null_count:
            row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0]) // self.dim
            raise InvalidValueError(f"{self.name}: row {start + row} contains a null")
        return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(lengths), self.dim)

    def _refuse_null(self, column: Any, start: int, where: str) -> None:
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise InvalidValueError(f"{self.name}: row {start + row} is null{where}")


@contextlib.contextmanager
def _arrow_errors(path: str) -> Iterator[None]:
    pyarrow = need("pyarrow", "arrow", path)
    # Damage that Arrow does not notice itself surfaces as an error of the conversion that trips over it.
    faults = (pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError, NotImplementedError)
    try:
        yield
    except faults as error:
        if isinstance(error, ResiduaError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise CorruptFileError(f"{path}: is not a readable Parquet file: {error}") from error


@contextlib.contextmanager
def parquet_file(path: str) -> Iterator[Any]:
    """Open a Parquet file such that columns are streamed, not buffered whole."""
    file_size(path)
    parquet = need("pyarrow.parquet", "arrow", path)
    with _arrow_errors(path):
        file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
    with file:
        yield file


def parquet_contents(path: str) -> dict[str, str]:
    """Return the columns of a file with their types, in words."""
    with parquet_file(path) as file:
        n = file.metadata.num_rows
        return {field.name: f"({n},) {field.type}" for field in file.schema_arrow}


def _number(kind: Any, path: str) -> np.dtype[Any] | None:
    """The NumPy type of an Arrow type of plain numbers."""
    types = need("pyarrow", "arrow", path).types
    if types.is_floating(kind) or types.is_integer(kind):
        dtype: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return dtype
    return None


def open_parquet(path: str, key: str | None, prefer: tuple[str, ...]) -> VectorFile:
    with parquet_file(path) as file:
        n, schema = file.metadata.num_rows, file.schema_arrow
        types = need("pyarrow", "arrow", path).types
        lists = {
            field.name: field.type
            for field in schema
            if (
                types.is_list(field.type)
                or types.is_large_list(field.type)
                or types.is_fixed_size_list(field.type)
            )
            and _number(field.type.value_type, path) is not None
        }
        numbers = {f.name: d for f in schema if (d := _number(f.type, path)) is not None}
        floats = [name for name, dtype in numbers.items() if dtype.kind == "f"]
        if key is not None and key not in lists:
            wanted = key.split(",") if "," in key else fnmatch.filter(numbers, key)
            return _open_wide(path, key, n, wanted, numbers)
        if key is None and not lists and floats:
            return _open_wide(path, "", n, floats, numbers)
        name = choose(
            path, lists, key, prefer, "list column", "has no column of lists of numbers and no float column"
        )
        kind = lists[name]
        dim = kind.list_size if types.is_fixed_size_list(kind) else _first_length(file, name, path)
        dtype = _number(kind.value_type, path)
        if dtype is None:  # cannot be: `lists` holds lists of numbers only
            raise DtypeError(f"{path}::{name}: holds {kind}")
        return ParquetRows(path, name, (n, dim), dtype, [name], wide=False)


def _open_wide(
    path: str, key: str, n: int, columns: list[str], numbers: dict[str, np.dtype[Any]]
) -> VectorFile:
    unknown = [name for name in columns if name not in numbers]
    if unknown or not columns:
        raise InvalidValueError(
            f"{path}: has no column of numbers {', '.join(unknown) or key!r}; "
            f"it has {', '.join(numbers) or 'none'}"
        )
    dtype = np.result_type(*(numbers[name] for name in columns))
    return ParquetRows(path, key, (n, len(columns)), dtype, columns, wide=True)


def _first_length(file: Any, name: str, path: str) -> int:
    with _arrow_errors(path):
        for batch in file.iter_batches(batch_size=1, columns=[name]):
            first = batch.column(0)
            if first.null_count:
                raise InvalidValueError(f"{path}::{name}: row 0 is null")
            return len(first.flatten())
    return 0
