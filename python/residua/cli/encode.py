# SPDX-License-Identifier: Apache-2.0
"""`residua encode`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

import residua as rz
from residua._io import (
    RowWriter,
    VectorFile,
    atomic_output,
    check_output,
    float_chunks,
    open_vectors,
    split_key,
    suffix_of,
)
from residua.cli._app import complain, usage_error
from residua.cli._choices import (
    BitsOption,
    CodecFileOption,
    CodecOption,
    KeyOption,
    MetricOption,
    QueriesOption,
    SampleOption,
    SeedOption,
    ThreadsOption,
)
from residua.cli._console import progress, say
from residua.cli._fit import CodecRequest

__all__ = ["encode"]

_OUTPUTS = (".npy", ".u8bin", ".bvecs")


def encode(
    input: Annotated[str, typer.Argument(help="File of vectors; FILE::NAME for one array of several.")],
    output: Annotated[Path, typer.Argument(help="File of codes: .npy (uint8), .u8bin or .bvecs.")],
    codec: CodecOption = None,
    bits: BitsOption = None,
    metric: MetricOption = "cosine",
    codec_file: CodecFileOption = None,
    save_codec: Annotated[
        Path | None, typer.Option(help="Keep the codec, which is needed to use the codes.", metavar="FILE")
    ] = None,
    queries: QueriesOption = None,
    sample: SampleOption = None,
    key: KeyOption = None,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
) -> None:
    """Fit a codec and turn a file of vectors into a file of codes, chunk by chunk.

    \b
    Examples:
      residua encode vectors.npy codes.npy --bits 2 --save-codec codec.rsd
      residua encode more.fbin more-codes.npy --codec-file codec.rsd
      residua encode papers.parquet codes.npy --column embedding --codec binary
    """
    request = CodecRequest(codec, bits, metric, codec_file, queries, sample, seed, threads)
    request.check()
    if suffix_of(output) not in _OUTPUTS:
        raise usage_error(f"OUTPUT must end in one of {', '.join(_OUTPUTS)}; got {output.name!r}")
    if save_codec is not None and save_codec.resolve() == output.resolve():
        raise usage_error("OUTPUT and --save-codec are the same file")
    for path in (output, save_codec):
        if path is not None:
            inputs = (input, queries or "", str(codec_file or ""))
            check_output(path, tuple(split_key(name)[0] for name in inputs))
    file = open_vectors(input, key=key, prefer=("train", "base"))
    file.require_vectors()
    start = time.perf_counter()
    trained = request.codec(file)
    fitted = time.perf_counter()
    _encode_file(file, output, trained, threads)
    seconds = time.perf_counter() - fitted
    if save_codec is not None:
        trained.save(save_codec)
    elif codec_file is None and codec not in ("binary", "float"):
        complain(
            "the codec was not kept; --save-codec FILE keeps it, and the codes cannot be used without", "note"
        )
    say(
        f"{file.n:,} vectors of {file.dim} dims, {trained.code_bytes} bytes/vector "
        f"({4 * file.dim / trained.code_bytes:.1f}x smaller than float32), "
        f"{file.n / seconds:,.0f} vectors/s, fit {fitted - start:.1f} s: {output}"
    )


def _encode_file(file: VectorFile, output: Path, codec: rz.Codec, threads: int | None) -> None:
    with atomic_output(output) as stream, progress("encoding", file.n) as advance:
        writer = RowWriter(stream, suffix_of(output), file.n, codec.code_bytes, "uint8")
        for chunk in float_chunks(file, metric=codec.metric):
            writer.write(codec.encode(chunk, num_threads=threads))
            advance(len(chunk))
        writer.close()
