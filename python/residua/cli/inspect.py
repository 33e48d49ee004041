# SPDX-License-Identifier: Apache-2.0
"""`residua inspect`."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

import residua as rz
from residua._io import VectorFile, contents, open_vectors, rows_per_chunk, sample_rows, split_key, suffix_of
from residua._io.container import Container, is_container, read_container
from residua._size_text import size_text
from residua._typing import AnyArray
from residua.cli._app import complain
from residua.cli._choices import KeyOption
from residua.cli._console import facts_table, output, progress
from residua.errors import ResiduaError

__all__ = ["inspect"]

_SAMPLE_ROWS = 100_000
_FIRST_VALUES = 6


def inspect(
    file: Annotated[str, typer.Argument(help="An index, a table, a codec, or a file of vectors.")],
    key: KeyOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Look at every row, and verify every checksum.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say what a file is: an index, a codec or vectors, with sizes, checksums and statistics.

    A damaged Residua file is described as far as it can be read; the exit code is then 1.

    \b
    Examples:
      residua inspect papers.rsd --full
      residua inspect vectors.fvecs --json
      residua inspect glove.hdf5::test

    Of a file with several arrays or columns the contents are listed; FILE::NAME looks at one.
    """
    if is_container(file):
        found = read_container(file, verify=full)
        facts = _container_facts(file, found)
    else:
        path, name = split_key(file, key)
        held = contents(path) if name is None else {}
        if len(held) > 1:
            facts = {
                "file": path,
                "format": suffix_of(path)[1:],
                "bytes": os.path.getsize(path),
                "holds": held,
            }
        else:
            facts = _vector_facts(open_vectors(path, key=name), full)
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=1, allow_nan=False))
    else:
        _print(facts)
    problems = facts.get("problems", [])
    if problems:
        complain(f"{file}: {'; '.join(problems)}")
        raise typer.Exit(1)


def _container_facts(path: str, found: Container) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "file": path,
        "format": "residua",
        "kind": found.kind,
        "version": f"{found.version[0]}.{found.version[1]}",
        "bytes": found.bytes,
    }
    try:
        if not found.problems:
            facts |= _loaded_facts(rz.load(path, mmap=True))
    except (ResiduaError, OSError) as error:
        found.problems.append(str(error))
    facts["meta"] = found.meta
    facts["sections"] = [{"name": s.name, "bytes": s.bytes, "checksum": s.state} for s in found.sections]
    facts["problems"] = found.problems
    return facts


def _loaded_facts(loaded: Any) -> dict[str, Any]:
    if isinstance(loaded, rz.Codec):
        return {
            "codec": repr(loaded),
            "dim": loaded.dim,
            "metric": loaded.metric,
            "bytes_per_vector": loaded.code_bytes,
            "fingerprint": loaded.fingerprint,
        }
    if isinstance(loaded, (rz.FDEncoder, rz.LearnedEncoder)):
        return {"encoder": repr(loaded), "dim": loaded.dim, "output_dim": loaded.output_dim}
    memory = loaded.memory()
    if isinstance(loaded, rz.TokenStore):
        return {
            "store": repr(loaded),
            "n": len(loaded),
            "tokens": loaded.n_tokens,
            "dim": loaded.dim,
            "codec": repr(loaded.codec),
            "memory": memory,
        }
    if isinstance(loaded, rz.MultiVectorIndex):
        return {
            "index": repr(loaded),
            "n": len(loaded),
            "dim": loaded.dim,
            "encoder": None if loaded.encoder is None else repr(loaded.encoder),
            "plan": loaded.plan,
            "memory": memory,
            "bytes_per_document": sum(memory.values()) / len(loaded) if len(loaded) else None,
        }
    if isinstance(loaded, rz.EmbeddingTable):
        return {
            "table": repr(loaded),
            "n": len(loaded),
            "dim": loaded.dim,
            "codec": repr(loaded.codec),
            "memory": memory,
            "bytes_per_vector": sum(memory.values()) / len(loaded) if len(loaded) else None,
        }
    return {
        "index": repr(loaded),
        "n": len(loaded),
        "dim": loaded.dim,
        "metric": loaded.metric,
        "codec": None if loaded.codec is None else repr(loaded.codec),
        "plan": loaded.plan,
        "memory": memory,
        "bytes_per_vector": sum(memory.values()) / len(loaded) if len(loaded) else None,
    }


class _Statistics:
    """Running figures over chunks of rows."""

    def __init__(self) -> None:
        self.rows = self.bad_rows = self.zero_rows = 0
        self.low, self.high = np.inf, -np.inf
        self.norm_low, self.norm_high, self.norm_sum = np.inf, -np.inf, 0.0

    def add(self, chunk: AnyArray) -> None:
        floats = chunk.astype(np.float64)
        good = np.isfinite(floats).all(axis=1)
        self.rows += len(floats)
        self.bad_rows += int((~good).sum())
        floats = floats[good]
        if floats.size == 0:
            return
        self.low, self.high = min(self.low, float(floats.min())), max(self.high, float(floats.max()))
        norms = np.sqrt(np.einsum("ij,ij->i", floats, floats))
        self.zero_rows += int((norms == 0).sum())
        self.norm_low = min(self.norm_low, float(norms.min()))
        self.norm_high = max(self.norm_high, float(norms.max()))
        self.norm_sum += float(norms.sum())

    def facts(self, dtype: np.dtype[Any]) -> dict[str, Any]:
        good = self.rows - self.bad_rows
        share = {"rows_looked_at": self.rows, "share_of_nan_rows": self.bad_rows / max(self.rows, 1)}
        if good == 0:
            return share
        share |= {"min": self.low, "max": self.high}
        if dtype.kind in "iu" and dtype.itemsize > 1:  # ids, not vectors
            return share
        return share | {
            "zero_rows": self.zero_rows,
            "norms": {"min": self.norm_low, "mean": self.norm_sum / good, "max": self.norm_high},
        }


def _vector_facts(file: VectorFile, full: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"file": file.path, "format": file.format}
    if file.key:
        facts["key"] = file.key
    facts |= {"n": file.n, "dim": file.dim, "dtype": file.dtype.name}
    facts["bytes"] = file.n * file.dim * file.dtype.itemsize
    if file.n == 0 or file.dim == 0:
        return facts
    facts["first_values"] = [_plain(value) for value in file.head(1)[0, :_FIRST_VALUES].tolist()]
    statistics = _Statistics()
    if full or file.n <= _SAMPLE_ROWS:
        with progress("reading", file.n) as advance:
            for chunk in file.chunks(rows_per_chunk(file.dim)):
                statistics.add(chunk)
                advance(len(chunk))
    else:
        rows = sample_rows(file.n, _SAMPLE_ROWS, 0)
        step = rows_per_chunk(file.dim)
        if file.is_seekable:
            for start in range(0, len(rows), step):
                statistics.add(file.take(rows[start : start + step]))
        else:  # one pass costs what a sample would
            for chunk in file.chunks(step):
                statistics.add(chunk)
    return facts | statistics.facts(file.dtype)


def _plain(value: float) -> float | str:
    """JSON has no NaN and no infinity."""
    return value if np.isfinite(value) else str(value)


def _print(facts: dict[str, Any]) -> None:
    console = output()
    table = facts_table("")
    for name, value in facts.items():
        if name in ("sections", "problems", "meta"):
            continue
        table.add_row(name.replace("_", " "), Text(_text(name, value)))
    console.print(table, highlight=False)
    if facts.get("sections"):
        sections = Table(box=None, padding=(0, 2, 0, 0))
        sections.add_column("section")
        sections.add_column("bytes", justify="right")
        sections.add_column("checksum")
        for section in facts["sections"]:
            sections.add_row(Text(section["name"]), f"{section['bytes']:,}", section["checksum"])
        console.print(sections, highlight=False)


def _text(name: str, value: Any) -> str:
    if name == "bytes":
        return f"{value:,} ({size_text(value)})"
    if name == "holds":
        return "\n".join(f"{part}: {what}" for part, what in value.items())
    if name == "memory":
        return ", ".join(f"{part} {size_text(size)}" for part, size in value.items())
    if name == "share_of_nan_rows":
        return f"{value:.2%}"
    if isinstance(value, dict):
        return ", ".join(f"{part} {one:.6g}" for part, one in value.items())
    if isinstance(value, list):
        return "  ".join(one if isinstance(one, str) else f"{one:.6g}" for one in value) + "  …"
    if isinstance(value, bool) or value is None:
        return "none" if value is None else str(value)
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)
    )
