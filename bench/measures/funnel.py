# SPDX-License-Identifier: Apache-2.0
"""Funnels beside exact search of the same floats: recall, and the speed of a batch and of single queries."""

from __future__ import annotations

import numpy as np

from bench.environment import pinned
from bench.measures.session import Session
from bench.runners.base import Engine
from bench.stats import interleave, pair_ratios, recall_at, spread

__all__ = ["measure_funnel"]

# Calls of one query per round; an exact one takes milliseconds.
_SINGLE_QUERIES = 50


def measure_funnel(session: Session) -> None:
    """The first configuration is exact search; every other one runs in turns with it."""
    case = session.case
    exact, *others = case.specs
    reference = session.build(exact)
    if reference is None:
        return
    _measure(session, reference, reference)
    for spec in others:
        engine = session.build(spec)
        if engine is not None:
            recall, ratio = _measure(session, engine, reference)
            bars = [bar for bar in case.bars if spec.matches(bar.get("ours", {})) and spec.engine == "ours"]
            session.expect(f"{engine.label}: recall", recall, _bar(bars, 0), "recall")
            session.expect(f"{engine.label}: speed of a batch", ratio[0], _bar(bars, 1), "x")
            session.expect(f"{engine.label}: speed of one query", ratio[1], _bar(bars, 1), "x")


def _bar(bars: list[dict[str, float]], which: int) -> float | None:
    """What the first bar asks of the recall, or of both speeds."""
    key = ("at_least", "speed")[which]
    return float(bars[0][key]) if bars and key in bars[0] else None


def _measure(session: Session, engine: Engine, reference: Engine) -> tuple[float, tuple[float, float]]:
    case, data = session.case, session.data
    truth = data.require_truth(case.kind)
    recall = recall_at(
        engine.search(engine.prepare(data.queries), case.k, session.build_threads), truth, case.k
    )
    batch = np.resize(data.queries, (case.batch, data.dim))
    sides = {"funnel": engine, "exact": reference}
    prepared = {side: e.prepare(batch) for side, e in sides.items()}

    def single(side: str) -> None:
        for i in range(_SINGLE_QUERIES):
            sides[side].search(prepared[side][i : i + 1], case.k, case.threads)

    with pinned(case.threads):
        together = interleave(
            {s: lambda s=s: sides[s].search(prepared[s], case.k, case.threads) for s in sides},
            case.repeats,
            clock=case.clock,
        )
        alone = interleave({s: lambda s=s: single(s) for s in sides}, case.repeats, clock=case.clock)
    ratios = [pair_ratios(seconds["exact"], seconds["funnel"]) for seconds in (together, alone)]
    session.row(
        engine,
        recall=recall,
        batch_queries_per_second=spread(together["funnel"]).map(lambda s: len(batch) / s),
        single_queries_per_second=spread(alone["funnel"]).map(lambda s: _SINGLE_QUERIES / s),
        batch_by_exact=ratios[0],
        single_by_exact=ratios[1],
    )
    return recall, (ratios[0].median, ratios[1].median)
