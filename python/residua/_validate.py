# SPDX-License-Identifier: Apache-2.0
"""What users give, turned into what the native code takes; every refusal says what would work."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from residua import _core
from residua._typing import AnyArray, ArrayLike, ByteArray, FloatArray
from residua.errors import (
    DtypeError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)

_FLOAT32 = np.dtype(np.float32)
FLOATS = ("float16", "float32", "float64", "bfloat16")
_MAX_K = 2**31 - 1
_MAX_ID = 2**63 - 1
_INT_IDS = "ids must be integers from 0 to 2**63 - 1"
METRICS = ("cosine", "ip", "l2")


def as_array(x: ArrayLike, name: str) -> AnyArray:
    """Return ``x`` as an array: NumPy first, DLPack for what NumPy cannot read."""
    if not isinstance(x, np.ndarray) and hasattr(x, "__cuda_array_interface__"):
        raise InvalidTypeError(
            f"{name} is on a CUDA device ({type(x).__name__}); give a NumPy array or a CPU tensor (.cpu()), "
            "or search with it in an index on the device, index.to('cuda')"
        )
    try:
        if not isinstance(x, np.ndarray) and hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
            return np.from_dlpack(cast(Any, x))
        return np.asarray(x)
    except (ValueError, TypeError, BufferError, RuntimeError) as e:
        if isinstance(x, (list, tuple)) and isinstance(e, ValueError):
            raise ShapeError(f"{name}: rows of unequal length; expected an (n, dim) array of floats") from e
        raise InvalidTypeError(
            f"{name}: cannot read {type(x).__name__} as an array ({e}); "
            "give a NumPy array or a CPU tensor (for a GPU tensor: .cpu(), or search index.to('cuda'))"
        ) from e


def to_float32(a: AnyArray) -> FloatArray:
    """Return C-contiguous float32; a value beyond its range becomes infinity, which callers refuse."""
    if a.dtype == np.float32:
        return np.ascontiguousarray(a)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(a, dtype=np.float32)


def as_vectors(x: ArrayLike, dim: int | None, name: str, *, one: bool = False) -> tuple[FloatArray, bool]:
    """Return ``x`` as C-contiguous float32 ``(n, dim)`` and whether it was a single 1-D vector.

    Nothing is copied when ``x`` is that already; ``x`` is never written to. Raises DtypeError,
    ShapeError or NonFiniteError (with the first bad row).
    """
    if type(x) is np.ndarray and x.dtype is _FLOAT32 and x.ndim == 1 and one and len(x) == dim:
        row = x[None]  # the usual single query
        if x.flags.c_contiguous and _core.first_non_finite(row) < 0:
            return row, True
    a = as_array(x, name)
    if a.dtype != np.float32 and a.dtype.name not in FLOATS:
        hint = "" if a.dtype.kind not in "iub" else '; convert with .astype("float32")'
        if a.dtype.kind in "OSUVcMm":
            hint = '; expected real numbers: .astype("float32") on an array of them'
        raise DtypeError(f"{name}: dtype {a.dtype} is not accepted for vectors, expected float32, float16, "
                         f"bfloat16 or float64{hint}")  # fmt: skip
    single = a.ndim == 1 and one
    if single:
        a = a[None, :]
    if a.ndim != 2:
        shape = "(n, dim) or (dim,)" if one else "(n, dim)"
        hint = "; reshape a single vector with x[None, :]" if a.ndim == 1 else ""
        raise ShapeError(f"{name}: expected shape {shape}, got {np.shape(x)}{hint}")
    if dim is not None and a.shape[1] != dim:
        raise ShapeError(f"{name}: vectors have {a.shape[1]} dims, expected {dim}")
    if a.shape[1] == 0:
        raise ShapeError(f"{name}: vectors have 0 dims, expected at least 1")
    out = to_float32(a)
    bad = _core.first_non_finite(out)
    if bad >= 0:
        raise NonFiniteError(f"{name}: row {bad} contains NaN or infinity (as float32); remove or repair it")
    return out, single


def refuse_zero_rows(x: FloatArray, name: str) -> None:
    """Raise when a row is zero: its cosine with anything is undefined."""
    bad = _core.first_zero_row(x)
    if bad >= 0:
        raise InvalidValueError(
            f"{name}: row {bad} is a zero vector, which has no cosine; remove it or use 'ip'"
        )


def refuse_huge_values(x: FloatArray, name: str, metric: str) -> None:
    """Raise for values whose squared distances would leave float32, which no fit can work with.

    Under cosine a fit sees unit vectors, so that their lengths do not matter.
    """
    if metric == "cosine" or x.size == 0:
        return
    limit = math.sqrt(float(np.finfo(np.float32).max) / x.shape[1]) / 2
    largest = np.maximum(x.max(axis=1), -x.min(axis=1))
    bad = np.flatnonzero(largest > limit)
    if len(bad):
        raise InvalidValueError(
            f"{name}: row {bad[0]} holds a value of size {largest[bad[0]]:.3g}; squared distances of values "
            f"above {limit:.2g} overflow float32 with {x.shape[1]} dims: scale the vectors"
        )


def as_floats(values: ArrayLike, name: str, n: int | None = None) -> FloatArray:
    """Return finite numbers as float32 ``(n,)``; with ``n`` given, a single number stands for all."""
    a = as_array(values, name)
    if a.dtype.kind not in "fiu" and a.dtype.name != "bfloat16":
        raise DtypeError(f"{name}: expected numbers, got dtype {a.dtype}")
    if n is not None and a.ndim == 0:
        a = np.full(n, a)
    if a.ndim != 1 or a.size == 0 or (n is not None and len(a) != n):
        raise ShapeError(f"{name}: expected shape ({n if n is not None else 'dim'},), got {a.shape}")
    out = to_float32(a)
    if not np.isfinite(out).all():
        raise NonFiniteError(
            f"{name}: dim {int(np.argmin(np.isfinite(out)))} is NaN or infinite (as float32)"
        )
    return out


def check_sample(
    x: ArrayLike, queries: ArrayLike | None, dim: int, report: Callable[[int, int], None]
) -> None:
    """Check what a fit is given where there is nothing to fit."""
    as_vectors(x, dim, "x")
    if queries is not None:
        as_vectors(queries, dim, "queries")
    report(1, 1)


def as_codes(codes: ArrayLike, code_bytes: int, name: str) -> tuple[ByteArray, bool]:
    """Return packed codes as C-contiguous uint8 ``(n, code_bytes)`` and whether they were 1-D."""
    a = as_array(codes, name)
    if a.dtype != np.uint8:
        raise DtypeError(f"{name}: dtype {a.dtype}, expected uint8 as codec.encode returns it")
    single = a.ndim == 1
    if single:
        a = a[None, :]
    if a.ndim != 2 or a.shape[1] != code_bytes:
        raise ShapeError(
            f"{name}: shape {np.shape(codes)}, expected (n, {code_bytes}) as codec.encode returns it"
        )
    return np.ascontiguousarray(a), single


def as_int(value: Any, name: str, low: int, high: int) -> int:
    """Return ``value`` as an int in [low, high]; bool and float are refused."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        i = operator.index(value)
    except TypeError:
        raise InvalidTypeError(f"{name} must be an integer, got {value!r}") from None
    if not low <= i <= high:
        bound = f"at least {low}" if i < low else f"at most {high}"
        raise InvalidValueError(f"{name} must be {bound}, got {i}")
    return i


def as_number(value: Any, name: str) -> float:
    """Return ``value`` as a float; bool and text are refused."""
    try:
        if isinstance(value, (bool, np.bool_, str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise InvalidTypeError(f"{name} must be a number, got {value!r}") from None


def as_flag(value: Any, name: str) -> bool:
    """Return ``value`` when it is True or False."""
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{name} must be True or False, got {value!r}")
    return value


def as_dim(dim: Any) -> int:
    return as_int(dim, "dim", 1, 65_536)


def as_k(k: Any) -> int:
    return as_int(k, "k", 1, _MAX_K)


def as_threads(num_threads: Any) -> int:
    """0 stands for "all CPUs that this process may use"."""
    return 0 if num_threads is None else as_int(num_threads, "num_threads", 1, 4096)


def as_seed(seed: Any) -> int:
    return as_int(seed, "seed", 0, 2**63 - 1)


def as_choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """Return ``value`` when it is one of ``choices``."""
    if not isinstance(value, str):
        raise InvalidTypeError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    if value not in choices:
        raise InvalidValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def as_path(path: Any) -> bytes:
    """Return a path as the file system spells it, which need not be UTF-8."""
    try:
        name = os.fsencode(path)
    except TypeError:
        raise InvalidTypeError(f"path must be a str or os.PathLike, got {type(path).__name__}") from None
    except UnicodeEncodeError as e:
        raise InvalidValueError(f"path {path!r} cannot be the name of a file here: {e.reason}") from None
    if b"\0" in name:
        raise InvalidValueError(f"path {path!r} holds a zero character, which no file name can")
    return name


def as_ids(ids: Any, n: int | None) -> AnyArray | list[str]:
    """Return ids as an int64 array or a list of str; ``n`` is how many there must be."""
    if isinstance(ids, (str, bytes)):
        raise InvalidTypeError(f"ids must be a sequence of ids, got the single value {ids!r}")
    if isinstance(ids, (set, frozenset, dict)) or (not hasattr(ids, "__len__") and hasattr(ids, "__iter__")):
        ids = list(ids)
    listed = ids if isinstance(ids, (list, tuple)) else ()
    n_text = sum(isinstance(i, str) for i in listed)
    if any(isinstance(i, (bool, np.bool_)) for i in listed):
        raise InvalidTypeError("ids must be integers or str, got a bool")
    if 0 < n_text < len(listed):
        raise InvalidTypeError("ids must be all integers or all str, never mixed")
    try:
        a = np.array(listed, dtype=object) if n_text else np.asarray(ids)
    except ValueError:
        raise ShapeError("ids: expected shape (n,), got rows of unequal length") from None
    if a.ndim != 1:
        raise ShapeError(f"ids: expected shape (n,), got {a.shape}")
    whole = whole_numbers(ids, a)
    if whole is not None:
        out: AnyArray | list[str] = _as_int_ids(np.array(whole, dtype=object))
    else:
        out = _as_text_ids(a.tolist()) if a.dtype.kind in "UOT" and a.size else _as_int_ids(a)
    if n is not None and len(out) != n:
        raise ShapeError(f"ids: {len(out)} given for {n} vectors")
    return out


def _as_text_ids(ids: list[Any]) -> list[str]:
    if not all(isinstance(i, str) for i in ids):
        raise InvalidTypeError("ids must be all integers or all str, never mixed")
    try:
        "".join(ids).encode()
    except UnicodeEncodeError:
        raise InvalidValueError(
            "ids: a str holds half of a surrogate pair, which UTF-8 cannot store"
        ) from None
    return [str(i) for i in ids]


def whole_numbers(given: Any, a: AnyArray) -> list[int] | None:
    """Return the integers that ``a = np.asarray(given)`` holds as objects, or took for floats, or None.

    NumPy has no one integer type for a list such as ``[np.int64(1), np.uint64(2)]``.
    """
    if a.dtype.kind == "O":
        values = a.ravel().tolist()
    elif a.dtype.kind == "f" and isinstance(given, (list, tuple)):
        values = np.array(given, dtype=object).ravel().tolist()
    else:
        return None
    if not values or not all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in values):
        return None
    return [int(i) for i in values]


def _as_int_ids(a: AnyArray) -> AnyArray:
    if a.size == 0:
        return np.empty(0, np.int64)
    if a.dtype.kind not in "iuO":
        raise InvalidTypeError(f"ids must be integers or str, got an array of {a.dtype}")
    for extreme in (a.min(), a.max()):
        if not 0 <= extreme <= _MAX_ID:
            raise InvalidValueError(f"{_INT_IDS}, got {extreme}")
    return np.ascontiguousarray(a, dtype=np.int64)


def refuse_huge_result(n_queries: int, k: int, available: int) -> None:
    """Raise when padding the results up to ``k`` would not fit memory."""
    if k <= available:
        return
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not offered by this system
        free = 2**33
    needed = n_queries * k * 12
    if needed > free // 2:
        raise InvalidValueError(
            f"k={k} for {n_queries} queries needs {needed / 2**30:.1f} GiB of padding, but only {available} "
            f"results exist; use k <= {max(available, 1)}"
        )
