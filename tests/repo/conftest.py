# SPDX-License-Identifier: Apache-2.0
"""Readers of the source tree, as fixtures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SOURCE_FOLDERS = (".ci", "bench", "cmake", "cpp", "docs", "python", "tests")
SOURCE_SUFFIXES = {".cmake", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".md", ".py", ".pyi", ".toml", ".txt", ""}


def is_generated(path: Path) -> bool:
    return any(
        part in (".git", "__pycache__", "results") or part.endswith(".egg-info") for part in path.parts
    )


@pytest.fixture(scope="session")
def sources(root: Path) -> Callable[..., list[Path]]:
    """Lists the text files of the project; with suffixes, only those (``sources(".py", under="cpp")``)."""

    def walk(under: str) -> Iterator[Path]:
        folders = [root / under] if under else [root / name for name in SOURCE_FOLDERS]
        for folder in folders:
            yield from folder.rglob("*")
        if not under:
            yield from root.glob("*")

    def list_sources(*suffixes: str, under: str = "") -> list[Path]:
        wanted = set(suffixes) or SOURCE_SUFFIXES
        return sorted(
            p
            for p in walk(under)
            if p.is_file() and p.suffix in wanted and not is_generated(p.relative_to(root))
        )

    return list_sources


@pytest.fixture(scope="session")
def cpp_code() -> Callable[[Path], str]:
    """Text of a C++ file without comments and with emptied string literals, line by line."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)

    def replace(match: re.Match[str]) -> str:
        text = match.group()
        return '""' if text.startswith('"') else "\n" * text.count("\n")

    def read(path: Path) -> str:
        return pattern.sub(replace, path.read_text(encoding="utf-8"))

    return read
