# SPDX-License-Identifier: Apache-2.0
"""Token sets: encodings and MaxSim of generated unit tokens, ours beside NumPy and other packages.

Times are CPU seconds of one process in which everything runs with one thread, taken in turns: other work on
the machine falls out. Tokens are drawn around shared directions; no quality is measured.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import residua as rz
from bench.cases import Spec
from bench.environment import pinned
from bench.measures.session import Session
from bench.stats import interleave, pair_ratios, spread

__all__ = ["measure_fde", "measure_maxsim"]

Floats = npt.NDArray[np.float32]


def _tokens(rng: np.random.Generator, n: int, t: int, dim: int) -> Floats:
    topics = rng.standard_normal((500, dim))
    x = topics[rng.integers(0, 500, (n, t))] + 0.7 * rng.standard_normal((n, t, dim))
    return (x / np.linalg.norm(x, axis=2, keepdims=True)).astype(np.float32)


def _peer(
    session: Session, package: str, make: Callable[[Any], dict[str, Callable[[], Any]]]
) -> dict[str, Any]:
    try:
        return make(importlib.import_module(package))
    except ImportError as error:
        session.skip(Spec(package, {}), str(error))
        return {}


def _measure(
    session: Session, actions: dict[str, Callable[[], Any]], per_call: int
) -> dict[str, list[float]]:
    with pinned(1):
        seconds = interleave(actions, session.case.repeats, clock=session.case.clock)
    for label, values in seconds.items():
        session.rows.append(
            {"label": label, "microseconds": spread(values).map(lambda s: 1e6 * s / per_call).as_dict()}
        )
    return seconds


def _expect(session: Session, seconds: dict[str, list[float]]) -> None:
    """`[[bar]] name = "ours by theirs", at_least = 3`, for two labels that were measured."""
    for bar in session.case.bars:
        ours, _, theirs = str(bar["name"]).partition(" by ")
        if "at_most" in bar:
            value = spread(seconds[ours]).median
            session.expect(f"{ours}, milliseconds per call", 1e3 * value, bar["at_most"], "ms", at_most=True)
        elif ours in seconds and theirs in seconds:
            ratio = pair_ratios(seconds[theirs], seconds[ours])
            session.expect(f"{ours} by {theirs}", ratio.median, bar["at_least"], "x")


def measure_fde(session: Session) -> None:
    """One document of `batch` tokens and one query of `queries`, per call; a list of `rows` documents."""
    case = session.case
    dim, n = case.dims or 128, case.rows or 100
    rng = np.random.default_rng(case.seed)
    documents = list(_tokens(rng, n, case.batch, dim))
    document, query = documents[0], documents[1][: case.queries or 32]
    ours = rz.FDEncoder(dim)
    long = rz.FDEncoder(dim, 6, 40, proj="identity", final_dim=10_240)

    def repeated(action: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(n):
                action()

        return run

    actions: dict[str, Callable[[], Any]] = {
        "document": repeated(lambda: ours.encode_documents(document, num_threads=1)),
        "query": repeated(lambda: ours.encode_queries(query, num_threads=1)),
        "documents in one call": lambda: ours.encode_documents(documents, num_threads=1),
        "327,680 values sketched to 10,240": lambda: long.encode_documents(documents, num_threads=1),
    }

    def fastembed(module: Any) -> dict[str, Callable[[], Any]]:
        muvera = module.Muvera(dim)
        same = rz.FDEncoder(dim, seed=42, compat="fastembed")
        return {
            "document, as fastembed": repeated(lambda: same.encode_documents(document, num_threads=1)),
            "fastembed document": repeated(lambda: muvera.process_document(document)),
            "fastembed query": repeated(lambda: muvera.process_query(query)),
        }

    actions.update(_peer(session, "fastembed.postprocess", fastembed))
    _expect(session, _measure(session, actions, n))


def measure_maxsim(session: Session) -> None:
    """One query of `queries` tokens against `rows` documents of `batch` tokens; microseconds per document."""
    case = session.case
    dim, n, t = case.dims or 128, case.rows or 1000, case.batch
    rng = np.random.default_rng(case.seed)
    documents = _tokens(rng, n, t, dim)
    query = documents[7, : case.queries or 32] + 0.02 * rng.standard_normal(
        (case.queries or 32, dim), np.float32
    )
    flat, offsets = documents.reshape(-1, dim), np.arange(n + 1) * t
    scale = np.abs(flat).max(axis=1) / 127
    levels = np.rint(flat / scale[:, None]).astype(np.int8)
    half = flat.astype(np.float16)
    actions: dict[str, Callable[[], Any]] = {
        "float32": lambda: rz.maxsim(query, (flat, offsets), num_threads=1),
        "float16": lambda: rz.maxsim(query, (half, offsets), num_threads=1),
        "int8": lambda: rz.maxsim(query, (levels, offsets), doc_scales=scale, num_threads=1),
        "NumPy": lambda: [(query @ d.T).max(axis=1).sum() for d in documents],
    }
    for codec in ("rb4", "rb2", "rb1"):
        actions[codec] = _scan(query, rz.TokenStore((flat, offsets), codec))

    def numkong(module: Any) -> dict[str, Callable[[], Any]]:
        packed = [module.maxsim_pack(d) for d in documents]
        q = module.maxsim_pack(query)
        return {"numkong, packed": lambda: [module.maxsim_packed(q, d) for d in packed]}

    actions.update(_peer(session, "numkong", numkong))
    actions.update(
        _peer(session, "maxsim_cpu", lambda m: {"maxsim-cpu": lambda: m.maxsim_scores(query, documents)})
    )
    _expect(session, _measure(session, actions, n))


def _scan(query: Floats, store: rz.TokenStore) -> Callable[[], Any]:
    return lambda: rz.maxsim(query, store, num_threads=1)
