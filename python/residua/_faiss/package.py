# SPDX-License-Identifier: Apache-2.0
"""The faiss package, its files and its vectors."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from residua._typing import AnyArray, ByteArray
from residua._validate import as_path
from residua.errors import CorruptFileError, FileError, InvalidTypeError, UnsupportedError


def package(function: str) -> Any:
    """Import faiss, or say which extra brings it."""
    try:
        import faiss
    except ImportError as error:
        raise UnsupportedError(
            f'{function} needs the faiss package; run: pip install "residua[faiss]"'
        ) from error
    return faiss


def open_index(faiss: Any, given: Any) -> Any:
    """Return a FAISS index from an index or the path of one.

    Whoever looks at its :func:`concrete` form keeps it: that form does not.
    """
    if isinstance(given, (faiss.Index, faiss.IndexBinary)):
        return given
    if not isinstance(given, (str, bytes, os.PathLike)):
        raise InvalidTypeError(
            f"from_faiss takes a FAISS index or the path of one, got {type(given).__module__}."
            f"{type(given).__name__}"
        )
    path = os.fsdecode(as_path(given))
    try:
        with open(path, "rb") as file:
            binary = file.read(2) == b"IB"
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from error
    try:
        return faiss.read_index_binary(path) if binary else faiss.read_index(path)
    except RuntimeError as error:
        raise CorruptFileError(f"{path}: FAISS cannot read it as an index: {_said(error)}") from error


def _said(error: RuntimeError) -> str:
    """The words of a FAISS error, without the place in its sources."""
    return str(error).rsplit("Error: ", 1)[-1].strip()


def concrete(faiss: Any, index: Any) -> Any:
    """The index as the class that it is."""
    down = faiss.downcast_IndexBinary if isinstance(index, faiss.IndexBinary) else faiss.downcast_index
    return down(index)


def name_of(index: Any) -> str:
    """How users know the class."""
    return f"faiss.{type(index).__name__}"


def code_rows(faiss: Any, codes: Any, n: int, width: int) -> ByteArray:
    """Codes of a FAISS vector, ``(n, width)``."""
    flat: AnyArray = faiss.vector_to_array(codes) if n else np.empty(0, np.uint8)
    if flat.size != n * width:
        raise CorruptFileError(f"the FAISS index holds {flat.size} bytes of codes, not {n} rows of {width}")
    return np.ascontiguousarray(flat.reshape(n, width), np.uint8)


def set_vector(faiss: Any, array: AnyArray, vector: Any) -> None:
    """Copy an array into a FAISS vector, which takes its length."""
    faiss.copy_array_to_vector(np.ascontiguousarray(array).ravel(), vector)
