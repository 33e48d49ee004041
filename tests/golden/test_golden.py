# SPDX-License-Identifier: Apache-2.0
"""Files that earlier versions wrote load for ever; recall on the shipped sample stays what it was."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz

HERE = Path(__file__).parent
# The folder of every format version whose files must load, oldest first.
VERSIONS = ("v1",)
FILES = [(v, p.stem) for v in VERSIONS for p in sorted((HERE / v).glob("*.rsd"))]

# recall@10 of code scores on the sample by bits: float queries, and queries that are encoded too.
RECALL = {0.5: (0.658, 0.558), 1: (0.804, 0.743), 2: (0.912, 0.878), 4: (0.972, 0.964)}


def maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_golden", HERE / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare(found: Any, wanted: Any) -> None:
    """Equal, floats within a thousandth of the largest beside them."""
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        if key in ("decoded", "scores", "first"):
            scale = np.abs(np.array(value)).max() + 1e-6
            np.testing.assert_allclose(found[key], value, atol=2e-3 * scale, err_msg=key)
        else:
            assert found[key] == value, key


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(("version", "name"), FILES)
def test_golden_files_load(version: str, name: str, mmap: bool, tmp_path: Path) -> None:
    wanted = json.loads((HERE / version / "facts.json").read_text(encoding="utf-8"))[name]
    thing = rz.load(HERE / version / f"{name}.rsd", mmap=mmap)
    compare(json.loads(json.dumps(maker().facts(thing))), wanted)
    thing.save(tmp_path / "again")
    compare(json.loads(json.dumps(maker().facts(rz.load(tmp_path / "again")))), wanted)


def test_all_kinds_are_there() -> None:
    for version in VERSIONS:
        names = {n for v, n in FILES if v == version}
        assert set(json.loads((HERE / version / "facts.json").read_text(encoding="utf-8"))) == names
    assert set(maker().things()) == {n for v, n in FILES if v == VERSIONS[-1]}
    assert sum(p.stat().st_size for p in HERE.rglob("*.*") if p.suffix in (".rsd", ".json")) < 400_000


def test_a_waiting_index_can_go_on() -> None:
    index = rz.load(HERE / VERSIONS[-1] / "flat-waiting.rsd")
    assert not index.codec.is_trained
    index.add(maker().vectors(400, 5))
    assert index.codec.is_trained
    assert index.codec.bits == 1.5


@pytest.fixture(scope="module")
def sample() -> Any:
    return rz.datasets.load_sample()


@pytest.mark.parametrize("bits", RECALL)
def test_recall_on_the_sample(bits: float, sample: Any) -> None:
    codec = rz.RecurrentBinaryCodec(384, bits).fit(sample.documents)
    index = rz.FlatIndex(384, codec=codec, vectors="none")
    index.add(sample.documents)
    truth = sample.ground_truth[:, :10]
    found = tuple(
        rz.recall(index.search(sample.queries, 10, scoring=scoring).ids, truth)
        for scoring in ("asymmetric", "symmetric")
    )
    assert found == pytest.approx(RECALL[bits], abs=0.01)


def test_recall_after_reranking_on_the_sample(sample: Any) -> None:
    index = rz.FlatIndex(384, codec=rz.RecurrentBinaryCodec(384, 1))
    index.train(sample.documents)
    index.add(sample.documents)
    hits = index.search(sample.queries, 10)
    assert rz.recall(hits.ids, sample.ground_truth[:, :10]) >= 0.99
