# SPDX-License-Identifier: Apache-2.0
"""Filters: conditions on the columns of an index, as Python operators or as text."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np

from residua import _core
from residua._literals import as_literal
from residua.errors import InvalidTypeError, InvalidValueError

__all__ = ["Column", "Expression", "col", "where"]

_native = _core.columns


class Expression:
    """A condition on columns, combined with ``&``, ``|`` and ``~``; made by :func:`col` or :func:`where`.

    A comparison with null is false, so its negation is true: ``~(col("year") >= 2020)`` holds for rows
    whose year is null, ``col("year") < 2020`` does not (docs/filters.md).

    Examples
    --------
    >>> import residua as rz
    >>> (rz.col("year") >= 2020) & ~rz.col("tags").contains("survey")
    where("year >= 2020 and not 'survey' in tags")
    """

    __slots__ = ("_expr", "_level", "_text")

    _expr: _core.columns.Expr
    _level: int  # 0 or, 1 and, 2 not, 3 a comparison
    _text: tuple[Any, ...]

    def __new__(cls, *_: Any) -> Expression:
        raise InvalidTypeError(
            "an Expression is made by comparing a column: rz.col('year') >= 2020, or by rz.where(text)"
        )

    @classmethod
    def _of(cls, expr: _core.columns.Expr, text: tuple[Any, ...], level: int) -> Expression:
        made = object.__new__(cls)
        made._expr = expr
        made._text = text
        made._level = level
        return made

    def __and__(self, other: Any) -> Expression:
        b = _as_expression(other, "&")
        return Expression._of(_native.all_of(self._expr, b._expr), (" and ", self, b), 1)

    def __or__(self, other: Any) -> Expression:
        b = _as_expression(other, "|")
        return Expression._of(_native.any_of(self._expr, b._expr), (" or ", self, b), 0)

    __rand__ = __and__
    __ror__ = __or__

    def __invert__(self) -> Expression:
        return Expression._of(_native.not_of(self._expr), ("not ", self), 2)

    def __bool__(self) -> NoReturn:
        raise InvalidTypeError(
            "a filter has no truth value: combine filters with & | ~ and parentheses, not with and, or, not; "
            "write a range as .between(a, b) or (a <= x) & (x < b)"
        )

    def __repr__(self) -> str:
        return f"where({_spell(self)!r})"


class Column:
    """A column by name; comparing it gives an :class:`Expression`, as does a bool column on its own.

    Parameters
    ----------
    name
        Name of a column of the index that will be searched.
    """

    __slots__ = ("_name",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise InvalidTypeError(f"a column is named by a str, got {name!r}")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InvalidValueError(f"{name!r} holds half of a surrogate pair, so no column has it") from None
        self._name = str(name)

    @property
    def name(self) -> str:
        """Name of the column."""
        return self._name

    def _is(self, op: str, *values: Any) -> Expression:
        made = _native.condition(self._name, op, list(values), as_literal)
        return Expression._of(made, (op, self._name, values), 3)

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return self._is("==", other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return self._is("!=", other)

    def __lt__(self, other: Any) -> Expression:
        return self._is("<", other)

    def __le__(self, other: Any) -> Expression:
        return self._is("<=", other)

    def __gt__(self, other: Any) -> Expression:
        return self._is(">", other)

    def __ge__(self, other: Any) -> Expression:
        return self._is(">=", other)

    def between(self, low: Any, high: Any) -> Expression:
        """Match values from ``low`` to ``high``, both included.

        Parameters
        ----------
        low, high
            Numbers or times.
        """
        return self._is("between", low, high)

    def isin(self, values: Iterable[Any]) -> Expression:
        """Match rows whose value is one of some.

        Parameters
        ----------
        values
            Any number of values; null is none of them.
        """
        return self._is("isin", *_listed(values, "isin"))

    def contains(self, tag: str) -> Expression:
        """Match rows that have a tag.

        Parameters
        ----------
        tag
            One tag.
        """
        return self._is("contains_all", _one(tag, "contains"))

    def contains_any(self, tags: Iterable[str]) -> Expression:
        """Match rows that have at least one of some tags.

        Parameters
        ----------
        tags
            Any number of tags.
        """
        return self._is("contains_any", *_listed(tags, "contains_any"))

    def contains_all(self, tags: Iterable[str]) -> Expression:
        """Match rows that have every one of some tags.

        Parameters
        ----------
        tags
            Any number of tags; with none, all rows match that are not null.
        """
        return self._is("contains_all", *_listed(tags, "contains_all"))

    def startswith(self, prefix: str) -> Expression:
        """Match texts that begin with a prefix.

        Parameters
        ----------
        prefix
            The beginning; the empty one matches all texts.
        """
        return self._is("startswith", _one(prefix, "startswith"))

    def is_null(self) -> Expression:
        """Match rows without a value."""
        return self._is("is_null")

    def __and__(self, other: Any) -> Expression:
        both: Expression = _as_expression(self, "&") & other
        return both

    def __or__(self, other: Any) -> Expression:
        either: Expression = _as_expression(self, "|") | other
        return either

    __rand__ = __and__
    __ror__ = __or__

    def __invert__(self) -> Expression:
        return ~_as_expression(self, "~")

    __bool__ = Expression.__bool__

    def __repr__(self) -> str:
        return f"col({self._name!r})"


def col(name: str) -> Column:
    """Name a column, to compare it with something.

    Parameters
    ----------
    name
        Name of a column of the index that will be searched.

    Examples
    --------
    >>> import residua as rz
    >>> (rz.col("year") >= 2020) & rz.col("lang").isin(["en", "de"])
    where("year >= 2020 and lang in ('en', 'de')")
    """
    return Column(name)


def where(text: str) -> Expression:
    """Read a filter from text, which is parsed and never run.

    Parameters
    ----------
    text
        Comparisons as in Python, with ``and``, ``or``, ``not``, ``in``, ``is None``, chains such as
        ``2019 <= year < 2022``, methods of a column such as ``name.startswith("x")``, and ``col("a b")`` for
        a name that is not a word.

    Raises
    ------
    InvalidValueError, which shows the place of an error.

    Examples
    --------
    >>> import residua as rz
    >>> rz.where("2019 <= year < 2022 and 'nlp' in tags")
    where("year >= 2019 and year < 2022 and 'nlp' in tags")
    """
    if not isinstance(text, str):
        raise InvalidTypeError(f"a filter is read from a str, got {type(text).__name__}")
    return _parsed(text)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Expression:
    from residua._filter_text import parse

    return parse(text)


def _as_expression(value: Any, operator: str) -> Expression:
    if isinstance(value, Expression):
        return value
    if isinstance(value, Column):
        return value._is("use as a condition")
    raise InvalidTypeError(
        f"{operator} combines filters, got {value!r} of type {type(value).__name__}; comparisons need "
        "parentheses, as in (rz.col('a') > 1) & (rz.col('b') > 2)"
    )


def _listed(values: Iterable[Any], name: str) -> list[Any]:
    if isinstance(values, (str, bytes, dict)) or not hasattr(values, "__iter__"):
        raise InvalidTypeError(f"{name} needs a list of values, got {values!r}")
    if isinstance(values, np.ndarray):
        exact = values.dtype.kind in "biuU" or values.dtype in (np.float64, np.float32, np.float16)
        return list(values.tolist() if exact else values)
    if hasattr(values, "to_pylist"):  # Arrow, whose items are none of Python's
        return list(values.to_pylist())
    return list(values)


def _one(value: Any, name: str) -> Any:
    if isinstance(value, (list, tuple, set, frozenset)):
        raise InvalidTypeError(f"{name} needs one str, got {value!r}")
    return value


def _spell(e: Expression) -> str:
    """Return text that gives the expression back."""
    op = e._text[0]
    if e._level < 2:
        return str(op).join(_within(part, e._level) for part in e._text[1:])
    if e._level == 2:
        return f"not {_within(e._text[1], 2)}"
    name, values = e._text[1:]
    column = name if name.isidentifier() and not _is_keyword(name) else f"col({name!r})"
    if op == "use as a condition":
        return column
    if op == "is_null":
        return f"{column} is None"
    if op == "contains_all" and len(values) == 1:
        return f"{values[0]!r} in {column}"
    if op == "isin":
        return f"{column} in ({', '.join(map(repr, values))}{',' if len(values) == 1 else ''})"
    if op.startswith("contains_"):
        return f"{column}.{op}({list(values)!r})"
    if op in ("between", "startswith"):
        return f"{column}.{op}({', '.join(map(repr, values))})"
    return f"{column} {op} {values[0]!r}"


def _within(e: Expression, level: int) -> str:
    return f"({_spell(e)})" if e._level < level else _spell(e)


def _is_keyword(name: str) -> bool:
    from keyword import iskeyword

    return iskeyword(name)
