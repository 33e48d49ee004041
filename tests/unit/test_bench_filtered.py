# SPDX-License-Identifier: Apache-2.0
"""The comparison of searches with filters: filters, their correlation with queries, and what is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench import cases
from bench.datasets import BenchData, DataError
from bench.filter_grid import FILTER_KINDS, FilterGrid
from bench.measures import MEASURES, Session, filtered
from bench.report import to_markdown
from bench.runners.filtered import FilteredOurs

import residua as rz

SHARES = (0.01, 0.5)


@pytest.fixture(scope="module")
def data() -> BenchData:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 16))
    base, queries = (
        (centres[rng.integers(0, 20, n)] + 0.4 * rng.standard_normal((n, 16))).astype(np.float32)
        for n in (1500, 60)
    )
    return BenchData("made", "l2", base, queries)


def case_of(folder: Path, text: str) -> cases.Case:
    path = folder / "filtered.toml"
    path.write_text(f"title = 't'\nkind = 'filtered'\nshares = {list(SHARES)}\n{text}")
    return cases.load_case(path)


@pytest.mark.parametrize("kind", FILTER_KINDS)
def test_filters_say_the_same_as_text_and_as_rows(data: BenchData, kind: str) -> None:
    grid = FilterGrid(data, SHARES, 0.9, 4, 3, seed=1)
    index = rz.FlatIndex(16, metric="l2", columns=grid.fields)
    index.add(data.base, columns=grid.columns)
    for share in SHARES:
        made = [grid.filter(kind, share, g, shift) for g in range(4) for shift in range(3)]
        for one in made:
            hits = index.search(grid.queries[0], 1500, filter=one.given)
            assert sorted(hits.ids[hits.ids >= 0].tolist()) == np.flatnonzero(one.mask).tolist()
            assert one.count == pytest.approx(share * 1500, rel=0.3, abs=8)
        found = np.asarray(index.search(grid.queries, 10, filter=[m.given for m in made]).ids, np.int64)
        assert grid.recall(found, made, 10).tolist() == [1.0] * 12
        different = {m.mask.tobytes() for m in made}
        assert len(different) == (4 if kind == "tag" else 12)


def test_correlation_is_how_near_the_allowed_rows_are(data: BenchData) -> None:
    near = {}
    for correlation in (0.0, 0.5, 1.0):
        grid = FilterGrid(data, SHARES, correlation, 4, 3, seed=1)
        distances = ((data.base[None] - grid.queries[grid.groups[1]][:, None]) ** 2).sum(axis=2).mean(axis=0)
        order = np.argsort(distances, kind="stable")
        masks = [grid.filter(kind, 0.5, 1).mask for kind in ("positive", "negative")]
        near[correlation] = [float(mask[order[:75]].mean()) for mask in masks]
    assert near[1.0] == [1.0, 0.0]
    assert 0.3 < near[0.0][0] < 0.7
    assert near[0.5][0] > 0.9 > 0.1 > near[0.5][1]


def test_recall_counts_equal_scores_and_refuses_rows_that_are_not_allowed(data: BenchData) -> None:
    twice = BenchData("twice", "l2", np.concatenate([data.base, data.base]), data.queries)
    grid = FilterGrid(twice, SHARES, 0.9, 2, 1, seed=0)
    allowed = [grid.filter("range", 0.5, 0)] * 2
    exact = np.argsort(((twice.base[None] - grid.queries[:, None]) ** 2).sum(axis=2), axis=1, kind="stable")
    best = [row[allowed[0].mask[row]] for row in exact]
    found = np.stack([b[:10] for b in best])
    assert grid.recall(found, allowed, 10).tolist() == [1.0, 1.0]
    found[1, 5:] = best[1][-5:]
    found[1, 9] = -1
    assert grid.recall(found, allowed, 10).tolist() == [1.0, 0.5]
    for wrong in (np.flatnonzero(~allowed[0].mask)[0], found[0, 0]):
        found[0, 1] = wrong
        with pytest.raises(AssertionError, match="query 0"):
            grid.recall(found, allowed, 10)
    with pytest.raises(DataError, match="need 100 queries, got 60"):
        FilterGrid(data, SHARES, 0.9, 20, 5, seed=0)


def test_a_run_compares_indexes_cell_by_cell(
    data: BenchData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filtered, "_TIMED_SECONDS", 0.001)
    text = "[[ours]]\ncodec = 'float32'\nindex = 'flat'\n[[ours]]\ncodec = 'float32'\nindex = 'hnsw'\n"
    bars = (
        "[[bar]]\nname = 'worst recall'\nat_least = 0.95\n"
        "[[bar]]\nname = 'negative filters of 1 %'\nagainst = 'HNSW'\nspeed = 1e9\n"
    )
    session = Session(case_of(tmp_path, text + bars), data, {}, log=lambda line: None)
    MEASURES["filtered"](session)
    assert [(r["filter"], r["share"]) for r in session.rows] == [
        (k, s) for k in FILTER_KINDS for s in ("1 %", "50 %")
    ]
    assert all(r["recall"] == r["recall_each"] == 1.0 for r in session.rows)
    judged = {o.claim: o for o in session.outcomes}
    assert judged["worst recall over the grid"].passed
    assert judged["negative filters of 1 %: least speed by that of HNSW"].passed is False
    result = {**session.result(), "date": "2026-01-01"}
    assert "| x HNSWIndex, float32 |" in to_markdown(result).splitlines()[5]


@pytest.mark.parametrize(("seeing", "value"), [("FlatIndex, float32", 1e6), ("FlatIndex, recurrent", 0.0)])
def test_an_engine_that_finds_too_little_is_never_fast(
    data: BenchData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeing: str, value: float
) -> None:
    monkeypatch.setattr(filtered, "_TIMED_SECONDS", 0.001)
    real = FilteredOurs.search

    def blind(self: FilteredOurs, queries: Any, prepared: Any, k: int, setting: Any) -> Any:
        found = real(self, queries, prepared, k, setting)
        return found if self.label == seeing else np.where(np.arange(k) < 5, found, -1)

    monkeypatch.setattr(FilteredOurs, "search", blind)
    ours = "[[ours]]\ncodec = ['float32', 'recurrent']\nbits = 4.0\nindex = 'flat'\n"
    bar = "[[bar]]\nname = 'all filters'\nagainst = 'Flat'\nspeed = 2\n"
    session = Session(case_of(tmp_path, ours + bar), data, {}, log=lambda line: None)
    MEASURES["filtered"](session)
    assert session.outcomes[-1].value == value
    assert session.outcomes[-1].passed is (value > 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shares = [0.1, 2.0]\nkind = 'filtered'", "shares holds 2.0"),
        ("kind = 'peers'\n[[lancedb]]\nindex = 'IVF_HNSW_SQ'", "case of kind filtered"),
        ("kind = 'lists'\n[[usearch]]\ndtype = 'f16'", "peers or filtered"),
    ],
)
def test_bad_cases(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(f"title = 't'\n{text}\n")
    with pytest.raises(cases.CaseError, match=message):
        cases.load_case(path)
