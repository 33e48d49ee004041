# SPDX-License-Identifier: Apache-2.0
"""Graphs at given recalls: the least beam that reaches them, chosen on queries that are not timed.

Seconds are those of CPU time, which others on the machine disturb least; what is about waiting (a reader
beside a writer, loading) is by the clock.
"""

from __future__ import annotations

import importlib
import mmap
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.cases import Spec
from bench.datasets import BenchData, stretch
from bench.environment import pinned
from bench.measures.session import Session
from bench.runners.graphs import GraphEngine, OurGraph, build_graph, our_index
from bench.stats import Spread, interleave, pair_ratios, recall_at, spread

__all__ = ["measure_graphs"]

TARGETS = (0.95, 0.99)
_EF = (
    10,
    12,
    14,
    17,
    20,
    24,
    28,
    34,
    40,
    48,
    56,
    68,
    80,
    96,
    112,
    136,
    160,
    192,
    224,
    272,
    320,
    400,
    500,
    640,
)
_SLACK = 0.002  # a beam is chosen to be this far above its target, as other queries differ
_LOADED_ROWS = 100_000
_READING = 1.5  # seconds
_MEMORY = Path("/proc/self/statm")
_MAX_PEAK, _MAX_LOAD, _LEAST_SINGLE, _LEAST_BESIDE = 1.5, 50.0, 0.85, 0.8


def measure_graphs(session: Session) -> None:
    """Build all, choose beams on one half of the queries, and time the other half in turns."""
    case, data = session.case, session.data
    truth = data.require_truth(case.kind)
    half = len(data.queries) // 2
    engines: list[GraphEngine] = []
    for spec in case.specs:
        with session.contained(spec):
            engine = build_graph(data, spec, session.build_threads, case.seed)
            session.log(f"  built {engine.name} {engine.label} in {engine.build_seconds:.1f} s of CPU time")
            engines.append(engine)
    with pinned(case.threads):
        beams = [_beams(engine, data.queries[:half], truth[:half], case.k) for engine in engines]
        for target in TARGETS:
            _compare(session, engines, [b.get(target) for b in beams], target, half)
    ours = [(e, b) for e, b in zip(engines, beams, strict=True) if isinstance(e, OurGraph)]
    for engine, beam in ours:
        _single_queries(session, engine, beam.get(TARGETS[0]), half)
    specs = [spec for spec in case.specs if spec.engine == "ours"]
    for layout in dict.fromkeys(spec.options["layout"] for spec in specs):
        _peak(session, next(spec for spec in specs if spec.options["layout"] == layout))
    if len(ours) > 1:
        _beside_a_writer(session, ours[0][0].index, ours[1][0].index)
    if ours:
        _loading(session, specs[0])


def _beams(engine: GraphEngine, queries: Any, truth: Any, k: int) -> dict[float, int]:
    prepared = engine.prepare(queries)
    out: dict[float, int] = {}
    for ef in _EF:
        recall = recall_at(engine.search(prepared, k, ef), truth, k)
        for target in TARGETS:
            if target not in out and recall >= target + _SLACK:
                out[target] = ef
        if len(out) == len(TARGETS):
            break
    return out


def _compare(
    session: Session, engines: list[GraphEngine], beams: list[int | None], target: float, half: int
) -> None:
    case, data = session.case, session.data
    truth, queries = data.require_truth(case.kind)[half:], data.queries[half:]
    chosen = {n: ef for n, ef in enumerate(beams) if ef is not None}
    prepared = {n: engines[n].prepare(queries) for n in chosen}
    actions = {str(n): (lambda n=n: engines[n].search(prepared[n], case.k, chosen[n])) for n in chosen}
    seconds = interleave(actions, case.repeats, clock=session.case.clock)
    for n, engine in enumerate(engines):
        if n not in chosen:
            session.log(f"  {engine.label}: no beam reaches recall {target}")
            continue
        session.row(
            engine,
            target=target,
            setting=f"ef {chosen[n]}",
            recall=recall_at(actions[str(n)](), truth, case.k),
            queries_per_second=spread(seconds[str(n)]).map(lambda s: len(queries) / s),
            build_seconds=engine.build_seconds,
        )
    for n in (n for n in chosen if isinstance(engines[n], OurGraph)):
        for m in (m for m in chosen if not isinstance(engines[m], OurGraph)):
            ratio = pair_ratios(seconds[str(m)], seconds[str(n)])
            claim = f"recall {target}: {engines[n].label} against {engines[m].name} {engines[m].label}"
            session.expect(claim, ratio.median, None, "x")
            share = engines[n].bytes_per_vector / engines[m].bytes_per_vector
            session.expect(f"{claim}, bytes", share, None, "x", at_most=True)


def _single_queries(session: Session, engine: OurGraph, ef: int | None, half: int) -> None:
    """One query per call beside one batch, in CPU time."""
    if ef is None:
        return
    queries, k = session.data.queries[half:], session.case.k

    def one_by_one() -> None:
        for query in queries:
            engine.index.search(query, k, ef=ef, num_threads=1)

    with pinned(1):
        seconds = interleave(
            {"batch": lambda: engine.search(queries, k, ef), "single": one_by_one},
            session.case.repeats,
            clock=session.case.clock,
        )
    share: Spread = pair_ratios(seconds["batch"], seconds["single"])
    session.expect(f"{engine.label}: one query per call by batch", share.median, _LEAST_SINGLE, "x")


class _PeakMemory:
    """The most memory that this process has, looked at every few milliseconds."""

    def __enter__(self) -> _PeakMemory:
        self.before = self.most = self._now()
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._stop.wait(0.003):
            self.most = max(self.most, self._now())

    @staticmethod
    def _now() -> int:
        return int(_MEMORY.read_text().split()[1]) * mmap.PAGESIZE


def _build_and_watch(data: BenchData, spec: Spec, threads: int, seed: int, pipe: Any) -> None:
    our_index(data.first(600), spec, threads, seed)  # what is loaded once is no part of a build
    with _PeakMemory() as memory:
        index = our_index(data, spec, threads, seed)
    pipe.send((memory.most - memory.before, sum(index.memory().values())))


def _peak(session: Session, spec: Spec) -> None:
    """What a build adds at most to a process that holds the input, by itself in a new process."""
    data = session.data
    if not _MEMORY.exists():
        session.skip(spec, "peak memory is read from /proc, which only Linux has")
        return
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    arguments = (data, spec, session.build_threads, session.case.seed, theirs)
    child = context.Process(target=_build_and_watch, args=arguments)
    child.start()
    while not mine.poll(0.2):
        if not child.is_alive() and not mine.poll():
            raise RuntimeError(f"the build of {dict(spec.options)} ended with {child.exitcode}")
    added, finished = mine.recv()
    child.join()
    whole = finished + data.base.nbytes
    claim = f"{spec.options['layout']}: peak memory of a build, by index and input"
    session.expect(claim, (added + data.base.nbytes) / whole, _MAX_PEAK, "x", at_most=True)


def _rate(index: Any, queries: Any, k: int, seconds: float) -> float:
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        index.search(queries[done % (len(queries) - 16) :][:16], k, ef=48, num_threads=1)
        done += 16
    return done / (time.perf_counter() - start)


def _beside_a_writer(session: Session, index: Any, other: Any) -> None:
    """Rates of one reader: alone, beside changes of another index, which take a CPU, and of its own."""
    data, case = session.data, session.case
    rates: dict[str, list[float]] = {"alone": [], "busy": [], "writer": []}
    for round_ in range(case.repeats):
        for name, target in (("alone", None), ("busy", other), ("writer", index)):
            stop = threading.Event()

            def write(target: Any = target, stop: threading.Event = stop, round_: int = round_) -> None:
                first = 256 * round_
                while not stop.is_set():
                    ids = target.add(data.base[first : first + 64] * np.float32(1.001), num_threads=1)
                    target.remove(ids)

            writer = None if target is None else threading.Thread(target=write)
            if writer is not None:
                writer.start()
            rates[name].append(_rate(index, data.queries, case.k, _READING))
            stop.set()
            if writer is not None:
                writer.join()
    alone, busy = (pair_ratios(rates["writer"], rates[name]) for name in ("alone", "busy"))
    session.expect("a reader beside a writer, by its rate alone", alone.median, _LEAST_BESIDE, "x")
    session.expect("the same, by its rate beside changes of another index", busy.median, None, "x")


def _loading(session: Session, spec: Spec) -> None:
    """Milliseconds to load a mapped index, whose graph need not be good for that."""
    rz, data = importlib.import_module("residua"), session.data
    rows = stretch(data, rows=_LOADED_ROWS, seed=session.case.seed).base
    quick = Spec("ours", {**spec.options, "ef_construction": 16})
    index = our_index(data, quick, session.build_threads, session.case.seed, base=rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        index.save(path)
        times = interleave({"load": lambda: rz.load(path, mmap=True)}, session.case.repeats)["load"]
        before, after = (
            index.search(data.queries, 10).ids,
            rz.load(path, mmap=True).search(data.queries, 10).ids,
        )
    session.expect(f"load of {_LOADED_ROWS:,} mapped rows", 1000 * min(times), _MAX_LOAD, "ms", at_most=True)
    session.expect("results that are the same after it", float((before == after).mean()), 1.0, "share")
