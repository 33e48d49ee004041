# SPDX-License-Identifier: Apache-2.0
"""Values that filters compare with, and moments in time, as native code takes them."""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import Any

import numpy as np

from residua.errors import DtypeError, InvalidValueError

_EPOCH = dt.datetime(1970, 1, 1)
_MICROSECOND = dt.timedelta(microseconds=1)
_LOOKS_LIKE_TIME = re.compile(r"\d{4}-\d\d-\d\d")
_NULL_TYPES = ("NAType", "NaTType")  # of pandas, which need not be there


def is_null(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or pandas.NA."""
    if value is None or type(value).__name__ in _NULL_TYPES:
        return True
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return bool(np.isnat(value))
    return isinstance(value, (float, np.floating)) and bool(value != value)


def as_micros(value: Any, name: str) -> tuple[int, bool]:
    """Return a datetime, date or datetime64 as microseconds since 1970, and whether it has a zone."""
    if isinstance(value, np.datetime64):
        return _micros_of_datetime64(value, name), False
    if isinstance(value, dt.datetime):
        if getattr(value, "nanosecond", 0):  # of a pandas Timestamp
            raise InvalidValueError(f"{name}: {value} is finer than a microsecond; round it first")
        offset = value.utcoffset()
        naive = value.replace(tzinfo=None, fold=0)
        if offset is None:
            return (_plain(naive) - _EPOCH) // _MICROSECOND, False
        return (_plain(naive) - _EPOCH - offset) // _MICROSECOND, True
    return (dt.datetime(value.year, value.month, value.day) - _EPOCH) // _MICROSECOND, False


def _plain(value: dt.datetime) -> dt.datetime:
    return dt.datetime(*value.timetuple()[:6], value.microsecond)


def _micros_of_datetime64(value: np.datetime64, name: str) -> int:
    micros = value.astype("datetime64[us]")
    if micros.astype(value.dtype) != value or (micros.astype(np.int64) < 0) != (value.astype(np.int64) < 0):
        raise InvalidValueError(
            f"{name}: {value!r} is not a whole number of microseconds that fits 64 bits; round it first"
        )
    return int(micros.astype(np.int64))


def time_of_text(text: str) -> tuple[int, bool] | None:
    """Return the moment that ISO 8601 text spells, or None."""
    if not _LOOKS_LIKE_TIME.match(text):
        return None
    try:
        # Python 3.10 does not know the Z.
        return as_micros(dt.datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text)), "filter")
    except ValueError:
        return None


def as_literal(value: Any) -> Any:
    """Return a value as the native filters take it; DtypeError for what no column holds."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if is_null(value):
        return None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return _as_integer(int(value))
    if isinstance(value, (float, np.floating)):
        if isinstance(value, np.longdouble) and np.longdouble(float(value)) != value:
            raise DtypeError(f"filter: {value!r} does not fit a float of 64 bits")
        return float(value)
    if isinstance(value, str):
        return _as_text(str(value))
    if isinstance(value, (dt.date, np.datetime64)):  # a datetime is a date
        return ("time", *as_micros(value, "filter"))
    hint = "; decode it first" if isinstance(value, bytes) else ""
    raise DtypeError(
        f"filter: cannot compare with {value!r} of type {type(value).__name__}, expected a bool, int, float, "
        f"str, datetime or None{hint}"
    )


def _as_integer(value: int) -> Any:
    if -(2**63) <= value < 2**63:
        return value
    try:
        nearest = float(value)
    except OverflowError:
        nearest = math.inf if value > 0 else -math.inf
    below = nearest if nearest <= value else math.nextafter(nearest, -math.inf)
    above = nearest if nearest >= value else math.nextafter(nearest, math.inf)
    return ("big", below, above)


def _as_text(text: str) -> Any:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidValueError(
            f"filter: {text!r} holds half of a surrogate pair, which no column can hold"
        ) from None
    time = time_of_text(text)
    return text if time is None else ("text", text, *time)
