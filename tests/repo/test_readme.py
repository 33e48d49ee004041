# SPDX-License-Identifier: Apache-2.0
"""The README's example runs as it stands, and says what it promises."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

import residua as rz


def test_example_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    (block,) = re.finditer(r"```python\n(.*?)```", readme, re.DOTALL)
    source = "\n" * readme.count("\n", 0, block.start(1)) + block.group(1)  # for the lines of a traceback
    monkeypatch.chdir(tmp_path)  # it writes a file
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "README.md", "exec"), names)
    recall = re.search(r"recall@10 (\S+)", printed.getvalue())
    assert recall is not None
    assert float(recall.group(1)) > 0.99  # two bits per dimension, re-ranked
    assert isinstance(names["index"], rz.FlatIndex)
    assert len(names["index"]) == 8000
    assert names["recent"][names["hits"].ids].all()
