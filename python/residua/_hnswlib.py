# SPDX-License-Identifier: Apache-2.0
"""Indexes of hnswlib, from the file that it saves: vectors, labels, and the lowest layer of the graph."""

from __future__ import annotations

import os
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from residua._typing import AnyArray, FloatArray, IntArray, Metric
from residua._validate import as_path
from residua.errors import CorruptFileError, FileError, InvalidTypeError, InvalidValueError, UnsupportedError

__all__ = ["Graph", "opened"]

NO_ROW = 0xFFFFFFFF  # ends a list of neighbours that is not full

# Where level 0 begins, capacity, rows, bytes per row, where its label and its vector lie; top level, entry
# point; links per row above and on level 0, M, level factor, ef_construction.
_HEADER = struct.Struct("<6QiI3QdQ")
_DELETED = 1


@dataclass(frozen=True)
class Graph:
    """What a file of hnswlib holds; ``lists`` is ``(n, 2 * M)`` uint32 rows, ``NO_ROW`` behind the last."""

    dim: int
    links: int
    ef_construction: int
    vectors: FloatArray
    labels: IntArray
    deleted: AnyArray
    lists: AnyArray


def opened(given: Any, dim: int | None, space: Metric | None) -> tuple[Graph, Metric]:
    """Read an index of hnswlib or a file of one, and say which space it is in: metrics have their names."""
    if isinstance(given, (str, bytes, os.PathLike)):
        if space is None:
            raise InvalidValueError("hnswlib files do not say their space; give space='l2', 'ip' or 'cosine'")
        return read_file(given, dim), space
    kind = type(given)
    if kind.__module__.partition(".")[0] != "hnswlib" or kind.__name__ == "BFIndex":
        raise InvalidTypeError(
            "from_hnswlib takes an hnswlib.Index or the path of a file that it saved, got "
            f"{kind.__module__}.{kind.__name__}"
        )
    if given.max_elements == 0:
        raise InvalidValueError("the hnswlib index is empty; call init_index first")
    for name, own, wanted in (("dim", given.dim, dim), ("space", given.space, space)):
        if wanted is not None and own != wanted:
            raise InvalidValueError(f"{name} is {wanted!r}, the hnswlib index has {own!r}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        given.save_index(str(path))
        return read_file(path, given.dim), given.space


def read_file(path: Any, dim: int | None) -> Graph:
    """Read a file of ``save_index``; nothing in it is trusted."""
    name = os.fsdecode(as_path(path))
    try:
        data = np.fromfile(name, np.uint8)
    except OSError as error:
        raise FileError(f"{name}: {error.strerror}") from error
    return _Reader(name, data).read(dim)


class _Reader:
    def __init__(self, name: str, data: AnyArray) -> None:
        self._name = name
        self._data = data

    def fail(self, what: str) -> CorruptFileError:
        return CorruptFileError(f"{self._name}: not an index of hnswlib: {what}")

    def read(self, dim: int | None) -> Graph:
        if len(self._data) < _HEADER.size:
            raise self.fail(f"{len(self._data)} bytes are shorter than its header of {_HEADER.size}")
        head = _HEADER.unpack_from(self._data[: _HEADER.size].tobytes())
        start, room, n, stride, label_at, vector_at, _, entry, above, degree, links, _, ef = head
        width = label_at - vector_at
        if (
            start != 0
            or vector_at != 4 + 4 * degree
            or stride != label_at + 8
            or width <= 0
            or width % 4 != 0
        ):
            raise self.fail("its header describes no rows of float32 vectors")
        if not (1 <= degree <= 0xFFFF and above == links and degree == 2 * links):
            raise self.fail(
                f"{links} links, {above} above and {degree} on the lowest level do not go together"
            )
        if dim is not None and width != 4 * dim:
            raise InvalidValueError(f"{self._name}: dim is {dim}, the file has vectors of {width // 4} dims")
        if not 1 <= width // 4 <= 65_536:
            raise UnsupportedError(
                f"{self._name}: vectors of {width // 4} dims; at most 65,536 are supported"
            )
        if n > room or n >= NO_ROW or n * stride > len(self._data) - _HEADER.size or (n > 0 and entry >= n):
            raise self.fail(f"{n} rows of {stride} bytes do not fit into {len(self._data)} bytes")
        self._check_upper(_HEADER.size + n * stride, n, 4 + 4 * above)
        row = np.dtype(
            {
                "names": ["count", "flags", "links", "vector", "label"],
                "formats": ["<u2", "u1", ("<u4", (degree,)), ("<f4", (width // 4,)), "<u8"],
                "offsets": [0, 2, 4, vector_at, label_at],
                "itemsize": stride,
            }
        )
        rows = np.frombuffer(self._data, row, n, _HEADER.size)
        return Graph(
            dim=width // 4,
            links=links,
            ef_construction=ef,
            vectors=np.ascontiguousarray(rows["vector"], np.float32),
            labels=self._labels(rows["label"]),
            deleted=(rows["flags"] & _DELETED) != 0,
            lists=self._lists(rows["count"], rows["links"]),
        )

    def _labels(self, labels: AnyArray) -> IntArray:
        if len(labels) and labels.max() >= 2**63:
            raise UnsupportedError(f"{self._name}: label {labels.max()}; ids are at most 2**63 - 1")
        if len(np.unique(labels)) != len(labels):
            raise self.fail("a label stands twice")
        return labels.astype(np.int64)

    def _lists(self, counts: AnyArray, lists: AnyArray) -> AnyArray:
        n, degree = lists.shape
        if n and counts.max() > degree:
            raise self.fail(f"a row has {counts.max()} neighbours, the most are {degree}")
        out = np.array(lists, np.uint32)
        out[np.arange(degree) >= counts[:, None]] = NO_ROW
        held = out != NO_ROW
        if held.sum() != counts.sum(dtype=np.int64) or (out[held] >= n).any():
            raise self.fail(f"a neighbour is not among the {n} rows")
        # A row that is its own neighbour leads nowhere; its list closes up.
        own = np.flatnonzero((out == np.arange(n, dtype=np.uint32)[:, None]).any(axis=1))
        for r in own:
            rest = out[r][out[r] != r]
            out[r] = NO_ROW
            out[r, : len(rest)] = rest
        return out

    def _check_upper(self, at: int, n: int, level: int) -> None:
        """Follow the lists above the lowest level, one per row behind its length, to the end of the file."""
        tail = self._data[at:]
        if len(tail) % 4:
            raise self.fail(f"{len(tail)} bytes behind the rows are no whole numbers")
        words = tail.view("<u4")
        long = np.flatnonzero(words)
        pos, row, next_long = 0, 0, 0
        while row < n:
            next_long += int(np.searchsorted(long[next_long:], pos))
            first = int(long[next_long]) if next_long < len(long) else len(words)
            row += first - pos
            pos = first
            if row >= n:
                pos -= row - n
                break
            if pos >= len(words) or words[pos] % level:
                raise self.fail("the lists of its upper levels are cut off or damaged")
            pos += 1 + int(words[pos]) // 4
            row += 1
        if pos != len(words):
            raise self.fail(
                f"{4 * (len(words) - pos)} bytes follow its end" if pos < len(words) else "it is cut off"
            )
