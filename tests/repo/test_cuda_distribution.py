# SPDX-License-Identifier: Apache-2.0
"""residua-cuda, the second distribution, goes with residua of exactly its version."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if sys.version_info < (3, 11):
    tomllib: Any = importlib.import_module("tomli")
else:
    import tomllib

# Headers of the CUDA toolkit, by the beginnings of their names.
TOOLKIT = re.compile(r"#\s*include\s*<(?:cuda|cub/|cublas|thrust/|mma\.h|cooperative_groups)")


@pytest.fixture
def projects(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    def read(path: Path) -> dict[str, Any]:
        return dict(tomllib.loads(path.read_text(encoding="utf-8")))

    return read(root / "pyproject.toml"), read(root / "python" / "residua-cuda" / "pyproject.toml")


def test_versions_are_one(projects: tuple[dict[str, Any], dict[str, Any]]) -> None:
    ours, cuda = (project["project"] for project in projects)
    assert cuda["version"] == ours["version"]
    assert f"residua=={ours['version']}" in cuda["dependencies"]
    assert cuda["requires-python"] == ours["requires-python"]
    assert cuda["license"] == ours["license"]


def test_both_are_built_alike(projects: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Objects of one module are used by the other: one pybind11, one set of flags."""
    ours, cuda = projects
    assert cuda["build-system"] == ours["build-system"]
    assert (
        cuda["tool"]["scikit-build"]["cmake"]["build-type"]
        == ours["tool"]["scikit-build"]["cmake"]["build-type"]
    )


def cuda_sources(root: Path, sources: Callable[..., list[Path]]) -> list[Path]:
    everywhere = sources(".cpp", ".hpp", ".h", ".cu", ".cuh", under="cpp")
    assert any(path.suffix == ".cu" for path in everywhere)
    return [path for path in everywhere if not path.name.startswith("device_")]


def test_toolkit_headers_are_for_nvcc_alone(root: Path, sources: Callable[..., list[Path]]) -> None:
    """Outside of device_*.cu, which the emulation leaves out, they stand in `#if defined(__CUDACC__)`."""
    wrong = []
    for path in cuda_sources(root, sources):
        guards: list[bool] = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            word = re.match(r"\s*#\s*(if\w*|el\w+|endif)\b", line)
            if word and word.group(1).startswith("if"):
                guards.append("defined(__CUDACC__)" in line and "!" not in line)
            elif word and word.group(1) == "endif":
                guards.pop()
            elif word:
                guards[-1] = False
            if TOOLKIT.search(line) and not any(guards):
                wrong.append(f"{path.relative_to(root)}:{number}: {line.strip()}")
    assert not wrong, "\n".join(wrong)


def test_device_code_stays_in_its_folder(root: Path, sources: Callable[..., list[Path]]) -> None:
    """Kernels and what starts them are in cpp/cuda; nothing of the core is compiled by nvcc."""
    for path in sources(".cu", ".cuh", under="cpp"):
        assert path.parent.name == "cuda", path
    words = re.compile(r"\bRZ_DEVICE\b|\b__(?:global|device|shared)__\b|<<<")
    for path in sources(".cpp", ".hpp", ".h", under="cpp"):
        if path.parent.name != "cuda":
            assert not words.search(path.read_text(encoding="utf-8")), path
