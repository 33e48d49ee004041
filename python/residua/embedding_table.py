# SPDX-License-Identifier: Apache-2.0
"""Compressed embedding tables: vectors kept as codes and read back by row."""

from __future__ import annotations

from typing import Any

import numpy as np

from residua import _core
from residua._codec import Codec
from residua._saved import Saved
from residua._typing import AnyArray, ArrayLike, FloatArray
from residua._validate import as_threads, as_vectors, refuse_zero_rows, whole_numbers
from residua.codecs import refuse_query_side, wrap
from residua.errors import InvalidTypeError, InvalidValueError, OutOfRangeError, ShapeError

__all__ = ["EmbeddingTable"]


class EmbeddingTable(Saved):
    """Keep vectors as codes and read rows back as float32, for tables that do not fit in memory as floats.

    A table is made once and does not change. Any number of threads may read it, and a saved one can be
    mapped: ``rz.load(path, mmap=True)``.

    Parameters
    ----------
    vectors
        ``(n, dim)`` float32, float16, bfloat16 or float64; a memory map is read piece by piece.
    codec
        Any codec. One that is not fitted yet is fitted on ``vectors`` for ``metric="ip"``, which keeps
        their lengths; a codec fitted for cosine gives unit vectors back.
    num_threads
        At least 1; None uses the CPUs that the process may use.

    Notes
    -----
    ``table[ids]`` takes what NumPy takes along the first axis: an integer, a slice, a boolean mask of
    ``len(table)`` values, or integers of any type and shape; negative ones count from the end. Integers of
    shape ``s`` give ``s + (dim,)``. Reading a row costs ``O(dim)`` with :class:`ScalarCodec` and
    :class:`FloatCodec`, ``O(dim ** 2)`` with :class:`RecurrentBinaryCodec`.

    Examples
    --------
    >>> import residua as rz
    >>> sample = rz.datasets.load_sample()
    >>> table = rz.EmbeddingTable(sample.documents, rz.ScalarCodec(384, bits=4))
    >>> table[[0, 7, -1]].shape
    (3, 384)
    """

    _native: _core.EmbeddingTable
    _codec: Codec

    def __init__(self, vectors: ArrayLike, codec: Codec, *, num_threads: int | None = None) -> None:
        if not isinstance(codec, Codec):
            raise InvalidTypeError(f"codec must be a codec such as ScalarCodec(dim, bits=4), got {codec!r}")
        threads = as_threads(num_threads)
        refuse_query_side(codec)
        v, _ = as_vectors(vectors, codec.dim, "vectors")
        if codec.is_trained and codec._metric_fixed and codec.metric == "cosine":
            refuse_zero_rows(v, "vectors")
        if not codec.is_trained:
            if len(v) == 0:
                raise InvalidValueError("vectors: expected at least 1 vector to fit the codec on, got 0")
            codec.fit(v, metric="ip", num_threads=num_threads)
        elif not codec._metric_fixed:
            codec._join("ip")
        self._native = _core.EmbeddingTable(codec._trained(), v, threads)
        self._codec = codec

    @classmethod
    def _from_native(cls, native: _core.EmbeddingTable) -> EmbeddingTable:
        table = cls.__new__(cls)
        table._native = native
        table._codec = wrap(native.codec)
        return table

    @property
    def dim(self) -> int:
        """Dims of the vectors."""
        return self._codec.dim

    @property
    def shape(self) -> tuple[int, int]:
        """``(len(table), table.dim)``."""
        return len(self), self.dim

    @property
    def codec(self) -> Codec:
        """The codec of the rows."""
        return self._codec

    def __len__(self) -> int:
        return len(self._native)

    def __getitem__(self, ids: Any) -> FloatArray:
        return self.take(ids)

    def take(self, ids: Any, *, num_threads: int | None = None) -> FloatArray:
        """Read rows back; the same as ``table[ids]``.

        Parameters
        ----------
        ids
            An integer, a slice, a boolean mask of ``len(table)`` values, or integers of any type and
            shape; negative ones count from the end.
        num_threads
            At least 1; None uses the CPUs that the process may use. Rows do not depend on it.

        Returns
        -------
        float32 ``(dim,)`` for one integer, otherwise ``(n, dim)`` (integers of shape s: ``s + (dim,)``).

        Raises
        ------
        OutOfRangeError
            An IndexError: names the first row that is not in the table.
        InvalidTypeError, ShapeError
        """
        threads = as_threads(num_threads)
        if isinstance(ids, slice):
            span = range(*_bounds(ids, len(self)))
            if len(span) == 0:
                return np.empty((0, self.dim), np.float32)
            return self._native.slice(span.start, span.step, len(span), threads)
        rows = self._rows(ids)
        flat = np.ascontiguousarray(rows.reshape(-1), np.int64)
        return self._native.gather(flat, threads).reshape(*rows.shape, self.dim)

    def _rows(self, ids: Any) -> AnyArray:
        """Return ids as an array of integers, of any integer type."""
        if isinstance(ids, tuple):
            raise InvalidTypeError("ids: a table has one axis to index; give a list or an array, not a tuple")
        try:
            a = np.asarray(ids)
        except ValueError as e:
            raise ShapeError("ids: rows of unequal length; expected integers of one shape") from e
        if a.dtype == np.bool_ and a.ndim > 0:
            if a.shape != (len(self),):
                raise ShapeError(f"ids: a mask needs shape ({len(self)},), got {a.shape}")
            return np.flatnonzero(a)
        if a.size == 0 and not isinstance(ids, np.ndarray):
            return np.empty(a.shape, np.int64)
        whole = whole_numbers(ids, a)
        if whole is not None:
            a = np.array(whole, dtype=object).reshape(a.shape)
        elif a.dtype.kind not in "iu":
            raise InvalidTypeError(f"ids must be integers, a slice or a boolean mask, got {_named(ids, a)}")
        if a.dtype.kind in "uO" and a.size:
            for extreme in (a.max(), a.min()):
                if not -(2**63) <= int(extreme) < 2**63:
                    raise OutOfRangeError(f"row {extreme} is outside a table of {len(self)} rows")
        return a

    def memory(self) -> dict[str, int]:
        """Return bytes per part: ``codes`` and ``codec``; a mapped table's codes count in full."""
        return self._native.memory()

    def __repr__(self) -> str:
        return f"EmbeddingTable({len(self)} rows, {self._codec!r})"


def _bounds(ids: slice, n: int) -> tuple[int, int, int]:
    try:
        return ids.indices(n)
    except (TypeError, ValueError) as e:
        raise InvalidTypeError(
            f"ids: {ids!r} is not a slice of whole numbers with a step other than 0"
        ) from e


def _named(ids: Any, a: AnyArray) -> str:
    return f"an array of {a.dtype}" if a.ndim else repr(ids)
