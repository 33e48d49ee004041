# SPDX-License-Identifier: Apache-2.0
"""Habits of the source tree that a reader should be able to rely on."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import residua

Sources = Callable[..., list[Path]]

TOP_LEVEL = {
    "bench",
    "cmake",
    "cpp",
    "docs",
    "python",
    "tests",
    "CHANGELOG.md",
    "CMakeLists.txt",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "pyproject.toml",
}
MAX_LINES = 500
COMMENTED = (".py", ".pyi", ".cpp", ".hpp", ".h", ".cu", ".cuh", ".cmake", ".sh", ".toml")
# Written in pieces, so that this file passes its own test.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:" + "|".join(("work", "opt", "root", "home", "Users")) + r")/\w")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_top_level_is_fixed(root: Path) -> None:
    ignored = [line.strip("/\n") for line in read(root / ".gitignore").splitlines() if line.strip()]
    for path in root.iterdir():
        known = path.name in TOP_LEVEL or path.name.startswith(".")
        assert known or any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored), path.name


def test_files_are_short(sources: Sources) -> None:
    long = {p.name: n for p in sources(*COMMENTED) if (n := len(read(p).splitlines())) > MAX_LINES}
    assert not long, f"over {MAX_LINES} lines; is there a second room in each? {long}"


def test_files_name_their_licence(root: Path, sources: Sources) -> None:
    for path in [*sources(*COMMENTED), root / "CMakeLists.txt", root / ".ci" / "run", root / ".ci" / "gpu"]:
        head = "\n".join(read(path).splitlines()[:2])
        assert "SPDX-License-Identifier: Apache-2.0" in head, path


def test_text_holds_no_machine_paths_and_no_leftovers(sources: Sources) -> None:
    leftover = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
    wrong = []
    for path in sources():
        for number, line in enumerate(read(path).splitlines(), 1):
            if MACHINE_PATH.search(line) or leftover.search(line):
                wrong.append(f"{path}:{number}: {line.strip()}")
    assert not wrong, "\n".join(wrong)


def words_to_avoid(root: Path) -> list[tuple[re.Pattern[str], str]]:
    """Rows of the table 'Words we do not use' of the glossary."""
    table = read(root / "docs" / "glossary.md").split("## Words we do not use", 1)[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    words = [(word, instead) for row in rows[2:] for word, instead in [(row[0].strip("`"), row[1])]]
    return [(re.compile(rf"(?<![\w.-]){re.escape(word)}(?![\w-])"), instead) for word, instead in words]


def test_words_to_avoid(root: Path, sources: Sources) -> None:
    # Established names keep their words.
    allowed = re.compile(r"\b(?:[Pp]roduct|[Ss]calar|[Vv]ector|mid-rise) quantizers?\b")
    wrong = []
    words = words_to_avoid(root)
    assert len(words) >= 5
    for path in sources(".py", ".pyi", ".cpp", ".hpp", ".md"):
        if path.name == "glossary.md" or path.is_relative_to(root / "tests" / "repo"):
            continue
        text = allowed.sub("", read(path))
        for word, instead in words:
            wrong += [f"{path}: {m.group()!r}; write {instead}" for m in word.finditer(text)]
    assert not wrong, "\n".join(wrong)


def test_cpp_never_prints_or_ends_the_process(
    root: Path, sources: Sources, cpp_code: Callable[[Path], str]
) -> None:
    forbidden = re.compile(
        r"(?<![\w.])(?:std::)?(?:abort|exit|_exit|_Exit|quick_exit|terminate|assert|printf|puts|putchar)\s*\("
        r"|\bstd::(?:cout|cerr|clog)\b|\bfprintf\s*\(\s*std|\b__builtin_trap\b"
    )
    wrong = []
    for path in sources(".cpp", ".hpp", ".h", ".cu", ".cuh", under="cpp"):
        for number, line in enumerate(cpp_code(path).splitlines(), 1):
            if forbidden.search(line):
                wrong.append(f"{path.relative_to(root)}:{number}: {line.strip()}")
    assert not wrong, "\n".join(wrong)


def test_no_build_uses_the_builders_machine(root: Path) -> None:
    for path in [root / "CMakeLists.txt", root / "pyproject.toml", *(root / "cmake").iterdir()]:
        for flag in ("-march=native", "-mtune=native", "-ffast-math", "-Ofast", "-fopenmp"):
            assert flag not in read(path), f"{path} uses {flag}"


def test_package_never_prints_or_asserts(root: Path, sources: Sources) -> None:
    command_line = {"__main__.py", "cli.py", "demo.py"}
    wrong = []
    for path in sources(".py", under="python"):
        speaks = path.name in command_line or "cli" in path.parts or "demo" in path.parts
        for node in ast.walk(ast.parse(read(path))):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if named and node.func.id in ("print", "breakpoint", "exit", "quit") and not speaks:
                wrong.append(f"{path.relative_to(root)}:{node.lineno}: {node.func.id}()")
            if isinstance(node, ast.Assert):
                wrong.append(
                    f"{path.relative_to(root)}:{node.lineno}: assert vanishes under -O; raise a ResiduaError"
                )
    assert not wrong, "\n".join(wrong)


def declared_version(root: Path) -> str:
    match = re.search(r'^version = "([^"]+)"$', read(root / "pyproject.toml"), re.MULTILINE)
    assert match, "pyproject.toml declares no version"
    return match.group(1)


def test_version_is_the_declared_one(root: Path) -> None:
    assert residua.__version__ == declared_version(root)


def test_changelog_begins_with_this_version(root: Path) -> None:
    headings = re.findall(r"^## (\S+)", read(root / "CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == declared_version(root)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs"])
def test_links_between_documents_hold(document: str, root: Path) -> None:
    place = root / document
    for path in sorted(place.rglob("*.md")) if place.is_dir() else [place]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", read(path)):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (path.parent / target).exists(), f"{path.name} links to {target}"
