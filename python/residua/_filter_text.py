# SPDX-License-Identifier: Apache-2.0
"""Filters from text: Python's own parser reads it, and nothing in it is ever run."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import reduce
from typing import Any

from residua.errors import InvalidValueError, ResiduaError
from residua.filters import Column, Expression, _as_expression

_OPS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_METHODS: dict[str, int] = {
    "between": 2,
    "isin": 1,
    "contains": 1,
    "contains_any": 1,
    "contains_all": 1,
    "startswith": 1,
    "is_null": 0,
}
_MAX_CHARACTERS = 1_000_000
# What other languages write, outside of quotes.
_HINTS = (
    (re.compile(r"(?<![<>=!])=(?!=)"), "equality is =="),
    (re.compile(r"&&|\|\|"), "write and, or"),
    (re.compile(r"\bLIKE\b", re.I), "a beginning is found by name.startswith('x')"),
    (re.compile(r"\b(AND|OR|NOT|IN|IS|NULL)\b"), "words are in lower case: and, or, not, in, is None"),
)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def parse(text: str) -> Expression:
    """Return the filter that the text says."""
    if len(text) > _MAX_CHARACTERS:
        raise InvalidValueError(
            f"filter: the text has {len(text)} characters, at most {_MAX_CHARACTERS} are read; use isin()"
        )
    source = text.strip()
    if not source:
        raise InvalidValueError("filter: the text is empty; leave filter=None to allow all rows")
    try:
        tree = ast.parse(source, mode="eval")
    except SyntaxError as e:
        # Without a place, the end of the text came too early.
        line, column = e.lineno or 1, e.offset - 1 if e.offset else len(source)
        raise InvalidValueError(f"filter: {e.msg}{_hint(source)}{_place(source, line, column)}") from None
    except (RecursionError, MemoryError):
        raise InvalidValueError("filter: the text is nested too deeply") from None
    except ValueError as e:  # a zero character
        raise InvalidValueError(f"filter: cannot read {text!r}: {e}") from None
    try:
        return _Reader(source).expression(tree.body)
    except RecursionError:
        raise InvalidValueError("filter: the text is nested too deeply") from None


def _hint(source: str) -> str:
    plain = _QUOTED.sub("''", source)
    return next((f"; {hint}" for pattern, hint in _HINTS if pattern.search(plain)), "")


def _place(source: str, line: int, column: int) -> str:
    """Point at a character of the text."""
    lines = source.split("\n")
    shown = lines[min(line, len(lines)) - 1]
    column = min(max(column, 0), len(shown))
    where = f"line {line}, character {column + 1}" if len(lines) > 1 else f"character {column + 1}"
    return f", at {where}:\n    {shown}\n    {' ' * column}^"


class _Reader:
    """Turns nodes into expressions; every refusal points at its node."""

    def __init__(self, source: str) -> None:
        self.source = source

    def refuse(self, node: ast.AST, why: str) -> InvalidValueError:
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)  # bytes of UTF-8
        column = len(self.source.split("\n")[line - 1].encode()[:offset].decode(errors="ignore"))
        return InvalidValueError(f"filter: {why}{_place(self.source, line, column)}")

    def at(self, node: ast.AST, make: Callable[[], Any]) -> Any:
        """Point at the node where a value is refused."""
        try:
            return make()
        except ResiduaError as e:
            refused = self.refuse(node, str(e).removeprefix("filter: "))
            raise type(e)(*refused.args) from None

    def expression(self, node: ast.expr) -> Expression:
        if isinstance(node, ast.BoolOp):
            both = isinstance(node.op, ast.And)
            return reduce(lambda a, b: a & b if both else a | b, [self.expression(v) for v in node.values])
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
            a, b = self.expression(node.left), self.expression(node.right)
            return a & b if isinstance(node.op, ast.BitAnd) else a | b
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert)):
            return ~self.expression(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            links = [self.comparison(node, *link) for link in zip(sides, node.ops, sides[1:], strict=False)]
            return reduce(lambda a, b: a & b, links)
        column = self.column(node)
        if column is not None:
            return _as_expression(column, "filter")
        if isinstance(node, ast.Call):
            return self.call(node)
        raise self.refuse(node, "expected a comparison such as year >= 2020")

    def comparison(self, node: ast.Compare, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Expression:
        for side in (left, right):
            if isinstance(side, ast.BinOp) and isinstance(side.op, (ast.BitAnd, ast.BitOr)):
                raise self.refuse(
                    side, "& and | bind tighter than comparisons: write and, or, or parentheses"
                )
        a, b = self.column(left), self.column(right)
        if a is not None and b is not None:
            raise self.refuse(right, f"a column is compared with a value, not with the column {b.name!r}")
        if a is None and b is None:
            raise self.refuse(left, "a comparison needs the name of a column on one side; text is in quotes")
        if isinstance(op, (ast.In, ast.NotIn)):
            found = self.membership(a, b, left, right)
            return ~found if isinstance(op, ast.NotIn) else found
        if isinstance(op, (ast.Is, ast.IsNot)):
            column, value = (a, right) if a is not None else (b, left)
            if column is None or self.value(value) is not None:
                raise self.refuse(value, "'is' compares with None only; use ==")
            return ~column.is_null() if isinstance(op, ast.IsNot) else column.is_null()
        name = _OPS[type(op)]
        if a is not None:
            return self.at(right, lambda: a._is(name, self.value(right)))  # type: ignore[no-any-return]
        return self.at(left, lambda: b._is(_MIRRORED[name], self.value(left)))  # type: ignore[no-any-return, union-attr]

    def membership(self, a: Column | None, b: Column | None, left: ast.expr, right: ast.expr) -> Expression:
        """``'nlp' in tags``, or ``lang in ("en", "de")``."""
        if b is not None:
            return self.at(left, lambda: b.contains(self.value(left)))  # type: ignore[no-any-return]
        if not isinstance(right, (ast.Tuple, ast.List, ast.Set)):
            raise self.refuse(right, "'in' needs values in parentheses, such as (1, 2), or a column of tags")
        return self.at(right, lambda: a.isin(self.value(right)))  # type: ignore[no-any-return, union-attr]

    def column(self, node: ast.expr) -> Column | None:
        if isinstance(node, ast.Name):
            return Column(node.id)
        call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "col"
        if not call or not isinstance(node, ast.Call):
            return None
        if len(node.args) != 1 or node.keywords or not isinstance(self.value(node.args[0]), str):
            raise self.refuse(node, "col needs one name, in quotes")
        return Column(self.value(node.args[0]))

    def call(self, node: ast.Call) -> Expression:
        column = self.column(node.func.value) if isinstance(node.func, ast.Attribute) else None
        if column is None or not isinstance(node.func, ast.Attribute):
            raise self.refuse(node, "only methods of a column are called, such as name.startswith('x')")
        method = node.func.attr
        if method not in _METHODS:
            raise self.refuse(node, f"a column has no method {method!r}; it has {', '.join(_METHODS)}")
        if node.keywords or len(node.args) != _METHODS[method]:
            raise self.refuse(node, f"{method} takes {_METHODS[method]} values, not {len(node.args)}")
        return self.at(node, lambda: getattr(column, method)(*map(self.value, node.args)))  # type: ignore[no-any-return]

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and not isinstance(node.value, (bytes, complex, type(...))):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            number = self.value(node.operand)
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                return -number if isinstance(node.op, ast.USub) else number
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            return [self.value(item) for item in node.elts]
        if isinstance(node, ast.Name):
            raise self.refuse(node, f"expected a value, found the name {node.id!r}; text is in quotes")
        raise self.refuse(node, "expected a number, a text in quotes, True, False or None")
