# SPDX-License-Identifier: Apache-2.0
"""Columns as users give them: dicts, tables and lists of dicts, turned into cells of the native types."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from residua._column_sources import Source, by_name, source_of
from residua._literals import as_micros, is_null
from residua._typing import AnyArray
from residua.errors import DtypeError, InvalidTypeError, InvalidValueError, ResiduaError, ShapeError

TYPES = ("int", "float", "bool", "category", "tags", "str", "datetime")
Fields = list[tuple[str, str]]
Cells = list[Any]

_INT64 = np.iinfo(np.int64)
_EXACT = 2**53  # whole numbers up to here are all floats


def as_fields(columns: Any) -> Fields:
    """Return the schema that ``columns=`` of an index declares."""
    if columns is None:
        return []
    if not isinstance(columns, Mapping):
        raise InvalidTypeError(
            f'columns must be a dict such as {{"year": "int"}}, got {type(columns).__name__}'
        )
    for name, kind in columns.items():
        if not isinstance(name, str):
            raise InvalidTypeError(f"columns: names must be str, got {name!r}")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidValueError(f"columns: the name {name!r} holds half of a surrogate pair") from None
        if not isinstance(kind, str) or kind not in TYPES:
            known = ", ".join(map(repr, TYPES))
            raise (InvalidValueError if isinstance(kind, str) else InvalidTypeError)(
                f"columns: {name!r} must be of type {known}, got {kind!r}"
            )
    return [(str(name), kind) for name, kind in columns.items()]


def list_fields(fields: Fields) -> str:
    """Name columns and types, for messages."""
    if not fields:
        return "none (the index was made without columns)"
    return ", ".join(f"{name!r} ({kind})" for name, kind in fields)


def as_cells(columns: Any, fields: Fields, n: int, owners: str = "vectors") -> Cells | None:
    """Return the cells of a batch of ``n`` rows, one item per column, or None where nothing is given."""
    if columns is None:
        return None
    given = by_name(columns, n)
    unknown = [name for name in given if name not in dict(fields)]
    if unknown:
        raise InvalidValueError(
            f"columns: there is no column {unknown[0]!r}; the columns are {list_fields(fields)}"
        )
    cells: Cells = []
    for name, kind in fields:
        if name not in given:
            cells.append(None)
            continue
        column = _Reader(name, kind, fields)
        source = source_of(given[name], column.refuse)
        if len(source.values) != n:
            raise ShapeError(f"columns: {name!r} has {len(source.values)} values for {n} {owners}")
        if isinstance(source.values, np.ndarray) and source.values.ndim > (2 if kind == "tags" else 1):
            column.refuse(f"got an array with {source.values.ndim} axes", "one value per row")
        cells.append(column.cells(source))
    return cells


class _Reader:
    """Turns the values of one column into cells; every refusal names the column, its type and the others."""

    def __init__(self, name: str, kind: str, fields: Fields) -> None:
        self.name, self.kind, self.fields = name, kind, fields

    def refuse(self, what: str, expected: str = "") -> NoReturn:
        raise DtypeError(
            f"columns: {self.name!r} is of type {self.kind}, {what}{expected and f': expected {expected}'}; "
            f"the columns are {list_fields(self.fields)}"
        )

    def refuse_row(self, row: int, value: Any, expected: str) -> NoReturn:
        self.refuse(f"row {row} is {value!r} ({type(value).__name__})", expected)

    def cells(self, source: Source) -> Any:
        read: dict[str, Callable[[Source], Any]] = {
            "int": self.integers,
            "float": self.floats,
            "bool": self.bools,
            "category": self.texts,
            "str": self.texts,
            "tags": self.tags,
            "datetime": self.times,
        }
        return read[self.kind](source)

    def integers(self, source: Source) -> Any:
        a = source.values
        if not isinstance(a, np.ndarray) or a.dtype.kind == "O":
            values, nulls = self._objects(source, np.int64, self._integer)
            return values, nulls, None
        nulls = source.nulls
        if a.dtype.kind == "f":
            # What pandas makes of whole numbers with gaps.
            missing = np.isnan(a)
            nulls = missing if nulls is None else nulls | missing
            a = np.where(nulls, 0, a)
            bad = np.flatnonzero((a != np.trunc(a)) | (np.abs(a) > _EXACT))
            if len(bad):
                self.refuse_row(
                    int(bad[0]), float(a[bad[0]]), "whole numbers up to 2**53, or an integer dtype"
                )
        elif a.dtype.kind not in "iu":
            self._refuse_dtype(a, "integers")
        elif a.dtype.kind == "u" and a.size and a.max() > _INT64.max:
            row = int(np.argmax(a))
            raise InvalidValueError(
                f"columns: row {row} of {self.name!r} is {a[row]}, which int64 cannot hold"
            )
        return self._numbers(a, np.int64, nulls), _bytes(nulls), None

    def floats(self, source: Source) -> Any:
        a = source.values
        if not isinstance(a, np.ndarray) or a.dtype.kind == "O":
            values, nulls = self._objects(source, np.float64, self._float)
        else:
            nulls = source.nulls
            if a.dtype.kind not in "fiu" or a.dtype.itemsize > 8:
                self._refuse_dtype(a, "numbers of at most 64 bits")
            values = a.astype(np.float64)
            if a.dtype.kind in "iu" and a.dtype.itemsize == 8:
                for row in np.flatnonzero(np.abs(values) >= _EXACT).tolist():
                    values[row] = self._float(row, int(a[row]))
        values = np.array(values, np.float64)
        if nulls is not None:
            values[np.asarray(nulls, bool)] = np.nan
        return values

    def bools(self, source: Source) -> Any:
        a = source.values
        if isinstance(a, np.ndarray) and a.dtype.kind == "b":
            values, nulls = a.astype(np.uint8), source.nulls
        elif isinstance(a, np.ndarray) and a.dtype.kind != "O":
            self._refuse_dtype(a, "True, False or None")
        else:
            values, nulls = self._objects(source, np.uint8, self._bool)
        if nulls is not None:
            values = np.where(np.asarray(nulls, bool), np.uint8(255), values)
        return np.ascontiguousarray(values)

    def texts(self, source: Source) -> Any:
        a = source.values
        if isinstance(a, np.ndarray) and a.dtype.kind not in "UTO" and a.size:
            self._refuse_dtype(a, "str or None")
        return _with_nulls(list(a) if not isinstance(a, np.ndarray) else a.tolist(), source.nulls)

    def tags(self, source: Source) -> Any:
        a = source.values
        if (
            isinstance(a, np.ndarray)
            and (a.dtype.kind not in "UTO" or (a.ndim != 2 and a.dtype.kind != "O"))
            and a.size
        ):
            self._refuse_dtype(a, "a list of str for every row, or None")
        rows = a.tolist() if isinstance(a, np.ndarray) else list(a)
        for i, row in enumerate(rows):
            if isinstance(row, (set, frozenset)):
                rows[i] = sorted(row, key=str)
            elif hasattr(row, "tolist") and not isinstance(row, np.generic):
                rows[i] = row.tolist()
        return _with_nulls(rows, source.nulls)

    def times(self, source: Source) -> Any:
        a = source.values
        if isinstance(a, np.ndarray) and a.dtype.kind == "M":
            missing = np.isnat(a)
            micros = a.astype("datetime64[us]")
            bad = np.flatnonzero(~missing & (micros.astype(a.dtype) != a))
            if len(bad):
                raise InvalidValueError(
                    f"columns: row {bad[0]} of {self.name!r} is {a[bad[0]]}, not a whole number of "
                    "microseconds that fits 64 bits; round it first"
                )
            nulls = missing if source.nulls is None else missing | source.nulls
            zone = None if missing.all() else bool(source.zoned)
            return self._numbers(micros.astype(np.int64), np.int64, nulls), _bytes(nulls), zone
        if isinstance(a, np.ndarray) and a.dtype.kind != "O" and a.size:
            self._refuse_dtype(a, "datetimes, such as an array of datetime64")
        zones: set[bool] = set()

        def read(row: int, value: Any) -> int:
            if not isinstance(value, (dt.date, np.datetime64)):
                self.refuse_row(
                    row, value, "a datetime, date or datetime64 (np.array(x, 'datetime64[us]') reads text)"
                )
            micros, zoned = as_micros(value, f"columns: row {row} of {self.name!r}")
            zones.add(zoned)
            return micros

        moments, gaps = self._objects(source, np.int64, read)
        if len(zones) > 1:
            self.refuse("its times are partly with a zone and partly without", "one kind")
        return moments, gaps, zones.pop() if zones else None

    def _integer(self, row: int, value: Any) -> int:
        if isinstance(value, (float, np.floating)) and value == int(value) and abs(value) <= _EXACT:
            return int(value)
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
            self.refuse_row(row, value, "an int or None")
        if not _INT64.min <= value <= _INT64.max:
            raise InvalidValueError(
                f"columns: row {row} of {self.name!r} is {value}, which int64 cannot hold"
            )
        return int(value)

    def _float(self, row: int, value: Any) -> float:
        if isinstance(value, (bool, np.bool_)) or not isinstance(
            value, (int, float, np.integer, np.floating)
        ):
            self.refuse_row(row, value, "a float, an int or None")
        try:
            if float(value) == value:
                return float(value)
        except OverflowError:
            pass
        raise InvalidValueError(
            f"columns: row {row} of {self.name!r} is {value}, which a float of 64 bits cannot hold exactly"
        )

    def _bool(self, row: int, value: Any) -> int:
        if not isinstance(value, (bool, np.bool_)):
            self.refuse_row(row, value, "True, False or None")
        return int(value)

    def _objects(
        self, source: Source, dtype: Any, read: Callable[[int, Any], Any]
    ) -> tuple[AnyArray, AnyArray | None]:
        """Read values one by one; null where one is None, NaN, NaT or pandas.NA."""
        values = np.zeros(len(source.values), dtype)
        nulls = np.zeros(len(values), np.uint8)
        for row, value in enumerate(source.values):
            if (source.nulls is not None and source.nulls[row]) or is_null(value):
                nulls[row] = 1
                continue
            try:
                values[row] = read(row, value)
            except ResiduaError:
                raise
            except (TypeError, ValueError, OverflowError):  # infinity as an int
                self.refuse_row(row, value, f"a value that {self.kind} can hold")
        return values, nulls if nulls.any() else None

    def _refuse_dtype(self, a: AnyArray, expected: str) -> NoReturn:
        self.refuse(f"got an array of {a.dtype} with {a.ndim} axes", expected)

    def _numbers(self, a: AnyArray, dtype: Any, nulls: AnyArray | None) -> AnyArray:
        out = np.ascontiguousarray(a, dtype=dtype)
        return out if nulls is None else np.where(np.asarray(nulls, bool), dtype(0), out)


def _bytes(nulls: AnyArray | None) -> AnyArray | None:
    return None if nulls is None or not nulls.any() else np.ascontiguousarray(nulls, dtype=np.uint8)


def _with_nulls(values: list[Any], nulls: AnyArray | None) -> list[Any]:
    if nulls is not None:
        for row in np.flatnonzero(nulls).tolist():
            values[row] = None
    return values


def as_dict(cells: Iterable[Any], fields: Fields) -> dict[str, AnyArray]:
    """Return cells as arrays by name: with None (NaN, NaT) where a row is null."""
    return {name: _as_array(cell, kind) for (name, kind), cell in zip(fields, cells, strict=True)}


def _as_array(cell: Any, kind: str) -> AnyArray:
    if kind == "float":
        return np.asarray(cell)
    if kind == "bool":
        values: AnyArray = np.asarray(cell) == 1
        nulls: AnyArray = np.asarray(cell) == 255
    elif kind in ("int", "datetime"):
        values, nulls = np.asarray(cell[0]), np.asarray(cell[1], bool)
    else:
        out = np.empty(len(cell), object)
        for i, value in enumerate(cell):
            out[i] = value
        return out
    if kind == "datetime":
        times: AnyArray = values.astype("datetime64[us]")
        times[nulls] = np.datetime64("NaT")
        return times
    if nulls.any():
        objects: AnyArray = values.astype(object)
        objects[nulls] = None
        return objects
    return values
