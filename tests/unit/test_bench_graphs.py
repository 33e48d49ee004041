# SPDX-License-Identifier: Apache-2.0
"""The comparison of graphs: beams are chosen on one half of the queries and timed on the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench import cases
from bench.datasets import BenchData
from bench.measures import MEASURES, Session, graphs

import residua as rz


@pytest.fixture
def data() -> BenchData:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 64))
    base, queries = (
        (centres[rng.integers(0, 20, n)] + 0.4 * rng.standard_normal((n, 64))).astype(np.float32)
        for n in (900, 60)
    )
    truth = rz.exact_search(queries, base, 10, metric="l2").ids.astype(np.int32)
    return BenchData("made", "l2", base, queries, None, truth)


def case_of(tmp_path: Path, more: str = "") -> cases.Case:
    path = tmp_path / "graph.toml"
    path.write_text(
        "title = 't'\nkind = 'graph'\n[[ours]]\ncodec = 'scalar'\nlayout = 'turbo'\nM = 8\n"
        "[[ours]]\ncodec = 'scalar'\nlayout = 'compact'\nvectors = ['int8', 'mmap']\nM = 8\n" + more
    )
    return cases.load_case(path)


def test_every_graph_gets_its_least_beam(
    data: BenchData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "_LOADED_ROWS", 1000)
    monkeypatch.setattr(graphs, "_READING", 0.02)
    peers = "".join(f"[[graph]]\nlibrary = '{name}'\n" for name in ("hnswlib", "rabitqlib", "svs", "other"))
    session = Session(case_of(tmp_path, peers), data, {}, log=lambda line: None)
    MEASURES["graph"](session)
    ours = [row for row in session.rows if row["engine"] == "residua"]
    assert {row["family"] for row in ours} == {"turbo, float16", "compact, int8", "compact, float32 on disk"}
    assert {row["target"] for row in ours} == {0.95, 0.99}
    for row in session.rows:
        assert row["recall"] > row["target"] - 0.05  # 30 other queries
        assert row["queries_per_second"]["median"] > 0
        assert row["build_seconds"] > 0
    by_family = {row["family"]: row["bytes_per_vector"] for row in ours}
    assert by_family["compact, float32 on disk"] < by_family["compact, int8"] < by_family["turbo, float16"]
    measured = {outcome.claim: outcome.value for outcome in session.outcomes}
    assert measured["results that are the same after it"] == 1
    assert measured["load of 1,000 mapped rows"] > 0
    assert measured["a reader beside a writer, by its rate alone"] > 0
    assert measured["turbo: peak memory of a build, by index and input"] > 0.3
    assert sum("one query per call" in claim for claim in measured) == 3
    assert "expected one of hnswlib, rabitqlib, svs" in session.skipped[-1]["reason"]
    assert not session.errors


def test_graphs_of_others_stand_in_cases_of_graphs(tmp_path: Path) -> None:
    with pytest.raises(cases.CaseError, match=r"\[\[hnswlib\]\] belongs into a case of kind peers"):
        case_of(tmp_path, "[[hnswlib]]\nef = 5\n")
    path = tmp_path / "other.toml"
    path.write_text("title = 't'\nkind = 'peers'\n[[graph]]\nlibrary = 'hnswlib'\n")
    with pytest.raises(cases.CaseError, match=r"\[\[graph\]\] belongs into a case of kind graph, not peers"):
        cases.load_case(path)
