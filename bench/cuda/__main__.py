# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.cuda`: the measures of the GPU and their bars; one raw JSON file, and its table.

On a machine with a device, everything at full size; `--emulated` in tiny sizes on the CPU, to see that it
runs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.cuda", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, metavar="FILE|DIR", help="default: bench/results/")
    add("--only", action="append", default=[], metavar="PART", help="measures with this in the name; again")
    add("--list", action="store_true", help="names of the measures")
    add("--repeats", type=int, default=5)
    add("--scale", type=float, default=1.0, help="of rows and queries; bars are judged at 1 alone")
    add("--device", type=int, default=0)
    add("--emulated", action="store_true", help="tiny, on the CPU; needs a build with RESIDUA_CUDA=EMULATED")
    return parser


def _measures() -> dict[str, Any]:
    """What the modules of this package list."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name != "__main__":
            found.update(getattr(importlib.import_module(f"bench.cuda.{module.name}"), "MEASURES", {}))
    return found


def _run(parsed: argparse.Namespace, measures: Mapping[str, Any]) -> int:
    from bench.cuda.device import Device
    from bench.cuda.frame import Setup, run
    from bench.environment import describe
    from bench.report import to_markdown

    setup = Setup(
        Device(emulated=parsed.emulated, number=parsed.device),
        repeats=parsed.repeats,
        scale=parsed.scale,
        log=lambda line: print(line, flush=True),
    )
    environment = describe(["torch", "cupy-cuda13x", "cupy-cuda12x", "nvidia-cublas"])
    run(setup, measures)
    result = {**setup.result(), **environment}
    path = _target(parsed.out, environment["date"][:10])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    missed = sum(outcome.passed is False for outcome in setup.outcomes)
    print(f"wrote {path}\n\n{to_markdown(result)}")
    print(
        f"{len(setup.outcomes)} claims, {missed} missed; "
        f"{len(setup.skipped)} skipped, {len(setup.errors)} failed"
    )
    return 1 if setup.errors else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    if parsed.emulated:
        os.environ["RESIDUA_CUDA_EMULATED"] = "1"
    import residua as rz

    measures = _measures()
    if parsed.list:
        print("\n".join(measures))
        return 0
    chosen = {n: m for n, m in measures.items() if not parsed.only or any(p in n for p in parsed.only)}
    if not chosen or not 0 < parsed.scale <= 1 or parsed.repeats < 1:
        names = ", ".join(measures)
        print(f"bench.cuda: measures are {names}; 0 < scale <= 1; repeats >= 1", file=sys.stderr)
        return 2
    if not rz.cuda.is_available():
        try:
            rz.cuda.device_info()
        except rz.errors.UnsupportedError as error:
            print(f"bench.cuda: {error}", file=sys.stderr)
        return 1
    return _run(parsed, chosen)


def _target(out: Path | None, day: str) -> Path:
    if out is not None and out.suffix == ".json":
        return out
    return (out or Path(__file__).parents[1] / "results") / f"cuda-{day}.json"


if __name__ == "__main__":
    sys.exit(main())
