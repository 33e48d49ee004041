# SPDX-License-Identifier: Apache-2.0
"""`residua demo`: the library's main job, end to end, on the real embeddings that ship with it.

Every configuration is fitted on the documents alone, so the queries are held out. Needs the extra `[cli]`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import residua as rz
from residua._plot import Point, Series, draw_pareto

__all__ = ["FLOORS", "Row", "check_floors", "run_demo"]

K = 10
BITS = (1.0, 2.0, 4.0)

# Recall@10 that the sample must reach; lower means that something broke, not that the machine is slow.
FLOORS = {
    "recurrent 1 bit": 0.79,
    "recurrent 2 bit": 0.90,
    "recurrent 4 bit": 0.965,
    "float32": 0.9999,
    "recurrent 1 bit, re-ranked": 0.995,
    "recurrent 2 bit, re-ranked": 0.995,
    "recurrent 4 bit, re-ranked": 0.995,
}


@dataclass(frozen=True)
class Row:
    """One measured configuration. `kept_bytes` are held for re-ranking, beyond what the scan reads."""

    engine: str
    label: str
    scoring: str
    bytes_per_vector: float
    kept_bytes: float
    recall: float
    queries_per_second: float
    encoded_per_second: float | None


class _Bench:
    """The sample, and how a search over it is timed and judged."""

    def __init__(self, threads: int | None, repeats: int) -> None:
        sample = rz.datasets.load_sample()
        self.documents = np.asarray(sample.documents, dtype=np.float32)
        self.queries = np.asarray(sample.queries, dtype=np.float32)
        self.truth = np.asarray(sample.ground_truth)[:, :K]
        self.metric = sample.metric
        self.license = sample.license
        self.threads = threads
        self._repeats = repeats

    @property
    def dim(self) -> int:
        return int(self.documents.shape[1])

    def seconds(self, action: Callable[[], Any]) -> float:
        """The median time of `action`, after one call that is not counted."""
        action()
        times = []
        for _ in range(self._repeats):
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def row(
        self,
        engine: str,
        label: str,
        scoring: str,
        search: Callable[[], npt.NDArray[np.int64]],
        size: float,
        *,
        kept: float = 0.0,
        encoded_per_second: float | None = None,
    ) -> Row:
        recall = rz.recall(search(), self.truth)
        rate = len(self.queries) / self.seconds(search)
        return Row(engine, label, scoring, size, kept, float(recall), rate, encoded_per_second)


def _index_searcher(bench: _Bench, index: Any, **options: Any) -> Callable[[], npt.NDArray[np.int64]]:
    return lambda: np.asarray(index.search(bench.queries, K, num_threads=bench.threads, **options).ids)


def _recurrent(bench: _Bench, bits: float) -> list[Row]:
    codec = rz.RecurrentBinaryCodec(bench.dim, bits=bits)
    codec.fit(bench.documents, metric=bench.metric, num_threads=bench.threads)
    encoded = len(bench.documents) / bench.seconds(lambda: codec.encode(bench.documents))
    index = rz.FlatIndex(bench.dim, metric=bench.metric, codec=codec)
    index.add(bench.documents, num_threads=bench.threads)
    kept = index.memory().get("vectors", 0) / len(index)
    name, size = f"recurrent {bits:g} bit", float(codec.code_bytes)
    rows = []
    for label, scoring, options, extra in (
        (name, "asymmetric", {"rerank": False}, 0.0),
        (f"{name}, symmetric", "symmetric", {"rerank": False, "scoring": "symmetric"}, 0.0),
        (f"{name}, re-ranked", "re-ranked", {}, kept),
    ):
        search = _index_searcher(bench, index, **options)
        rows.append(
            bench.row("residua", label, scoring, search, size, kept=extra, encoded_per_second=encoded)
        )
    return rows


def _binary(bench: _Bench) -> list[Row]:
    codec = rz.BinaryCodec(bench.dim)
    if not codec.is_trained:
        codec.fit(bench.documents, metric=bench.metric, num_threads=bench.threads)
    encoded = len(bench.documents) / bench.seconds(lambda: codec.encode(bench.documents))
    index = rz.FlatIndex(bench.dim, metric=bench.metric, codec=codec, vectors="none")
    index.add(bench.documents, num_threads=bench.threads)
    search = _index_searcher(bench, index, rerank=False, scoring="symmetric")
    size = float(codec.code_bytes)
    return [bench.row("residua", "sign bits, Hamming", "Hamming", search, size, encoded_per_second=encoded)]


def _exact(bench: _Bench) -> list[Row]:
    index = rz.FlatIndex(bench.dim, metric=bench.metric)
    index.add(bench.documents, num_threads=bench.threads)
    return [bench.row("residua", "float32", "exact", _index_searcher(bench, index), 4.0 * bench.dim)]


def _faiss(bench: _Bench, factory: str) -> list[Row]:
    """One FAISS index. Cosine is run as L2 on normalised vectors, at which its codes do best."""
    # OpenMP workers that spin while they wait make k-means crawl on shared CPUs; read when faiss is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    faiss: Any = importlib.import_module("faiss")
    documents, queries = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bench.documents, bench.queries)
    )
    threads_before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(bench.threads or threads_before)
    try:
        index = faiss.index_factory(bench.dim, factory, faiss.METRIC_L2)
        if not index.is_trained:
            index.train(documents)
        index.add(documents)
        encoded = None
        if factory != "Flat":
            encoded = len(documents) / bench.seconds(lambda: index.sa_encode(documents))
        row = bench.row(
            "FAISS",
            factory,
            "exact" if factory == "Flat" else "asymmetric",
            lambda: np.asarray(index.search(queries, K)[1], dtype=np.int64),
            float(index.code_size),
            encoded_per_second=encoded,
        )
    finally:
        faiss.omp_set_num_threads(threads_before)
    return [row]


def _steps(bench: _Bench, with_faiss: bool) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    for bits in BITS:
        yield f"recurrent codes, {bits:g} bit", partial(_recurrent, bench, bits)
    yield "sign bits", partial(_binary, bench)
    yield "float32", partial(_exact, bench)
    if with_faiss:
        half, quarter, full = bench.dim // 2, bench.dim // 4, bench.dim
        names = [
            "RaBitQ1",
            "RaBitQ2",
            "RaBitQ4",
            f"PQ{quarter}x4fs",
            f"PQ{half}x4fs",
            f"PQ{full}x4fs",
            "Flat",
        ]
        for factory in names:
            yield f"FAISS {factory}", partial(_faiss, bench, factory)


def check_floors(rows: list[Row]) -> list[str]:
    """One message per configuration whose recall is below its floor, or that was not measured at all."""
    recalls = {row.label: row.recall for row in rows if row.engine == "residua"}
    failures = []
    for label, floor in FLOORS.items():
        if label not in recalls:
            failures.append(f"{label} was not measured")
        elif not recalls[label] >= floor:
            failures.append(f"recall@{K} of {label} is {recalls[label]:.4f}, below the floor of {floor}")
    return failures


def _table(rows: list[Row]) -> Table:
    """Narrow enough for a terminal of 80 columns."""
    table = Table(
        title=f"recall@{K} and speed on the sample",
        caption="bytes: per vector, read by the scan; kept: more bytes per vector, for re-ranking; "
        "encode/s: vectors",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("configuration", no_wrap=True)
    for column in ("bytes", "kept", f"recall@{K}", "queries/s", "encode/s"):
        table.add_column(column, justify="right", no_wrap=True)
    for i, row in enumerate(rows):
        table.add_row(
            row.label if row.engine == "residua" else f"{row.engine} {row.label}",
            f"{row.bytes_per_vector:,.0f}",
            f"+{row.kept_bytes:,.0f}" if row.kept_bytes else "",
            f"{row.recall:.4f}",
            f"{row.queries_per_second:,.0f}",
            "" if row.encoded_per_second is None else f"{row.encoded_per_second:,.0f}",
            style="bold" if row.engine == "residua" and row.scoring == "asymmetric" else None,
            end_section=i + 1 < len(rows) and rows[i + 1].engine != row.engine,
        )
    return table


def _title(rows: list[Row]) -> str:
    """What the plot shows, in figures: recall of the shortest recurrent codes before and after re-ranking."""
    plain, reranked = (
        next(row for row in rows if row.label == label)
        for label in ("recurrent 1 bit", "recurrent 1 bit, re-ranked")
    )
    return (
        f"{plain.bytes_per_vector:.0f} bytes per vector: recall@{K} {plain.recall:.2f} from scores alone, "
        f"{reranked.recall:.3f} after re-ranking"
    )


def _plot(rows: list[Row], stem: Path, documents: npt.NDArray[np.float32]) -> tuple[Path, Path]:
    def series(
        name: str, engine: str, scorings: tuple[str, ...], *, line: bool, on_front: bool = True
    ) -> Series:
        chosen = [row for row in rows if row.engine == engine and row.scoring in scorings]
        labels = [row.label.split(",")[0].replace("recurrent ", "") for row in chosen]
        points = [Point(r.bytes_per_vector, r.recall, "" if r.scoring == "re-ranked" else label)
                  for r, label in zip(chosen, labels, strict=True)]  # fmt: skip
        return Series(name, points, line=line, on_front=on_front)

    kept = max((row.kept_bytes for row in rows), default=0.0)
    drawn = [
        series("Residua, scores only", "residua", ("asymmetric", "exact"), line=True),
        # Kept vectors are bytes as well, so this line must not compete on the front.
        series(
            f"Residua, re-ranked (+{kept:.0f} B kept)", "residua", ("re-ranked",), line=True, on_front=False
        ),
        series("Residua, symmetric", "residua", ("symmetric",), line=True),
        series("Residua, Hamming", "residua", ("Hamming",), line=False),
        series("FAISS", "FAISS", ("asymmetric", "exact"), line=False),
    ]
    n, dim = documents.shape
    return draw_pareto(
        [one for one in drawn if one.points],
        stem,
        title=_title(rows),
        x_label="bytes per vector that the scan reads (log2)",
        y_label=f"recall@{K}",
        footnote=f"{n:,} document embeddings of {dim} dims, held-out queries, no query seen by any fit",
    )


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[str], None]]:
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=total)
        started = False

        def step(description: str) -> None:
            nonlocal started
            progress.update(task, description=description, advance=int(started))
            started = True

        yield step
        progress.update(task, advance=1)


def run_demo(
    out: Path, *, threads: int | None = None, quick: bool = False, console: Console | None = None
) -> list[str]:
    """Measure, print, plot, write; return what fell below its floor (nothing, when all is well).

    Parameters
    ----------
    out : Path
        Folder for `pareto.png`, `pareto.svg` and `demo.json`; made if it does not exist.
    threads : int, optional
        Threads for searches and builds; all that this process may use by default.
    quick : bool
        One timed repetition instead of five, and no FAISS.
    """
    console = console or Console()
    out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made should fail before the work
    bench = _Bench(threads, repeats=1 if quick else 5)
    has_faiss = importlib.util.find_spec("faiss") is not None
    steps = list(_steps(bench, with_faiss=has_faiss and not quick))
    rows: list[Row] = []
    with _progress(console, len(steps)) as step:
        for description, measure in steps:
            step(description)
            rows.extend(measure())
    console.print(_table(rows))
    if not has_faiss:
        console.print("FAISS is not installed, so it is not compared; pip install faiss-cpu adds it.")
    png, svg = _plot(rows, out / "pareto", bench.documents)
    failures = check_floors(rows)
    report = out / "demo.json"
    report.write_text(json.dumps(_report(bench, rows, failures), indent=1) + "\n", encoding="utf-8")
    console.print(f"plot: {png} and {svg.name}; raw figures: {report}", soft_wrap=True, highlight=False)
    return failures


def _report(bench: _Bench, rows: list[Row], failures: list[str]) -> dict[str, Any]:
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"residua": rz.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "machine": {"architecture": platform.machine(), "processor": platform.processor()},
        "threads": bench.threads,
        "sample": {
            "documents": list(bench.documents.shape),
            "queries": list(bench.queries.shape),
            "metric": bench.metric,
            "license": bench.license,
        },
        "rows": [asdict(row) for row in rows],
        "floors": FLOORS,
        "failures": failures,
    }
