# SPDX-License-Identifier: Apache-2.0
"""Searches with filters: our index at its one default setting, others at the cheapest with enough recall.

Every cell of a grid of kinds and shares is searched twice: with one filter per group of queries, and with a
filter for each query. Seconds are those of the process on its CPU.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.cases import Case
from bench.environment import pinned
from bench.filter_grid import FILTER_KINDS, Filter, FilterGrid
from bench.measures.session import Session
from bench.runners.filtered import FilteredEngine, FilteredFaiss, FilteredOurs
from bench.runners.filtered_peers import build_filtered_peer
from bench.stats import interleave, spread

__all__ = ["measure_filtered"]

ENOUGH = 0.95
PLANS = ("scan", "graph", "filtered_graph")
_SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.95)
_GROUPS, _PER_GROUP = 8, 4
_TIMED_SECONDS = 0.03  # of one action; slow engines search fewer of the queries
_MODES = ("one filter", "a filter per query")


@dataclass
class _Run:
    """One engine in one cell: the setting taken, and per mode the recall and the queries per second."""

    engine: FilteredEngine
    setting: Any = None
    seconds_per_query: float = 0.0
    recalls: dict[str, float] = field(default_factory=dict)
    rates: dict[str, dict[str, float]] = field(default_factory=dict)

    def ratio(self, ours: _Run, mode: str) -> float:
        """How many times faster ours is: 0 and infinity where one of them finds too little."""
        if ours.recalls[mode] < ENOUGH:
            return 0.0
        if self.recalls[mode] < ENOUGH:
            return float("inf")
        return ours.rates[mode]["median"] / self.rates[mode]["median"]

    def as_dict(self) -> dict[str, Any]:
        return {
            "engine": self.engine.name,
            "label": self.engine.label,
            "setting": self.engine.describe(self.setting),
            "recall": self.recalls,
            "queries_per_second": self.rates,
        }


@dataclass
class _Cell:
    kind: str
    share: float
    runs: list[_Run]

    @property
    def ours(self) -> _Run:
        return self.runs[0]


def measure_filtered(session: Session) -> None:
    """The first entry is ours and searched as it is; all others are compared with it."""
    case, data = session.case, session.data
    grid = FilterGrid(data, case.shares or _SHARES, case.correlation, _GROUPS, _PER_GROUP, case.seed)
    engines: list[FilteredEngine] = []
    for spec in case.specs:
        with session.contained(spec):
            if spec.engine == "ours":
                engine: FilteredEngine = FilteredOurs(data, grid, spec, session.build_threads, case.seed)
            elif spec.engine == "faiss":
                engine = FilteredFaiss(data, spec, session.build_threads)
            else:
                engine = build_filtered_peer(data, grid, spec, session.build_threads, case.seed)
            session.log(f"  built {engine.name} {engine.label} in {engine.build_seconds:.1f} s")
            engines.append(engine)
    cells, regrets = [], []
    with pinned(1):
        for kind in FILTER_KINDS:
            for share in grid.shares:
                cells.append(_measure_cell(case, grid, engines, kind, share))
                session.rows.append(_row(cells[-1], grid, data, case.k))
                session.log(f"  {kind} {share:g}: " + _summary(cells[-1]))
                regrets += _regrets(case, grid, engines[0], kind, share)
    _judge(session, cells, regrets)


def _measure_cell(
    case: Case, grid: FilterGrid, engines: Sequence[FilteredEngine], kind: str, share: float
) -> _Cell:
    k = case.k
    filters = [grid.filter(kind, share, g) for g in range(len(grid.groups))]
    each = [
        grid.filter(kind, share, g, shift)
        for g, members in enumerate(grid.groups)
        for shift in range(len(members))
    ]
    runs: list[_Run] = []
    actions: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for number, engine in enumerate(engines):
        queries = engine.queries(grid.queries)
        prepared = [engine.prepare(f) for f in filters]
        run = _choose(case, grid, engine, queries, prepared, filters, share)
        prepared_each = [engine.prepare(f) for f in each]
        found = engine.search_each(queries, prepared_each, k, run.setting)
        run.recalls[_MODES[1]] = float(grid.recall(found, each, k).mean())
        fit = max(1, int(_TIMED_SECONDS / max(run.seconds_per_query, 1e-9)))
        groups = [g for g, _ in zip(range(len(prepared)), range(0, fit, _PER_GROUP), strict=False)]
        some = np.unique(np.linspace(0, len(each) - 1, min(fit, len(each))).astype(int))
        few, few_prepared = queries[some], [prepared_each[i] for i in some]

        batches = [(queries[grid.groups[i]], prepared[i]) for i in groups]
        one, other = (f"{number} {mode}" for mode in _MODES)
        actions[one] = partial(_search_batches, engine, batches, k, run.setting)
        actions[other] = partial(engine.search_each, few, few_prepared, k, run.setting)
        sizes[one], sizes[other] = sum(len(q) for q, _ in batches), len(some)
        runs.append(run)
    seconds = interleave(actions, case.repeats, clock=case.clock)
    for number, run in enumerate(runs):
        for mode in _MODES:
            size = sizes[f"{number} {mode}"]
            took = spread(seconds[f"{number} {mode}"])
            run.rates[mode] = took.map(lambda s, n=size: n / max(s, 1e-9)).as_dict()  # type: ignore[misc]
    return _Cell(kind, share, runs)


def _search_batches(engine: FilteredEngine, batches: Sequence[Any], k: int, setting: Any) -> None:
    for queries, prepared in batches:
        engine.search(queries, prepared, k, setting)


def _choose(
    case: Case,
    grid: FilterGrid,
    engine: FilteredEngine,
    queries: Any,
    prepared: Sequence[Any],
    filters: Sequence[Filter],
    share: float,
) -> _Run:
    """The first setting with enough recall, or the one with the most."""
    best, k = _Run(engine), case.k
    owners = [f for f, members in zip(filters, grid.groups, strict=True) for _ in members]
    for setting in engine.settings(share):
        start = case.clock()
        parts = [engine.search(queries[g], p, k, setting) for g, p in zip(grid.groups, prepared, strict=True)]
        found = np.concatenate(parts)
        seconds = case.clock() - start
        recall = float(grid.recall(found, owners, k).mean())
        if not best.recalls or recall > best.recalls[_MODES[0]]:
            best = _Run(engine, setting, seconds / len(owners), {_MODES[0]: recall})
        if recall >= ENOUGH:
            break
    return best


def _regrets(case: Case, grid: FilterGrid, engine: FilteredEngine, kind: str, share: float) -> list[float]:
    """Per group of queries: seconds of the plan that is chosen over those of the best that can be forced."""
    if not isinstance(engine, FilteredOurs) or engine.kind != "hnsw":
        return []
    out = []
    for g, members in enumerate(grid.groups):
        allowed = grid.filter(kind, share, g)
        queries, prepared = grid.queries[members], engine.prepare(allowed)
        recalls, actions = {}, {}
        for plan in ("auto", *PLANS):

            def search(p: str = plan, q: Any = queries, f: Any = prepared) -> npt.NDArray[np.int64]:
                return np.asarray(
                    engine.index.search(q, case.k, filter=f, num_threads=1, plan=p).ids, np.int64
                )

            recalls[plan] = float(grid.recall(search(), [allowed] * len(members), case.k).mean())
            actions[plan] = search
        good = [p for p in actions if recalls[p] >= min(ENOUGH, recalls["auto"])]
        seconds = interleave({p: actions[p] for p in good}, case.repeats, clock=case.clock)
        medians = {p: spread(s).median for p, s in seconds.items()}
        out.append(medians["auto"] / max(min(medians.values()), 1e-9))
    return out


def _row(cell: _Cell, grid: FilterGrid, data: Any, k: int) -> dict[str, Any]:
    ours = cell.ours
    versus = {}
    for run in cell.runs[1:]:
        ratio = run.ratio(ours, _MODES[0])
        versus[f"x {run.engine.label}"] = (
            f"{ratio:.1f}" if np.isfinite(ratio) else f"never ({run.recalls[_MODES[0]]:.2f})"
        )
    return {
        "filter": cell.kind,
        "share": f"{100 * cell.share:g} %",
        "matches": grid.filter(cell.kind, cell.share, 0).count,
        "plan": _plan_of(grid, cell, k),
        "recall": ours.recalls[_MODES[0]],
        "recall_each": ours.recalls[_MODES[1]],
        "queries_per_second_one": ours.rates[_MODES[0]],
        "queries_per_second_each": ours.rates[_MODES[1]],
        "versus": versus,
        "runs": [run.as_dict() for run in cell.runs],
    }


def _plan_of(grid: FilterGrid, cell: _Cell, k: int) -> str | None:
    engine = cell.ours.engine
    if not isinstance(engine, FilteredOurs):
        return None
    prepared = engine.prepare(grid.filter(cell.kind, cell.share, 0))
    found = engine.index.search(grid.queries[grid.groups[0]], k, filter=prepared, num_threads=1)
    return str(found.stats.get("plan"))


def _summary(cell: _Cell) -> str:
    ours = cell.ours
    parts = [f"recall {min(ours.recalls.values()):.3f}, {ours.rates[_MODES[0]]['median']:,.0f} queries/s"]
    for run in cell.runs[1:]:
        ratio = run.ratio(ours, _MODES[0])
        parts.append(f"{run.engine.label} {run.engine.describe(run.setting)}: {ratio:.1f}x")
    return "; ".join(parts)


def _judge(session: Session, cells: Sequence[_Cell], regrets: Sequence[float]) -> None:
    recalls = [recall for cell in cells for recall in cell.ours.recalls.values()]
    measured: dict[str, tuple[str, float, str, bool]] = {
        "worst recall": ("worst recall over the grid", min(recalls), "recall", False),
        "mean recall": ("mean recall over the grid", float(np.mean(recalls)), "recall", False),
    }
    if regrets:
        measured["median regret"] = ("planner regret, median", float(np.median(regrets)), "x", True)
        measured["regret"] = ("planner regret, 99th percentile", float(np.quantile(regrets, 0.99)), "x", True)
    index = cells[0].ours.engine
    if isinstance(index, FilteredOurs):
        per_row = index.index.memory()["columns"] / len(session.data.base)
        measured["columns"] = ("columns of the grid", per_row, "bytes per row", True)
    bars = {
        bar["name"]: bar.get("at_least", bar.get("at_most"))
        for bar in session.case.bars
        if "speed" not in bar
    }
    for name, (claim, value, unit, at_most) in measured.items():
        session.expect(claim, value, bars.get(name), unit, at_most=at_most)
    for bar in session.case.bars:
        if "speed" in bar:
            _judge_speed(session, cells, bar)


def _judge_speed(session: Session, cells: Sequence[_Cell], bar: Any) -> None:
    """The least ratio where the words of the bar's name hold: kinds of filters and shares in percent."""
    kinds = set(bar["name"].split()) & set(FILTER_KINDS) or set(FILTER_KINDS)
    shares = [float(percent) / 100 for percent in re.findall(r"([\d.]+) ?%", bar["name"])]
    ratios, reached = [], False
    for cell in cells:
        if cell.kind not in kinds or (shares and not any(np.isclose(cell.share, s) for s in shares)):
            continue
        for run in cell.runs[1:]:
            if run.engine.label.startswith(bar["against"]):
                reached = True
                ratios += [run.ratio(cell.ours, mode) for mode in _MODES]
    if not reached:
        return
    least = min(ratios)
    claim = f"{bar['name']}: least speed by that of {bar['against']}"
    if not np.isfinite(least):
        claim, least = f"{claim} (recall {ENOUGH} is reached nowhere)", 1e6
    session.expect(claim, least, bar["speed"], "x")
