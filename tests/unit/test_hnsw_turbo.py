# SPDX-License-Identifier: Apache-2.0
"""Layout turbo of HNSWIndex: the same graph, walked over records of neighbours' codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import residua as rz
from residua.codecs import Codec

DIM = 48


def clustered(n: int, seed: int) -> np.ndarray:
    centers = np.random.default_rng(7).normal(size=(40, DIM))
    rng = np.random.default_rng(seed)
    return (centers[rng.integers(40, size=n)] + 0.4 * rng.normal(size=(n, DIM))).astype(np.float32)


X, Q = clustered(4000, 1), clustered(150, 2)


def filled(codec: Codec | None = None, metric: str = "cosine", **options: object) -> rz.HNSWIndex:
    codec = rz.RecurrentBinaryCodec(DIM, 4) if codec is None else codec
    index = rz.HNSWIndex(DIM, metric=metric, codec=codec, layout="turbo", **options)  # type: ignore[arg-type]
    index.add(X)
    return index


def recall(index: rz.HNSWIndex, x: np.ndarray, ids: np.ndarray | None = None, **options: object) -> float:
    truth = rz.exact_search(Q, x, 10, metric=index.metric).ids
    return rz.recall(index.search(Q, 10, **options).ids, truth if ids is None else ids[truth])


def records(index: rz.HNSWIndex) -> int:
    """Bytes that the records of all rows take, whatever is free between them."""
    return index.memory()["edges"]


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("codec", ["rb4", "rb1", "sq8", "pq", "binary"])
def test_recall_is_that_of_the_compact_layout(metric: str, codec: str) -> None:
    make = {
        "rb4": lambda: rz.RecurrentBinaryCodec(DIM, 4),
        "rb1": lambda: rz.RecurrentBinaryCodec(DIM, 1),
        "sq8": lambda: rz.ScalarCodec(DIM, 8),
        "pq": lambda: rz.PQCodec(DIM, 24, 4),
        "binary": lambda: rz.BinaryCodec(DIM, rotation="random"),
    }[codec]
    turbo = filled(make(), metric)
    compact = rz.HNSWIndex(DIM, metric=metric, codec=make(), layout="compact")  # type: ignore[arg-type]
    compact.add(X)
    assert turbo.layout == "turbo"
    assert compact.layout == "compact"
    assert turbo._native.shape() == compact._native.shape()
    assert recall(turbo, X, ef=80) >= recall(compact, X, ef=80) - 0.02


def test_automatic_layout() -> None:
    assert rz.HNSWIndex(DIM).layout == "turbo"
    assert rz.HNSWIndex(DIM, vectors="none").layout == "compact"
    assert rz.HNSWIndex(DIM, codec=None).layout == "compact"
    assert rz.HNSWIndex(DIM, codec=rz.ScalarCodec(DIM)).layout == "compact"


def test_memory_holds_the_records() -> None:
    turbo = filled(vectors="float16")
    assert records(turbo) > 20 * len(X)
    compact = rz.HNSWIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 4), layout="compact")
    compact.add(X)
    assert records(compact) == 0


def test_changes_reach_the_records() -> None:
    index = rz.HNSWIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 4), layout="turbo")
    ids = index.add(X[:2000])
    for begin in range(2000, 4000, 400):
        ids = np.concatenate([ids, index.add(X[begin : begin + 400])])
    for i in range(20):  # one by one
        index.add(Q[i : i + 1])
    index.remove(np.arange(4000, 4020))
    assert recall(index, X, ids, ef=100) > 0.95

    gone = ids[::3]
    index.remove(gone)
    left = np.setdiff1d(ids, gone)
    hits = index.search(Q, 10, ef=100)
    assert not np.isin(hits.ids, gone).any()
    assert recall(index, X[left], left, ef=100) > 0.95
    before = records(index)
    index.compact()
    assert records(index) < before
    assert recall(index, X[left], left, ef=100) > 0.95


def test_replaced_vectors_are_found_where_they_are_now() -> None:
    index = filled()
    rng = np.random.default_rng(3)
    changed = rng.choice(4000, 300, replace=False)
    x = X.copy()
    x[changed] = clustered(300, 9)
    index.add(x[changed], changed, upsert=True)
    assert recall(index, x, ef=100) > 0.95
    hits = index.search(x[changed], 1, ef=100)
    assert (hits.ids[:, 0] == changed).mean() > 0.98


def test_many_rounds_of_turnover_keep_recall_and_memory() -> None:
    index = filled()
    fresh, size = recall(index, X, ef=60), records(index)
    x, ids = X.copy(), np.arange(4000)
    rng = np.random.default_rng(5)
    for r in range(10):
        at = rng.choice(4000, 400, replace=False)
        index.remove(ids[at])
        x[at] = clustered(400, 100 + r)
        ids[at] = index.add(x[at])
    truth = ids[rz.exact_search(Q, x, 10).ids]
    assert rz.recall(index.search(Q, 10, ef=60).ids, truth) >= fresh - 0.02
    assert records(index) < 5 * size  # a change writes new records before it frees the old ones
    index.compact()
    assert records(index) < 2 * size
    assert index._native.shape()["unreachable"] == 0


@pytest.mark.parametrize("mmap", [False, True])
def test_files_hold_the_records(tmp_path: Path, mmap: bool) -> None:
    index = filled()
    index.remove([5, 6, 7])
    index.add(Q[:3], [90_001, 90_002, 90_003])
    index.save(tmp_path / "a")
    loaded = rz.load(tmp_path / "a", mmap=mmap)
    want, got = index.search(Q, 10, ef=50), loaded.search(Q, 10, ef=50)
    np.testing.assert_array_equal(want.ids, got.ids)
    np.testing.assert_array_equal(want.scores, got.scores)
    loaded.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded.add(Q[3:5], [90_004, 90_005])  # a shown file is copied before it changes
    assert 90_005 in loaded.search(Q[4:5], 1).ids


def test_results_do_not_depend_on_threads() -> None:
    a, b = filled(), rz.HNSWIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 4), layout="turbo")
    b.add(X, num_threads=3)
    for threads in (1, 3):
        found = b.search(Q, 10, ef=40, num_threads=threads)
        np.testing.assert_array_equal(a.search(Q, 10, ef=40, num_threads=1).ids, found.ids)


def test_filters_fill_up() -> None:
    index = filled()
    for share in (0.5, 0.05, 0.002):
        mask = np.random.default_rng(1).random(4000) < share
        hits = index.search(Q, 10, filter=mask, ef=50)
        assert mask[hits.ids[hits.ids >= 0]].all()
        assert (hits.counts == min(10, mask.sum())).all()
        allowed = np.flatnonzero(mask)
        truth = allowed[rz.exact_search(Q, X[mask], min(10, mask.sum())).ids]
        assert rz.recall(hits.ids[:, : truth.shape[1]], truth) > 0.9


def test_few_rows() -> None:
    index = rz.HNSWIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 1).fit(X[:500]), layout="turbo")
    assert index.search(Q[:2], 3).counts.tolist() == [0, 0]
    index.add(X[:1])
    assert index.search(X[0], 3).ids.tolist() == [0, -1, -1]
    index.add(X[1:3])
    assert sorted(index.search(X[0], 3).ids.tolist()) == [0, 1, 2]
    index.remove([0, 1, 2])
    assert index.search(X[0], 3).counts == 0
    index.compact()
    index.add(X[3:8])
    assert sorted(index.search(X[0], 5, ef=5).ids.tolist()) == [3, 4, 5, 6, 7]
