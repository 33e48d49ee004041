# SPDX-License-Identifier: Apache-2.0
"""RESIDUA_ISA forces the kernels, and the suite passes under every instruction set of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from residua import _core

ACTIVE = "from residua import _core; print(_core.kernels.active())"
OTHER_ISAS = [name for name in _core.kernels.available() if name != _core.kernels.active()]


def run(isa: str | None, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "RESIDUA_ISA"}
    if isa is not None:
        environment["RESIDUA_ISA"] = isa
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", _core.kernels.available())
def test_the_forced_isa_is_the_active_one(name: str, root: Path) -> None:
    done = run(name, "-c", ACTIVE, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == name


def test_without_the_variable_the_best_one_is_active(root: Path) -> None:
    for unset in (None, ""):
        assert run(unset, "-c", ACTIVE, cwd=root).stdout.strip() == _core.kernels.available()[0]


@pytest.mark.parametrize("name", ["mmx", "AVX2", "avx2 ", "scalar,avx2"])
def test_an_unknown_isa_is_an_error_that_lists_what_works(name: str, root: Path) -> None:
    done = run(name, "-c", ACTIVE, cwd=root)
    assert done.returncode != 0
    assert "InvalidValueError" in done.stderr
    assert f"RESIDUA_ISA='{name}' is unknown" in done.stderr
    for available in _core.kernels.available():
        assert f"'{available}'" in done.stderr


def test_a_known_isa_that_the_machine_lacks_is_an_error(root: Path) -> None:
    lacking = next(name for name in ("avx512", "neon") if name not in _core.kernels.available())
    done = run(lacking, "-c", ACTIVE, cwd=root)
    assert done.returncode != 0
    assert "UnsupportedError" in done.stderr
    assert "'scalar'" in done.stderr


@pytest.mark.parametrize("name", OTHER_ISAS)
def test_suite_passes_under_each_other_isa(name: str, root: Path) -> None:
    # tests/kernels runs every instruction set by itself; these do not depend on it, or choose among what
    # others test.
    parts = (
        "bench",
        "building",
        "cli",
        "column",
        "compatible",
        "container",
        "evaluation",
        "exchange",
        "filter",
        "id_map",
        "learned",
        "quantization",
        "training",
        "tuning",
    )
    independent = [f"--ignore-glob=*/test_{part}*" for part in parts]
    done = run(name, "-m", "pytest", "-x", "-p", "no:cacheprovider", "tests/unit", *independent, cwd=root)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"ISA {name} of" in done.stdout
