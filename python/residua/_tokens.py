# SPDX-License-Identifier: Apache-2.0
"""Sets of token vectors as users hold them, turned into one array of tokens and offsets."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from residua import _core
from residua._typing import AnyArray, IntArray
from residua._validate import FLOATS, as_array, to_float32
from residua.errors import (
    DtypeError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    OutOfRangeError,
    ShapeError,
)

_FORMS = (
    "a list of (t, dim) arrays, (tokens (T, dim), offsets (n + 1,)), or a padded (n, t, dim) array with mask="
)


class Tokens(NamedTuple):
    """Set i owns rows ``offsets[i] … offsets[i + 1] - 1`` of ``flat``."""

    flat: AnyArray  # (T, dim) float32, float16 or int8, C-contiguous, finite
    offsets: IntArray  # (n + 1,)
    single: bool  # given as one 2-D array

    def __len__(self) -> int:  # of sets, not of fields
        return len(self.offsets) - 1


def as_tokens(
    tokens: Any, dim: int | None, name: str, what: str, mask: Any = None, *, unchecked: bool = False
) -> Tokens:
    """Read token sets; ``what`` names one of them in errors ("document", "query").

    float16 stays as it is, everything else becomes float32. With ``unchecked`` int8 is taken as well, and NaN
    and infinity are left to the native code. Raises ShapeError, DtypeError,
    InvalidTypeError, or NonFiniteError with the first bad document and token.
    """
    if isinstance(tokens, (list, tuple)):
        if mask is not None:
            raise InvalidTypeError(f"{name}: mask= belongs to a padded (n, t, dim) array, got a list")
        if len(tokens) == 2 and isinstance(tokens, tuple):
            offsets = as_array(tokens[1], f"{name}[1]")
            if offsets.ndim == 1 and offsets.dtype.kind in "iu":
                return _from_flat(tokens[0], offsets, dim, name, what, unchecked)
        return _from_list(tokens, dim, name, what, unchecked)
    a = _floats(as_array(tokens, name), name, unchecked)
    if a.ndim == 2:
        keep = None if mask is None else _as_mask(mask, (a.shape[0],), name)
        flat = a if keep is None else a[keep]
        return _checked(
            flat, np.array([0, len(flat)]), dim, name, what, single=True, kept=keep, unchecked=unchecked
        )
    if a.ndim != 3:
        raise ShapeError(f"{name}: expected {_FORMS}; got shape {a.shape}")
    n, t, width = a.shape
    if mask is None:
        return _checked(a.reshape(n * t, width), np.arange(n + 1) * t, dim, name, what, unchecked=unchecked)
    keep = _as_mask(mask, (n, t), name)
    offsets = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
    return _checked(a[keep], offsets, dim, name, what, kept=keep, unchecked=unchecked)


def as_queries(q_tokens: Any, dim: int | None, mask: Any = None, name: str = "q_tokens") -> Tokens:
    """Read queries as float32, none of which may be empty."""
    q = as_tokens(q_tokens, dim, name, "query", mask)
    empty = np.flatnonzero(np.diff(q.offsets) == 0)
    if len(empty):
        which = "the query" if q.single else f"query {empty[0]}"
        raise InvalidValueError(f"{name}: {which} has no tokens (or a mask hides all), which ranks nothing")
    return Tokens(q.flat.astype(np.float32, copy=False), q.offsets, q.single)


def pick(sets: Tokens, numbers: IntArray) -> Tokens:
    """Copy some of the sets."""
    lengths = np.diff(sets.offsets)[numbers]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.arange(offsets[-1]) + np.repeat(sets.offsets[numbers] - offsets[:-1], lengths)
    return Tokens(sets.flat[rows], offsets, False)


def part(sets: Tokens, first: int, last: int) -> tuple[AnyArray, IntArray]:
    """Sets ``first`` to ``last - 1`` as users give them, without a copy of their tokens."""
    offsets = sets.offsets[first : last + 1]
    return sets.flat[offsets[0] : offsets[-1]], offsets - offsets[0]


def as_numbers(documents: Any, n: int) -> IntArray:
    """Return numbers of documents as int64; raise unless all are below ``n``."""
    a = as_array(documents, "documents")
    if a.ndim != 1 or (a.dtype.kind not in "iu" and a.size):
        raise InvalidTypeError(
            f"documents: expected numbers of documents, (m,) integers, got {a.dtype} {a.shape}"
        )
    bad = np.flatnonzero((a < 0) | (a >= n))
    if len(bad):
        raise OutOfRangeError(f"documents: {a[bad[0]]} is not one of the {n} documents")
    return np.ascontiguousarray(a, np.int64)


def _from_list(tokens: Any, dim: int | None, name: str, what: str, unchecked: bool) -> Tokens:
    parts: list[AnyArray] = []
    for i, given in enumerate(tokens):
        a = _floats(as_array(given, f"{name}: {what} {i}"), f"{name}: {what} {i}", unchecked)
        if a.ndim == 1 and a.size == 0 and dim is not None:
            a = a.reshape(0, dim)
        if a.ndim != 2:
            hint = "; one set of tokens is a 2-D array, not a list of vectors" if a.ndim == 1 else ""
            raise ShapeError(f"{name}: {what} {i} has shape {a.shape}, expected (t, dim){hint}")
        expected = dim if dim is not None else parts[0].shape[1] if parts else a.shape[1]
        if a.shape[1] != expected:
            raise ShapeError(f"{name}: tokens of {what} {i} have {a.shape[1]} dims, expected {expected}")
        parts.append(a)
    offsets = np.concatenate([[0], np.cumsum([len(a) for a in parts], dtype=np.int64)])
    as_given = len({a.dtype for a in parts}) == 1 and parts[0].dtype in (np.float16, np.int8)
    if not as_given and any(a.dtype == np.int8 for a in parts):
        raise DtypeError(f"{name}: int8 tokens beside others; give all sets as int8 or none")
    if not parts:
        flat: AnyArray = np.empty((0, dim if dim is not None else 0), np.float32)
    elif as_given:
        flat = np.concatenate(parts)
    else:
        flat = np.concatenate([to_float32(a) for a in parts])
    return _checked(flat, offsets, dim, name, what, unchecked=unchecked)


def _from_flat(
    flat: Any, offsets: AnyArray, dim: int | None, name: str, what: str, unchecked: bool
) -> Tokens:
    a = _floats(as_array(flat, f"{name}[0]"), f"{name}[0]", unchecked)
    if a.ndim != 2:
        raise ShapeError(f"{name}: tokens beside offsets must have shape (T, dim), got {a.shape}")
    o = offsets.astype(np.int64)
    if len(o) == 0 or o[0] != 0 or o[-1] != len(a) or (np.diff(o) < 0).any():
        raise ShapeError(
            f"{name}: offsets must ascend from 0 to the number of tokens, {len(a)}; "
            f"got {len(o)} values" + (f" from {o[0]} to {o[-1]}" if len(o) else "")
        )
    return _checked(a, o, dim, name, what, unchecked=unchecked)


def _floats(a: AnyArray, name: str, unchecked: bool) -> AnyArray:
    if unchecked and a.dtype == np.int8:
        return a
    if a.dtype.name not in FLOATS and not (a.size == 0 and a.dtype.kind == "f"):
        hint = '; convert with .astype("float32")' if a.dtype.kind in "iub" else ""
        raise DtypeError(f"{name}: dtype {a.dtype} is not accepted for tokens, expected float32, float16, "
                         f"bfloat16 or float64{hint}")  # fmt: skip
    return a


def _as_mask(mask: Any, shape: tuple[int, ...], name: str) -> AnyArray:
    """Return which tokens count; attention masks of 0 and 1 are accepted."""
    m = as_array(mask, "mask")
    if m.shape != shape:
        raise ShapeError(f"mask: shape {m.shape}, expected {shape}, one value per token of {name}")
    if m.dtype.kind not in "biu" or (m.dtype != np.bool_ and m.size and (m.min() < 0 or m.max() > 1)):
        raise DtypeError(f"mask: expected bool, or integers 0 and 1, got {m.dtype}")
    return m.astype(np.bool_)


def _checked(
    a: AnyArray,
    offsets: AnyArray,
    dim: int | None,
    name: str,
    what: str,
    *,
    single: bool = False,
    kept: AnyArray | None = None,
    unchecked: bool = False,
) -> Tokens:
    if dim is not None and a.shape[1] != dim:
        raise ShapeError(f"{name}: tokens have {a.shape[1]} dims, expected {dim}")
    if a.shape[1] == 0 and len(a):
        raise ShapeError(f"{name}: tokens have 0 dims, expected at least 1")
    o = np.ascontiguousarray(offsets, np.int64)
    given = a.dtype
    if unchecked:
        as_is = a.dtype in (np.float16, np.int8)
        return Tokens(np.ascontiguousarray(a) if as_is else to_float32(a), o, single)
    if a.dtype == np.float16:
        flat = np.ascontiguousarray(a)
        finite = (flat.view(np.uint16) & 0x7C00) != 0x7C00
        bad = -1 if finite.all() else int(np.argmin(finite.all(axis=1)))
    else:
        flat = to_float32(a)
        bad = _core.first_non_finite(flat)
    if bad >= 0:
        owner = int(np.searchsorted(o, bad, side="right")) - 1
        token = bad - int(o[owner])
        if kept is not None:  # counted as the user does, padding included
            token = int(np.flatnonzero(kept if single else kept[owner])[token])
        hint = "; float16 holds at most 65504: were larger values converted?" if given == np.float16 else ""
        where = f"token {token}" if single else f"{what} {owner}, token {token}"
        raise NonFiniteError(f"{name}: {where} contains NaN or infinity (as {flat.dtype}){hint}")
    return Tokens(flat, o, single)
