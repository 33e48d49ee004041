# SPDX-License-Identifier: Apache-2.0
"""The measures of the GPU run from end to end, in tiny sizes; what they say is not judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import residua as rz


def run(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, "-m", "bench.cuda", *arguments], {**os.environ, **variables}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def measures(root: Path) -> list[str]:
    done = run(root, "--list")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_measure_runs_and_claims_what_it_measured(root: Path, tmp_path: Path) -> None:
    emulated = rz.cuda.device_info()["name"] == "emulation"
    size = ["--emulated"] if emulated else ["--scale", "0.001", "--repeats", "2"]
    done = run(root, *size, "--out", str(tmp_path / "cuda.json"))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    result = json.loads((tmp_path / "cuda.json").read_text(encoding="utf-8"))
    names = measures(root)
    assert "binary scan" in names
    assert not result["errors"]
    assert len(result["rows"]) >= len(names)
    assert all(outcome["value"] > 0 for outcome in result["outcomes"])
    # Nothing but full size on a device is judged.
    assert {outcome["passed"] for outcome in result["outcomes"]} == {None}
    for outcome in result["outcomes"]:
        assert outcome["claim"] in done.stdout


@pytest.mark.parametrize("arguments", [["--only", "no such measure"], ["--scale", "0"], ["--repeats", "0"]])
def test_what_cannot_be_run_is_refused(root: Path, arguments: list[str]) -> None:
    done = run(root, *arguments)
    assert done.returncode == 2
    assert "binary scan" in done.stderr


def test_without_a_device_it_says_why(root: Path) -> None:
    done = run(root, CUDA_VISIBLE_DEVICES="", RESIDUA_CUDA_EMULATED="0")
    assert done.returncode == 1
    assert done.stderr.startswith("bench.cuda: CUDA is not available here: ")
