# SPDX-License-Identifier: Apache-2.0
"""Filters as users give them: expressions, text, masks and ids; one for a batch, or one per query."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from residua import _core
from residua._typing import AnyArray
from residua._validate import as_ids, whole_numbers
from residua.errors import InvalidTypeError, ShapeError
from residua.filters import Column, Expression, _as_expression, where

_EXPECTED = "None, an expression such as rz.col('year') >= 2020, its text, a boolean mask or an array of ids"


def as_filter(filter: Any) -> AnyArray | list[str] | _core.columns.Expr | None:
    """Return None, a native expression, a boolean mask, or ids."""
    if filter is None:
        return None
    if isinstance(filter, str):
        return where(filter)._expr
    if isinstance(filter, (Expression, Column)):
        return _as_expression(filter, "filter")._expr
    try:
        a = np.asarray(filter if not isinstance(filter, (set, frozenset)) else list(filter))
    except ValueError:
        raise ShapeError("filter: a list of filters, one per query, was given for one query") from None
    if a.dtype == np.bool_:
        if a.ndim != 1:
            raise ShapeError(
                f"filter: a mask must have shape (len(index),), got {a.shape}; one per query goes in a list"
            )
        return np.ascontiguousarray(a)
    if a.dtype.kind == "O" and any(isinstance(f, (Expression, Column)) for f in a.ravel()):
        raise ShapeError("filter: a list of filters, one per query, was given for one query")
    if a.dtype.kind == "O" and any(isinstance(f, (bool, np.bool_)) for f in a.ravel()):
        other = next((f for f in a.ravel() if not isinstance(f, (bool, np.bool_))), None)
        raise InvalidTypeError(
            f"filter: a mask must be an array of bool, got one of object with {other!r}; "
            "say what null means, such as mask.fillna(False)"
        )
    if a.ndim == 0 or (a.dtype.kind not in "iuUOT" and a.size and whole_numbers(filter, a) is None):
        raise InvalidTypeError(f"filter must be {_EXPECTED}, got {type(filter).__name__}")
    return as_ids(filter, None)


def split_filters(filter: Any, n_queries: int, single: bool, *, texts: bool = False) -> list[Any] | None:
    """Return one filter per query when ``filter`` is such a list, else None.

    A list of str holds ids where ids are str, and otherwise, with ``texts``, the text of a filter each.
    """
    if single or not isinstance(filter, (list, tuple)):
        return None
    one_each = (list, tuple, set, frozenset, np.ndarray, Expression, Column)
    if not any(f is None or isinstance(f, one_each) for f in filter) and not (
        texts and filter and all(isinstance(f, str) for f in filter)
    ):
        return None
    if len(filter) != n_queries:
        raise ShapeError(
            f"filter: a list of filters needs one per query, expected {n_queries}, got {len(filter)}"
        )
    return list(filter)


def group_filters(parts: Iterable[Any]) -> list[tuple[Any, list[int]]]:
    """Return each different filter in native form with the numbers of its queries."""
    groups: dict[Any, tuple[Any, list[int]]] = {}
    for i, part in enumerate(parts):
        # Native code finds that two expressions are equal; here, the same object or text is enough.
        key = part if isinstance(part, str) else id(part)
        if key not in groups:
            groups[key] = (as_filter(part), [])
        groups[key][1].append(i)
    return list(groups.values())
