# SPDX-License-Identifier: Apache-2.0
"""Indexes from other libraries and for them, with the same results."""

from __future__ import annotations

from typing import Any

from residua._faiss.package import open_index, package
from residua._faiss.read import read
from residua._faiss.write import write
from residua._index import Index
from residua.errors import InvalidTypeError

__all__ = ["from_faiss", "to_faiss"]


def from_faiss(index_or_path: Any) -> Index:
    """Make an index of a FAISS index: searches find the same ids and scores.

    Codes are taken over as they are; nothing is trained or coded again.

    Parameters
    ----------
    index_or_path
        A FAISS index, or the path of a file that ``faiss.write_index`` or ``faiss.write_index_binary`` wrote:
        ``IndexFlat``, ``IndexScalarQuantizer``, ``IndexPQ``, ``IndexBinaryFlat``, ``IndexIVFFlat``,
        ``IndexIVFPQ``, ``IndexIVFScalarQuantizer``, and ``IndexIDMap`` or ``IndexIDMap2`` around them;
        docs/exchange.md has the table.

    Returns
    -------
    The index. Metrics are ``"l2"`` and ``"ip"``; of binary codes it is ``search_codes`` that finds the same.

    Raises
    ------
    UnsupportedError
        The faiss package is missing, or the class, metric or kind of codes has no counterpart.
    NotTrainedError
        The FAISS index is not trained.
    InvalidValueError, DuplicateIdError
        Ids of an IDMap are negative, or not unique.
    NonFiniteError
        The FAISS index holds NaN or infinity.
    FileError, CorruptFileError, InvalidTypeError
    """
    faiss = package("from_faiss")
    theirs = open_index(faiss, index_or_path)
    return read(faiss, theirs)


def to_faiss(index: Index) -> Any:
    """Make a FAISS index of an index: searches find the same ids and scores.

    FAISS has no cosine: such an index becomes one of inner products over unit vectors, and queries for it
    have to be unit vectors too.

    Parameters
    ----------
    index
        Without a codec, or with ``vectors="none"`` and a ``FloatCodec``, a ``ScalarCodec`` that
        ``ScalarCodec.from_levels`` made, or a ``BinaryCodec`` without a rotation; docs/exchange.md has the
        table.

    Returns
    -------
    A FAISS index; ``IndexIDMap2`` (``IndexBinaryIDMap2``) where ids are not 0, 1, 2, … in order of insertion.
    Removed rows are left out.

    Raises
    ------
    UnsupportedError
        The faiss package is missing, ids are str, or FAISS has no such codes; the message says what works.
    NotTrainedError
        The codec is not trained.
    InvalidTypeError
        ``index`` is not an index.
    """
    if not isinstance(index, Index):
        raise InvalidTypeError(f"to_faiss takes an index such as FlatIndex, got {type(index).__name__}")
    return write(package("to_faiss"), index)
