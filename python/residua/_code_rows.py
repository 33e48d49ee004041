# SPDX-License-Identifier: Apache-2.0
"""Codes that go into an index, and come out of it, as they are."""

from __future__ import annotations

from residua import _core
from residua._typing import AnyArray, ArrayLike, ByteArray, Ids
from residua._validate import as_codes, as_ids
from residua.errors import NotTrainedError, UnsupportedError


class CodeRows:
    """The part of an index that takes and gives codes instead of vectors."""

    _native: _core.Index

    def _code_bytes(self) -> int:
        codec = self._native.codec
        if codec is not None:
            return codec.code_bytes
        if self._native.awaits_codec:
            raise NotTrainedError("the codec of this index is not fitted yet; call train(x) or add more rows")
        raise UnsupportedError("this index has no codec: it keeps vectors; make it with codec=…")

    def add_codes(self, codes: ArrayLike, ids: Ids | None = None) -> AnyArray:
        """Add codes as :meth:`Codec.encode` made them; all of them or, on an error, none.

        The index keeps no vectors (``vectors="none"``), because codes do not hold them.

        Parameters
        ----------
        codes
            ``(n, code_bytes)`` uint8 of the codec of this index; every row is checked.
        ids
            ``(n,)`` integers 0 … 2**63 - 1 or str; None continues from the largest id + 1.

        Returns
        -------
        ``(n,)`` ids: int64, or object (str).

        Raises
        ------
        ShapeError, DtypeError, InvalidValueError, DuplicateIdError, NotTrainedError, UnsupportedError
        """
        c, _ = as_codes(codes, self._code_bytes(), "codes")
        return self._native.add_codes(c, None if ids is None else as_ids(ids, len(c)))

    def codes(self, ids: Ids) -> ByteArray:
        """Return codes by id.

        Parameters
        ----------
        ids
            ``(n,)`` ids.

        Returns
        -------
        ``(n, code_bytes)`` uint8, in the order of ``ids``.

        Raises
        ------
        UnknownIdError, which names the first id that is not there; NotTrainedError, UnsupportedError
        """
        self._code_bytes()
        return self._native.codes_of(as_ids(ids, None))
