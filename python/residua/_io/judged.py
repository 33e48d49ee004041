# SPDX-License-Identifier: Apache-2.0
"""Folders with documents, queries and relevance judgements, close to the layout of BEIR (docs/eval.md)."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from residua._io.raw_rows import open_npy
from residua._io.vector_file import sample_rows, take_floats
from residua._typing import FloatArray
from residua.errors import CorruptFileError, FileError, InvalidValueError

__all__ = ["JudgedFolder", "read_judged_folder"]

_TEXTS = (".jsonl", ".jsonl.gz")
_DOCUMENTS = ("corpus", "documents")
_DOCUMENT_VECTORS = ("doc_vectors.npy", "corpus.npy", "documents.npy")
_JUDGEMENTS = (".tsv", ".jsonl", ".jsonl.gz")
_HEADER = ("query-id", "query_id", "qid")


@dataclass(frozen=True)
class JudgedFolder:
    """What a folder holds; `relevant` maps rows of documents to grades, one mapping per query."""

    documents: FloatArray
    queries: FloatArray
    relevant: list[dict[int, float]]
    unknown: int  # judgements of documents that are not in the folder


def read_judged_folder(folder: Path, metric: str, split: str = "test") -> JudgedFolder:
    """Read a folder; every file that is missing is an error that lists the names that would do."""
    if not folder.is_dir():
        raise FileError(f"{folder}: not a folder")
    texts = _find(folder, [n + s for n in _DOCUMENTS for s in _TEXTS], "documents")
    asked = _find(folder, [n + s for n in (f"{split}_queries", "queries") for s in _TEXTS], "queries")
    document_ids = [_id_of(row, texts, line) for line, row in _records(texts)]
    entries = list(_records(asked))
    query_ids = [_id_of(row, asked, line) for line, row in entries]
    rows = _number(document_ids, texts)
    grades: list[dict[int, float]] = [{} for _ in query_ids]
    queries = _number(query_ids, asked)
    names = [f"qrels/{split}", f"{split}_qrels", "qrels"]
    found = _first(folder, [n + s for n in names for s in _JUDGEMENTS])
    unknown = 0
    if found is not None:
        judgements = _judgements(found)
    elif any("relevant" in row for _, row in entries):
        judgements = _inline(entries, asked)
    else:
        raise FileError(
            f"{folder}: no relevance judgements; expected qrels/{split}.tsv, qrels.tsv or qrels.jsonl "
            f'(query-id, corpus-id, score), or "relevant" in {asked.name}'
        )
    for query, document, grade in judgements:
        if query not in queries:
            continue  # judgements of another split
        if document in rows:
            grades[queries[query]][rows[document]] = grade
        else:
            unknown += 1
    x = _vectors(folder, _DOCUMENT_VECTORS, len(document_ids), texts, metric)
    names = [f"{split}_query_vectors.npy", "query_vectors.npy", f"{split}_queries.npy", "queries.npy"]
    q = _vectors(folder, tuple(names), len(query_ids), asked, metric)
    if x.shape[1] != q.shape[1]:
        raise InvalidValueError(f"{folder}: documents have {x.shape[1]} dims, queries {q.shape[1]}")
    return JudgedFolder(x, q, grades, unknown)


def _first(folder: Path, names: list[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _find(folder: Path, names: list[str], what: str) -> Path:
    found = _first(folder, names)
    if found is None:
        raise FileError(f"{folder}: no {what}; expected one of {', '.join(names)}")
    return found


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise CorruptFileError(f"{path}: cannot be read as UTF-8 text ({e})") from e


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(path):
        try:
            row = json.loads(line)
        except ValueError as e:
            raise CorruptFileError(f"{path}: line {number} is not JSON ({e})") from e
        if not isinstance(row, dict):
            raise CorruptFileError(f"{path}: line {number} is not a JSON object")
        yield number, row


def _id_of(row: dict[str, Any], path: Path, line: int) -> str:
    for key in ("_id", "id"):
        if isinstance(row.get(key), (str, int)):
            return str(row[key])
    raise CorruptFileError(f'{path}: line {line} has no "_id"')


def _number(ids: list[str], path: Path) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, name in enumerate(ids):
        if rows.setdefault(name, row) != row:
            raise CorruptFileError(f"{path}: _id {name!r} occurs twice")
    return rows


def _grade(value: Any, path: Path, line: int) -> float:
    try:
        grade = float(value)
    except (TypeError, ValueError):
        grade = float("nan")
    if not np.isfinite(grade):
        raise CorruptFileError(f"{path}: line {line}: the score {value!r} is not a number")
    return grade


def _judgements(path: Path) -> Iterator[tuple[str, str, float]]:
    if path.suffix == ".tsv":
        for number, line in _lines(path):
            parts = line.split("\t")
            if number == 1 and parts[0] in _HEADER:
                continue
            if len(parts) == 4:  # as trec_eval writes them: query, iteration, document, score
                parts = [parts[0], parts[2], parts[3]]
            if len(parts) != 3:
                raise CorruptFileError(
                    f"{path}: line {number} has {len(parts)} columns, expected query-id, corpus-id, score"
                )
            yield parts[0], parts[1], _grade(parts[2], path, number)
        return
    for number, row in _records(path):
        pair = [row.get(name) for name in ("query-id", "corpus-id")]
        if not all(isinstance(name, (str, int)) for name in pair):
            raise CorruptFileError(f'{path}: line {number} has no "query-id" and "corpus-id"')
        yield str(pair[0]), str(pair[1]), _grade(row.get("score", 1), path, number)


def _inline(entries: list[tuple[int, dict[str, Any]]], path: Path) -> Iterator[tuple[str, str, float]]:
    for line, row in entries:
        relevant = row.get("relevant", [])
        if isinstance(relevant, list):
            relevant = dict.fromkeys(map(str, relevant), 1)
        if not isinstance(relevant, dict):
            raise CorruptFileError(f'{path}: line {line}: "relevant" must be a list of ids, or ids to scores')
        for document, grade in relevant.items():
            yield _id_of(row, path, line), str(document), _grade(grade, path, line)


def _vectors(folder: Path, names: tuple[str, ...], n: int, texts: Path, metric: str) -> FloatArray:
    path = _find(folder, list(names), f"vectors for {texts.name}")
    file = open_npy(str(path))
    file.require_vectors()
    if file.n != n:
        raise InvalidValueError(f"{path}: {file.n} vectors for {n} lines of {texts.name}")
    return take_floats(file, sample_rows(file.n, file.n, 0), metric=metric)
