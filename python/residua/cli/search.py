# SPDX-License-Identifier: Apache-2.0
"""`residua search`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

import residua as rz
from residua._io import (
    RowWriter,
    atomic_output,
    check_output,
    float_chunks,
    open_vectors,
    split_key,
    suffix_of,
)
from residua._typing import AnyArray, FloatArray, IntArray
from residua.cli._app import usage_error
from residua.cli._choices import KeyOption, ThreadsOption, given, one_of
from residua.cli._console import output, progress, say
from residua.errors import InvalidTypeError, InvalidValueError, ShapeError, UnsupportedError

__all__ = ["load_index", "read_truth", "search"]

_BATCH = 1024
_SHOWN = 5  # queries whose results are printed where no file is asked for
_OUTPUTS = (".npz", ".npy", ".ivecs", ".ibin", ".json")


def search(
    index: Annotated[Path, typer.Argument(help="File of an index.")],
    queries: Annotated[str, typer.Argument(help="File of queries; FILE::NAME for one array of several.")],
    k: Annotated[int, typer.Option("-k", min=1, max=2**31 - 1, help="Results per query.")] = 10,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write ids and scores as .npz or .json; ids alone as .npy, .ivecs or .ibin.", metavar="FILE"
        ),
    ] = None,
    rerank: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Candidates settled exactly; 0: code scores only; default: automatic.",
            show_default=False,
        ),
    ] = None,
    scoring: Annotated[
        str | None,
        typer.Option(
            callback=one_of(("asymmetric", "symmetric")),
            metavar="asymmetric|symmetric",
            help="symmetric encodes the queries too.",
        ),
    ] = None,
    nprobe: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Lists that a query reads, where there are lists; default: automatic.",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(help="True ids of every query, for recall: .ivecs, .npy, .ibin, …", metavar="FILE"),
    ] = None,
    mmap: Annotated[bool, typer.Option("--mmap", help="Map the index instead of reading it.")] = False,
    key: KeyOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Search an index for every query of a file; print queries/s and recall, write ids and scores.

    \b
    Examples:
      residua search papers.rsd queries.npy -k 10 --out hits.npz
      residua search papers.rsd queries.fvecs --truth groundtruth.ivecs --rerank 0
      residua search glove.rsd glove.hdf5::test --truth glove.hdf5 --mmap
    """
    if out is not None:
        if suffix_of(out) not in _OUTPUTS:
            raise usage_error(f"--out must end in one of {', '.join(_OUTPUTS)}; got {out.name!r}")
        names = (str(index), queries, truth or "")
        check_output(out, tuple(split_key(name)[0] for name in names))
    loaded = load_index(index, mmap=mmap)
    file = open_vectors(queries, key=key, prefer=("queries", "test", "query"))
    file.require_vectors(loaded.dim)
    right = None if truth is None else read_truth(truth, file.n)
    options = given(rerank=rerank, scoring=scoring, nprobe=nprobe, num_threads=threads)
    found: list[rz.Hits] = []
    seconds = 0.0
    with progress("searching", file.n) as advance:
        for batch in float_chunks(file, metric=loaded.metric, rows=_BATCH):
            start = time.perf_counter()
            found.append(_search(loaded, batch, k, options))
            seconds += time.perf_counter() - start
            if right is not None and found[0].ids.dtype == object:
                raise InvalidTypeError(f"{truth}: holds integers, the ids of the index are text")
            advance(len(batch))
    ids = np.concatenate([hits.ids for hits in found])
    scores = np.concatenate([hits.scores for hits in found])
    counts = np.concatenate([np.asarray(hits.counts) for hits in found])
    if out is not None:
        _write(out, ids, scores, counts)
    else:
        _show(ids, scores, counts)
    line = f"{file.n:,} queries, k={k}, {file.n / seconds:,.0f} queries/s"
    if right is not None:
        depth = min(k, right.shape[1])
        line += f", recall@{depth} {rz.recall(ids[:, :depth], right[:, :depth]):.4f}"
    say(line if out is None else f"{line}: {out}")


_NO_INDEX = (
    (rz.Codec, "a codec"),
    (rz.EmbeddingTable, "an embedding table"),
    (rz.FDEncoder, "an encoder of token sets"),
    (rz.LearnedEncoder, "an encoder of token sets"),
    (rz.TokenStore, "a token store"),
    (rz.MultiVectorIndex, "an index of token sets, which rz.load reads"),
)


def load_index(path: Path, *, mmap: bool = False) -> Any:
    """Load an index; anything else is refused."""
    loaded = rz.load(path, mmap=mmap)
    for kind, held in _NO_INDEX:
        if isinstance(loaded, kind):
            raise UnsupportedError(f"{path}: holds {held}, expected an index (residua build)")
    return loaded


def read_truth(path: str, n_queries: int) -> IntArray:
    """Read ground truth: the ids of the nearest vectors, best first, one row per query."""
    file = open_vectors(path, prefer=("ids", "gt", "ground_truth"), integers=True)
    if file.dtype.kind not in "iu":
        raise InvalidTypeError(f"{file.name}: holds {file.dtype}, expected integer ids as ground truth")
    if file.n != n_queries or file.dim == 0:
        raise ShapeError(f"{file.name}: has shape ({file.n}, {file.dim}), expected ({n_queries}, k)")
    return file.read().astype(np.int64)


def _search(index: Any, batch: FloatArray, k: int, options: dict[str, Any]) -> rz.Hits:
    try:
        hits: rz.Hits = index.search(batch, k, **options)
    except TypeError as error:  # an option that this kind of index does not have
        raise InvalidTypeError(str(error)) from error
    return hits


def _write(out: Path, ids: AnyArray, scores: FloatArray, counts: AnyArray) -> None:
    suffix = suffix_of(out)
    text = ids.dtype == object
    if text and suffix != ".json":
        ids = np.array([["" if i is None else i for i in row] for row in ids.tolist()], dtype=np.str_)
    if text and suffix in (".ivecs", ".ibin"):
        raise InvalidValueError(f"{out}: ids are text, which {suffix} cannot hold; use .json, .npz or .npy")
    with atomic_output(out) as stream:
        if suffix == ".npz":
            np.savez(stream, ids=ids, scores=scores)
        elif suffix == ".npy":
            np.save(stream, ids, allow_pickle=False)
        elif suffix == ".json":
            rows = [
                {"ids": i[:count], "scores": s[:count]}
                for i, s, count in zip(ids.tolist(), scores.tolist(), counts.tolist(), strict=True)
            ]
            stream.write(json.dumps(rows, ensure_ascii=False).encode() + b"\n")
        else:
            writer = RowWriter(stream, suffix, len(ids), ids.shape[1], ids.dtype)
            writer.write(ids)
            writer.close()


def _show(ids: AnyArray, scores: FloatArray, counts: AnyArray) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("query", justify="right")
    table.add_column("id: score, best first", overflow="fold")
    for query in range(min(_SHOWN, len(ids))):
        count = int(counts[query])
        pairs = zip(ids[query, :count].tolist(), scores[query, :count].tolist(), strict=True)
        table.add_row(str(query), Text("  ".join(f"{i}: {score:.4g}" for i, score in pairs)))
    console = output()
    console.print(table, highlight=False)
    if len(ids) > _SHOWN:
        console.print(f"… and {len(ids) - _SHOWN:,} more queries; --out FILE keeps all", highlight=False)
