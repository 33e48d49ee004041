# SPDX-License-Identifier: Apache-2.0
"""tune: the target is reached on queries that did not choose, the figures are honest, refusals are clear."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import residua as rz
from residua._recall_bounds import (
    CHOOSING,
    Estimate,
    estimate,
    groups_of_equal,
    queries_needed,
    recall_per_query,
)
from residua._settings import ladder
from residua._trials import true_ids
from residua.errors import (
    CorruptFileError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    UnsupportedError,
)


@pytest.fixture(scope="module")
def sample() -> rz.datasets.Sample:
    return rz.datasets.load_sample()


@pytest.fixture(scope="module")
def index(sample: rz.datasets.Sample) -> rz.FlatIndex:
    out = rz.FlatIndex(384, codec=rz.RecurrentBinaryCodec(384, bits=1))
    out.add(sample.documents)
    return out


def vectors(n: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


@pytest.mark.parametrize("target", [0.9, 0.95, 0.99])
def test_20_splits_of_the_sample_reach_the_target(
    index: rz.FlatIndex, sample: rz.datasets.Sample, target: float
) -> None:
    results = [rz.tune(index, sample.queries, target_recall=target, seed=seed) for seed in range(20)]
    assert sum(r.recall >= target for r in results) >= 19
    assert sum(r.ci_high >= target for r in results) >= 19
    assert all(r.reached for r in results)
    assert all(r.ci_low < r.recall <= r.ci_high <= 1 and r.qps > 0 for r in results)
    assert all(r.n_tuning == r.n_held_out == 250 for r in results)
    # Not by giving far too much: a quarter of the candidates would miss the target.
    most = max(r.params["rerank"] for r in results)
    assert measured(index, sample, {"rerank": most // 4}) < target


def measured(index: rz.FlatIndex, sample: rz.datasets.Sample, params: dict[str, int]) -> float:
    truth = rz.exact_search(sample.queries, index.get(np.arange(len(index))), 10).ids
    return rz.recall(index.search(sample.queries, 10, **params).ids, truth)


def test_params_reproduce_the_recall_and_the_seed_the_params(
    index: rz.FlatIndex, sample: rz.datasets.Sample
) -> None:
    one = rz.tune(index, sample.queries, seed=3)
    two = rz.tune(index, sample.queries, seed=3, num_threads=1)
    assert (one.params, one.recall, one.ci_low, one.ci_high) == (
        two.params,
        two.recall,
        two.ci_low,
        two.ci_high,
    )
    assert list(one.params) == ["rerank"]
    other = rz.tune(index, sample.queries, seed=4)
    whole = measured(index, sample, one.params)
    assert one.ci_low <= whole <= one.ci_high
    assert other.recall != one.recall
    first = rz.tune(index, sample.queries, k=1, target_recall=0.9)
    assert first.params["rerank"] < one.params["rerank"]


def test_intervals_hold_the_recall_of_all_queries(index: rz.FlatIndex, sample: rz.datasets.Sample) -> None:
    """95 % intervals of halves: the recall of all 500 queries is nearly always inside."""
    results = [rz.tune(index, sample.queries, target_recall=0.9, seed=s) for s in range(20)]
    whole = {str(r.params): measured(index, sample, r.params) for r in results}
    assert sum(r.ci_low <= whole[str(r.params)] <= r.ci_high for r in results) >= 18


@pytest.mark.parametrize("codec", ["auto", None])
def test_lists_are_tuned(sample: rz.datasets.Sample, codec: str | None) -> None:
    lists = rz.IVFIndex(384, codec=codec, nlist=100).train(sample.documents)  # type: ignore[arg-type]
    lists.add(sample.documents)
    truth = true_ids(lists, sample.queries.astype(np.float32), 10, 0)
    results = [rz.tune(lists, sample.queries, truth=truth, target_recall=0.9, seed=s) for s in range(20)]
    assert all(r.reached for r in results)
    assert sum(r.recall >= 0.9 for r in results) >= 19
    assert all(r.params["nprobe"] < 100 for r in results)
    assert ("rerank" in results[0].params) == (codec is not None)
    lists.set_defaults(results[0].params)
    hits = lists.search(sample.queries, 10)
    assert hits.stats["nprobe"] == results[0].params["nprobe"]
    np.testing.assert_array_equal(hits.ids, lists.search(sample.queries, 10, **results[0].params).ids)
    assert lists.search(sample.queries, 10, plan="scan").stats["nprobe"] == 100
    with pytest.raises(InvalidValueError, match="nprobe"):
        lists.set_defaults({"nprobe": 0})


def test_exact_indexes_have_nothing_to_tune(sample: rz.datasets.Sample) -> None:
    index = rz.FlatIndex(384)
    index.add(sample.documents[:500])
    result = rz.tune(index, sample.queries)
    assert result.params == {}
    assert result.recall == 1
    assert result.reached
    waiting = rz.FlatIndex(384, codec=rz.ScalarCodec(384), vectors="none")
    waiting.add(sample.documents[:100])
    assert rz.tune(waiting, sample.queries).recall == 1


def test_a_recall_of_one_is_exact(index: rz.FlatIndex, sample: rz.datasets.Sample) -> None:
    result = rz.tune(index, sample.queries, target_recall=1)
    assert result.recall > 0.99
    assert result.params["rerank"] >= 40


def test_a_target_out_of_reach_gives_the_best_and_says_so(sample: rz.datasets.Sample) -> None:
    x = sample.documents[:3000]
    index = rz.FlatIndex(384, codec=rz.RecurrentBinaryCodec(384, bits=0.5), vectors="none")
    index.add(x)
    truth = rz.exact_search(sample.queries, x, 10).ids
    result = rz.tune(index, sample.queries, truth=truth, target_recall=0.99)
    assert result.params == {}
    assert not result.reached
    assert result.ci_high < 0.99
    low = rz.tune(index, sample.queries, truth=truth, target_recall=0.3)
    assert low.reached
    assert low.recall == pytest.approx(result.recall, abs=0.05)


def test_no_truth_without_vectors(sample: rz.datasets.Sample) -> None:
    index = rz.FlatIndex(384, codec=rz.BinaryCodec(384), vectors="none")
    index.add(sample.documents[:500])
    with pytest.raises(UnsupportedError, match="truth="):
        rz.tune(index, sample.queries)


def test_too_few_queries(index: rz.FlatIndex, sample: rz.datasets.Sample) -> None:
    with pytest.raises(InvalidValueError, match=r"12 different ones cannot show a recall@10 of 0.95; 74 can"):
        rz.tune(index, sample.queries[:12])
    with pytest.raises(InvalidValueError, match="1 different"):
        rz.tune(index, np.repeat(sample.queries[:1], 400, axis=0))
    with pytest.raises(InvalidValueError, match="0 different"):
        rz.tune(index, sample.queries[:0])
    rz.tune(index, sample.queries[:74], target_recall=0.95)
    assert 2 * queries_needed(0.999, 10) > 500


def test_equal_queries_count_as_one(index: rz.FlatIndex, sample: rz.datasets.Sample) -> None:
    once = rz.tune(index, sample.queries[:200])
    often = rz.tune(index, np.repeat(sample.queries[:200], 5, axis=0))
    assert often.n_tuning == often.n_held_out == 500
    assert often.ci_high - often.ci_low > 0.8 * (once.ci_high - once.ci_low)


def test_queries_that_are_rows_find_themselves(index: rz.FlatIndex, sample: rz.datasets.Sample) -> None:
    result = rz.tune(index, sample.documents[:300], target_recall=0.95)
    assert result.reached
    truth = true_ids(index, sample.documents[:300].astype(np.float32), 10, 1)
    assert (truth[:, 0] == np.arange(300)).mean() > 0.99


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_truth_is_that_of_the_exact_search(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, q = np.round(vectors(700, 6)), vectors(30, 6, 1)
    x[np.abs(x).sum(axis=1) == 0] = 1
    ids = np.random.default_rng(2).permutation(5000)[:700]
    for name in ("float32", "float16", "int8"):
        index = rz.FlatIndex(6, metric=metric, vectors=name)  # type: ignore[arg-type]
        index.add(x, ids)
        index.remove(ids[100:200])
        expected = index.search(q, 10)
        for values in (2**24, 6 * 37):  # in one piece, and in many
            monkeypatch.setattr("residua._trials._CHUNK_VALUES", values)
            np.testing.assert_array_equal(true_ids(index, q, 10, 0), expected.ids)
    text = rz.FlatIndex(6, metric=metric)  # type: ignore[arg-type]
    text.add(x, [f"id {i}" for i in ids])
    assert true_ids(text, q, 10, 0).tolist() == text.search(q, 10).ids.tolist()
    few = rz.FlatIndex(6, metric=metric)  # type: ignore[arg-type]
    few.add(x[:4])
    assert true_ids(few, q, 10, 0).shape == (30, 4)
    assert rz.tune(few, vectors(100, 6, 3)).recall == 1


def test_bad_input(index: rz.FlatIndex, sample: rz.datasets.Sample) -> None:
    q = sample.queries
    for wrong in (0, -0.5, 1.01, float("nan")):
        with pytest.raises(InvalidValueError, match="target_recall"):
            rz.tune(index, q, target_recall=wrong)
    with pytest.raises(InvalidTypeError, match="target_recall"):
        rz.tune(index, q, target_recall="0.9")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="tune takes an index"):
        rz.tune(sample.documents, q)  # type: ignore[arg-type]
    with pytest.raises(ShapeError):
        rz.tune(index, q[:, :100])
    with pytest.raises(NonFiniteError):
        rz.tune(index, np.full_like(q, np.nan))
    with pytest.raises(InvalidValueError, match="zero vector"):
        rz.tune(index, np.zeros((100, 384), np.float32))
    with pytest.raises(InvalidValueError, match="empty"):
        rz.tune(rz.FlatIndex(384), q)
    with pytest.raises(InvalidValueError, match="k must"):
        rz.tune(index, q, k=0)
    with pytest.raises(ShapeError, match="truth"):
        rz.tune(index, q, truth=np.zeros((500, 5), np.int64))
    with pytest.raises(ShapeError, match="truth"):
        rz.tune(index, q, truth=np.zeros(500, np.int64))


def test_defaults_are_used_and_saved(index: rz.FlatIndex, sample: rz.datasets.Sample, tmp_path: Path) -> None:
    own = rz.FlatIndex(384, codec=index.codec)
    own.add(sample.documents[:2000])
    q = sample.queries[:20]
    automatic = own.search(q, 10)
    assert own.defaults == {}
    own.set_defaults({"rerank": 11})
    assert own.defaults == {"rerank": 11}
    assert own.search(q, 10).stats["reranked"] == 11
    assert own.search(q, 5).stats["reranked"] == 11
    assert own.search(q, 40).stats["reranked"] == 44  # in proportion
    assert own.search(q, 10, rerank=50).stats["reranked"] == 50
    assert own.search(q, 10, rerank=True).stats["reranked"] == automatic.stats["reranked"]
    own.save(tmp_path / "index.rsd")
    again = rz.load(tmp_path / "index.rsd")
    assert again.defaults == {"rerank": 11}
    np.testing.assert_array_equal(again.search(q, 10).ids, own.search(q, 10).ids)
    own.set_defaults({"rerank": 0})
    assert own.search(q, 10).stats["plan"] == "codes"
    own.set_defaults({})
    assert own.search(q, 10).stats == automatic.stats
    for wrong in ({"ef": 5}, {"rerank": 1.5}, {"rerank": True}, [("rerank", 5)]):
        with pytest.raises(InvalidTypeError):
            own.set_defaults(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="rerank"):
        own.set_defaults({"rerank": -1})
    with pytest.raises(InvalidTypeError, match="no settings"):
        rz.FlatIndex(8).set_defaults({"rerank": 3})
    own._native.tuning = "no such thing"
    with pytest.raises(CorruptFileError, match="settings"):
        own.search(q, 10)


def test_bounds() -> None:
    """Wilson's interval, by hand, and what clustering does to it."""
    half = Estimate(0.5, 100)
    assert half.bound(1.96) == pytest.approx(0.5962, abs=1e-4)
    assert half.bound(-1.96) == pytest.approx(0.4038, abs=1e-4)
    assert Estimate(1.0, 100).bound(-1.96) == pytest.approx(100 / (100 + 1.96**2))
    sizes = range(1, 500)
    assert {Estimate(1.0, n).bound(1.96) for n in sizes} == {1.0}  # else a recall of 1 falls short of 1
    assert {Estimate(0.0, n).bound(-1.96) for n in sizes} == {0.0}
    rng = np.random.default_rng(0)
    own = np.arange(400)
    independent = rng.binomial(10, 0.9, 400) / 10
    together = (rng.random(400) < 0.9).astype(float)
    assert estimate(independent, own, 10).results == pytest.approx(2000, rel=0.1)  # never above half of 4000
    assert estimate(together, own, 10).results == pytest.approx(400, rel=0.05)
    assert estimate(np.repeat(independent[:80], 5), np.repeat(own[:80], 5), 10).results < 500
    assert estimate(np.ones(400), own, 1).results == 400
    assert Estimate(1.0, 10 * queries_needed(0.95, 10) / 2).bound(-CHOOSING) >= 0.95


@pytest.mark.parametrize("recall", [0.8, 0.95, 0.99])
def test_intervals_cover(recall: float) -> None:
    """Of simulated samples whose queries differ in difficulty, about 95 % have the true recall inside."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        chance = rng.beta(8 * recall, 8 * (1 - recall), 250)
        found = estimate(rng.binomial(10, chance) / 10, np.arange(250), 10)
        inside += found.bound(-1.96) <= recall <= found.bound(1.96)
    assert inside >= 370


def test_small_helpers() -> None:
    assert groups_of_equal(np.array([[2, 1], [1, 1], [2, 1], [0, 5]], np.float32)).tolist() == [0, 1, 0, 2]
    assert recall_per_query(np.array([[1, 2], [3, -1]]), np.array([[2, 1], [4, 3]])).tolist() == [1, 0.5]
    assert ladder(10, 10) == [10]
    assert ladder(10, 47) == [10, 15, 20, 30, 40, 47]
    steps = ladder(7, 10**6)
    assert steps[-1] == 10**6
    assert all(a < b <= 1.6 * a for a, b in itertools.pairwise(steps))
