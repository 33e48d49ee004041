# SPDX-License-Identifier: Apache-2.0
"""The stubs of the native module say what the module has."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import residua
from residua import _core


@pytest.mark.parametrize("module", ["residua._core", "residua._cuda"])
def test_stubs_agree_with_the_native_module(module: str, tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="stubtest is part of mypy")
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not part of this build")
    # The package's own folder comes first, so that a development build is checked against its own stubs.
    environment = {**os.environ, "MYPYPATH": str(Path(residua.__file__).parents[1])}
    if "site-packages" in environment["MYPYPATH"]:
        del environment["MYPYPATH"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", module],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def functions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods of a stub, properties left out, by dotted name."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and "property" not in map(ast.unparse, node.decorator_list):
            yield prefix + node.name, node


def signature(function: ast.FunctionDef) -> list[str]:
    """Parameters as 'name' or 'name=default', with '*' before keyword-only ones; '_' has no name."""
    arguments = function.args
    positional = ["_"] * len(arguments.posonlyargs) + [a.arg for a in arguments.args]
    positional = ["_" if re.fullmatch(r"arg\d+", name) else name for name in positional]
    if positional and (arguments.posonlyargs or arguments.args)[0].arg == "self":
        positional[0] = "self"
    for i, default in enumerate(reversed(arguments.defaults), 1):
        positional[-i] += f"={ast.unparse(default)}"
    keyword = [
        a.arg if default is None else f"{a.arg}={ast.unparse(default)}"
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return positional + (["*", *keyword] if keyword else [])


@pytest.mark.parametrize("name", ["__init__", "columns", "kernels", "store"])
def test_stubs_name_the_parameters_of_the_native_module(name: str) -> None:
    """stubtest cannot read the signatures of pybind11; they stand in the first line of each docstring."""
    stub = Path(_core.__file__).parent / "_core" / f"{name}.pyi"
    module = _core if name == "__init__" else getattr(_core, name)
    checked = 0
    for path, stubbed in functions(ast.parse(stub.read_text(encoding="utf-8")).body, ""):
        native = module
        for part in path.split("."):
            native = getattr(native, part)
        first = (native.__doc__ or "").strip().split("\n")[0]
        if not first.startswith(f"{path.split('.')[-1]}("):
            continue  # inherited from object, or vectorised by NumPy
        declared = ast.parse(f"def {first}: ...").body[0]
        assert isinstance(declared, ast.FunctionDef)
        assert signature(stubbed) == signature(declared), path
        checked += 1
    assert checked >= 15
