# SPDX-License-Identifier: Apache-2.0
"""Public functions and classes have numpydoc docstrings that name exactly their parameters."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import re
import types
from collections.abc import Iterator
from typing import Any

import pytest

import residua

COMMAND_LINE = {"__main__", "cli", "demo"}
SECTION = re.compile(r"^(\S[^\n]*)\n-{3,}[ \t]*$", re.MULTILINE)


def public_modules() -> list[types.ModuleType]:
    """The package and its modules without underscore; the command line documents itself by --help."""
    names = [m.name for m in pkgutil.iter_modules(residua.__path__)]
    public = [n for n in names if not n.startswith("_") and n not in COMMAND_LINE]
    return [residua, *(importlib.import_module(f"residua.{name}") for name in public)]


def public_objects() -> Iterator[tuple[str, Any]]:
    """Classes and functions of this package that are exported by some module, each once."""
    seen: set[int] = set()
    for module in public_modules():
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            ours = str(getattr(value, "__module__", "")).startswith("residua")
            if ours and (inspect.isclass(value) or callable(value)) and id(value) not in seen:
                seen.add(id(value))
                yield f"{module.__name__}.{name}", value


def documented(value: Any) -> dict[str, list[str]]:
    """Names listed in the sections of a numpydoc docstring."""
    text = inspect.cleandoc(inspect.getdoc(value) or "")
    heads = list(SECTION.finditer(text))
    sections: dict[str, list[str]] = {}
    for head, following in zip(heads, [*heads[1:], None][: len(heads)], strict=True):
        body = text[head.end() : following.start() if following else len(text)]
        entries = re.findall(r"^(\*{0,2}\w[\w, *]*?)(?:\s*:.*)?$", body, re.MULTILINE)
        sections[head.group(1).strip()] = [n.strip() for entry in entries for n in entry.split(",")]
    return sections


def parameters(function: Any) -> list[str] | None:
    """Names of the signature as numpydoc writes them, or None when there is no readable signature."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    names = [stars.get(p.kind, "") + p.name for p in signature.parameters.values()]
    return [n for n in names if n not in ("self", "cls")]


def complaints_of_function(name: str, function: Any) -> Iterator[str]:
    if not (inspect.getdoc(function) or "").strip():
        yield f"{name}: no docstring"
        return
    wanted = parameters(function)
    given = documented(function).get("Parameters", [])
    if wanted is not None and wanted != given:
        yield f"{name}: signature has {wanted}, docstring has {given}"


def complaints_of_class(name: str, cls: type) -> Iterator[str]:
    # A class inherits its base's docstring by inspect.getdoc; each public class describes itself.
    if not (vars(cls).get("__doc__") or "").strip():
        yield f"{name}: no docstring"
        return
    if issubclass(cls, BaseException):
        return
    sections = documented(cls)
    if dataclasses.is_dataclass(cls) or issubclass(cls, tuple):
        fields = getattr(cls, "_fields", None) or [f.name for f in dataclasses.fields(cls)]
        wanted = [f for f in fields if not f.startswith("_")]
        given = sections.get("Parameters") or sections.get("Attributes", [])
        if given[: len(wanted)] != wanted:
            yield f"{name}: fields are {wanted}, docstring has {given}"
    elif "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False):
        wanted = parameters(cls) or []
        if wanted != sections.get("Parameters", []):
            yield f"{name}: signature has {wanted}, docstring has {sections.get('Parameters', [])}"
    for member, value in vars(cls).items():
        if member.startswith("_"):
            continue
        if isinstance(value, property):
            if not (value.__doc__ or "").strip():
                yield f"{name}.{member}: no docstring"
        elif isinstance(value, (types.FunctionType, classmethod, staticmethod)):
            yield from complaints_of_function(f"{name}.{member}", getattr(cls, member))


@pytest.mark.parametrize(("name", "value"), [pytest.param(n, v, id=n) for n, v in public_objects()])
def test_docstring_equals_signature(name: str, value: Any) -> None:
    check = complaints_of_class if inspect.isclass(value) else complaints_of_function
    wrong = list(check(name, value))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", public_modules(), ids=lambda m: m.__name__)
def test_exports_exist_and_are_sorted(module: types.ModuleType) -> None:
    exported = list(module.__all__)
    assert exported == sorted(set(exported), key=lambda n: (not n.isupper(), not n[0].isupper(), n)) or (
        exported == sorted(set(exported))
    )
    assert all(hasattr(module, name) for name in exported)
    assert (module.__doc__ or "").strip()


@pytest.mark.parametrize("module", public_modules(), ids=lambda m: m.__name__)
def test_examples_run(module: types.ModuleType) -> None:
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(module, optionflags=options, verbose=False)
    assert result.failed == 0


def test_the_reader_itself() -> None:
    def example(a: int, *, b: int, c: int, **rest: int) -> None:
        """Do it.

        Parameters
        ----------
        a : int
            First: with a colon.
        b, c : int, default 3
            Others.
        **rest
            More.

        Returns
        -------
        None
        """

    assert documented(example)["Parameters"] == ["a", "b", "c", "**rest"]
    assert not list(complaints_of_function("example", example))
    example.__doc__ = (example.__doc__ or "").replace("b, c :", "b :")
    assert len(list(complaints_of_function("example", example))) == 1
