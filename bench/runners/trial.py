# SPDX-License-Identifier: Apache-2.0
"""A configuration of a peer on a few rows in a process of its own.

Some libraries end the process on a CPU that they do not support. Here that costs a child and is a reason.
A Python exception is no reason: the caller meets it again, and records it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.cases import Spec
from bench.datasets import BenchData

__all__ = ["main", "run_trial"]

_ROWS = 2000
_SECONDS = 120


def run_trial(engine: str, spec: Spec, dim: int, metric: str) -> str | None:
    """None when building and searching does not end the process, else what happened."""
    task = json.dumps({"engine": engine, "options": dict(spec.options), "dim": dim, "metric": metric})
    command = [sys.executable, "-c", "from bench.runners import trial; trial.main()", task]
    root = Path(__file__).resolve().parents[2]
    try:
        child = subprocess.run(
            command, cwd=root, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"took more than {_SECONDS} s for {_ROWS} rows in a trial"
    if child.returncode == 0:
        return None
    if child.returncode < 0:
        how = f"signal {signal.Signals(-child.returncode).name}"
    else:
        how = f"exit status {child.returncode}"
    said = (child.stdout + child.stderr).strip().splitlines()
    return f"ends the process ({how}) in a trial" + (f": {said[-1]}" if said else "")


def main() -> None:
    """What the child does; its one argument is the task."""
    from bench.runners import RUNNERS

    wanted = json.loads(sys.argv[1])
    runner = type(RUNNERS[wanted["engine"]])(trial=lambda *_: None)
    rows = np.random.default_rng(0).standard_normal((_ROWS, wanted["dim"]), dtype=np.float32)
    data = BenchData("trial", wanted["metric"], rows, rows[:10])
    spec = Spec(wanted["engine"], wanted["options"])
    try:
        engine = runner.build(data, spec, threads=1, seed=0)
        engine.search(engine.prepare(data.queries), 10, 1)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
    sys.stdout.flush()
    os._exit(0)  # what a library does while the process is torn down is not asked here
