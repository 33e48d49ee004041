# SPDX-License-Identifier: Apache-2.0
"""Recall of code scores, of symmetric scores and after re-ranking, against exact neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bench.cases import Spec
from bench.environment import pinned
from bench.measures.session import Session
from bench.runners.base import Engine
from bench.stats import Spread, interleave, pair_ratios, recall_at, spread

__all__ = ["gain_lines", "measure_recall", "measure_rerank", "measure_sdc"]

# Rates beside a recall need no more queries than this; scan cases measure speed properly.
_TIMED_QUERIES = 200


def _recall(session: Session, engine: Engine) -> float:
    truth = session.data.require_truth(session.case.kind)
    found = engine.search(engine.prepare(session.data.queries), session.case.k, session.build_threads)
    return recall_at(found, truth, session.case.k)


def _searcher(session: Session, engine: Engine) -> tuple[Callable[[], object], int]:
    queries = engine.prepare(session.data.queries[:_TIMED_QUERIES])
    return lambda: engine.search(queries, session.case.k, session.case.threads), len(queries)


def _rate(session: Session, engine: Engine) -> Spread:
    action, count = _searcher(session, engine)
    with pinned(session.case.threads):
        seconds = interleave({"search": action}, session.case.repeats, clock=session.case.clock)["search"]
    return _per_second(seconds, count)


def _per_second(seconds: Sequence[float], count: int) -> Spread:
    return spread(seconds).map(lambda s: count / s)


def measure_recall(session: Session) -> None:
    """Recall@k of code scores alone for every configuration, then ours against the best peer per family."""
    session.data.require_truth(session.case.kind)
    for spec in session.case.specs:
        engine = session.build(spec)
        if engine is not None:
            recall = _recall(session, engine)
            session.row(
                engine,
                options=dict(spec.options),
                recall=recall,
                queries_per_second=_rate(session, engine),
                fit_seconds=engine.fit_seconds,
                add_seconds=engine.add_seconds,
            )
    for bar in session.case.bars:
        for claim, value, must in gain_lines(session.rows, bar):
            session.expect(claim, value, must, _unit(bar))


def _unit(bar: Mapping[str, Any]) -> str:
    return "recall" if "at_least" in bar else "share" if "gap_closed" in bar else "points"


def gain_lines(rows: Sequence[Mapping[str, Any]], bar: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(claim, value, bar) for each of our rows that `bar` speaks of.

    The peer is the best row of the families in `against` (all of them when absent) that takes at most
    `extra_bytes` more than ours. `gain` compares recall in points, `gap_closed` asks for a share of the way
    from the peer to 1, `never_below` allows ours to be worse by that much.
    """
    peers = [row for row in rows if row["engine"] != "residua"]
    if "against" in bar:
        peers = [row for row in peers if row["family"] in bar["against"]]
    lines = []
    for row in rows:
        if row["engine"] != "residua" or not Spec("ours", row["options"]).matches(bar.get("ours", {})):
            continue
        if "at_least" in bar:
            lines.append((f"{bar['name']}: {row['label']}", row["recall"], bar["at_least"]))
            continue
        limit = row["bytes_per_vector"] + bar.get("extra_bytes", 0)
        fair = [peer for peer in peers if peer["bytes_per_vector"] <= limit]
        if not fair:
            continue
        best = max(fair, key=lambda peer: peer["recall"])
        claim = (
            f"{bar['name']}: {row['label']} ({row['bytes_per_vector']:g} B) "
            f"against {best['label']} ({best['bytes_per_vector']:g} B)"
        )
        if "gap_closed" in bar:
            gap = 1.0 - best["recall"]
            closed = (row["recall"] - best["recall"]) / gap if gap > 0 else 1.0
            lines.append((claim, closed, bar["gap_closed"]))
        else:
            must = bar["gain"] if "gain" in bar else -bar["never_below"]
            lines.append((claim, 100 * (row["recall"] - best["recall"]), 100 * must))
    return lines


def measure_rerank(session: Session) -> None:
    """Recall@k after re-ranking from kept vectors, with the memory that this takes."""
    session.data.require_truth(session.case.kind)
    for spec in session.case.specs:
        engine = session.build(spec)
        if engine is None:
            continue
        session.row(
            engine,
            options=dict(spec.options),
            recall=_recall(session, engine),
            queries_per_second=_rate(session, engine),
            memory_per_vector=sum(engine.memory().values()) / len(session.data.base),
        )
    for bar in session.case.bars:
        for claim, value, must in gain_lines(session.rows, bar):
            session.expect(claim, value, must, _unit(bar))


def measure_sdc(session: Session) -> None:
    """Symmetric against asymmetric scores of the same codes: recall lost, speed won, and Hamming beside them.

    Bars: `[[bar]] ours = { bits = 2.0 }, at_most = 0.04` is the recall that symmetric scoring may lose.
    """
    session.data.require_truth(session.case.kind)
    hamming: list[tuple[Engine, float]] = []
    symmetric: list[tuple[Engine, float]] = []
    for spec in session.case.specs:
        if spec.options["codec"] == "binary":
            engine = session.build(spec)
            if engine is not None:
                hamming.append((engine, _recall(session, engine)))
            continue
        sides = {
            side: session.build(Spec("ours", {**spec.options, "scoring": side}))
            for side in ("asymmetric", "symmetric")
        }
        plain, coded = sides["asymmetric"], sides["symmetric"]
        if plain is None or coded is None:
            continue
        recalls = {side: _recall(session, engine) for side, engine in (("plain", plain), ("coded", coded))}
        actions = {"plain": _searcher(session, plain)[0], "coded": _searcher(session, coded)[0]}
        with pinned(session.case.threads):
            seconds = interleave(actions, session.case.repeats, clock=session.case.clock)
        count = _searcher(session, plain)[1]
        for name, engine in (("plain", plain), ("coded", coded)):
            rate = _per_second(seconds[name], count)
            session.row(engine, options=dict(spec.options), recall=recalls[name], queries_per_second=rate)
        symmetric.append((coded, recalls["coded"]))
        allowed = [bar["at_most"] for bar in session.case.bars if spec.matches(bar.get("ours", {}))]
        lost = 100 * (recalls["plain"] - recalls["coded"])
        must = 100 * allowed[0] if allowed else None
        session.expect(f"{plain.label}: recall lost by symmetric scores", lost, must, "points", at_most=True)
        ratio = pair_ratios(seconds["plain"], seconds["coded"]).median
        session.expect(
            f"{plain.label}: queries/s, symmetric by asymmetric", ratio, 1.0 if allowed else None, "x"
        )
    _beside_hamming(session, hamming, symmetric)


def _beside_hamming(
    session: Session, hamming: Sequence[tuple[Engine, float]], symmetric: Sequence[tuple[Engine, float]]
) -> None:
    """For each Hamming scan, the fastest symmetric scan that reaches its recall, in turns with it."""
    for engine, recall in hamming:
        equal = [candidate for candidate, reached in symmetric if reached >= recall]
        actions = {"hamming": _searcher(session, engine)[0]}
        actions.update({f"sdc {i}": _searcher(session, candidate)[0] for i, candidate in enumerate(equal)})
        with pinned(session.case.threads):
            seconds = interleave(actions, session.case.repeats, clock=session.case.clock)
        count = _searcher(session, engine)[1]
        rate = _per_second(seconds["hamming"], count)
        session.row(engine, options={}, recall=recall, queries_per_second=rate)
        if not equal:
            session.log(f"  no symmetric scan of this case reaches the recall {recall:.3f} of {engine.label}")
            continue
        ratios = [pair_ratios(seconds["hamming"], seconds[f"sdc {i}"]).median for i in range(len(equal))]
        best = int(np.argmax(ratios))
        claim = f"queries/s at no less recall ({recall:.3f}): {equal[best].label} by {engine.label}"
        session.expect(claim, ratios[best], 1.0, "x")
