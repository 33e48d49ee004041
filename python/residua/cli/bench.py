# SPDX-License-Identifier: Apache-2.0
"""`residua bench`: the figures of `residua demo`, on the user's own vectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import residua as rz
from residua._io import SUFFIXES, VectorFile, atomic_output, open_vectors, sample_rows, split_key, take_floats
from residua._io.container import is_container
from residua._typing import FloatArray, IntArray
from residua.cli._app import usage_error
from residua.cli._choices import METRICS, KeyOption, SeedOption, ThreadsOption, one_of
from residua.cli._console import output
from residua.cli._fit import read_queries
from residua.cli.search import load_index, read_truth
from residua.errors import FileError, InvalidValueError, UnsupportedError

__all__ = ["bench"]

_K = 10
_BITS = (1.0, 2.0, 4.0)
_HELD_OUT = 1000


@dataclass(frozen=True)
class _Data:
    """What is measured on, and in words where it comes from."""

    base: FloatArray
    queries: FloatArray
    truth: IntArray | None
    note: str


def bench(
    source: Annotated[
        str,
        typer.Argument(help="Vectors; or a folder with base.*, queries.*, gt.*, metric.txt; or an index."),
    ],
    queries: Annotated[
        str | None, typer.Option(help="Queries; default: vectors that are held out.", metavar="FILE")
    ] = None,
    truth: Annotated[
        str | None, typer.Option(help="True rows of every query; default: exact search.", metavar="FILE")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            callback=one_of(METRICS), metavar="|".join(METRICS), help="Default: metric.txt, else cosine."
        ),
    ] = None,
    bits: Annotated[
        list[float] | None,
        typer.Option(
            min=0.5,
            max=8,
            help="Bits of recurrent codes, repeatable; default: 1, 2 and 4.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=20, help="Most vectors to measure on, drawn uniformly.")
    ] = 100_000,
    out: Annotated[Path, typer.Option(help="Folder for bench.json and the plot.")] = Path("bench-report"),
    repeats: Annotated[int, typer.Option(min=1, help="Timed repetitions; the median counts.")] = 5,
    key: KeyOption = None,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
) -> None:
    """Measure recall@10, queries/s and bytes per vector on your own vectors, with and without re-ranking.

    \b
    Examples:
      residua bench vectors.npy --queries queries.npy
      residua bench glove.hdf5 --metric cosine --bits 1 --bits 1.5
      residua bench papers.rsd --queries queries.npy
    """
    from residua._measure import Session  # loads matplotlib, which other commands should not wait for

    out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made should fail before the work
    files = _in_folder(source) if Path(source).is_dir() else {"base": source}
    given_truth = truth is not None
    queries, truth = queries or files.get("queries"), truth or files.get("truth")
    chosen = metric or files.get("metric") or "cosine"
    if is_container(files["base"]):
        for name, value in (("--metric", metric), ("--bits", bits), ("--key", key)):
            if value is not None:
                raise usage_error(f"{name} cannot be used with an index, which has its own")
        _bench_index(Path(source), queries, truth, out, repeats, threads)
        return
    data = _load(files["base"], key, queries, truth, chosen, limit, seed)
    if given_truth and data.truth is None:
        raise usage_error(f"--truth belongs to all vectors, --limit {limit} draws some; leave one out")
    k = min(_K, len(data.base))
    right = data.truth
    if right is None:
        right = rz.exact_search(data.queries, data.base, k, metric=_metric(chosen), num_threads=threads).ids
    session = Session(data.base, data.queries, right[:, :k], chosen, threads, repeats)
    _report(session, _plans(session, bits or list(_BITS)), out, data.note)


def _metric(name: str) -> Any:
    return name


def _in_folder(folder: str) -> dict[str, str]:
    """Find the files of a benchmark folder by their conventional names."""
    found: dict[str, str] = {}
    for role, stems in (("base", ("base",)), ("queries", ("queries",)), ("truth", ("gt", "groundtruth"))):
        for stem in stems:
            for suffix in SUFFIXES:
                path = Path(folder, stem + suffix)
                if path.exists():
                    found.setdefault(role, str(path))
    if "base" not in found:
        raise FileError(f"{folder}: holds no base.npy (or base with another suffix of vector files)")
    note = Path(folder, "metric.txt")
    if note.exists():
        found["metric"] = note.read_text(encoding="utf-8", errors="replace").strip()
        if found["metric"] not in METRICS:
            raise InvalidValueError(f"{note}: says {found['metric']!r}, expected one of {', '.join(METRICS)}")
    return found


def _load(
    source: str, key: str | None, queries: str | None, truth: str | None, metric: str, limit: int, seed: int
) -> _Data:
    file = open_vectors(source, key=key, prefer=("train", "base"))
    file.require_vectors()
    rows = sample_rows(file.n, limit, seed)
    note = (
        f"{file.n:,} vectors"
        if len(rows) == file.n
        else f"{len(rows):,} of {file.n:,} vectors, drawn uniformly"
    )
    queries = queries or _queries_inside(source, file)
    if queries is None:
        if truth is not None:
            raise usage_error("--truth needs the --queries that it belongs to")
        return _held_out(file, rows, metric, seed)
    asked = read_queries(queries, file.dim, metric)
    right = None
    if truth is not None and len(rows) == file.n:
        right = read_truth(truth, len(asked))
        if right.size and not (right.min() >= -1 and right.max() < file.n):
            raise InvalidValueError(
                f"{truth}: holds rows from {right.min()} to {right.max()}, there are {file.n} vectors"
            )
    return _Data(take_floats(file, rows, metric=metric), asked, right, f"{note}, {len(asked):,} queries")


def _queries_inside(source: str, file: VectorFile) -> str | None:
    """An HDF5 or .npz file may hold its own queries."""
    path, _ = split_key(source)
    if file.format not in ("hdf5", "npz"):
        return None
    for name in ("test", "queries"):
        try:
            open_vectors(path, key=name)
        except (InvalidValueError, UnsupportedError):
            continue
        return f"{path}::{name}"
    return None


def _held_out(file: VectorFile, rows: IntArray, metric: str, seed: int) -> _Data:
    if len(rows) < 20:
        raise InvalidValueError(
            f"{file.name}: {file.n} vectors are too few to hold queries out; give --queries"
        )
    vectors = take_floats(file, rows, metric=metric)
    asked = sample_rows(len(rows), min(_HELD_OUT, len(rows) // 10), seed + 1)
    rest = np.ones(len(rows), bool)
    rest[asked] = False
    note = f"{int(rest.sum()):,} vectors, {len(asked):,} more held out as queries"
    return _Data(vectors[rest], vectors[asked], None, note)


def _plans(session: Any, bits: list[float]) -> list[tuple[str, Callable[[], list[Any]]]]:
    from residua._measure import measure_binary, measure_exact, measure_recurrent, measure_scalar

    plans: list[tuple[str, Callable[[], list[Any]]]] = [
        (f"recurrent codes, {one:g} bit", partial(measure_recurrent, session, one)) for one in bits
    ]
    plans.append(("scalar codes, 4 bit", partial(measure_scalar, session, 4)))
    plans.append(("scalar codes, 8 bit", partial(measure_scalar, session, 8)))
    plans.append(("sign bits", partial(measure_binary, session)))
    plans.append(("float32", partial(measure_exact, session)))
    return plans


def _bench_index(
    path: Path, queries: str | None, truth: str | None, out: Path, repeats: int, threads: int | None
) -> None:
    """Measure a saved index as it is. Without truth, its own vectors settle every candidate."""
    from residua._measure import Session, kept_bytes, measure_index

    if queries is None:
        raise usage_error("an index needs --queries")
    index = load_index(path)
    if len(index) == 0:
        raise InvalidValueError(f"{path}: the index is empty")
    asked = read_queries(queries, index.dim, index.metric)
    k = min(_K, len(index))
    if truth is not None:
        right = read_truth(truth, len(asked))[:, :k]
    elif index.codec is None:
        right = index.search(asked, k, num_threads=threads).ids
    elif kept_bytes(index):
        right = index.search(asked, k, rerank=len(index), num_threads=threads).ids
    else:
        raise usage_error(f"{path} keeps no vectors to tell what is right; give --truth")
    session = Session(np.empty((0, index.dim), np.float32), asked, right, index.metric, threads, repeats)
    note = f"{len(index):,} vectors in {path.name}, {len(asked):,} queries"
    if index.codec is None:
        size = 4.0 * index.dim
        row = partial(session.row, "residua", "float32", "exact", session.searcher(index), size)
        plans: list[tuple[str, Callable[[], list[Any]]]] = [("float32", lambda: [row()])]
    else:
        size = float(index.codec.code_bytes)
        plans = [(path.stem, partial(measure_index, session, index, path.stem, size))]
    _report(session, plans, out, note)


def _report(session: Any, plans: list[tuple[str, Callable[[], list[Any]]]], out: Path, note: str) -> None:
    from residua._measure import about_this_run, plot_rows, results_table, steps_progress

    console = output()
    rows: list[Any] = []
    with steps_progress(console, len(plans)) as step:
        for description, measure in plans:
            step(description)
            rows.extend(measure())
    title = f"{note}, {session.dim} dims, {session.metric}"
    console.print(results_table(rows, session.k, title))
    png, svg = plot_rows(rows, out / "pareto", k=session.k, title=title, footnote="")
    facts = {
        **about_this_run(session.threads),
        "data": {
            "vectors": note,
            "dim": session.dim,
            "metric": session.metric,
            "queries": len(session.queries),
            "k": session.k,
            "repeats": session.repeats,
        },
        "rows": [asdict(row) for row in rows],
    }
    report = out / "bench.json"
    with atomic_output(report) as stream:
        stream.write(json.dumps(facts, indent=1).encode() + b"\n")
    console.print(f"plot: {png} and {svg.name}; raw figures: {report}", soft_wrap=True, highlight=False)
