# SPDX-License-Identifier: Apache-2.0
"""`residua eval`: quality on a judged collection."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import residua as rz
from residua._io import atomic_output
from residua._io.judged import read_judged_folder
from residua.cli._app import complain
from residua.cli._choices import CodecFileOption, MetricOption, SeedOption, ThreadsOption
from residua.cli._console import output, progress, say
from residua.cli._fit import load_codec
from residua.evaluation import Estimate, EvaluationRow

__all__ = ["evaluate"]


def evaluate(
    folder: Annotated[
        Path, typer.Argument(help="Folder with documents, queries, judgements and vectors (docs/eval.md).")
    ],
    split: Annotated[
        str, typer.Option(help="Which queries and judgements, where there are several.")
    ] = "test",
    metric: MetricOption = "cosine",
    bits: Annotated[
        list[float] | None,
        typer.Option(
            min=0.5,
            max=8,
            help="Bits of recurrent codes, repeatable; default: 8, 4, 2 and 1.",
            show_default=False,
        ),
    ] = None,
    codec_file: CodecFileOption = None,
    rerank: Annotated[
        int | None,
        typer.Option(min=1, help="Candidates that are re-ranked; default: automatic.", show_default=False),
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap samples of the queries.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="Write the rows as JSON.", metavar="FILE")] = None,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
) -> None:
    """Measure nDCG@10 and Recall@k of relevant documents, for floats and for codes.

    \b
    Examples:
      residua eval scifact
      residua eval scifact --bits 1 --bits 2 --rerank 100 --out rows.json
      residua eval scifact --codec-file codec.rsd
    """
    data = read_judged_folder(folder, metric, split)
    if data.unknown:
        complain(f"{data.unknown} judgements name documents that are not in the folder; left out", "note")
    given = [] if codec_file is None else [load_codec(codec_file)]
    wanted = [8.0, 4.0, 2.0, 1.0] if bits is None and not given else bits or []
    with progress("evaluating", 1 + len(wanted) + len(given)) as advance:
        rows = rz.evaluate(
            data.documents,
            data.queries,
            data.relevant,
            bits=wanted,
            codecs=given,
            metric=metric,  # type: ignore[arg-type]
            rerank="auto" if rerank is None else rerank,
            resamples=resamples,
            num_threads=threads,
            progress=lambda done, total: advance(1) if done else None,
            seed=seed,
        )
    judged = sum(any(grade > 0 for grade in one.values()) for one in data.relevant)
    n, dim = data.documents.shape
    output().print(_table(rows, f"{n:,} documents of {dim} dims, {judged:,} judged queries, {metric}"))
    say(f"in brackets: 95 % intervals, bootstrap over queries, {resamples} samples; recurrent codes fitted "
        "to the documents")  # fmt: skip
    if out is not None:
        with atomic_output(out) as stream:
            stream.write(json.dumps([asdict(row) for row in rows], indent=1).encode() + b"\n")


def _table(rows: list[EvaluationRow], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    depths = list(rows[0].recall)
    for name in ("codes", "re-ranked", "bytes", "nDCG@10", "% of float", *(f"Recall@{k}" for k in depths)):
        table.add_column(name, justify="left" if name == "codes" else "right", no_wrap=True)
    for row in rows:
        name = row.name if row.bits is None else f"{row.bits:g} bits"
        table.add_row(
            name,
            str(row.reranked) if row.reranked else "-",
            str(row.bytes_per_vector),
            _text(row.ndcg, 3),
            _text(row.share, 1, 100),
            *(_text(row.recall[k], 3) for k in depths),
        )
    return table


def _text(estimate: Estimate, digits: int, factor: float = 1) -> str:
    value, low, high = (f"{factor * v:.{digits}f}" for v in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"
