# SPDX-License-Identifier: Apache-2.0
"""How many documents a first stage must hand to MaxSim, on real token vectors."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

import residua as rz
from bench.environment import pinned
from bench.measures.session import Session
from bench.token_data import TokenData

__all__ = ["measure_first_stage", "needed"]

_RECALL = 0.95
_HEURISTIC_TOKENS = 4000  # per query token; whatever is farther counts as never found
Ranks = npt.NDArray[np.int64]


def needed(ranks: Ranks) -> int:
    """The least number of candidates that holds the share `_RECALL` of documents with these ranks."""
    ordered = np.sort(ranks, axis=None)
    return int(ordered[int(np.ceil(_RECALL * len(ordered))) - 1]) + 1


def _ranks(scores: npt.NDArray[Any], truth: Ranks) -> Ranks:
    order = np.argsort(-scores, axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(scores.shape[1])[None], axis=1)
    return np.take_along_axis(place, truth, axis=1)


def _encoders(data: TokenData) -> list[tuple[str, Any, tuple[int, ...]]]:
    """Labels, encoders and the bits of the codes that their vectors are kept as besides floats."""
    tokens, _ = data.documents
    dim, center = data.dim, tokens.mean(axis=0)
    fixed = [
        ("FDE 10240", rz.FDEncoder(dim), (1,)),
        ("FDE 10240, centered", rz.FDEncoder(dim, center=center), (1,)),
        ("FDE 10240, 40 x 16 cells, centered", rz.FDEncoder(dim, 4, 40, center=center), (1,)),
        ("FDE 5120 of 10240", rz.FDEncoder(dim, final_dim=5120), (2,)),
        ("FDE 2560 of 10240", rz.FDEncoder(dim, final_dim=2560), (4,)),
    ]
    learned = [
        (f"learned {width}", rz.LearnedEncoder(dim, output_dim=width), (1, 2, 4))
        for width in (512, 1024, 2048)
    ]
    return fixed + learned


def measure_first_stage(session: Session) -> None:
    """Candidates for 95 % of the ten best by MaxSim: by single tokens, by encodings, by their codes."""
    data = session.data
    assert isinstance(data, TokenData)
    truth = data.require_truth(session.case.kind)[:, : session.case.k]
    _report(session, "heuristic", **_heuristic(data, truth))
    for label, encoder, bits in _encoders(data):
        with pinned(session.case.threads):
            documents, queries, times = _encode(encoder, data, session.case.threads)
        _report(
            session, f"{label}, float32", bytes_per_vector=4 * encoder.output_dim, **times,
            candidates=needed(_ranks(queries @ documents.T, truth)),
        )  # fmt: skip
        for n_bits in bits:
            codec = rz.RecurrentBinaryCodec(encoder.output_dim, bits=n_bits)
            index = rz.FlatIndex(encoder.output_dim, metric="ip", codec=codec, vectors="none")
            index.add(documents)
            hits = index.search(queries, len(documents))
            scores = np.full((len(queries), len(documents)), -np.inf)
            np.put_along_axis(scores, np.asarray(hits.ids), np.asarray(hits.scores), axis=1)
            name = f"{label}, {n_bits} bit{'s' * (n_bits > 1)}"
            found = needed(_ranks(scores, truth))
            _report(session, name, bytes_per_vector=codec.code_bytes, candidates=found)
    counts = {row["label"]: row["candidates"] for row in session.rows}
    for bar in session.case.bars:
        ours, _, theirs = str(bar["name"]).partition(" by ")
        session.expect(bar["name"], counts[ours] / counts[theirs], bar["at_most"], "x", at_most=True)


def _report(session: Session, label: str, **figures: Any) -> None:
    session.log(f"  {label}: {figures['candidates']:,}")
    session.rows.append({"label": label, **figures})


def _encode(encoder: Any, data: TokenData, threads: int) -> tuple[Any, Any, dict[str, float]]:
    start = time.process_time()
    if isinstance(encoder, rz.LearnedEncoder):
        encoder.fit(data.documents, queries=data.train, num_threads=threads)
    fitted = time.process_time()
    documents = encoder.encode_documents(data.documents, num_threads=threads)
    encoded = time.process_time()
    queries = encoder.encode_queries(data.asked, num_threads=threads)
    asked = time.process_time()
    times = {
        "encode_document_us": 1e6 * (encoded - fitted) / len(documents),
        "encode_query_us": 1e6 * (asked - encoded) / len(queries),
    }
    if isinstance(encoder, rz.LearnedEncoder):
        times["fit_seconds"] = fitted - start
    return documents, queries, times


def _heuristic(data: TokenData, truth: Ranks) -> dict[str, int]:
    """Take the nearest tokens of every query token in turns; count tokens, and documents that own them."""
    tokens, offsets = data.documents
    asked, bounds = data.asked
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    depth = min(_HEURISTIC_TOKENS, len(tokens))
    never = (len(tokens), len(offsets) - 2)
    places = np.empty((*truth.shape, 2), np.int64)
    for i, wanted in enumerate(truth):
        scores = asked[bounds[i] : bounds[i + 1]] @ tokens.T
        near = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        order = np.argsort(-np.take_along_axis(scores, near, axis=1), axis=1, kind="stable")
        taken = owner[np.take_along_axis(near, order, axis=1).T.ravel()]
        documents, first = np.unique(taken, return_index=True)
        place = dict(zip(documents.tolist(), first.tolist(), strict=True))
        ordered = np.sort(first)
        places[i] = [
            (place[d], np.searchsorted(ordered, place[d])) if d in place else never for d in wanted.tolist()
        ]
    return {"candidates": needed(places[..., 1]), "tokens": needed(places[..., 0])}
