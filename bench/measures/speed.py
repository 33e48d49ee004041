# SPDX-License-Identifier: Apache-2.0
"""Time: scans, single queries, threads, encoding and fitting. Ours and a peer run in turns, pinned alike."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.cases import Pair, Spec
from bench.environment import pinned
from bench.measures.session import Session
from bench.runners.base import Engine, UnusableSpecError
from bench.stats import interleave, pair_ratios, spread

__all__ = ["measure_encode_fit", "measure_scan", "measure_single_query", "measure_threads"]

# One encode call must be long against the clock and short against the patience of the reader.
_ENCODED_ROWS = 20_000


def _batch(session: Session) -> npt.NDArray[np.float32]:
    """`batch` queries; a set with fewer is repeated, which costs an exhaustive scan the same."""
    return np.resize(session.data.queries, (session.case.batch, session.data.dim))


def measure_scan(session: Session) -> None:
    """Nanoseconds per code and queries/s of each pair; ratios are taken round by round."""
    case = session.case
    batch = _batch(session)
    visited = len(batch) * len(session.data.base)
    for pair in case.pairs:
        built = {"ours": session.build(pair.ours), "peer": session.build(pair.peer)}
        engines = {side: engine for side, engine in built.items() if engine is not None}
        actions = {side: _searcher(engine, batch, case.k, case.threads) for side, engine in engines.items()}
        with pinned(case.threads):
            seconds = interleave(actions, case.repeats, clock=case.clock)
        for side, engine in engines.items():
            session.row(
                engine,
                pair=pair.name,
                ns_per_code=spread(seconds[side]).map(lambda s: 1e9 * s / visited),
                queries_per_second=spread(seconds[side]).map(lambda s: len(batch) / s),
            )
        if len(seconds) == 2:
            ratio = pair_ratios(seconds["peer"], seconds["ours"])
            claim = f"{pair.name} ({ratio.low:.2f} to {ratio.high:.2f})"
            session.expect(claim, ratio.median, pair.ratio, "x")


def _searcher(engine: Engine, queries: npt.NDArray[np.float32], k: int, threads: int) -> Callable[[], object]:
    prepared = engine.prepare(queries)
    return lambda: engine.search(prepared, k, threads)


def measure_single_query(session: Session) -> None:
    """The rate of one query per call beside the rate of one call with all of them."""
    case = session.case
    batch = _batch(session)
    for spec in case.specs:
        engine = session.build(spec)
        if engine is None:
            continue
        one_by_one = _one_by_one(engine, batch, case.k, case.threads)
        together = _searcher(engine, batch, case.k, case.threads)
        with pinned(case.threads):
            seconds = interleave({"single": one_by_one, "batch": together}, case.repeats, clock=case.clock)
        rates = {name: spread(values).map(lambda s: len(batch) / s) for name, values in seconds.items()}
        session.row(
            engine, single_queries_per_second=rates["single"], batch_queries_per_second=rates["batch"]
        )
        ratio = pair_ratios(seconds["batch"], seconds["single"]).median
        session.expect(f"{engine.label}: single by batch", ratio, _bar(session, spec), "x")


def _one_by_one(
    engine: Engine, queries: npt.NDArray[np.float32], k: int, threads: int
) -> Callable[[], object]:
    prepared = engine.prepare(queries)

    def search() -> None:
        for i in range(len(prepared)):
            engine.search(prepared[i : i + 1], k, threads)

    return search


def _bar(session: Session, spec: Spec) -> float | None:
    """The `at_least` of the first bar that speaks of this configuration of ours."""
    bars = [bar["at_least"] for bar in session.case.bars if spec.matches(bar.get("ours", {}))]
    return float(bars[0]) if bars and spec.engine == "ours" else None


def measure_threads(session: Session) -> None:
    """One against `threads` threads: speed of the search, whether results and saved files are equal."""
    case = session.case
    batch = _batch(session)
    for spec in case.specs:
        engine = session.build(spec)
        if engine is None:
            continue
        actions = {str(threads): _searcher(engine, batch, case.k, threads) for threads in (1, case.threads)}
        with pinned(case.threads):
            seconds = interleave(actions, case.repeats, clock=case.clock)
        row = session.row(engine)
        for threads, values in seconds.items():
            row[f"queries_per_second_{threads}"] = spread(values).map(lambda s: len(batch) / s).as_dict()
        ratio = pair_ratios(seconds["1"], seconds[str(case.threads)]).median
        claim = f"{engine.label}: {case.threads} threads by one"
        session.expect(claim, ratio, _bar(session, spec), "x")
        if spec.engine == "ours":
            _expect_same(session, spec, engine.label, batch)


def _expect_same(session: Session, spec: Spec, label: str, batch: npt.NDArray[np.float32]) -> None:
    """Fit, build, save and search once with one thread and once with all; everything must come out equal."""
    case = session.case
    ids, digests = [], []
    for threads in (1, case.threads):
        engine: Any = session.runners["ours"].build(session.data, spec, threads=threads, seed=case.seed)
        ids.append(engine.search(engine.prepare(batch), case.k, threads))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index.rz"
            engine.save(path)
            digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    sides = f"for 1 and {case.threads} threads (1 = yes)"
    session.expect(f"{label}: identical results {sides}", float(np.array_equal(ids[0], ids[1])), 1.0, "")
    session.expect(f"{label}: identical files {sides}", float(digests[0] == digests[1]), 1.0, "")


def measure_encode_fit(session: Session) -> None:
    """Encoded vectors/s on one thread, and seconds of a fit on all rows with `threads` threads.

    `[[bar]] ours = {...}, at_least = 20000` speaks of the encode rate, `at_most = 15` of the fit's seconds.
    The fits of a `[[pair]]` run in turns.
    """
    for pair in session.case.pairs:
        _fits_in_turns(session, pair)
    case, data = session.case, session.data
    rows = data.base[:_ENCODED_ROWS]
    engines = [(spec, engine) for spec in case.specs if (engine := session.build(spec)) is not None]
    with pinned(1):
        vectors = [engine.prepare(rows) if engine.name == "faiss" else rows for _, engine in engines]
        actions = {
            str(i): (lambda engine=engine, x=x: engine.encode(x, 1))
            for i, ((_, engine), x) in enumerate(zip(engines, vectors, strict=True))
        }
        encode = interleave(actions, case.repeats, clock=case.clock)
    for i, (spec, engine) in enumerate(engines):
        rate = spread(encode[str(i)]).map(lambda s: len(rows) / s)
        with pinned(case.threads):
            try:
                fit_seconds = interleave({"fit": _fit_action(session, spec)}, case.repeats, clock=case.clock)[
                    "fit"
                ]
            except UnusableSpecError as error:
                session.skip(spec, str(error))
                continue
        session.row(engine, encoded_vectors_per_second=rate, fit_seconds=spread(fit_seconds))
        for bar in case.bars:
            if spec.engine != "ours" or not spec.matches(bar.get("ours", {})):
                continue
            claim = f"{bar['name']}: {engine.label}"
            if "at_least" in bar:
                session.expect(claim, rate.median, bar["at_least"], "vectors/s")
            else:
                session.expect(claim, spread(fit_seconds).median, bar["at_most"], "s", at_most=True)


def _fits_in_turns(session: Session, pair: Pair) -> None:
    case, specs = session.case, {"ours": pair.ours, "peer": pair.peer}
    engines = {side: session.build(spec) for side, spec in specs.items()}
    actions = {side: _fit_action(session, specs[side]) for side, engine in engines.items() if engine}
    with pinned(case.threads):
        seconds = interleave(actions, case.repeats, clock=case.clock)
    for side, engine in engines.items():
        if engine:
            session.row(engine, pair=pair.name, fit_seconds=spread(seconds[side]))
    if len(seconds) == 2:
        ratio = pair_ratios(seconds["peer"], seconds["ours"])
        session.expect(f"{pair.name}: speed of the fit", ratio.median, pair.ratio, "x")


def _fit_action(session: Session, spec: Spec) -> Callable[[], None]:
    runner, case = session.runners[spec.engine], session.case
    return lambda: runner.fit(session.data, spec, threads=case.threads, seed=case.seed)
