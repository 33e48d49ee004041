# SPDX-License-Identifier: Apache-2.0
"""Filters as users give them: masks and ids; attribute expressions need columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from residua._typing import AnyArray
from residua._validate import as_ids, whole_numbers
from residua.errors import InvalidTypeError, ShapeError, UnsupportedError


def as_filter(filter: Any) -> AnyArray | list[str] | None:
    """Return None, a boolean mask, or ids."""
    if filter is None:
        return None
    if isinstance(filter, str):
        raise UnsupportedError(
            f"filter {filter!r}: this index has no columns; give a boolean mask or allowed ids"
        )
    try:
        a = np.asarray(filter if not isinstance(filter, (set, frozenset)) else list(filter))
    except ValueError:
        raise ShapeError("filter: a list of filters, one per query, was given for one query") from None
    if a.dtype == np.bool_:
        if a.ndim != 1:
            raise ShapeError(f"filter: a mask must have shape (len(index),), got {a.shape}")
        return np.ascontiguousarray(a)
    if a.ndim == 0 or (a.dtype.kind not in "iuUOT" and a.size and whole_numbers(filter, a) is None):
        raise InvalidTypeError(
            f"filter must be None, a boolean mask or an array of ids, got {type(filter).__name__}"
        )
    return as_ids(filter, None)


def refuse_columns(columns: Any) -> None:
    if columns is not None:
        raise UnsupportedError("columns are not in this version; leave columns=None")


def split_filters(filter: Any, n_queries: int, single: bool) -> list[Any] | None:
    """Return one filter per query when ``filter`` is such a list, else None."""
    if single or not isinstance(filter, (list, tuple)):
        return None
    if not any(f is None or isinstance(f, (list, tuple, set, frozenset, np.ndarray)) for f in filter):
        return None
    if len(filter) != n_queries:
        raise ShapeError(
            f"filter: a list of filters needs one per query, expected {n_queries}, got {len(filter)}"
        )
    return list(filter)
