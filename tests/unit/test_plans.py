# SPDX-License-Identifier: Apache-2.0
"""Plans of filtered searches: which one a graph index takes, what each finds, and what it says about it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz

N, DIM, CLUSTERS = 4000, 32, 40
PLANS = ("auto", "scan", "graph", "filtered_graph")
LAYOUTS = ("turbo", "compact", "float")


def clustered(n: int, seed: int) -> np.ndarray:
    centers = np.random.default_rng(0).standard_normal((CLUSTERS, DIM))
    rng = np.random.default_rng(seed)
    x = centers[rng.integers(0, CLUSTERS, n)] + 0.6 * rng.standard_normal((n, DIM))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


X, Q = clustered(N, 1), clustered(24, 2)
YEARS = np.random.default_rng(3).integers(0, 1000, N)


@cache
def index_of(layout: str, vectors: str = "auto") -> rz.HNSWIndex:
    columns = {"year": "int", "tags": "tags"}
    tags = [["a"] if year % 2 else ["a", "b"] for year in YEARS.tolist()]
    if layout == "float":
        index = rz.HNSWIndex(DIM, codec=None, columns=columns)
    else:
        codec = rz.RecurrentBinaryCodec(DIM, 2).fit(X)
        index = rz.HNSWIndex(DIM, codec=codec, layout=layout, vectors=vectors, columns=columns)  # type: ignore[arg-type]
    index.add(X, columns={"year": YEARS, "tags": tags}, num_threads=2)
    return index


def truth(q: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
    rows = np.flatnonzero(mask)
    return rows[rz.exact_search(q, X[rows], min(k, len(rows))).ids]


def mask_of(kind: str, share: float) -> np.ndarray:
    """Rows that pass: by chance, or, with some chance, the rows nearest to a query or farthest from it."""
    rng = np.random.default_rng(int(share * 1e4))
    chance = rng.random(N)
    rank = np.argsort(np.argsort(-(X @ Q[0]))) / N
    key = {"random": chance, "near": 0.8 * rank + 0.2 * chance, "far": 0.2 * chance - 0.8 * rank}[kind]
    return key <= np.quantile(key, share)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["random", "near", "far"])
def test_the_default_finds_what_it_should(layout: str, kind: str) -> None:
    index = index_of(layout)
    for share in (0.001, 0.01, 0.1, 0.5, 0.95):
        mask = mask_of(kind, share)
        exact = truth(Q, mask, 10)
        for hits in (index.search(Q, 10, filter=mask), index.search(Q, 10, filter=[mask.copy() for _ in Q])):
            assert (hits.counts == min(10, mask.sum())).all()
            assert rz.recall(hits.ids[:, : exact.shape[1]], exact) > 0.95, (share, hits.stats["plan"])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_agrees_with_the_oracle(layout: str, plan: Any) -> None:
    index = index_of(layout)
    for share in (0.002, 0.2, 0.6):
        mask = mask_of("random", share)
        hits = index.search(Q, 10, filter=mask, plan=plan, explain=True)
        exact = truth(Q, mask, 10)
        assert mask[hits.ids[hits.ids >= 0]].all()
        assert rz.recall(hits.ids[:, : exact.shape[1]], exact) > 0.93
        if plan != "auto" and mask.sum() > 200:
            taken = np.array(hits.stats["plans"])
            assert (hits.stats["fallback"] | (taken == plan)).all()
    if plan == "scan" and layout != "float":  # all of few rows are settled exactly
        mask = mask_of("random", 0.02)
        hits = index.search(Q, 10, filter=mask, plan=plan)
        np.testing.assert_array_equal(hits.ids, truth(Q, mask, 10))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_filter_per_query(layout: str) -> None:
    index = index_of(layout)
    filters = [rz.col("year") >= 20 * i for i in range(len(Q) - 2)] + [None, np.array([5, 7], np.int64)]
    together = index.search(Q, 10, filter=filters, num_threads=2, explain=True)
    for i, one in enumerate(filters):
        alone = index.search(Q[i], 10, filter=one)
        mask = np.ones(N, bool) if one is None else np.greater_equal(YEARS, 20 * i)
        if i == len(Q) - 1:
            mask = np.isin(np.arange(N), one)
        exact = truth(Q[i : i + 1], mask, 10)
        assert together.stats["matches"][i] == mask.sum() == alone.stats["matches"]
        assert rz.recall(together.ids[i : i + 1, : exact.shape[1]], exact) >= 0.8
    assert together.counts.tolist() == [10] * (len(Q) - 1) + [2]  # type: ignore[union-attr]
    again = index.search(Q, 10, filter=filters, num_threads=1)
    np.testing.assert_array_equal(together.ids, again.ids)
    np.testing.assert_array_equal(together.scores, again.scores)


def test_what_explain_says() -> None:
    hits = index_of("turbo").search(Q, 10, filter="year < 500 and 'b' in tags", explain=True)
    matches = int(((YEARS < 500) & (YEARS % 2 == 0)).sum())
    stats = hits.stats
    assert stats["matches"] == matches
    assert stats["share"] == matches / N
    assert (
        len(stats["plans"])
        == len(stats["visits"])
        == len(stats["fallback"])
        == len(stats["local_rate"])
        == len(Q)
    )
    assert set(stats["costs"]) == {"scan", "graph", "filtered_graph"}
    assert (stats["costs"]["scan"] > 0).all()
    plain = index_of("turbo").search(Q, 10, filter="year < 500 and 'b' in tags").stats
    assert not {"plans", "notes", "costs"} & set(plain)
    many = index_of("turbo").search(Q, 10, filter=["year < 5"] * 12 + [None] * 12, explain=True).stats
    assert many["share"][0] == (YEARS < 5).sum() / N
    assert many["share"][-1] == 1.0


def test_a_walk_that_starves_ends_in_a_scan() -> None:
    """Rows that pass are those that no walk towards the query meets."""
    rank = np.argsort(np.argsort(-(X @ Q[0])))
    mask = rank >= N - 100
    for layout in ("turbo", "compact"):
        hits = index_of(layout).search(Q[:1], 10, filter=mask, plan="graph", ef=12, explain=True)
        assert hits.stats["fallback"].all()
        assert hits.counts.tolist() == [10]
        assert rz.recall(hits.ids, truth(Q[:1], mask, 10)) >= 0.9


def test_without_vectors_codes_settle() -> None:
    index = index_of("compact", "none")
    mask = mask_of("random", 0.3)
    for plan in PLANS:
        hits = index.search(Q, 10, filter=mask, plan=plan)  # type: ignore[arg-type]
        assert mask[hits.ids].all()
        assert rz.recall(hits.ids, truth(Q, mask, 10)) > 0.6
    few = index.search(Q, 10, filter=np.arange(4), plan="auto")
    assert (few.counts == 4).all()


def test_codes_as_queries_take_plans() -> None:
    index = index_of("turbo")
    codec = index.codec
    assert codec is not None
    codes = codec.encode(X[:8])
    mask = mask_of("random", 0.2)
    mask[:8] = True
    for plan in PLANS:
        assert (index.search_codes(codes, 3, filter=mask, plan=plan).ids[:, 0] == np.arange(8)).mean() > 0.8  # type: ignore[arg-type]


@pytest.mark.parametrize("plan", ["cells", "Scan", "", 3])
def test_plans_that_there_are_not(plan: Any) -> None:
    error = TypeError if plan == 3 else ValueError
    with pytest.raises(error, match="plan"):
        index_of("turbo").search(Q, 10, plan=plan)


def test_removed_rows_stay_away() -> None:
    index = rz.HNSWIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 2).fit(X), layout="turbo")
    index.add(X[:3000])
    index.remove(np.arange(0, 3000, 3))
    index.add(X[3000:], np.arange(3000, 4000))
    live = np.ones(N, bool)
    live[np.arange(0, 3000, 3)] = False
    for ids in (np.arange(100, 900), np.arange(100, 3900)):
        wanted = live & np.isin(np.arange(N), ids)
        for plan in PLANS:
            hits = index.search(Q, 10, filter=ids, plan=plan)  # type: ignore[arg-type]
            assert wanted[hits.ids].all()
            assert rz.recall(hits.ids, truth(Q, wanted, 10)) > 0.93
    index.compact()
    assert rz.recall(index.search(Q, 10, filter=ids, plan="scan").ids, truth(Q, wanted, 10)) > 0.95


def test_costs_travel_with_the_index(tmp_path: Path) -> None:
    index = rz.HNSWIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 2).fit(X), layout="turbo")
    with pytest.raises(ValueError, match="1000 rows"):
        index.calibrate()
    index.add(X)
    automatic = index.costs
    measured = index.calibrate()
    assert measured == index.costs
    assert set(measured) == set(automatic)
    assert all(0 < cost < 1e9 for cost in measured.values())
    index.save(tmp_path / "a.rsd")
    for mmap in (False, True):
        again = rz.load(tmp_path / "a.rsd", mmap=mmap)
        assert again.costs == measured
        mask = mask_of("random", 0.3)
        np.testing.assert_array_equal(
            again.search(Q, 10, filter=mask).ids, index.search(Q, 10, filter=mask).ids
        )


def test_other_indexes_say_what_they_have() -> None:
    flat = rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 2).fit(X))
    flat.add(X[:1000])
    stats = flat.search(Q, 5, filter=np.arange(10), plan="scan", explain=True).stats
    assert (stats["matches"], stats["share"]) == (10, 0.01)
    with pytest.raises(ValueError, match="plan"):
        flat.search(Q, 5, plan="graph")  # type: ignore[arg-type]
