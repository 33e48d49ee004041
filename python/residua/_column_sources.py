# SPDX-License-Identifier: Apache-2.0
"""Where values of columns come from: NumPy, pandas, polars, Arrow and lists, none of them imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from residua._typing import AnyArray
from residua.errors import InvalidTypeError


class Source(NamedTuple):
    """Values of one column: an array or a list, which rows are null beside those that say so, and a zone."""

    values: Any
    nulls: AnyArray | None = None
    zoned: bool = False


def by_name(columns: Any, n: int) -> dict[str, Any]:
    """Return the columns of a dict, of a pandas, polars or Arrow table, or of a list of ``n`` dicts."""
    if isinstance(columns, Mapping):
        return dict(columns)
    if hasattr(columns, "column_names") and hasattr(columns, "column"):  # Arrow
        return {name: columns.column(i) for i, name in enumerate(columns.column_names)}
    if hasattr(columns, "get_column") and hasattr(columns, "columns"):  # polars
        return {name: columns.get_column(name) for name in columns.columns}
    if hasattr(columns, "iloc") and hasattr(columns, "columns"):  # pandas
        return {name: columns.iloc[:, i] for i, name in enumerate(columns.columns)}
    if isinstance(columns, (list, tuple)):
        names: dict[Any, None] = {}
        for i, row in enumerate(columns):
            if not isinstance(row, Mapping):
                raise InvalidTypeError(
                    f"columns: a list must hold one dict per row, item {i} is a {type(row).__name__}"
                )
            names.update(dict.fromkeys(row))
        return {name: [row.get(name) for row in columns] for name in names}
    raise InvalidTypeError(
        "columns must be a dict of arrays, a pandas, polars or Arrow table, or a list of dicts, got "
        f"{type(columns).__name__}"
    )


def source_of(values: Any, refuse: Callable[[str, str], NoReturn]) -> Source:
    """Return the values of one column."""
    if isinstance(values, np.ma.MaskedArray):
        return Source(np.ma.getdata(values), np.ma.getmaskarray(values))
    if isinstance(values, np.ndarray):
        if values.ndim == 0:
            refuse("got a single value", "one value per row")
        return Source(values)
    if hasattr(values, "to_pylist") and hasattr(values, "null_count"):
        return _from_arrow(values)
    if hasattr(values, "iloc") and hasattr(values, "dtype"):
        return _from_pandas(values)
    if hasattr(values, "to_list") and hasattr(values, "null_count"):
        return _from_polars(values)
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
        refuse(f"got a {type(values).__name__}", "one value per row")
    if hasattr(values, "__array__"):
        return source_of(np.asarray(values), refuse)
    return Source(list(values))


def _from_arrow(values: Any) -> Source:
    kind = str(values.type)
    if kind.startswith(("timestamp", "date")):
        return Source(_array_of(values), None, "tz=" in kind)
    if kind in ("bool", "float", "double", "halffloat") or kind.startswith(("int", "uint")):
        if not values.null_count:
            return Source(_array_of(values))
        nulls = _array_of(values.is_null())
        return Source(_array_of(values.fill_null(False if kind == "bool" else 0)), nulls)
    return Source(values.to_pylist())


def _array_of(values: Any) -> AnyArray:
    """``Array`` copies only when it is told that it may; ``ChunkedArray`` always may."""
    try:
        return np.asarray(values.to_numpy(zero_copy_only=False))
    except TypeError:
        return np.asarray(values.to_numpy())


def _from_pandas(values: Any) -> Source:
    if getattr(values.dtype, "tz", None) is not None:
        return Source(values.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(), None, True)
    return Source(np.asarray(values.to_numpy()))


def _from_polars(values: Any) -> Source:
    zone = getattr(values.dtype, "time_zone", None)
    name = str(values.dtype)
    if name.startswith(("Datetime", "Date")):
        return Source(values.to_numpy(), None, zone is not None)
    if name == "Boolean" or name.startswith(("Int", "UInt", "Float")):
        if not values.null_count():
            return Source(values.to_numpy())
        nulls = values.is_null().to_numpy()
        return Source(values.fill_null(False if name == "Boolean" else 0).to_numpy(), nulls)
    return Source(values.to_list())
