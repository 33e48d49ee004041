# SPDX-License-Identifier: Apache-2.0
"""Documents of token vectors, kept as floats, int8 or codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from residua import _core
from residua._codec import Codec
from residua._saved import Saved
from residua._tokens import Tokens, as_numbers, as_tokens
from residua._typing import AnyArray, ArrayLike, FloatArray
from residua._validate import as_array, as_choice, as_int, as_threads
from residua.codecs import RecurrentBinaryCodec, refuse_query_side, wrap
from residua.errors import InvalidTypeError, InvalidValueError, OutOfRangeError, ShapeError

__all__ = ["TokenStore", "pool_tokens"]

_BITS = {"rb4": 4, "rb2": 2, "rb1": 1}
_FORMS = ("float32", "float16", "int8")
_FIT_TOKENS = 50_000
_POOL_RUN = 512  # tokens that are clustered together


class TokenStore(Saved):
    """Keep the tokens of documents as codes, int8 or floats, for :func:`maxsim`.

    Tokens stand document by document and are scored as they are. Recurrent codes of 4, 2 or 1 bits per dim
    are scored by integer arithmetic, without being decoded to floats.

    Parameters
    ----------
    tokens
        Documents: a list of ``(t, dim)`` arrays, ``(tokens (T, dim), offsets (n + 1,))``, or a padded
        ``(n, t, dim)`` array; float32, float16, bfloat16 or float64. They may be empty.
    codec
        ``"rb4"``, ``"rb2"`` or ``"rb1"``: recurrent codes of that many bits, fitted on the tokens (at most
        50,000 of them, evenly spaced); a :class:`RecurrentBinaryCodec`, fitted with metric ``"ip"`` or not
        yet; or ``"float32"``, ``"float16"`` or ``"int8"``, the last with one scale per token.
    mask
        ``(n, t)`` bool or 0 and 1: which tokens of a padded array count.
    queries
        A sample of queries in the same forms, for the fit of a codec: much better ranks where tokens of
        queries are unlike those of documents. None: they may be anything.
    num_threads
        At least 1; None uses the CPUs that the process may use. What is kept does not depend on it.

    Examples
    --------
    >>> import numpy as np, residua as rz
    >>> rng = np.random.default_rng(0)
    >>> documents = [rng.normal(size=(40, 64)).astype("float32") for _ in range(50)]
    >>> store = rz.TokenStore(documents, "rb4")
    >>> int(rz.maxsim(documents[7][:5], store).argmax())
    7
    """

    _native: _core.TokenStore
    _codec: Codec | str

    def __init__(
        self,
        tokens: Any,
        codec: str | RecurrentBinaryCodec = "rb4",
        *,
        mask: ArrayLike | None = None,
        queries: Any = None,
        num_threads: int | None = None,
    ) -> None:
        threads = as_threads(num_threads)
        if isinstance(codec, str):
            as_choice(codec, "codec", (*_BITS, *_FORMS))
        elif not isinstance(codec, RecurrentBinaryCodec):
            raise InvalidTypeError(
                "codec must be 'rb4', 'rb2', 'rb1', 'float32', 'float16', 'int8' or a RecurrentBinaryCodec, "
                f"got {codec!r}"
            )
        else:
            refuse_query_side(codec)
        sets = as_tokens(tokens, None if isinstance(codec, str) else codec.dim, "tokens", "document", mask)
        if isinstance(codec, str) and codec in _FORMS:
            if sets.flat.shape[1] == 0:
                raise ShapeError("tokens: no document tells the dims; give (numpy.empty((0, dim)), [0])")
            self._native = _core.TokenStore.of_floats(codec, sets.flat.shape[1])
            self._codec = codec
        else:
            asked = (
                None if queries is None else as_tokens(queries, sets.flat.shape[1], "queries", "query").flat
            )
            fitted = _fitted(codec, sets.flat, asked, num_threads)
            self._native = _core.TokenStore(fitted._trained())
            self._codec = fitted
        self._native.add(sets.flat, sets.offsets, threads)

    @classmethod
    def _from_native(cls, native: _core.TokenStore) -> TokenStore:
        store = cls.__new__(cls)
        store._native = native
        store._codec = native.form if native.codec is None else wrap(native.codec)
        return store

    @property
    def dim(self) -> int:
        """Dims of the tokens."""
        return self._native.dim

    @property
    def codec(self) -> Codec | str:
        """The codec of the tokens, or "float32", "float16" or "int8"."""
        return self._codec

    @property
    def n_tokens(self) -> int:
        """Tokens of all documents that are not removed."""
        return self._native.tokens

    def __len__(self) -> int:
        return len(self._native)

    def add(self, tokens: Any, *, mask: ArrayLike | None = None, num_threads: int | None = None) -> None:
        """Append documents; they get the next numbers.

        Parameters
        ----------
        tokens, mask, num_threads
            As for the class.

        Raises
        ------
        ShapeError, DtypeError, InvalidTypeError, NonFiniteError
        InvalidValueError
            A value is beyond what float16 holds; the store stays as it was.
        """
        threads = as_threads(num_threads)
        sets = as_tokens(tokens, self.dim, "tokens", "document", mask)
        self._native.add(sets.flat, sets.offsets, threads)

    def remove(self, documents: ArrayLike) -> None:
        """Remove documents: they have no tokens from now on, score -inf, and are never in a top-k.

        All documents keep their numbers, and the bytes stay until :meth:`compact`.

        Parameters
        ----------
        documents
            Numbers, ``(m,)`` integers, or one number.

        Raises
        ------
        OutOfRangeError
            An IndexError: a number is not there.
        InvalidValueError
            A document is removed already, or given twice. Nothing has changed then.
        InvalidTypeError
        """
        numbers = as_array(documents, "documents")
        if numbers.ndim == 0:
            numbers = numbers[None]
        self._native.remove(as_numbers(numbers, len(self)))

    def compact(self) -> None:
        """Free the bytes of removed documents; all documents keep their numbers."""
        self._native.compact()

    def get(self, document: int) -> FloatArray:
        """Return the tokens of one document as they are kept.

        Parameters
        ----------
        document
            Its number.

        Returns
        -------
        ``(t, dim)`` float32; no rows for a removed document.

        Raises
        ------
        OutOfRangeError
            An IndexError.
        """
        number = as_int(document, "document", -(2**63), 2**63 - 1)
        if not 0 <= number < len(self):
            raise OutOfRangeError(f"document {number} is not one of the {len(self)} documents")
        return self._native.decode(number)

    def memory(self) -> dict[str, int]:
        """Return bytes per part.

        ``codes`` (whole blocks of 32 tokens per document) and ``codec``, or ``tokens`` and, of int8,
        ``scales``; and ``offsets``. Bytes of removed documents count until :meth:`compact`.
        """
        return self._native.memory()

    def __repr__(self) -> str:
        removed = f" ({self._native.removed} removed)" if self._native.removed else ""
        return f"TokenStore({len(self)} documents{removed}, {self.n_tokens} tokens, {self._codec!r})"


def _fitted(
    codec: str | RecurrentBinaryCodec, flat: AnyArray, asked: AnyArray | None, num_threads: int | None
) -> RecurrentBinaryCodec:
    """Return a codec that is fitted for inner products, on the tokens where it was not before."""
    if isinstance(codec, str):
        aware = asked is not None  # tokens of documents do not stand for those of queries
        codec = RecurrentBinaryCodec(max(1, flat.shape[1]), bits=_BITS[codec], query_aware=aware)
    if not codec.is_trained:
        if len(flat) == 0:
            raise InvalidValueError("tokens: expected at least 1 token to fit the codec on, got 0")
        step = -(-len(flat) // _FIT_TOKENS)
        x = flat[::step].astype(np.float32, copy=False)
        q = None if asked is None else asked.astype(np.float32, copy=False)
        codec.fit(x, queries=q, metric="ip", num_threads=num_threads)
    elif codec.metric != "ip":
        raise InvalidValueError(f"codec is fitted for metric {codec.metric!r}, MaxSim needs 'ip'")
    return codec


def pool_tokens(tokens: Any, factor: int, *, protected: int = 0, mask: ArrayLike | None = None) -> Any:
    """Merge similar tokens of each document into their mean: fewer tokens to keep and to score.

    Ward's clustering down to one token in ``factor`` (arXiv 2409.14683: half of the tokens can go at almost
    no loss). Documents above 512 tokens are pooled in runs of 512.

    Parameters
    ----------
    tokens
        Documents, as :class:`TokenStore` takes them; a 2-D array is one document.
    factor
        At least 1, which changes nothing.
    protected
        How many first tokens of each document stay as they are.
    mask
        ``(n, t)`` bool or 0 and 1: which tokens of a padded array count.

    Returns
    -------
    A list of ``(t, dim)`` float32 arrays, or one array for one document. Clusters stand in the order of their
    first tokens.

    Raises
    ------
    ShapeError, DtypeError, InvalidTypeError, NonFiniteError, InvalidValueError
    """
    n = as_int(factor, "factor", 1, 2**31 - 1)
    kept = as_int(protected, "protected", 0, 2**31 - 1)
    sets: Tokens = as_tokens(tokens, None, "tokens", "document", mask)
    flat = sets.flat.astype(np.float32, copy=False)
    out = []
    for i in range(len(sets)):
        x = flat[sets.offsets[i] : sets.offsets[i + 1]]
        parts = [x[:kept]]
        for first in range(kept, len(x), _POOL_RUN):
            run = x[first : first + _POOL_RUN]
            labels = _ward(run, max(1, len(run) // n))
            sums = np.zeros((labels.max() + 1, x.shape[1]))
            np.add.at(sums, labels, run)
            parts.append((sums / np.bincount(labels)[:, None]).astype(np.float32))
        out.append(np.concatenate(parts))
    if sets.single:
        return out[0]
    return out


def _ward(x: AnyArray, n_clusters: int) -> AnyArray:
    """Return a cluster number per row, numbered by first row: Ward's method by Lance and Williams' update."""
    n = len(x)
    y = x.astype(np.float64)
    squares = (y**2).sum(axis=1)
    cost = np.maximum(squares[:, None] + squares - 2 * y @ y.T, 0) / 2
    np.fill_diagonal(cost, np.inf)
    size, label = np.ones(n), np.arange(n)
    for _ in range(n - n_clusters):
        a, b = sorted(divmod(int(np.argmin(cost)), n))
        total = size[a] + size[b] + size
        merged = ((size[a] + size) * cost[a] + (size[b] + size) * cost[b] - size * cost[a, b]) / total
        merged[~np.isfinite(cost[a]) | ~np.isfinite(cost[b])] = np.inf
        cost[a], cost[:, a] = merged, merged
        cost[b], cost[:, b] = np.inf, np.inf
        size[a] += size[b]
        label[label == b] = a
    return np.unique(label, return_inverse=True)[1]
