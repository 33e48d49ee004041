# SPDX-License-Identifier: Apache-2.0
"""Whether settings from `tune` reach their target on the queries that did not choose them."""

from __future__ import annotations

import importlib
import math
import statistics
from typing import Any

from bench.environment import pinned
from bench.measures.session import Session
from bench.stats import spread

__all__ = ["measure_tune"]

_SPLITS = 20
# Queries that show a target, times k: tune refuses fewer (docs/tuning.md).
_QUERIES = 39


def measure_tune(session: Session) -> None:
    """Every bar is a target; each is tuned for on 20 splits of the queries."""
    case = session.case
    truth = session.data.require_truth(case.kind)
    tune = importlib.import_module("residua").tune
    for spec in case.specs:
        engine: Any = session.build(spec)
        if engine is None:
            continue
        for bar in case.bars:
            target = float(bar["at_least"])
            needed = math.ceil(_QUERIES * target / (1 - target) / case.k)
            if len(session.data.queries) < needed:
                session.log(f"  {target:g} takes {needed} queries to show; {session.data.name} has fewer")
                continue
            with pinned(case.threads):
                results = [
                    tune(
                        engine.index,
                        session.data.queries,
                        k=case.k,
                        target_recall=target,
                        truth=truth,
                        seed=case.seed + split,
                        num_threads=case.threads,
                    )
                    for split in range(_SPLITS)
                ]
            label = f"{engine.label}, tuned for {target:g}"
            usual = statistics.mode(str(r.params) for r in results)
            row = session.row(
                engine,
                recall=statistics.mean(r.recall for r in results),
                queries_per_second=spread([r.qps for r in results]),
            )
            row["label"] = f"{label}: mostly {usual}"
            reached = sum(r.recall >= target for r in results) / _SPLITS
            within = sum(r.ci_high >= target for r in results) / _SPLITS
            session.expect(f"{label}: splits whose held-out recall reaches it", reached, None, "share")
            session.expect(f"{label}: splits that reach it within their interval", within, 0.95, "share")
