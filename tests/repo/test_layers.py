# SPDX-License-Identifier: Apache-2.0
"""Every #include and import points downwards (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# What a folder of cpp/ may include beside itself. Folders on one floor do not see each other, with two
# exceptions: codecs use the trainers, and codecs and columns write themselves into the containers of store.
CORE = {"core"}
KERNEL = CORE | {"kernel"}
MIDDLE = KERNEL | {"train", "codec", "store", "filter"}
INDEX = MIDDLE | {"index"}
MULTIVECTOR = INDEX | {"multivector"}
MAY_INCLUDE = {
    "core": CORE,
    "kernel": KERNEL,
    "train": KERNEL | {"train"},
    "codec": KERNEL | {"train", "store", "codec"},
    "store": KERNEL | {"store"},
    "filter": KERNEL | {"store", "filter"},
    "index": INDEX,
    "multivector": MULTIVECTOR,
    "cuda": MULTIVECTOR | {"cuda"},
    "capi": MULTIVECTOR | {"capi"},
    "bindings": MULTIVECTOR | {"cuda", "bindings"},
    "include": {"include"},
}
# Public headers include each other only, and cpp/capi implements them.
PUBLIC_FOLDERS = ("include", "capi")
# Kernel bodies reach nothing but their data sheets and the vector vocabulary.
ISA_FOLDERS = ("kernel/isa", "kernel/generic", "kernel/simd")
ISA_STD_HEADERS = {"cstddef", "cstdint", "cstring", "type_traits", "utility", "bit", "limits", "cmath"}
INTRINSICS = re.compile(r"(?:.*intrin|arm_(?:neon|sve|fp16|bf16))\.h")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def includes(path: Path) -> Iterator[tuple[bool, str]]:
    """Pairs of (is quoted, header)."""
    for mark, header in INCLUDE.findall(path.read_text(encoding="utf-8")):
        yield mark == '"', header


def upward_include(folder: str, header: str) -> str | None:
    """Why a quoted include is not allowed, or None."""
    target = header.split("/")[0]
    if "/" not in header or ".." in header:
        return "quoted includes are written from cpp/: folder/file.hpp"
    if target not in MAY_INCLUDE:
        return f"unknown folder {target}/"
    if target not in MAY_INCLUDE[folder]:
        return f"{folder}/ may include only {', '.join(sorted(MAY_INCLUDE[folder]))}"
    return None


@pytest.mark.parametrize(
    ("folder", "header", "allowed"),
    [
        ("core", "kernel/table.hpp", False),
        ("codec", "train/kmeans.hpp", True),
        ("train", "codec/codec.hpp", False),
        ("codec", "store/container.hpp", True),
        ("store", "codec/codec.hpp", False),
        ("index", "store/ids.hpp", True),
        ("index", "bindings/arrays.hpp", False),
        ("bindings", "register.hpp", False),
        ("bindings", "core/../core/error.hpp", False),
    ],
)
def test_the_rule_itself(folder: str, header: str, allowed: bool) -> None:
    assert (upward_include(folder, header) is None) == allowed


def test_includes_point_downwards(root: Path, sources: Callable[..., list[Path]]) -> None:
    wrong = []
    for path in sources(".cpp", ".hpp", ".h", ".cu", ".cuh", under="cpp"):
        relative = path.relative_to(root / "cpp")
        assert relative.parts[0] in MAY_INCLUDE, f"{relative}: a folder without a floor"
        for quoted, header in includes(path):
            if header.startswith("residua/"):  # public, found as users find it
                if relative.parts[0] not in PUBLIC_FOLDERS:
                    wrong.append(f"{relative} includes {header}: only {', '.join(PUBLIC_FOLDERS)} may")
                continue
            if quoted and (reason := upward_include(relative.parts[0], header)):
                wrong.append(f"{relative} includes {header}: {reason}")
    assert not wrong, "\n".join(wrong)


def test_special_headers_stay_in_their_folders(root: Path, sources: Callable[..., list[Path]]) -> None:
    wrong = []
    for path in sources(".cpp", ".hpp", ".h", ".cu", ".cuh", under="cpp"):
        relative = path.relative_to(root / "cpp").as_posix()
        for _, header in includes(path):
            if header.startswith(("pybind11/", "Python.h", "numpy/")) and not relative.startswith(
                "bindings/"
            ):
                wrong.append(f"{relative} includes {header}: only bindings/ knows Python")
            if INTRINSICS.fullmatch(header) and not relative.startswith(("kernel/isa/", "kernel/simd/")):
                wrong.append(f"{relative} includes {header}: only kernel/isa and kernel/simd use intrinsics")
            if header in ("omp.h", "iostream"):
                wrong.append(f"{relative} includes {header}: no OpenMP, no printing")
    assert not wrong, "\n".join(wrong)


def test_kernel_bodies_include_nothing_that_could_leak(
    root: Path, sources: Callable[..., list[Path]]
) -> None:
    """Inline functions of other headers would be compiled with ISA flags and merged with baseline ones."""
    wrong = []
    for path in sources(".cpp", ".hpp", under="cpp/kernel"):
        relative = path.relative_to(root / "cpp").as_posix()
        if not relative.startswith(ISA_FOLDERS):
            continue
        for quoted, header in includes(path):
            fine = header.startswith("kernel/") if quoted else header in ISA_STD_HEADERS
            if not fine and not INTRINSICS.fullmatch(header):
                wrong.append(f"{relative} includes {header}")
    assert not wrong, "\n".join(wrong)


# Python: modules for the command line stand on top and alone may need its packages at import.
TOP_MODULES = {"__main__", "_measure", "_plot", "cli", "demo"}
BASE_PACKAGES = {"numpy", "residua"}


def module_level_imports(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """(module, names) of the imports that run when the module is imported."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module), [alias.name for alias in node.names]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending.extend(ast.iter_child_nodes(node))


def test_python_imports_point_downwards(root: Path, sources: Callable[..., list[Path]]) -> None:
    wrong = []
    package = root / "python" / "residua"
    for path in sources(".py", under="python"):
        name = path.relative_to(package).with_suffix("").parts[0]
        if name in TOP_MODULES:
            continue
        for module, names in module_level_imports(ast.parse(path.read_text(encoding="utf-8"))):
            first = module.split(".")[0]
            if first not in BASE_PACKAGES and first not in sys.stdlib_module_names:
                wrong.append(f"{path.name} imports {module}: NumPy alone at import, extras inside functions")
            used = {module.split(".")[1]} if module.startswith("residua.") else set()
            if module == "residua":
                used = set(names)
            if used & TOP_MODULES:
                wrong.append(f"{path.name} imports {', '.join(used & TOP_MODULES)}: an upward edge")
    assert not wrong, "\n".join(wrong)


def test_package_imports_neither_tests_nor_bench(sources: Callable[..., list[Path]]) -> None:
    for path in sources(".py", under="python"):
        assert not re.search(r"^\s*(?:from|import) (?:tests|bench)\b", path.read_text(), re.MULTILINE), path
