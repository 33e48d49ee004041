# SPDX-License-Identifier: Apache-2.0
"""Inverted lists at given recalls: each engine at its best setting, chosen on queries that are not timed."""

from __future__ import annotations

from typing import Any

from bench.environment import pinned
from bench.measures.session import Session
from bench.runners.lists import ListEngine, build_lists
from bench.stats import Spread, interleave, pair_ratios, recall_at, spread

__all__ = ["measure_lists"]

TARGETS = (0.90, 0.95, 0.99)
_SLACK = 0.002  # a setting is chosen to be this far above its target, as other queries differ


def measure_lists(session: Session) -> None:
    """Sweep on one half of the queries, take each engine's fastest setting per recall, time on the other."""
    case, data = session.case, session.data
    truth = data.require_truth(case.kind)
    half = len(data.queries) // 2
    engines: list[ListEngine] = []
    for spec in case.specs:
        with session.contained(spec):
            engine = build_lists(data, spec, session.build_threads, case.seed)
            session.log(f"  built {engine.name} {engine.label} in {engine.build_seconds:.1f} s")
            engines.append(engine)
    chosen: dict[float, dict[int, Any]] = {target: {} for target in TARGETS}
    with pinned(case.threads):
        for number, engine in enumerate(engines):
            sweep = _sweep(engine, data.queries[:half], truth[:half], case)
            for target in TARGETS:
                enough = [
                    (seconds, setting) for setting, recall, seconds in sweep if recall >= target + _SLACK
                ]
                if enough:
                    chosen[target][number] = min(enough, key=lambda e: e[0])[1]
        for target in TARGETS:
            _compare(session, engines, chosen[target], target, half)


def _sweep(engine: ListEngine, queries: Any, truth: Any, case: Any) -> list[tuple[Any, float, float]]:
    prepared, k, threads = engine.prepare(queries), case.k, case.threads
    out = []
    done: set[int] = set()  # candidates with which more lists are of no use
    for setting in engine.settings():
        if setting[1] in done:
            continue
        engine.use(setting)
        recall = recall_at(engine.search(prepared, k, threads), truth, k)
        if recall < min(TARGETS) + _SLACK:
            continue  # chosen for nothing, however fast
        seconds = interleave({"": lambda: engine.search(prepared, k, threads)}, 3, clock=case.clock)[""]
        out.append((setting, recall, min(seconds)))
        if recall >= max(TARGETS) + _SLACK:
            done.add(setting[1])
    return out


def _compare(
    session: Session, engines: list[ListEngine], chosen: dict[int, Any], target: float, half: int
) -> None:
    case, data = session.case, session.data
    truth = data.require_truth(case.kind)[half:]
    queries = data.queries[half:]
    prepared = {number: engines[number].prepare(queries) for number in chosen}

    def run(number: int) -> Any:
        engines[number].use(chosen[number])
        return engines[number].search(prepared[number], case.k, case.threads)

    seconds = interleave({str(n): lambda n=n: run(n) for n in chosen}, case.repeats, clock=case.clock)
    rates: dict[int, Spread] = {}
    for number, engine in enumerate(engines):
        if number not in chosen:
            session.log(f"  {engine.label}: no setting reaches recall {target}")
            continue
        rates[number] = spread(seconds[str(number)]).map(lambda s: len(queries) / s)
        session.row(
            engine,
            target=target,
            setting=engine.describe(chosen[number]),
            recall=recall_at(run(number), truth, case.k),
            queries_per_second=rates[number],
            all_bytes_per_vector=engine.bytes_per_vector + engine.kept_bytes,
        )
    ours = [n for n in rates if engines[n].name == "residua"]
    peers = [n for n in rates if engines[n].name != "residua"]
    if not ours or not peers:
        return
    best = max(ours, key=lambda n: rates[n].median)
    most = engines[best].bytes_per_vector + engines[best].kept_bytes
    peer = max(peers, key=lambda n: rates[n].median)
    ratio = pair_ratios(seconds[str(peer)], seconds[str(best)])
    claim = f"recall {target}: {engines[best].label} against {engines[peer].label}"
    session.expect(claim, ratio.median, _bar(case, "speed"), "x")
    theirs = engines[peer].bytes_per_vector + engines[peer].kept_bytes
    claim = f"recall {target}: all bytes per vector, ours by theirs"
    session.expect(claim, most / theirs, 1.0, "x", at_most=True)


def _bar(case: Any, key: str) -> float | None:
    return float(case.bars[0][key]) if case.bars and key in case.bars[0] else None
