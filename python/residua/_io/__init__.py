# SPDX-License-Identifier: Apache-2.0
"""Vector files of the usual formats, read in chunks and written atomically; for the command line.

A new format is one function that returns a `VectorFile`, and one line in `open_vectors`.
"""

from __future__ import annotations

import os

from residua._io.archives import (
    hdf5_contents,
    npz_contents,
    open_hdf5,
    open_npz,
    open_parquet,
    parquet_contents,
)
from residua._io.ids import read_ids
from residua._io.raw_rows import BIN_DTYPES, VECS_DTYPES, open_bin, open_npy, open_vecs
from residua._io.vector_file import (
    VectorFile,
    file_size,
    float_chunks,
    rows_per_chunk,
    sample_rows,
    take_floats,
)
from residua._io.write import RowWriter, atomic_output, check_output, suffix_of
from residua.errors import UnsupportedError

__all__ = [
    "SUFFIXES",
    "RowWriter",
    "VectorFile",
    "atomic_output",
    "check_output",
    "contents",
    "float_chunks",
    "open_vectors",
    "read_ids",
    "rows_per_chunk",
    "sample_rows",
    "split_key",
    "suffix_of",
    "take_floats",
]

SUFFIXES = (".npy", ".npz", *VECS_DTYPES, *BIN_DTYPES, ".parquet", ".hdf5", ".h5")


def split_key(path: str, key: str | None = None) -> tuple[str, str | None]:
    """Take `FILE::KEY` apart; a key given beside the path wins. A file of that very name is itself."""
    if "::" in path and not os.path.exists(path):
        file, _, inner = path.rpartition("::")
        return file, key or inner
    return path, key


def contents(path: str) -> dict[str, str]:
    """Return what a file of several arrays holds, name by name; empty for a format that holds one."""
    readers = {
        ".npz": npz_contents,
        ".hdf5": hdf5_contents,
        ".h5": hdf5_contents,
        ".parquet": parquet_contents,
    }
    reader = readers.get(suffix_of(path))
    return reader(path) if reader else {}


def open_vectors(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    prefer: tuple[str, ...] = (),
    integers: bool = False,
) -> VectorFile:
    """Open a file of vectors (or, with `integers`, of row numbers) by its suffix.

    `key` or `FILE::KEY` names an array, dataset or column where the file has several; without one, the first
    of `prefer` that is there is taken. Raises OSError, CorruptFileError, UnsupportedError, InvalidValueError,
    ShapeError or DtypeError, each naming the file. No rows are read yet.
    """
    name, key = split_key(os.fsdecode(path), key)
    suffix = suffix_of(name)
    if suffix not in SUFFIXES:
        file_size(name)  # missing, empty or a folder: the better message
        raise UnsupportedError(
            f"{name}: unknown kind of vector file {suffix or '(no suffix)'!r}; "
            f"expected one of {' '.join(SUFFIXES)}"
        )
    if suffix == ".npz":
        return open_npz(name, key, prefer)
    if suffix in (".hdf5", ".h5"):
        return open_hdf5(name, key, prefer, integers)
    if suffix == ".parquet":
        return open_parquet(name, key, prefer)
    if key is not None:
        raise UnsupportedError(f"{name}: a {suffix} file holds one array and takes no key, got {key!r}")
    if suffix in VECS_DTYPES:
        return open_vecs(name, suffix)
    if suffix in BIN_DTYPES:
        return open_bin(name, suffix)
    return open_npy(name)
