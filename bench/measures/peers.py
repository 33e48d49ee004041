# SPDX-License-Identifier: Apache-2.0
"""Our index beside other libraries: recall, queries/s, all bytes per vector, seconds of building."""

from __future__ import annotations

from bench.cases import Spec
from bench.environment import pinned
from bench.measures.quality import gain_lines
from bench.measures.session import Session
from bench.stats import interleave, recall_at, spread

__all__ = ["measure_peers"]

_TIMED_QUERIES = 200


def measure_peers(session: Session) -> None:
    """Every configuration by itself; one that fails leaves its error in the result and the others alone.

    Building takes all CPUs, as where recall is measured; searching takes the threads of the case.
    """
    session.data.require_truth(session.case.kind)
    for spec in session.case.specs:
        with session.contained(spec):
            _measure(session, spec)
    for bar in session.case.bars:
        for claim, value, must in gain_lines(session.rows, bar):
            session.expect(claim, value, must, "recall" if "at_least" in bar else "points")


def _measure(session: Session, spec: Spec) -> None:
    engine = session.build(spec)
    if engine is None:
        return
    case, data = session.case, session.data
    truth = data.require_truth(case.kind)
    queries, timed = engine.prepare(data.queries), engine.prepare(data.queries[:_TIMED_QUERIES])
    action = {"search": lambda: engine.search(timed, case.k, case.threads)}
    with pinned(case.threads):
        recall = recall_at(engine.search(queries, case.k, case.threads), truth, case.k)
        seconds = interleave(action, case.repeats, clock=case.clock)["search"]
    session.row(
        engine,
        options=dict(spec.options),
        bytes_per_vector=sum(engine.memory().values()) / len(data.base),
        recall=recall,
        queries_per_second=spread(seconds).map(lambda s: len(timed) / s),
        build_seconds=engine.fit_seconds + engine.add_seconds,
    )
