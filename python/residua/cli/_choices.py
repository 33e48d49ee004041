# SPDX-License-Identifier: Apache-2.0
"""Codecs and indexes as the command line names them, and the options that several commands share.

A new codec or index is one line in `CODECS` or `INDEXES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

import residua as rz
from residua.cli._app import usage_error

__all__ = [
    "CODECS",
    "INDEXES",
    "METRICS",
    "BitsOption",
    "CodecFileOption",
    "CodecOption",
    "KeyOption",
    "MetricOption",
    "QueriesOption",
    "SampleOption",
    "SeedOption",
    "ThreadsOption",
    "check_bits",
    "given",
    "make_codec",
    "one_of",
]

METRICS = ("cosine", "ip", "l2")


@dataclass(frozen=True)
class CodecKind:
    """`make(dim, bits, seed)` builds the codec; `bits` is the default, `accepts` knows what may be given."""

    make: Callable[[int, float, int], rz.Codec]
    bits: float
    accepts: Callable[[float], bool]
    expected: str


CODECS = {
    "recurrent": CodecKind(
        lambda dim, bits, seed: rz.RecurrentBinaryCodec(dim, bits=bits, seed=seed),
        2.0,
        lambda bits: 0.5 <= bits <= 8,
        "0.5 to 8, fractions included",
    ),
    "binary": CodecKind(lambda dim, bits, seed: rz.BinaryCodec(dim), 1.0, lambda bits: bits == 1, "1"),
    "scalar": CodecKind(
        lambda dim, bits, seed: rz.ScalarCodec(dim, 8 if bits == 8 else 4, seed=seed),
        8.0,
        lambda bits: bits in (4, 8),
        "8 or 4",
    ),
    "pq": CodecKind(
        lambda dim, bits, seed: rz.PQCodec(dim, max(1, round(dim * bits / 8)), seed=seed),
        1.0,
        lambda bits: 0 < bits <= 8,
        "up to 8 per dim, in sub-spaces of 8 bits",
    ),
    "residual": CodecKind(
        lambda dim, bits, seed: rz.ResidualCodec(dim, min(max(round(dim * bits / 8) - 1, 1), 32), seed=seed),
        0.25,
        lambda bits: 0 < bits <= 1,
        "above 0 to 1, the byte of a length included; a code has 2 to 33 bytes",
    ),
    "float": CodecKind(
        lambda dim, bits, seed: rz.FloatCodec(dim, "float16" if bits == 16 else "float32"),
        32.0,
        lambda bits: bits in (16, 32),
        "16 or 32",
    ),
}

# Each is called with (dim, metric=, codec=, vectors=), and with what else was given for it.
INDEXES: dict[str, Callable[..., Any]] = {
    "flat": rz.FlatIndex,
    "ivf": rz.IVFIndex,
}


def check_bits(kind: str, bits: float | None) -> None:
    """Refuse bits that a codec does not have; a usage error."""
    chosen = CODECS[kind]
    if bits is not None and not chosen.accepts(bits):
        raise usage_error(f"--codec {kind} takes --bits {chosen.expected}; got {bits:g}")


def make_codec(kind: str, dim: int, bits: float | None, seed: int) -> rz.Codec:
    """Make an untrained codec."""
    chosen = CODECS[kind]
    return chosen.make(dim, chosen.bits if bits is None else bits, seed)


def one_of(choices: Iterable[str]) -> Callable[[str | None], str | None]:
    """Make a callback that refuses everything but the choices."""
    names = tuple(choices)

    def check(value: str | None) -> str | None:
        if value is not None and value not in names:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(names)}")
        return value

    return check


def given(**options: Any) -> dict[str, Any]:
    """Keep the options that were given; an index refuses those that it cannot use."""
    return {name: value for name, value in options.items() if value is not None}


def _choice(*names: str, choices: Iterable[str], help: str) -> Any:
    return typer.Option(*names, callback=one_of(choices), metavar="|".join(choices), help=help)


CodecOption = Annotated[
    str | None, _choice("--codec", choices=CODECS, help="Kind of codec; default: recurrent.")
]
BitsOption = Annotated[
    float | None,
    typer.Option(
        help="Bits per dim: recurrent 0.5 to 8 (default 2), scalar 8 (default) or 4, binary 1, "
        "residual up to 1 (default 0.25), float 16 or 32 (default).",
        show_default=False,
    ),
]
MetricOption = Annotated[str, _choice("--metric", choices=METRICS, help="What scores estimate.")]
CodecFileOption = Annotated[
    Path | None, typer.Option(help="Use this saved codec instead of fitting one.", metavar="FILE")
]
QueriesOption = Annotated[
    str | None,
    typer.Option(
        help="Sample of queries for the fit, which makes codes of the same size rank better.", metavar="FILE"
    ),
]
SampleOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Rows that the codec is fitted to, drawn uniformly; default: 100,000 and at most 128 MiB.",
        show_default=False,
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the sample and of the codec.")]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        "--column",
        help="Array, dataset or column of INPUT; Parquet also takes a pattern such as 'emb_*'.",
        metavar="NAME",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, max=4096, help="Threads; default: all that may be used.", show_default=False),
]
