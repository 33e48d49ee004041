# SPDX-License-Identifier: Apache-2.0
"""The adapters do what ann-benchmarks and VIBE ask for, on the sample."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz

FOLDERS = Path(__file__).parents[2] / "bench" / "adapters"
BASE = "class BaseANN:\n    pass\n"


def adapter(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as its benchmark imports it: beside the package of the base class."""
    package = f"algorithms_of_{name}"
    for folder, text in (("base", BASE), ("residua", (FOLDERS / name / "module.py").read_text("utf-8"))):
        (tmp_path / package / folder).mkdir(parents=True)
        (tmp_path / package / folder / "module.py").write_text(text, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for known in [m for m in sys.modules if m.startswith(package)]:
        del sys.modules[known]
    return importlib.import_module(f"{package}.residua.module")


def config(name: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="reading config.yml needs PyYAML: pip install pyyaml")
    (entry,) = yaml.safe_load((FOLDERS / name / "config.yml").read_text("utf-8"))["float"]["any"]
    return dict(entry)


def assert_works(algorithm: Any, ef: int) -> None:
    sample = rz.datasets.load_sample()
    assert algorithm.get_memory_usage() == 0
    algorithm.fit(sample.documents)
    algorithm.set_query_arguments(ef)
    assert str(ef) in str(algorithm)
    truth = sample.ground_truth[:, :10]
    algorithm.batch_query(sample.queries, 10)
    found = algorithm.get_batch_results()
    assert rz.recall(found, truth) > 0.9
    one = algorithm.query(sample.queries[3], 10)
    np.testing.assert_array_equal(one, found[3])
    assert algorithm.get_memory_usage() > sample.documents.size * 2 / 1024


@pytest.mark.parametrize("layout", ["turbo", "compact"])
def test_ann_benchmarks(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = adapter("ann_benchmarks", tmp_path, monkeypatch).ResiduaHNSW
    assert_works(made("angular", {"layout": layout, "M": 12, "ef_construction": 60}), 96)
    with pytest.raises(NotImplementedError, match="no metric 'jaccard'; it has angular, euclidean"):
        made("jaccard", {})


def test_vibe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = adapter("vibe", tmp_path, monkeypatch).ResiduaHNSW
    assert_works(made("normalized", "turbo", 12, 60), 96)
    sample = rz.datasets.load_sample()
    learned = made("ip", "compact", 12, 60)
    learned.fit_ood(sample.documents, sample.queries[:200], np.zeros((200, 100), np.int32))
    learned.set_query_arguments(96)
    learned.batch_query(sample.queries, 10)
    assert rz.recall(learned.get_batch_results(), sample.ground_truth[:, :10]) > 0.9


def test_configurations_are_those_that_the_classes_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = config("ann_benchmarks")
    made = getattr(adapter("ann_benchmarks", tmp_path, monkeypatch), entry["constructor"])
    for group in entry["run_groups"].values():
        (grid,) = group["arg_groups"]
        values = [v if isinstance(v, list) else [v] for v in grid.values()]
        for chosen in itertools.product(*values):
            options = dict(zip(grid, chosen, strict=True))
            assert rz.HNSWIndex(64, **options).layout == options["layout"]
            str(made("euclidean", options))
    entry = config("vibe")
    made = getattr(adapter("vibe", tmp_path, monkeypatch), entry["constructor"])
    for arguments in itertools.product(*entry["run_groups"]["base"]["args"].values()):
        str(made("cosine", *arguments))
