# SPDX-License-Identifier: Apache-2.0
"""What `import residua` costs beyond NumPy, in fresh interpreters."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.measures.session import Session
from bench.stats import interleave, spread

__all__ = ["measure_import"]

# Threads are counted by the kernel's own list: a native thread is invisible to `threading`.
_PROBE = """
import json, os, sys, time
import numpy
def threads():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
before, start = threads(), time.perf_counter()
{statement}
seconds = time.perf_counter() - start
print(json.dumps({{"seconds": seconds, "new_threads": threads() - before}}))
"""


def _probe(statement: str) -> tuple[float, int, bool]:
    """(seconds of the statement, threads that it started, whether anything else was printed)."""
    command = [sys.executable, "-c", _PROBE.format(statement=statement)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    report = json.loads(lines[-1])
    return float(report["seconds"]), int(report["new_threads"]), len(lines) > 1 or bool(done.stderr)


def measure_import(session: Session) -> None:
    """Seconds of `import residua` after NumPy (whole processes in turns beside it), threads, output."""
    runs: list[tuple[float, int, bool]] = []
    peers: list[tuple[float, int, bool]] = []
    has_faiss = session.runners["faiss"].available() is None
    wall = interleave(
        {
            "numpy": lambda: _probe("pass"),
            "residua": lambda: runs.append(_probe("import residua")),
            **({"faiss": lambda: peers.append(_probe("import faiss"))} if has_faiss else {}),
        },
        session.case.repeats,
    )
    session.rows.append({"label": "numpy alone", "process_seconds": spread(wall["numpy"]).as_dict()})
    for label, probes in (("residua", runs), ("faiss", peers)):
        if probes:
            inside = spread([seconds for seconds, _, _ in probes[1:]])
            row = {"label": label, "import_seconds": inside.as_dict()}
            session.rows.append({**row, "process_seconds": spread(wall[label]).as_dict()})
    extra = spread([seconds for seconds, _, _ in runs[1:]]).median
    bars = [bar["at_most"] for bar in session.case.bars]
    session.expect(
        "import residua, seconds beyond NumPy", extra, bars[0] if bars else None, "s", at_most=True
    )
    session.expect("threads started by the import", float(max(run[1] for run in runs)), 0.0, "", at_most=True)
    session.expect(
        "imports that printed something", float(sum(run[2] for run in runs)), 0.0, "", at_most=True
    )
