# SPDX-License-Identifier: Apache-2.0
"""The cases on token sets, in miniature."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("threadpoolctl")

from bench.cases import load_case
from bench.datasets import BenchData, DataError
from bench.measures import MEASURES, Session
from bench.token_data import load_tokens, prepare_tokens

import residua as rz

NO_DATA = BenchData("no data", "cosine", np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32))
# What each package adds, where it is installed.
ENCODERS = {"fastembed.postprocess": {"document, as fastembed", "fastembed document", "fastembed query"}}
SCORERS = {"numkong": {"numkong, packed"}, "maxsim_cpu": {"maxsim-cpu"}}


@pytest.mark.parametrize(
    ("kind", "bar", "labels", "peers"),
    [
        (
            "fde",
            "document by query",
            {"document", "query", "documents in one call", "327,680 values sketched to 10,240"},
            ENCODERS,
        ),
        ("maxsim", "rb4 by float32", {"float32", "float16", "int8", "NumPy", "rb4", "rb2", "rb1"}, SCORERS),
    ],
)
def test_token_cases(
    kind: str, bar: str, labels: set[str], peers: dict[str, set[str]], tmp_path: Path
) -> None:
    path = tmp_path / "small.toml"
    path.write_text(
        f'title = "x"\nkind = "{kind}"\nbatch = 9\nqueries = 4\nrows = 12\ndims = 16\nrepeats = 5\n'
        f'[[bar]]\nname = "{bar}"\nat_least = 0.0\n'
    )
    session = Session(load_case(path), NO_DATA, {}, log=lambda _: None)
    MEASURES[kind](session)
    missing = {package for package in peers if find_spec(package.partition(".")[0]) is None}
    assert {entry["engine"] for entry in session.skipped} == missing
    added = set().union(*(peers[package] for package in peers.keys() - missing))
    assert {row["label"] for row in session.rows} == labels | added
    assert all(row["microseconds"]["repeats"] == 5 for row in session.rows)
    assert [outcome.claim for outcome in session.outcomes] == [bar]


def test_first_stages_are_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((30, 16))
    for what, n, t in (("doc", 60, 9), ("query", 8, 4), ("train_query", 5, 4)):
        x = topics[rng.integers(0, 30, n * t)] + 0.2 * rng.standard_normal((n * t, 16))
        np.save(tmp_path / f"{what}_tokens.npy", (x / np.linalg.norm(x, axis=1)[:, None]).astype(np.float16))
        np.save(tmp_path / f"{what}_offsets.npy", np.arange(n + 1) * t)
    np.save(tmp_path / "gt.npy", np.zeros((8, 12), np.int32))
    data = load_tokens(tmp_path)
    np.save(tmp_path / "gt.npy", rz.maxsim_topk(data.asked, data.documents, 12).ids.astype(np.int32))
    data = load_tokens(tmp_path)
    assert data.summary()["n"] == 60
    assert data.summary()["train_queries"] == 5
    path = tmp_path / "small.toml"
    path.write_text(
        'title = "x"\nkind = "first_stage"\n'
        '[[bar]]\nname = "learned 1024, 4 bits by heuristic"\nat_most = 9.0\n'
    )
    session = Session(load_case(path), data.head(6), {}, log=lambda _: None)
    MEASURES["first_stage"](session)
    counts = {row["label"]: row["candidates"] for row in session.rows}
    assert {"heuristic", "FDE 10240, 1 bit", "learned 512, float32"} <= set(counts)
    assert all(10 <= count <= 60 for count in counts.values())
    assert counts["learned 512, float32"] < 45  # by chance 57 of 60
    assert [outcome.passed for outcome in session.outcomes] == [True]


def test_folders_of_tokens_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="doc_tokens"):
        load_tokens(tmp_path)
    np.save(tmp_path / "doc_tokens.npy", np.ones((4, 3), np.float16))
    np.save(tmp_path / "doc_offsets.npy", np.array([0, 3]))
    with pytest.raises(DataError, match="from 0 to the 4 tokens"):
        load_tokens(tmp_path)
    with pytest.raises(DataError, match="holds no tokens"):
        prepare_tokens(tmp_path, tmp_path / "out")
    np.save(tmp_path / "mv_doc_tokens_i8.npy", np.full((4, 3), 127, np.int8))
    np.save(tmp_path / "mv_doc_offsets.npy", np.array([0, 1, 4]))
    np.save(tmp_path / "mv_doc_scales.npy", np.array([2, 1, 1, 1], np.float16))
    np.save(tmp_path / "test_mv_query_tokens.npy", np.ones((5, 3), np.float16))
    np.save(tmp_path / "test_mv_query_offsets.npy", np.array([0, 2, 5]))
    data = prepare_tokens(tmp_path, tmp_path / "out", train_queries=1)
    assert data.truth is not None
    assert data.truth[:, :2].tolist() == [[0, 1]]
    assert data.train is not None
    assert len(data.train[0]) == 2
