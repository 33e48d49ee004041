# SPDX-License-Identifier: Apache-2.0
"""Indexes of token vectors from end to end: recall of exact MaxSim, nDCG, bytes and time, on real tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import residua as rz
from bench.environment import pinned
from bench.measures.session import Session
from bench.stats import interleave, pair_ratios, spread
from bench.token_data import TokenData
from residua.evaluation import ndcg_at

__all__ = ["measure_late_interaction"]

_SINGLE = 60  # queries asked one by one
_BATCH = 128  # queries asked together


def _ndcg(data: TokenData, found: Any) -> float:
    """Mean nDCG@10 of the queries that have relevant documents."""
    relevant: dict[int, dict[int, float]] = {}
    for query, document in data.relevant:
        relevant.setdefault(query, {})[document] = 1.0
    asked = sorted(relevant)
    return float(np.mean(ndcg_at(np.asarray(found)[asked], [relevant[q] for q in asked])))


def measure_late_interaction(session: Session) -> None:
    """`MultiVectorIndex` with its defaults and with fixed encodings, beside MaxSim of all float32 tokens."""
    data, case = session.data, session.case
    assert isinstance(data, TokenData)
    truth = data.require_truth(case.kind)[:, : case.k]
    tokens, offsets = data.documents
    some = data.head(_SINGLE).asked
    singles = [some[0][a:b] for a, b in zip(some[1][:-1], some[1][1:], strict=True)]
    batch = data.head(_BATCH).asked
    rows: dict[str, dict[str, Any]] = {}
    actions: dict[str, Callable[[], Any]] = {}

    def add(label: str, one: Callable[[Any], Any], found: Any, figures: dict[str, Any]) -> None:
        rows[label] = {"label": label, "recall": rz.recall(found, truth), **figures}
        if data.relevant:
            rows[label]["ndcg"] = _ndcg(data, found)
        actions[f"{label}, one by one"] = lambda: [one(q) for q in singles]
        actions[f"{label}, batch"] = lambda: one(batch)

    def exact(q: Any) -> Any:
        return rz.maxsim_topk(q, (tokens, offsets), case.k, num_threads=1)

    with pinned(1):
        add("exact, float32", exact, truth, {"bytes_share": 1.0})
        for encoder in ("auto", "fde"):
            for form in ("rb4", "rb2", "int8"):
                index = rz.MultiVectorIndex(data.dim, encoder=encoder, token_codec=form)  # type: ignore[arg-type]
                seconds = _timed(session, lambda i=index: i.add((tokens, offsets), num_threads=1))
                memory = index.memory()
                hits = index.search(data.asked, case.k, num_threads=1)
                figures = {
                    "ranked": int(hits.stats["reranked"]),
                    "bytes_share": sum(memory.values()) / (4 * tokens.size),
                    "first_stage_bytes": memory["first_stage"] / (len(offsets) - 1),
                    "build_seconds": seconds,
                }
                add(
                    f"{encoder}, {form}",
                    lambda q, i=index: i.search(q, case.k, num_threads=1),
                    np.asarray(hits.ids),
                    figures,
                )
        seconds_of = interleave(actions, case.repeats, clock=case.clock)
    for label, row in rows.items():
        for way, n in (("one by one", len(singles)), ("batch", len(batch[1]) - 1)):
            times = seconds_of[f"{label}, {way}"]
            name = way.replace(" ", "_")
            row[f"{name}_us"] = spread(times).map(lambda s, n=n: 1e6 * s / n).as_dict()
            row[f"{name}_speed"] = pair_ratios(seconds_of[f"exact, float32, {way}"], times).median
        session.log(f"  {label}: recall {row['recall']:.4f}, {row['one_by_one_speed']:.1f}x one by one")
        session.rows.append(row)
    for bar in case.bars:
        label, _, figure = str(bar["name"]).partition(": ")
        value = rows[label].get(figure)
        if figure == "ndcg_lost" and data.relevant:
            value = rows["exact, float32"]["ndcg"] - rows[label]["ndcg"]
        if value is not None:
            at_most = "at_most" in bar
            session.expect(
                bar["name"], float(value), bar["at_most" if at_most else "at_least"], "", at_most=at_most
            )


def _timed(session: Session, action: Callable[[], Any]) -> float:
    start = session.case.clock()
    action()
    return session.case.clock() - start
