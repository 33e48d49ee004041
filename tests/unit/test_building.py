# SPDX-License-Identifier: Apache-2.0
"""build: the recall is reached on queries that took no part, within the bytes; refusals say what works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import residua as rz
from residua._build_choice import Choice, Given
from residua._build_options import options
from residua.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)

DIM = 48


def vectors(n: int, seed: int) -> np.ndarray:
    """Rows around 40 centres, some dims wider than others."""
    centres = np.random.default_rng(7).standard_normal((40, DIM))
    rng = np.random.default_rng(seed)
    x = centres[rng.integers(0, 40, n)] + 0.6 * rng.standard_normal((n, DIM))
    return (x * np.linspace(0.3, 1.5, DIM)).astype(np.float32)


X, Q = vectors(5000, 1), vectors(600, 2)


def recall(index: rz.FlatIndex, metric: str = "cosine", q: np.ndarray = Q) -> float:
    truth = rz.exact_search(q, X, 10, metric=metric).ids  # type: ignore[arg-type]
    return rz.recall(index.search(q, 10).ids, truth)


def row_bytes(index: rz.FlatIndex) -> int:
    """Bytes per vector, as the codec and the kept vectors say."""
    codes = 0 if index.codec is None else index.codec.code_bytes
    kept = {"none": 0, "int8": DIM + 4, "float16": 2 * DIM, "float32": 4 * DIM}[index._native.vectors]
    return codes + kept + (4 if kept and index.metric == "cosine" else 0)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("target", [0.9, 0.99])
def test_targets_are_reached_by_new_queries(metric: str, target: float) -> None:
    index = rz.build(X, metric=metric, target_recall=target, queries=Q[:400])  # type: ignore[arg-type]
    assert len(index) == 5000
    assert recall(index, metric, Q[400:]) >= target
    assert "held-out queries" in index.plan
    assert set(index.defaults) <= {"rerank", "nprobe"}
    np.testing.assert_array_equal(index.search(X[:5] * 1.0, 1).counts, 1)


def test_rows_stand_in_for_queries() -> None:
    index = rz.build(X, target_recall=0.9)
    assert recall(index) >= 0.9
    assert "held-out rows as queries" in index.plan


@pytest.mark.parametrize("budget", [40, 70, 120, 400])
def test_budgets_are_kept(budget: int) -> None:
    index = rz.build(X, target_recall=0.8, max_bytes_per_vector=budget, queries=Q[:400])
    assert row_bytes(index) <= budget
    assert recall(index, q=Q[400:]) >= 0.8
    parts = index.memory()
    assert (parts["codes"] + parts["vectors"] + parts["ids"]) / len(index) <= budget * 1.3  # blocks, reserves


@pytest.mark.parametrize("budget", [None, 60])
def test_many_rows_stand_in_lists(
    budget: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("residua._build_choice._LISTS_FROM", 4000)
    index = rz.build(X, queries=Q[:400], max_bytes_per_vector=budget, target_recall=0.8)
    assert isinstance(index, rz.IVFIndex)
    assert index.defaults["nprobe"] < index.nlist
    assert recall(index, q=Q[400:]) >= 0.8
    parts = index.memory()
    size = sum(parts[name] for name in ("codes", "vectors", "ids", "lists")) / len(index)
    assert size <= (budget or np.inf)
    index.save(tmp_path / "index.rsd")
    again = rz.load(tmp_path / "index.rsd")
    assert again.plan == index.plan
    np.testing.assert_array_equal(again.search(Q, 10).ids, index.search(Q, 10).ids)


def test_what_is_asked_for_more_costs_more() -> None:
    sizes = [
        row_bytes(rz.build(X, target_recall=t, max_bytes_per_vector=60, queries=Q)) for t in (0.5, 0.8, 0.95)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_defaults_and_reasons_are_saved(tmp_path: Path) -> None:
    index = rz.build(X, queries=Q)
    index.save(tmp_path / "index.rsd")
    again = rz.load(tmp_path / "index.rsd")
    assert again.plan == index.plan
    assert again.defaults == index.defaults
    np.testing.assert_array_equal(again.search(Q, 10).ids, index.search(Q, 10).ids)
    index.set_defaults({})
    assert "held-out" in index.plan  # why it was built so remains
    assert index.search(Q, 10).stats["reranked"] != again.search(Q, 10).stats["reranked"]


def test_seeds_reproduce() -> None:
    one, two = (rz.build(X, seed=5, num_threads=n, queries=Q) for n in (1, 2))
    assert one.plan == two.plan
    assert one.codec is not None
    assert two.codec is not None
    assert one.codec.fingerprint == two.codec.fingerprint


def test_few_vectors_are_scanned_exactly() -> None:
    for n in (1, 30, 2000):
        index = rz.build(X[:n])
        assert index.codec is None
        assert "exact" in index.plan
        truth = rz.exact_search(Q, X[:n], 10).ids[:, : min(n, 10)]
        np.testing.assert_array_equal(index.search(Q, min(n, 10)).ids, truth)
    assert rz.build(X[:3000].astype(np.float64), target_recall=0.999).codec is None  # too few to show 0.9995


def test_values_beyond_float16() -> None:
    index = rz.build(X * 1e6, metric="l2", queries=Q * 1e6)
    assert index._native.vectors in ("float32", "none", "int8")
    truth = rz.exact_search(Q * 1e6, X * 1e6, 10, metric="l2").ids
    assert rz.recall(index.search(Q * 1e6, 10).ids, truth) >= 0.95


def test_duplicates_and_equal_rows() -> None:
    twice = np.repeat(X[:2000], 2, axis=0)
    index = rz.build(twice, target_recall=0.8, queries=Q)
    assert len(index) == 4000
    same = np.tile(X[:1], (3000, 1))
    with pytest.raises(InvalidValueError, match="1 different ones"):
        rz.build(same)


def test_impossible_budgets_say_what_is_possible() -> None:
    smallest = rz.RecurrentBinaryCodec(DIM, 0.5).code_bytes
    with pytest.raises(InvalidValueError, match=f"0.5 bits per dim of {smallest} bytes"):
        rz.build(X, max_bytes_per_vector=smallest - 1)
    with pytest.raises(InvalidValueError, match=r"reaches 0\.\d+\. (\d+) bytes may do") as error:
        rz.build(X, max_bytes_per_vector=smallest, queries=Q, target_recall=0.95)
    enough = int(str(error.value).split(" bytes may do")[0].rsplit(" ", 1)[-1])
    index = rz.build(X, max_bytes_per_vector=enough, queries=Q, target_recall=0.95)
    assert row_bytes(index) <= enough
    with pytest.raises(InvalidValueError, match="give queries=, or max_bytes_per_vector=196"):
        rz.build(X[:20], max_bytes_per_vector=30)


def test_progress_and_bad_input() -> None:
    seen: list[tuple[int, int]] = []
    rz.build(X[:2500], target_recall=0.8, queries=Q, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 3)
    assert seen[-1] == (3, 3)
    for wrong in (0, 1.5):
        with pytest.raises(InvalidValueError, match="target_recall"):
            rz.build(X, target_recall=wrong)
    for budget in (0, -5, float("nan")):
        with pytest.raises(InvalidValueError, match="max_bytes_per_vector"):
            rz.build(X, max_bytes_per_vector=budget)
    with pytest.raises(InvalidTypeError, match="max_bytes_per_vector"):
        rz.build(X, max_bytes_per_vector="many")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="metric"):
        rz.build(X, metric="dot")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="at least 1 vector"):
        rz.build(X[:0])
    with pytest.raises(ShapeError, match="48"):
        rz.build(X, queries=Q[:, :9])
    with pytest.raises(InvalidValueError, match="74 can"):
        rz.build(X, queries=Q[:20])
    with pytest.raises(NonFiniteError, match="row 3"):
        rz.build(np.where(np.arange(5000)[:, None] == 3, np.nan, X))
    with pytest.raises(InvalidValueError, match="zero vector"):
        rz.build(X * 0)
    with pytest.raises(InvalidValueError, match="overflow"):
        rz.build(X.astype(np.float64) * 1e30, metric="l2")


def test_options() -> None:
    found = options(DIM, "cosine", 0, half=True)
    for option in found.all():
        codec = None if option.codec is None else option.codec()
        index = rz.FlatIndex(DIM, codec=codec, vectors=option.vectors)
        index.add(X[:300])
        assert row_bytes(index) == option.bytes, option
    assert found.within(1).all() == []
    within = found.within(100)
    assert all(o.bytes <= 100 for o in within.all())
    assert len({o.coding for o in within.kept}) == len(within.kept)


def test_queries_do_not_find_themselves() -> None:
    choice = Choice(Given(X, None, "cosine", 0.9, 0, 1))
    own = choice._own
    assert own is not None
    true = choice._true(np.arange(5000))
    assert true.shape == (1000, 10)
    assert not (true == own[:, None]).any()
    np.testing.assert_array_equal(true[:, 0], rz.exact_search(X[own], X, 2).ids[:, 1])
    index = rz.FlatIndex(DIM)
    index.add(X)
    trial = choice._trial(index, np.arange(5000), np.arange(100))
    assert trial.measure({}).recall.mean == 1
