# SPDX-License-Identifier: Apache-2.0
"""Token vectors on CUDA devices: documents that stay there, MaxSim and fixed-dimensional encodings."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from residua import _core, cuda
from residua._tokens import Tokens, as_numbers, as_queries, as_tokens
from residua._typing import AnyArray, ArrayLike, IntArray
from residua._validate import as_array, as_choice, as_floats
from residua.codecs import RecurrentBinaryCodec
from residua.errors import InvalidTypeError, InvalidValueError, ShapeError
from residua.token_store import TokenStore

__all__ = ["TokenDocuments"]

_OUTPUTS = ("numpy", "device")
_STORED = ("rb4", "rb2", "rb1", "float32", "float16", "int8")


class _Sets(NamedTuple):
    """Token sets of either side; ``flat`` is a NumPy array, or what the native module makes of a device's."""

    flat: Any
    offsets: IntArray
    single: bool
    there: bool  # on the device

    @property
    def dim(self) -> int:
        return int(self.flat.shape[-1])

    def __len__(self) -> int:
        return len(self.offsets) - 1


class TokenDocuments:
    """Keep the tokens of documents on a CUDA device, for :func:`residua.maxsim` with many queries.

    Parameters
    ----------
    tokens
        Documents in the forms of :class:`residua.TokenStore`, or such a store, whose documents are copied as
        they are kept now. Or arrays on the device (anything with ``__dlpack__`` or
        ``__cuda_array_interface__``): ``(n, t, dim)``, one document ``(t, dim)``, or ``(tokens, offsets)``.
    token_codec
        ``"float16"``, ``"float32"``, ``"int8"``, ``"rb4"``, ``"rb2"``, ``"rb1"`` or a
        :class:`RecurrentBinaryCodec`, as of :class:`residua.TokenStore`. None: that of the store, or
        ``"float16"``. float16 tokens on the device that are to be ``"float16"`` are not copied (16-byte
        aligned, ``dim`` a multiple of 8): what is written to them later is what is scored. Codes and int8
        are encoded by the CPU.
    mask, queries
        As for :class:`residua.TokenStore`.
    device
        ``"cuda"``, ``"cuda:1"``, a ``torch.device``, or a number.
    memory_limit
        Most bytes of the device that documents and searches may take; None: all it has.
    stream
        What is done is ordered on it: None for a stream of our own, a handle, or a stream of PyTorch, CuPy or
        cuda.core.
    num_threads
        Of the CPU, for encoding; at least 1, None uses those that the process may use.

    Raises
    ------
    UnsupportedError
        CUDA is not available; it says what is missing.
    OutOfMemoryError
        With sizes; the device can still be used.
    ShapeError, DtypeError, InvalidTypeError, InvalidValueError, NonFiniteError

    Notes
    -----
    Bytes on the device are those of :meth:`TokenStore.memory`, int8 tokens two per dim. Threads may share it.
    """

    _native: Any

    def __init__(
        self,
        tokens: Any,
        token_codec: str | RecurrentBinaryCodec | None = None,
        *,
        mask: ArrayLike | None = None,
        queries: Any = None,
        device: Any = "cuda",
        memory_limit: int | None = None,
        stream: Any = None,
        num_threads: int | None = None,
    ) -> None:
        if isinstance(token_codec, str):
            as_choice(token_codec, "token_codec", _STORED)
        context = cuda._context(device, memory_limit, stream)
        kind = cuda._native().TokenDocuments
        if isinstance(tokens, TokenStore):
            if token_codec not in (None, tokens.codec) or mask is not None or queries is not None:
                raise InvalidTypeError("a TokenStore has its codec: leave token_codec, mask and queries out")
            self._native = kind.of_store(context, tokens._native)
            return
        codec = "float16" if token_codec is None else token_codec
        sets = _there(tokens, context, "tokens") if mask is None else None
        if sets is not None and (codec == "float16" or (codec == "float32" and sets.flat.dtype == "float32")):
            self._native = kind.of_device(context, sets.flat, sets.offsets, codec == "float16")
            return
        here = _to_host(tokens, context, "tokens")
        store = TokenStore(here, codec, mask=mask, queries=queries, num_threads=num_threads)
        self._native = kind.of_store(context, store._native)

    @property
    def dim(self) -> int:
        """Dims of the tokens."""
        return int(self._native.dim)

    @property
    def form(self) -> str:
        """What is kept: ``"float32"``, ``"float16"``, ``"int8"`` or ``"codes"``."""
        return str(self._native.form)

    @property
    def n_tokens(self) -> int:
        """Tokens of all documents."""
        return int(self._native.tokens)

    @property
    def nbytes(self) -> int:
        """Bytes on the device, without tokens that were not copied."""
        return int(self._native.nbytes)

    def __len__(self) -> int:
        return len(self._native)

    def __repr__(self) -> str:
        where = f"cuda:{self._native.context.device}"
        return f"TokenDocuments({len(self)} documents, {self.n_tokens} tokens, {self.form}, {where!r})"


def maxsim(
    q_tokens: Any,
    doc_tokens: Any,
    *,
    q_mask: Any,
    doc_mask: Any,
    doc_scales: Any,
    documents: Any,
    tau: Any,
    device: Any,
    out: str,
) -> Any:
    """:func:`residua.maxsim` on a device, with its arguments."""
    as_choice(out, "out", _OUTPUTS)
    single_document = False
    kept = isinstance(doc_tokens, (TokenDocuments, TokenStore))
    if kept and (doc_mask is not None or doc_scales is not None):
        raise InvalidTypeError(
            f"doc_mask= and doc_scales= belong to arrays of tokens, not to a {type(doc_tokens).__name__}"
        )
    if isinstance(doc_tokens, TokenDocuments):
        held = doc_tokens._native
        context = held.context
        if cuda._as_device(device) not in (None, context.device):
            raise InvalidValueError(f"device={device!r}: the documents are on 'cuda:{context.device}'")
    else:
        context = _context_of(cuda._as_cuda(device))
        held, single_document = _hold(doc_tokens, doc_mask, doc_scales, context)
    q = _queries(q_tokens, q_mask, tau, held.dim if len(held) else None, context)
    numbers = None if documents is None else as_numbers(documents, len(held))
    if len(held) == 0 or len(q) == 0:
        empty = np.zeros((len(q), 0 if numbers is None else len(numbers)), np.float32)
        return cuda.to_device(empty, context.device) if out == "device" else empty
    scores = held.maxsim(q.flat, q.offsets, numbers, out == "device")
    if out == "device":
        return cuda.DeviceArray._of(scores)
    scores = scores[:, 0] if single_document and numbers is None else scores
    return scores[0] if q.single else scores


def encode(native: Any, tokens: Any, mask: Any, dim: int, *, document: bool, out: str) -> tuple[Any, bool]:
    """Encodings of token sets by a native encoder, and whether they are of one set."""
    as_choice(out, "out", _OUTPUTS)
    context = native.context
    sets = _there(tokens, context, "tokens") if mask is None else None
    if sets is None:
        here = _to_host(tokens, context, "tokens")
        given = as_tokens(here, dim, "tokens", "document" if document else "query", mask)
        sets = _Sets(given.flat, given.offsets, given.single, False)
    elif sets.dim != dim:
        raise ShapeError(f"tokens: tokens have {sets.dim} dims, expected {dim}")
    encoded = native.encode(sets.flat, sets.offsets, document, out == "device")
    return (cuda.DeviceArray._of(encoded) if out == "device" else encoded), sets.single


def encoder_of(encoder: _core.FDEncoder, device: Any, memory_limit: Any, stream: Any) -> Any:
    """The native encoder of a device."""
    return cuda._native().FDEncoder(cuda._context(device, memory_limit, stream), encoder)


@functools.cache
def _context_of(number: int) -> Any:
    """The context of calls that bring none."""
    return cuda._context(number)


def _hold(docs: Any, mask: Any, scales: Any, context: Any) -> tuple[Any, bool]:
    """Documents of one call on the device, and whether they were given as one 2-D array."""
    kind = cuda._native().TokenDocuments
    if isinstance(docs, TokenStore):
        return kind.of_store(context, docs._native), False
    sets = _there(docs, context, "doc_tokens") if mask is None and scales is None else None
    if sets is not None:
        return kind.of_device(context, sets.flat, sets.offsets, False), sets.single
    here = _to_host(docs, context, "doc_tokens")
    given = as_tokens(here, None, "doc_tokens", "document", mask, unchecked=True)
    factors = None
    if scales is not None:
        if given.flat.dtype != np.int8:
            raise InvalidTypeError(f"doc_scales= belongs to int8 tokens, got {given.flat.dtype}")
        factors = as_floats(_to_host(scales, context, "doc_scales"), "doc_scales")
        if len(factors) != len(given.flat):
            raise ShapeError(f"doc_scales: {len(factors)} values for {len(given.flat)} tokens that count")
    if given.flat.shape[1] == 0:  # no documents, so no dims
        given = Tokens(np.zeros((0, 1), np.float32), given.offsets, given.single)
    return kind.of_host(context, given.flat, given.offsets, factors), given.single


def _queries(q_tokens: Any, mask: Any, tau: Any, dim: int | None, context: Any) -> _Sets:
    from residua.multivector import carved

    sets = _there(q_tokens, context, "q_tokens") if mask is None and tau is None else None
    if sets is None:
        q = as_queries(_to_host(q_tokens, context, "q_tokens"), dim, mask)
        q = q if tau is None else carved(q, tau)
        return _Sets(q.flat, q.offsets, q.single, False)
    if dim is not None and sets.dim != dim:
        raise ShapeError(f"q_tokens: tokens have {sets.dim} dims, expected {dim}")
    empty = np.flatnonzero(np.diff(sets.offsets) == 0)
    if len(empty):
        which = "the query" if sets.single else f"query {empty[0]}"
        raise InvalidValueError(f"q_tokens: {which} has no tokens, which ranks nothing")
    return sets


def _there(tokens: Any, context: Any, name: str) -> _Sets | None:
    """Token sets that kernels can read where they are on the device; None where they cannot."""
    offsets: AnyArray | None = None
    if isinstance(tokens, tuple) and len(tokens) == 2:
        tokens, given = tokens
        if not _is_there(tokens):
            return None
        offsets = as_array(cuda._to_host(given, context, f"{name}[1]"), f"{name}[1]")
        if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
            raise ShapeError(
                f"{name}[1]: expected offsets, (n + 1,) integers, got {offsets.dtype} {offsets.shape}"
            )
    if not _is_there(tokens):
        return None
    flat = cuda._native().tokens_there(tokens, context, name)
    if flat is None:
        return None
    shape: tuple[int, ...] = flat.shape
    if shape[-1] == 0:
        raise ShapeError(f"{name}: tokens have 0 dims, expected at least 1")
    if offsets is not None:
        if len(shape) != 2:
            raise ShapeError(f"{name}: tokens beside offsets must have shape (T, dim), got {shape}")
        o = np.ascontiguousarray(offsets, np.int64)
        if len(o) == 0 or o[0] != 0 or o[-1] != shape[0] or (np.diff(o) < 0).any():
            raise ShapeError(
                f"{name}: offsets must ascend from 0 to the number of tokens, {shape[0]}; got {len(o)} values"
            )
        return _Sets(flat, o, False, True)
    if len(shape) == 2:
        return _Sets(flat, np.array([0, shape[0]], np.int64), True, True)
    if len(shape) != 3:
        raise ShapeError(f"{name}: expected (n, t, dim), (t, dim) or (tokens, offsets), got shape {shape}")
    return _Sets(flat, np.arange(shape[0] + 1, dtype=np.int64) * shape[1], False, True)


def _is_there(x: Any) -> bool:
    if isinstance(x, (np.ndarray, list, tuple)):
        return False
    return bool(cuda._native().is_on_device(x))


def _to_host(tokens: Any, context: Any, name: str) -> Any:
    """Tokens as the CPU takes them, through the host where they are on a device."""
    if isinstance(tokens, (list, tuple)):
        return type(tokens)(cuda._to_host(x, context, name) for x in tokens)
    return cuda._to_host(tokens, context, name)
