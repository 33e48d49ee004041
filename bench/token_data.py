# SPDX-License-Identifier: Apache-2.0
"""Data folders of token vectors.

A folder holds `doc_tokens.npy` and `query_tokens.npy` (T x dim, float16 or float32), `doc_offsets.npy` and
`query_offsets.npy` (n + 1 whole numbers: set i owns rows `offsets[i]` to `offsets[i + 1]` - 1), `gt.npy`
(documents by exact MaxSim over the float32 tokens, best first), and optionally `train_query_tokens.npy` with
`train_query_offsets.npy`, queries that an encoder may be fitted with, and `qrels.tsv` (query, document that
is relevant to it). `python -m bench prepare --tokens` makes one of a folder of int8 tokens that it knows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import residua as rz
from bench.datasets import BenchData, DataError

__all__ = ["TokenData", "load_tokens", "prepare_tokens"]

Sets = tuple[npt.NDArray[Any], npt.NDArray[np.int64]]
_GT = 100
# (documents, offsets, scales of int8 documents, query tokens, query offsets)
_LAYOUTS = (
    ("mv_doc_tokens_i8", "mv_doc_offsets", "mv_doc_scales", "test_mv_query_tokens", "test_mv_query_offsets"),
    (
        "rebuilt800_mv_doc_tokens_i8", "rebuilt800_mv_doc_offsets", "rebuilt800_mv_doc_scales",
        "rebuilt_mv_query_tokens", "rebuilt_mv_query_offsets",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class TokenData(BenchData):
    """One set; `base` and `queries` are the tokens of documents and queries, `truth` documents per query."""

    offsets: npt.NDArray[np.int64] | None = None
    query_offsets: npt.NDArray[np.int64] | None = None
    train: Sets | None = None
    relevant: tuple[tuple[int, int], ...] = ()

    @property
    def documents(self) -> Sets:
        assert self.offsets is not None
        return self.base, self.offsets

    @property
    def asked(self) -> Sets:
        assert self.query_offsets is not None
        return self.queries, self.query_offsets

    def head(self, n_queries: int | None) -> TokenData:
        """The same set with only its first queries."""
        assert self.query_offsets is not None
        if n_queries is None or n_queries >= len(self.query_offsets) - 1:
            return self
        return dataclasses.replace(
            self,
            queries=self.queries[: self.query_offsets[n_queries]],
            query_offsets=self.query_offsets[: n_queries + 1],
            truth=None if self.truth is None else self.truth[:n_queries],
            relevant=tuple(pair for pair in self.relevant if pair[0] < n_queries),
        )

    def summary(self) -> dict[str, object]:
        """What a result records."""
        assert self.offsets is not None
        assert self.query_offsets is not None
        return {
            "name": self.name,
            "metric": f"MaxSim over {len(self.base):,} tokens",
            "n": len(self.offsets) - 1,
            "dim": self.dim,
            "queries": len(self.query_offsets) - 1,
            "train_queries": 0 if self.train is None else len(self.train[1]) - 1,
            "note": self.note,
        }


def _load(folder: Path, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(np.load(folder / f"{name}.npy", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder.name}: {name}.npy cannot be read: {error}") from error


def _sets(folder: Path, what: str) -> Sets:
    tokens, offsets = _load(folder, f"{what}_tokens"), _load(folder, f"{what}_offsets").astype(np.int64)
    if tokens.ndim != 2 or tokens.dtype.kind != "f":
        raise DataError(f"{what}_tokens.npy must be 2-D floats, got {tokens.dtype} of shape {tokens.shape}")
    if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(tokens):
        raise DataError(f"{what}_offsets.npy must go from 0 to the {len(tokens)} tokens")
    return np.ascontiguousarray(tokens, np.float32), offsets


def load_tokens(folder: Path | str) -> TokenData:
    """Read a folder of token vectors; every inconsistency is a `DataError`."""
    folder = Path(folder)
    documents, queries = _sets(folder, "doc"), _sets(folder, "query")
    truth = _load(folder, "gt").astype(np.int64)
    if truth.ndim != 2 or len(truth) != len(queries[1]) - 1:
        raise DataError(f"gt.npy has shape {truth.shape}, expected ({len(queries[1]) - 1}, k)")
    train = _sets(folder, "train_query") if (folder / "train_query_tokens.npy").exists() else None
    relevant: tuple[tuple[int, int], ...] = ()
    if (folder / "qrels.tsv").exists():
        lines = (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()
        relevant = tuple((int(line.split("\t")[0]), int(line.split("\t")[1])) for line in lines)
    return TokenData(
        folder.resolve().name, "ip", documents[0], queries[0], None, truth, "", documents[1], queries[1],
        train, relevant,
    )  # fmt: skip


def prepare_tokens(source: Path, target: Path, *, train_queries: int = 0) -> TokenData:
    """Write a folder of token vectors from `source`, the first queries for fitting."""
    for layout in _LAYOUTS:
        if all((source / f"{name}.npy").is_file() for name in layout):
            break
    else:
        known = "; or ".join(" + ".join(layout) for layout in _LAYOUTS)
        raise DataError(f"{source.name} holds no tokens that are known here; expected {known}")
    levels, offsets, scales, queries, query_offsets = (_load(source, name) for name in layout)
    scale = scales.astype(np.float32)[:, None] / 127
    documents = (levels.astype(np.float32) * scale).astype(np.float16)
    first = int(query_offsets[train_queries])
    target.mkdir(parents=True, exist_ok=True)
    for name, tokens, rows in (
        ("doc", documents, offsets),
        ("query", queries[first:], query_offsets[train_queries:] - first),
        ("train_query", queries[:first], query_offsets[: train_queries + 1]),
    ):
        if len(rows) > 1:
            np.save(target / f"{name}_tokens.npy", tokens)
            np.save(target / f"{name}_offsets.npy", rows.astype(np.int64))
    asked = (queries[first:].astype(np.float32), query_offsets[train_queries:] - first)
    hits = rz.maxsim_topk(asked, (documents.astype(np.float32), offsets), _GT)
    np.save(target / "gt.npy", np.asarray(hits.ids, np.int32))
    return load_tokens(target)
