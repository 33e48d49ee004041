# SPDX-License-Identifier: Apache-2.0
"""`residua build`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from residua._io import VectorFile, check_output, float_chunks, open_vectors, read_ids, split_key
from residua._ivf_fit import automatic_nlist
from residua._typing import AnyArray
from residua.cli._app import usage_error
from residua.cli._choices import (
    CODECS,
    INDEXES,
    BitsOption,
    CodecFileOption,
    KeyOption,
    MetricOption,
    QueriesOption,
    SampleOption,
    SeedOption,
    ThreadsOption,
    one_of,
)
from residua._size_text import size_text
from residua.cli._console import progress, say
from residua.cli._fit import CodecRequest

__all__ = ["build"]

_VECTORS = ("auto", "float32", "float16", "int8", "disk", "none")
_CODECS = (*CODECS, "none")


def build(
    input: Annotated[str, typer.Argument(help="File of vectors; FILE::NAME for one array of several.")],
    index: Annotated[Path, typer.Argument(help="File of the index; replaced when it exists.")],
    kind: Annotated[
        str,
        typer.Option("--index", callback=one_of(INDEXES), metavar="|".join(INDEXES), help="Kind of index."),
    ] = "flat",
    codec: Annotated[
        str | None,
        typer.Option(
            callback=one_of(_CODECS),
            metavar="|".join(_CODECS),
            help="Kind of codec; none scans float32 exactly; default: recurrent.",
        ),
    ] = None,
    bits: BitsOption = None,
    metric: MetricOption = "cosine",
    vectors: Annotated[
        str,
        typer.Option(callback=one_of(_VECTORS), metavar="|".join(_VECTORS), help="Kept for exact re-ranking."),
    ] = "auto",
    ids: Annotated[
        str | None,
        typer.Option(
            help="Ids, one per vector: .txt, .npy, .npz, .parquet::COLUMN, .ivecs; default: 0, 1, 2 …",
            metavar="FILE",
        ),
    ] = None,
    nlist: Annotated[
        int | None,
        typer.Option(
            min=1, help="Lists of --index ivf; default: twice the square root of the rows.", show_default=False
        ),
    ] = None,
    codec_file: CodecFileOption = None,
    queries: QueriesOption = None,
    sample: SampleOption = None,
    key: KeyOption = None,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
) -> None:
    """Build an index from a file of vectors, chunk by chunk, and save it.

    The index is made in memory: codes, ids and the kept vectors must fit, the input need not. Use
    --vectors none or disk where the kept vectors are too large.

    \b
    Examples:
      residua build vectors.npy papers.rsd --bits 2
      residua build glove.hdf5::train glove.rsd --codec recurrent --bits 1 --vectors float16
      residua build vectors.npy papers.rsd --index ivf --bits 1
      residua build papers.parquet papers.rsd --column embedding --ids papers.parquet::doi
    """
    if nlist is not None and kind != "ivf":
        raise usage_error(f"--nlist is for --index ivf; got --index {kind}")
    request = CodecRequest(codec, bits, metric, codec_file, queries, sample, seed, threads)
    if codec == "none":
        for name, value in (("--bits", bits), ("--queries", queries), ("--sample", sample)):
            if value is not None:
                raise usage_error(f"--codec none has nothing to fit, {name} cannot be used")
        if codec_file is not None:
            raise usage_error("--codec none and --codec-file exclude each other")
    else:
        request.check()
    inputs = (input, queries or "", ids or "", str(codec_file or ""))
    check_output(index, tuple(split_key(name)[0] for name in inputs))
    file = open_vectors(input, key=key, prefer=("train", "base"))
    file.require_vectors()
    given_ids = None if ids is None else read_ids(*split_key(ids), file.n)
    start = time.perf_counter()
    if kind == "ivf":
        chosen = None if codec == "none" else request.unfitted(file)
        lists = nlist or automatic_nlist(file.n)
        built = INDEXES[kind](
            file.dim, metric=metric, codec=chosen, vectors=vectors, nlist=lists, seed=seed
        )
        request.train(built, file)
    else:
        chosen = None if codec == "none" else request.codec(file)
        built = INDEXES[kind](file.dim, metric=metric, codec=chosen, vectors=vectors)
    _add_all(built, file, given_ids, threads)
    built.save(index)
    seconds = time.perf_counter() - start
    size = sum(built.memory().values())
    say(
        f"{built!r}: {size / file.n:,.1f} bytes/vector in memory, {size_text(index.stat().st_size)} on disk, "
        f"{file.n / seconds:,.0f} vectors/s: {index}"
    )


def _add_all(index: Any, file: VectorFile, ids: AnyArray | None, threads: int | None) -> None:
    done = 0
    with progress("adding", file.n) as advance:
        for chunk in float_chunks(file, metric=index.metric):
            part = None if ids is None else ids[done : done + len(chunk)]
            index.add(chunk, part, num_threads=threads)
            done += len(chunk)
            advance(len(chunk))
