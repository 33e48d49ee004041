# SPDX-License-Identifier: Apache-2.0
"""The comparison of inverted lists: settings are chosen on one half of the queries and timed on the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench import cases
from bench.datasets import load_folder
from bench.measures import MEASURES, Session
from bench.runners.lists import build_lists

import residua as rz


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 16))
    made = [(centres[rng.integers(0, 20, n)] + 0.4 * rng.standard_normal((n, 16))) for n in (1200, 80, 10)]
    base, queries, train = (x.astype(np.float32) for x in made)
    np.save(tmp_path / "base.npy", base)
    np.save(tmp_path / "queries.npy", queries)
    np.save(tmp_path / "train_queries.npy", train)
    np.save(tmp_path / "gt.npy", rz.exact_search(queries, base, 20, metric="l2").ids.astype(np.int32))
    (tmp_path / "metric.txt").write_text("l2")
    return tmp_path


def case_of(tmp_path: Path, peers: str = "") -> cases.Case:
    path = tmp_path / "lists.toml"
    path.write_text(
        "title = 't'\nkind = 'lists'\n[[ours]]\ncodec = 'recurrent'\nbits = [4.0, 8.0]\nnlist = 16\n" + peers
    )
    return cases.load_case(path)


def test_every_recall_gets_the_fastest_setting_of_each_engine(folder: Path) -> None:
    session = Session(case_of(folder), load_folder(folder), {}, log=lambda line: None)
    MEASURES["lists"](session)
    assert [row["target"] for row in session.rows] == [0.9, 0.9, 0.95, 0.95, 0.99, 0.99]
    assert {row["label"] for row in session.rows} == {"IVF16, recurrent 4 bits", "IVF16, recurrent 8 bits"}
    for row in session.rows:
        assert row["recall"] > row["target"] - 0.06  # 40 other queries
        assert row["queries_per_second"]["median"] > 0
        assert row["all_bytes_per_vector"] > row["bytes_per_vector"] + 31
    assert not session.outcomes  # there is nobody to compare with


def test_the_best_of_faiss_stands_beside_ours(folder: Path) -> None:
    pytest.importorskip("faiss")
    peers = (
        "[[faiss]]\nfactory = 'IVF16,PQ8x4fs'\nrefine_type = 'float16'\n[[bar]]\nname = 'b'\nspeed = 2.0\n"
    )
    session = Session(case_of(folder, peers), load_folder(folder), {}, log=lambda line: None)
    MEASURES["lists"](session)
    assert {row["engine"] for row in session.rows} == {"residua", "faiss"}
    speed, size = session.outcomes[0], session.outcomes[1]
    assert "against IVF16,PQ8x4fs" in speed.claim
    assert (speed.must, size.must, size.at_most) == (2.0, 1.0, True)


def test_settings_change_what_is_searched(folder: Path) -> None:
    data = load_folder(folder)
    engine = build_lists(data, case_of(folder).specs[0], 1, 0)
    settings = list(engine.settings())
    assert all(probes <= 16 for probes, _ in settings)
    found = []
    for setting in ((2, 0), (16, 40)):
        engine.use(setting)
        found.append(engine.search(engine.prepare(data.queries), 10, 1))
    assert found[0].shape == (80, 10)
    assert (found[0] != found[1]).any()
    assert engine.describe((2, 0)) == "nprobe 2, rerank 0"
