# SPDX-License-Identifier: Apache-2.0
"""The cases on token sets, in miniature."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("threadpoolctl")

from bench.cases import load_case
from bench.datasets import BenchData
from bench.measures import MEASURES, Session

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
