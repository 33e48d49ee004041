# SPDX-License-Identifier: Apache-2.0
"""What `residua demo` and `residua bench` share: how a configuration is measured, tabulated and drawn."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import residua as rz
from residua._plot import Point, Series, draw_pareto

__all__ = [
    "Row",
    "Session",
    "about_this_run",
    "kept_bytes",
    "measure_binary",
    "measure_exact",
    "measure_index",
    "measure_recurrent",
    "measure_scalar",
    "plot_rows",
    "results_table",
    "steps_progress",
]


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


@dataclass(frozen=True)
class Session:
    """Vectors, queries and truth, and how a search over them is timed and judged."""

    documents: npt.NDArray[np.float32]
    queries: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]
    metric: Any
    threads: int | None
    repeats: int

    @property
    def dim(self) -> int:
        return int(self.documents.shape[1])

    @property
    def k(self) -> int:
        return int(self.truth.shape[1])

    def seconds(self, action: Callable[[], Any]) -> float:
        """The median time of `action`, after one call that is not counted."""
        action()
        times = []
        for _ in range(self.repeats):
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def searcher(self, index: Any, **options: Any) -> Callable[[], npt.NDArray[Any]]:
        return lambda: np.asarray(index.search(self.queries, self.k, num_threads=self.threads, **options).ids)

    def row(
        self,
        engine: str,
        label: str,
        scoring: str,
        search: Callable[[], npt.NDArray[Any]],
        size: float,
        *,
        kept: float = 0.0,
        encoded_per_second: float | None = None,
    ) -> Row:
        recall = rz.recall(search(), self.truth)
        rate = len(self.queries) / self.seconds(search)
        return Row(engine, label, scoring, size, kept, float(recall), rate, encoded_per_second)


def kept_bytes(index: Any) -> int:
    """Return the bytes of the vectors that an index keeps for re-ranking, in memory or on disk."""
    memory = index.memory()
    return int(memory.get("vectors", 0) + memory.get("vectors_on_disk", 0))


def measure_index(
    session: Session, index: Any, name: str, size: float, encoded: float | None = None
) -> list[Row]:
    """One index by code scores, by symmetric scores, and with re-ranking where it keeps vectors."""
    kept = kept_bytes(index) / len(index)
    plans: list[tuple[str, str, dict[str, Any], float]] = [
        (name, "asymmetric", {"rerank": False}, 0.0),
        (f"{name}, symmetric", "symmetric", {"rerank": False, "scoring": "symmetric"}, 0.0),
    ]
    if kept:
        plans.append((f"{name}, re-ranked", "re-ranked", {}, kept))
    return [
        session.row(
            "residua",
            label,
            scoring,
            session.searcher(index, **options),
            size,
            kept=extra,
            encoded_per_second=encoded,
        )
        for label, scoring, options, extra in plans
    ]


def measure_recurrent(session: Session, bits: float) -> list[Row]:
    """Recurrent codes of some bits per dim in a FlatIndex."""
    return _measure_fitted(
        session, rz.RecurrentBinaryCodec(session.dim, bits=bits), f"recurrent {bits:g} bit"
    )


def measure_scalar(session: Session, bits: Literal[8, 4]) -> list[Row]:
    """Scalar codes of 8 or 4 bits per dim in a FlatIndex."""
    return _measure_fitted(session, rz.ScalarCodec(session.dim, bits), f"scalar {bits} bit")


def _measure_fitted(session: Session, codec: rz.Codec, name: str) -> list[Row]:
    codec.fit(session.documents, metric=session.metric, num_threads=session.threads)
    encode = session.seconds(lambda: codec.encode(session.documents, num_threads=session.threads))
    index = rz.FlatIndex(session.dim, metric=session.metric, codec=codec)
    index.add(session.documents, num_threads=session.threads)
    rate = len(session.documents) / encode
    return measure_index(session, index, name, float(codec.code_bytes), rate)


def measure_binary(session: Session) -> list[Row]:
    """Sign bits, compared by Hamming distance."""
    codec = rz.BinaryCodec(session.dim)
    codec.fit(session.documents[:1], metric=session.metric)
    encode = session.seconds(lambda: codec.encode(session.documents, num_threads=session.threads))
    index = rz.FlatIndex(session.dim, metric=session.metric, codec=codec, vectors="none")
    index.add(session.documents, num_threads=session.threads)
    search = session.searcher(index, rerank=False, scoring="symmetric")
    rate = len(session.documents) / encode
    size = float(codec.code_bytes)
    return [session.row("residua", "sign bits, Hamming", "Hamming", search, size, encoded_per_second=rate)]


def measure_exact(session: Session) -> list[Row]:
    """The exact scan of float32."""
    index = rz.FlatIndex(session.dim, metric=session.metric)
    index.add(session.documents, num_threads=session.threads)
    return [session.row("residua", "float32", "exact", session.searcher(index), 4.0 * session.dim)]


def results_table(rows: list[Row], k: int, title: str) -> Table:
    """Narrow enough for a terminal of 80 columns."""
    table = Table(
        title=title,
        caption="bytes: per vector, read by the scan; kept: more bytes per vector, for re-ranking; "
        "encode/s: vectors",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("configuration", no_wrap=True)
    for column in ("bytes", "kept", f"recall@{k}", "queries/s", "encode/s"):
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


def plot_rows(rows: list[Row], stem: Path, *, k: int, title: str, footnote: str) -> tuple[Path, Path]:
    """Draw recall over bytes and write `stem`.png and `stem`.svg."""

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
    return draw_pareto(
        [one for one in drawn if one.points],
        stem,
        title=title,
        x_label="bytes per vector that the scan reads (log2)",
        y_label=f"recall@{k}",
        footnote=footnote,
    )


@contextmanager
def steps_progress(console: Console, total: int) -> Iterator[Callable[[str], None]]:
    """Draw a bar over named steps; yields a function to call at the start of each."""
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


def about_this_run(threads: int | None) -> dict[str, Any]:
    """When, with what and where: the head of a report."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"residua": rz.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "machine": {
            "architecture": platform.machine(),
            "processor": platform.processor(),
            "isa": rz.show_config()["isa"],
        },
        "threads": threads,
    }
