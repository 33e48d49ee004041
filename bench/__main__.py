# SPDX-License-Identifier: Apache-2.0
"""`python -m bench run | report | prepare`, from the root of the repository."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.cases import GENERATED, TOKENS, WALL_TIMED, Case, CaseError, Spec, load_case
from bench.datasets import BenchData, DataError, load_folder, stretch
from bench.environment import describe
from bench.measures import MEASURES, Session
from bench.prepare import prepare
from bench.report import ReportError, write_report
from bench.runners import PEERS, RUNNERS
from bench.token_data import load_tokens, prepare_tokens

_RESULTS = Path(__file__).parent / "results"
_NO_DATA = BenchData("no data", "cosine", np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser(
        "run", help="measure cases on data folders; one raw JSON file per case and folder"
    )
    run.add_argument("cases", nargs="+", type=Path, metavar="CASE.toml")
    run.add_argument(
        "--data", action="append", default=[], type=Path, metavar="DIR", help="may be given again"
    )
    run.add_argument("--out", type=Path, metavar="FILE|DIR", help="default: bench/results/")
    run.add_argument("--queries", type=int, help="use the first N queries, whatever the case says")
    run.add_argument(
        "--cpu-time",
        action="store_true",
        help=f"time by the CPU time of the process; cases of one thread, no kind of {', '.join(WALL_TIMED)}",
    )

    report = commands.add_parser("report", help="tables and plots from raw JSON")
    report.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    report.add_argument(
        "--docs", type=Path, help="replace the tables between the markers of this Markdown file"
    )
    report.add_argument("--plots", type=Path, metavar="DIR", help="write the plots here, as PNG and SVG")

    make = commands.add_parser("prepare", help="turn a folder of raw vectors into a data folder")
    make.add_argument("source", type=Path)
    make.add_argument("target", type=Path)
    make.add_argument("--train-queries", type=int, help="queries for fitting (default: half, at most 2,000)")
    make.add_argument("--tokens", action="store_true", help="token vectors, where the folder has them too")
    make.add_argument("--rows", type=int, help="repeat rows up to this many: for speed cases only")
    make.add_argument("--dims", type=int, help="mix dims linearly into this many: for speed cases only")
    return parser


def _sets(case: Case, folders: Sequence[Path], n_queries: int | None) -> list[BenchData]:
    """The data that a case is measured on, in the size that it asks for."""
    if case.kind in GENERATED:
        return [_NO_DATA]
    if not folders:
        raise DataError(f"case {case.name} needs --data DIR")
    if case.kind in TOKENS:
        return [load_tokens(folder).head(n_queries or case.queries) for folder in folders]
    sets = [load_folder(folder) for folder in folders]
    fitting = [data for data in sets if data.metric in case.metrics]
    for data in sets:
        if data.metric not in case.metrics:
            print(f"{case.name}: {data.name} left out, its metric {data.metric} is not one of {case.metrics}")
    if case.kind == "filtered":  # which computes a truth of its own
        return [data.head(n_queries or case.queries).first(case.rows) for data in fitting]
    return [
        stretch(data.head(n_queries or case.queries), rows=case.rows, dims=case.dims, seed=case.seed)
        for data in fitting
    ]


def _target(out: Path | None, case: Case, data: BenchData, day: str) -> Path:
    if out is not None and out.suffix == ".json":
        return out
    stem = case.name if data is _NO_DATA else f"{case.name}-{data.name}"
    return (out or _RESULTS) / f"{stem}-{day}.json"


def _names(spec: Spec, library: str) -> bool:
    return library in (spec.engine, spec.options.get("library"))


def _run(arguments: argparse.Namespace) -> int:
    cases = [replace(load_case(path), cpu_time=arguments.cpu_time) for path in arguments.cases]
    for case in cases:
        if case.cpu_time and case.kind in WALL_TIMED:
            raise CaseError(f"--cpu-time: case {case.name} is of kind {case.kind}, which times by the clock")
        if case.cpu_time and case.threads != 1:
            raise CaseError(
                f"--cpu-time is for one thread, and case {case.name} has threads = {case.threads}"
            )
    runs = [(case, data) for case in cases for data in _sets(case, arguments.data, arguments.queries)]
    if arguments.out is not None and arguments.out.suffix == ".json" and len(runs) != 1:
        raise CaseError(f"--out names one file, but there are {len(runs)} results; give a folder")
    for case, data in runs:
        print(f"{case.name} on {data.name}", flush=True)
        session = Session(case, data, RUNNERS, log=lambda line: print(line, flush=True))
        environment = describe(
            [peer.package for name, peer in PEERS.items() if any(_names(spec, name) for spec in case.specs)]
        )
        MEASURES[case.kind](session)
        path = _target(arguments.out, case, data, environment["date"][:10])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**session.result(), **environment}, indent=1) + "\n", encoding="utf-8")
        print(f"  wrote {path}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    try:
        if parsed.command == "run":
            return _run(parsed)
        if parsed.command == "report":
            write_report(parsed.results, docs=parsed.docs, plots=parsed.plots)
            return 0
        written: BenchData
        if parsed.tokens:
            written = prepare_tokens(parsed.source, parsed.target, train_queries=parsed.train_queries or 0)
        else:
            written = prepare(
                parsed.source,
                parsed.target,
                train_queries=parsed.train_queries,
                rows=parsed.rows,
                dims=parsed.dims,
            )
        print(f"wrote {parsed.target}: {written.summary()}")
        return 0
    except (CaseError, DataError, ReportError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
