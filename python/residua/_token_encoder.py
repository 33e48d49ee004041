# SPDX-License-Identifier: Apache-2.0
"""What encoders of token vectors share: how they are called, and what they refuse."""

from __future__ import annotations

from typing import Any

from residua import _core
from residua._saved import Saved
from residua._tokens import Tokens, as_tokens
from residua._typing import ArrayLike, FloatArray
from residua._validate import as_threads
from residua.errors import InvalidValueError

__all__ = ["TokenEncoder"]


class TokenEncoder(Saved):
    """Base of encoders that make single vectors of sets of token vectors."""

    @property
    def dim(self) -> int:
        """Dims of the tokens."""
        raise NotImplementedError

    def encode_documents(
        self, tokens: Any, *, mask: ArrayLike | None = None, num_threads: int | None = None
    ) -> FloatArray:
        """Encode documents.

        Parameters
        ----------
        tokens
            A list of ``(t, dim)`` arrays, ``(tokens (T, dim), offsets (n + 1,))``, or a padded
            ``(n, t, dim)`` array; float32, float16, bfloat16 or float64, as NumPy arrays or CPU tensors. A
            2-D array is one document.
        mask
            ``(n, t)`` bool or 0 and 1: which tokens of a padded array count. None: all of them.
        num_threads
            At least 1; None uses the CPUs that the process may use. Results do not depend on it.

        Returns
        -------
        ``(n, output_dim)`` float32, ``(output_dim,)`` for one document. A document without tokens, or whose
        tokens are all masked, is a zero vector.

        Raises
        ------
        ShapeError, DtypeError, InvalidTypeError
        NonFiniteError
            Names the first bad document and token.
        InvalidValueError
            Values overflow float32.
        NotTrainedError
            The encoder is to be fitted first.
        """
        return self._checked(tokens, mask, True, num_threads)

    def encode_queries(
        self, tokens: Any, *, mask: ArrayLike | None = None, num_threads: int | None = None
    ) -> FloatArray:
        """Encode queries.

        Parameters
        ----------
        tokens, mask, num_threads
            As for :meth:`encode_documents`.

        Returns
        -------
        ``(n, output_dim)`` float32, ``(output_dim,)`` for one query; zero for a query without tokens.

        Raises
        ------
        ShapeError, DtypeError, InvalidTypeError, NonFiniteError, InvalidValueError, NotTrainedError
            As for :meth:`encode_documents`.
        """
        return self._checked(tokens, mask, False, num_threads)

    def _checked(self, tokens: Any, mask: Any, document: bool, num_threads: int | None) -> FloatArray:
        threads = as_threads(num_threads)
        sets = as_tokens(tokens, self.dim, "tokens", "document" if document else "query", mask)
        out = self._encode(sets, document, threads)
        bad = _core.first_non_finite(out)
        if bad >= 0:
            raise InvalidValueError(f"tokens: values of set {bad} overflow float32; scale the tokens down")
        return out[0] if sets.single else out

    def _encode(self, sets: Tokens, document: bool, threads: int) -> FloatArray:
        """Return ``(n, output_dim)``; a set without tokens is zero."""
        raise NotImplementedError
