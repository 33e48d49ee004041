# SPDX-License-Identifier: Apache-2.0
"""`residua demo`: the library's main job, end to end, on the real embeddings that ship with it.

Every configuration is fitted on the documents alone, so the queries are held out. Needs the extra `[cli]`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import residua as rz
from residua._measure import (
    Row,
    Session,
    about_this_run,
    measure_binary,
    measure_exact,
    measure_recurrent,
    measure_scalar,
    plot_rows,
    results_table,
    steps_progress,
)

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


def _faiss(session: Session, factory: str) -> list[Row]:
    """One FAISS index. Cosine is run as L2 on normalised vectors, at which its codes do best."""
    # OpenMP workers that spin while they wait make k-means crawl on shared CPUs; read when faiss is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    faiss: Any = importlib.import_module("faiss")
    documents, queries = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (session.documents, session.queries)
    )
    threads_before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(session.threads or threads_before)
    try:
        index = faiss.index_factory(session.dim, factory, faiss.METRIC_L2)
        if not index.is_trained:
            index.train(documents)
        index.add(documents)
        encoded = None
        if factory != "Flat":
            encoded = len(documents) / session.seconds(lambda: index.sa_encode(documents))
        row = session.row(
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


def _steps(session: Session, with_faiss: bool) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    for bits in BITS:
        yield f"recurrent codes, {bits:g} bit", partial(measure_recurrent, session, bits)
    yield "scalar codes, 4 bit", partial(measure_scalar, session, 4)
    yield "scalar codes, 8 bit", partial(measure_scalar, session, 8)
    yield "sign bits", partial(measure_binary, session)
    yield "float32", partial(measure_exact, session)
    if with_faiss:
        half, quarter, full = session.dim // 2, session.dim // 4, session.dim
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
            yield f"FAISS {factory}", partial(_faiss, session, factory)


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
    sample = rz.datasets.load_sample()
    session = Session(
        np.asarray(sample.documents, dtype=np.float32),
        np.asarray(sample.queries, dtype=np.float32),
        np.asarray(sample.ground_truth, dtype=np.int64)[:, :K],
        sample.metric,
        threads,
        repeats=1 if quick else 5,
    )
    has_faiss = importlib.util.find_spec("faiss") is not None
    steps = list(_steps(session, with_faiss=has_faiss and not quick))
    rows: list[Row] = []
    with steps_progress(console, len(steps)) as step:
        for description, measure in steps:
            step(description)
            rows.extend(measure())
    console.print(results_table(rows, K, f"recall@{K} and speed on the sample"))
    if not has_faiss:
        console.print("FAISS is not installed, so it is not compared; pip install faiss-cpu adds it.")
    n, dim = session.documents.shape
    footnote = f"{n:,} document embeddings of {dim} dims, held-out queries, no query seen by any fit"
    png, svg = plot_rows(rows, out / "pareto", k=K, title=_title(rows), footnote=footnote)
    failures = check_floors(rows)
    report = out / "demo.json"
    facts = _report(session, sample.license, rows, failures)
    report.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    console.print(f"plot: {png} and {svg.name}; raw figures: {report}", soft_wrap=True, highlight=False)
    return failures


def _report(session: Session, terms: str, rows: list[Row], failures: list[str]) -> dict[str, Any]:
    return {
        **about_this_run(session.threads),
        "sample": {
            "documents": list(session.documents.shape),
            "queries": list(session.queries.shape),
            "metric": session.metric,
            "license": terms,
        },
        "rows": [asdict(row) for row in rows],
        "floors": FLOORS,
        "failures": failures,
    }
