# SPDX-License-Identifier: Apache-2.0
"""``import residua`` is quiet and light."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROBE = """
import json, os, sys, threading
import numpy
before = set(sys.modules)
threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else threading.active_count()
import residua
after = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else threading.active_count()
print(json.dumps({"threads": after - threads, "python": threading.active_count(),
                  "modules": sorted(set(sys.modules) - before)}))
"""
# NumPy's BLAS may start a pool of its own; limited to one thread it starts none.
QUIET = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
HEAVY = {"faiss", "h5py", "matplotlib", "ml_dtypes", "pyarrow", "rich", "scipy", "torch", "typer"}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE],
        env={**os.environ, **QUIET},
        cwd=tmp_path_factory.mktemp("elsewhere"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1, done.stdout
    return dict(json.loads(done.stdout))


def test_import_starts_no_thread(imported: dict[str, Any]) -> None:
    assert imported["threads"] == 0
    assert imported["python"] == 1


def test_import_needs_numpy_alone(imported: dict[str, Any]) -> None:
    assert not HEAVY & {name.split(".")[0] for name in imported["modules"]}


def test_installed_package_is_complete() -> None:
    import residua

    package = Path(residua.__file__).parent
    for name in ("py.typed", "_core/__init__.pyi", "_core/store.pyi", "data/sample.npz", "data/README.md"):
        assert (package / name).is_file(), f"{name} is missing from the installed package"
