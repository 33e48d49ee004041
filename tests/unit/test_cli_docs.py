# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/cli.md run as they stand."""

from __future__ import annotations

import re
import shlex
import struct
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import residua as rz
from residua._io import SUFFIXES
from residua.cli import app


def test_commands_of_the_page_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (root / "docs" / "cli.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    commands = [shlex.split(line) for line in block.splitlines()]
    assert len(commands) >= 5
    monkeypatch.chdir(tmp_path)
    sample = rz.datasets.load_sample()
    vectors, queries = sample.documents[:1000].astype("f4"), sample.queries[:50].astype("f4")
    np.save("vectors.npy", vectors)
    np.save("queries.npy", queries)
    Path("more.fbin").write_bytes(struct.pack("<II", 100, 384) + vectors[:100].tobytes())
    truth = rz.exact_search(queries, vectors).ids.astype("<i4")
    Path("truth.ivecs").write_bytes(b"".join(struct.pack("<i", 10) + row.tobytes() for row in truth))
    for program, *arguments in commands:
        assert program == "residua"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{arguments}: {result.output}"
    np.testing.assert_array_equal(np.load("codes.npy")[:100], np.load("more-codes.npy"))


def test_the_page_names_every_command_and_format(root: Path) -> None:
    page = (root / "docs" / "cli.md").read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert f"residua {command.name or getattr(command.callback, '__name__', '')}" in page
    for suffix in SUFFIXES:
        assert f"`{suffix}`" in page
