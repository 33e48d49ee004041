# SPDX-License-Identifier: Apache-2.0
"""Ids of documents as users give them, and the numbers by which everything else knows them."""

from __future__ import annotations

from typing import Any

import numpy as np

from residua import _core
from residua._typing import AnyArray, IntArray
from residua._validate import as_ids
from residua.errors import DuplicateIdError, InvalidTypeError, UnknownIdError


class DocumentIds:
    """Ids <-> numbers; a number is used once."""

    def __init__(self, native: _core.store.IdMap | None = None) -> None:
        self._native = _core.store.IdMap() if native is None else native

    @property
    def next_number(self) -> int:
        """The number of the next document."""
        return self._native.rows

    @property
    def memory_bytes(self) -> int:
        return self._native.memory_bytes

    @property
    def live(self) -> IntArray:
        """Numbers of all documents that are there, ascending."""
        return np.array(self._native.live_rows(), np.int64)

    @property
    def are_texts(self) -> bool:
        return self._native.rows > 0 and isinstance(self._native.id_of(0), str)

    def to_bytes(self) -> AnyArray:
        return np.frombuffer(self._native.to_bytes(), np.uint8)

    @classmethod
    def from_bytes(cls, data: AnyArray) -> DocumentIds:
        return cls(_core.store.IdMap.from_bytes(np.asarray(data, np.uint8).tobytes()))

    def __len__(self) -> int:
        return len(self._native)

    def add(self, ids: AnyArray | list[str] | int) -> None:
        """Give ids, or that many automatic ones, the next numbers."""
        self._native.add(ids.tolist() if isinstance(ids, np.ndarray) else ids)

    def erase(self, numbers: list[int]) -> None:
        for number in numbers:
            self._native.erase_row(number)

    def find(self, ids: AnyArray | list[str]) -> list[int | None]:
        return [self._native.find(i) for i in (ids.tolist() if isinstance(ids, np.ndarray) else ids)]

    def numbers(self, ids: Any, *, missing: str = "raise") -> IntArray:
        """Numbers of ids; of those that are not there raises UnknownIdError, or leaves them out."""
        given = as_ids(ids, None)
        found = self.find(given)
        if missing == "raise" and None in found:
            unknown = given[found.index(None)]
            shown = repr(unknown) if isinstance(unknown, str) else str(unknown)
            raise UnknownIdError(f"id {shown} is not in the index")
        return np.array([i for i in found if i is not None], np.int64)

    def check_new(self, ids: AnyArray | list[str], *, upsert: bool) -> list[int]:
        """Refuse ids that are there twice; return the numbers of those to replace."""
        listed = ids.tolist() if isinstance(ids, np.ndarray) else ids
        if len(set(listed)) < len(listed):
            twice = next(i for n, i in enumerate(listed) if i in set(listed[:n]))
            raise DuplicateIdError(f"ids: {twice!r} is given twice")
        if listed and len(self) and isinstance(listed[0], str) != self.are_texts:
            kind = "str" if self.are_texts else "integers"
            raise InvalidTypeError(f"ids of this index are {kind}, got {listed[0]!r}; they are never mixed")
        there = [i for i in self.find(ids) if i is not None]
        if there and not upsert:
            raise DuplicateIdError(
                f"id {self._native.id_of(there[0])!r} is in the index already; upsert=True replaces it"
            )
        return there

    def ids_of(self, numbers: AnyArray) -> AnyArray:
        """Ids of numbers; -1 stays, or is None among str."""
        flat = numbers.ravel().tolist()
        if self.are_texts:
            out = np.empty(len(flat), object)
            out[:] = [None if i < 0 else self._native.id_of(i) for i in flat]
        else:
            out = np.array([-1 if i < 0 else self._native.id_of(i) for i in flat], np.int64)
        return out.reshape(numbers.shape)
