# SPDX-License-Identifier: Apache-2.0
"""HNSWIndex: recall on hard data, contract, updates, determinism, and the shape of its graph."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

import residua as rz
from residua import errors


def clustered(n: int, dim: int, seed: int = 0, clusters: int = 40, spread: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(clusters, dim))
    return (centers[rng.integers(clusters, size=n)] + spread * rng.normal(size=(n, dim))).astype(np.float32)


def recall(index: rz.HNSWIndex, x: np.ndarray, q: np.ndarray, k: int = 10, **options: object) -> float:
    truth = rz.exact_search(q, x, k, metric=index.metric).ids
    return rz.recall(index.search(q, k, **options).ids, truth)


def shape(index: rz.HNSWIndex) -> dict[str, int]:
    return index._native.shape()


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("codec", [None, "rb2", "sq4", "sq8", "float16", "binary"])
def test_recall_of_every_codec(metric: str, codec: str | None) -> None:
    x, q = clustered(3000, 32, 1), clustered(100, 32, 2)
    chosen = {
        None: None,
        "rb2": rz.RecurrentBinaryCodec(32, 2),
        "sq4": rz.ScalarCodec(32, 4),
        "sq8": rz.ScalarCodec(32, 8),
        "float16": rz.FloatCodec(32, "float16"),
        "binary": rz.BinaryCodec(32, rotation="random"),
    }[codec]
    index = rz.HNSWIndex(32, metric=metric, codec=chosen)  # type: ignore[arg-type]
    index.add(x)
    assert recall(index, x, q, ef=100) >= {"binary": 0.4, "rb2": 0.8}.get(codec or "", 0.95)
    assert shape(index)["unreachable"] == 0


def test_scores_and_order_are_those_of_a_scan() -> None:
    x, q = clustered(2000, 24, 3), clustered(50, 24, 4)
    for codec in (None, rz.RecurrentBinaryCodec(24, 4)):
        index = rz.HNSWIndex(24, metric="l2", codec=codec)
        flat = rz.FlatIndex(24, metric="l2", codec=None, vectors="float32" if codec is None else "auto")
        index.add(x), flat.add(x)
        found, truth = index.search(q, 5, ef=400), flat.search(q, 5)
        same = found.ids == truth.ids
        assert same.mean() > 0.98
        np.testing.assert_allclose(found.scores[same], truth.scores[same], rtol=2e-3)


@pytest.mark.parametrize("n", [1, 2, 3, 17, 33, 65])
def test_few_rows_are_all_found(n: int) -> None:
    x = clustered(n, 8, n)
    index = rz.HNSWIndex(8, codec=None)
    index.add(x)
    hits = index.search(x, k=n + 5)
    assert (hits.counts == n).all()
    assert (hits.ids[:, 0] == np.arange(n)).all()
    assert (np.sort(hits.ids[:, :n], axis=1) == np.arange(n)).all()


def test_empty_index() -> None:
    index = rz.HNSWIndex(4)
    assert index.search(np.ones((2, 4), np.float32)).counts.tolist() == [0, 0]
    index.add(np.zeros((0, 4), np.float32))
    assert len(index) == 0
    index.compact()


def test_one_dim() -> None:
    x = np.random.default_rng(5).normal(size=(2000, 1)).astype(np.float32)
    index = rz.HNSWIndex(1, metric="l2", codec=None)
    index.add(x)
    assert recall(index, x, x[:100], ef=64) > 0.97
    assert shape(index)["unreachable"] == 0


def test_thousands_of_equal_vectors() -> None:
    x = clustered(3000, 16, 6)
    x[500:2500] = x[0]
    index = rz.HNSWIndex(16, metric="l2", codec=None)
    index.add(x)
    assert shape(index)["unreachable"] == 0
    others = np.r_[1:500, 2500:3000]
    assert (index.search(x[others], 1, ef=64).ids[:, 0] == others).mean() > 0.97
    assert (index.search(x[:1], 20, ef=64).scores == 0).all()


def test_far_apart_clusters() -> None:
    rng = np.random.default_rng(7)
    centers = 1000 * rng.normal(size=(60, 12))
    sizes = [3, 5, 8] + [60] * 57
    x = np.concatenate([c + rng.normal(size=(s, 12)) for c, s in zip(centers, sizes, strict=True)])
    x = x[rng.permutation(len(x))].astype(np.float32)
    index = rz.HNSWIndex(12, metric="l2", codec=None)
    index.add(x[:2000])
    index.add(x[2000:])
    assert shape(index)["unreachable"] == 0
    assert (index.search(x, 1).ids[:, 0] == np.arange(len(x))).mean() > 0.97


def test_inner_product_with_heavy_tails() -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(5000, 24)) * rng.pareto(1.5, size=(5000, 1)).clip(0.01)
    x, q = x.astype(np.float32), rng.normal(size=(200, 24)).astype(np.float32)
    index = rz.HNSWIndex(24, metric="ip", codec=None)
    index.add(x)
    assert shape(index)["unreachable"] == 0
    assert recall(index, x, q, ef=128) > 0.95


def test_queries_unlike_the_rows() -> None:
    rng = np.random.default_rng(9)
    x = clustered(4000, 24, 9)
    q = (3 + rng.normal(size=(200, 24))).astype(np.float32)
    index = rz.HNSWIndex(24, metric="l2", codec=None)
    index.add(x)
    assert recall(index, x, q, ef=100) > 0.95


def test_adding_in_parts_is_as_good_as_at_once() -> None:
    x, q = clustered(3000, 24, 10), clustered(200, 24, 11)
    whole = rz.HNSWIndex(24, codec=None)
    whole.add(x)
    parts = rz.HNSWIndex(24, codec=None)
    parts.add(x[:2000])
    for i in range(2000, 2500):
        parts.add(x[i : i + 1])
    for i in range(2500, 3000, 50):
        parts.add(x[i : i + 50])
    assert shape(parts)["unreachable"] == 0
    assert recall(parts, x, q, ef=32) > recall(whole, x, q, ef=32) - 0.01


def test_every_row_alone() -> None:
    x = clustered(600, 8, 12)
    index = rz.HNSWIndex(8, codec=None)
    for row in x:
        index.add(row[None])
    assert recall(index, x, x[:100], ef=64) > 0.98


def test_results_do_not_depend_on_threads() -> None:
    x, q = clustered(3000, 16, 13), clustered(50, 16, 14)
    indexes = [rz.HNSWIndex(16, codec=rz.ScalarCodec(16, 4), seed=3) for _ in range(2)]
    for threads, index in zip((1, 4), indexes, strict=True):
        index.add(x[:2500], num_threads=threads)
        index.remove(np.arange(0, 600))
        index.add(x[2500:], num_threads=threads)
    a, b = (i.search(q, 10, num_threads=t) for i, t in zip(indexes, (4, 1), strict=True))
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.scores, b.scores)
    assert shape(indexes[0]) == shape(indexes[1])


def test_filters_always_find_what_there_is() -> None:
    x, q = clustered(3000, 16, 15), clustered(30, 16, 16)
    index = rz.HNSWIndex(16, codec=rz.RecurrentBinaryCodec(16, 4))
    index.add(x)
    for allowed in (1, 5, 30, 300, 1500, 2900):
        mask = np.zeros(3000, bool)
        mask[np.random.default_rng(allowed).permutation(3000)[:allowed]] = True
        hits = index.search(q, 10, filter=mask, ef=50)
        assert (hits.counts == min(10, allowed)).all()
        rows = np.flatnonzero(mask)
        assert np.isin(hits.ids[hits.ids >= 0], rows).all()
        truth = rows[rz.exact_search(q, x[rows], min(10, allowed)).ids]
        assert rz.recall(hits.ids[:, : min(10, allowed)], truth) > 0.93
        assert hits.stats["matches"] == allowed
    assert (index.search(q, 3, filter=np.array([7, 8])).counts == 2).all()


def test_removed_rows_never_return() -> None:
    x = clustered(2000, 16, 17)
    index = rz.HNSWIndex(16, metric="l2", codec=None)
    index.add(x)
    rng = np.random.default_rng(18)
    alive = np.ones(2000, bool)
    for _ in range(6):
        gone = rng.choice(np.flatnonzero(alive), 250, replace=False)
        index.remove(gone)
        alive[gone] = False
        hits = index.search(x[:200], 10, ef=64)
        assert alive[hits.ids].all()
        rows = np.flatnonzero(alive)
        truth = rows[rz.exact_search(x[:200], x[rows], 10, metric="l2").ids]
        assert rz.recall(hits.ids, truth) > 0.95
        assert shape(index)["unreachable"] == 0
    before = index.search(x[:50], 10, ef=64)
    size = sum(index.memory().values())
    index.compact()
    assert sum(index.memory().values()) < 0.5 * size
    assert shape(index) | {"edges": 0, "entries": 0} == {
        "edges": 0,
        "entries": 0,
        "unreachable": 0,
        "to_removed": 0,
    }
    assert rz.recall(index.search(x[:50], 10, ef=64).ids, before.ids) > 0.97
    index.remove(np.flatnonzero(alive))
    assert (index.search(x[:3], 5).counts == 0).all()
    index.compact()
    index.add(x[:100])
    assert (index.search(x[:100], 1).scores[:, 0] == 0).all()


def test_turnover_keeps_recall() -> None:
    n, dim = 2000, 24
    x, q = clustered(2 * n, dim, 19), clustered(200, dim, 20)
    index = rz.HNSWIndex(dim, codec=None)
    index.add(x[:n])
    fresh = recall(index, x[:n], q, ef=48)
    step = n // 20
    for i in range(20):
        index.remove(np.arange(i * step, (i + 1) * step))
        index.add(x[n + i * step : n + (i + 1) * step])
    assert shape(index)["unreachable"] == 0
    truth = n + rz.exact_search(q, x[n:], 10).ids
    new = rz.HNSWIndex(dim, codec=None)
    new.add(x[n:])
    rebuilt = recall(new, x[n:], q, ef=48)
    assert rz.recall(index.search(q, 10, ef=48).ids, truth) > min(fresh, rebuilt) - 0.01


def test_upsert_moves_rows() -> None:
    x, y = clustered(2000, 16, 21), clustered(2000, 16, 22)
    for codec in (None, rz.RecurrentBinaryCodec(16, 4)):
        index = rz.HNSWIndex(16, metric="l2", codec=codec)
        index.add(x, np.arange(2000))
        for begin in range(0, 1000, 100):
            index.add(y[begin : begin + 100], np.arange(begin, begin + 100), upsert=True)
        index.add(y[1000:1003], np.array([5000, 1000, 5001]), upsert=True)
        assert len(index) == 2002
        now = np.concatenate([y[:1000], y[1001:1002], x[1001:]])
        assert recall(index, now, now[::10], ef=64) > 0.95
        assert shape(index)["unreachable"] == 0
        np.testing.assert_allclose(index.get(np.array([5000, 5001])), y[[1000, 1002]], rtol=2e-3, atol=2e-3)


def test_failed_add_changes_nothing() -> None:
    x, q = clustered(1500, 8, 23), clustered(20, 8, 24)
    index = rz.HNSWIndex(8, codec=None)
    index.add(x)
    before = index.search(q), shape(index), index.memory()
    with pytest.raises(errors.DuplicateIdError):
        index.add(x[:3], np.array([5, 6, 5000]))
    with pytest.raises(errors.NonFiniteError):
        index.add(np.full((1, 8), np.nan, np.float32))
    with pytest.raises(errors.ShapeError):
        index.add(np.ones((1, 9), np.float32))
    after = index.search(q)
    np.testing.assert_array_equal(before[0].ids, after.ids)
    assert before[1:] == (shape(index), index.memory())


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_one_query_is_searched_and_checked_like_a_batch(metric: str) -> None:
    x = clustered(300, 8, 31)
    index = rz.HNSWIndex(8, metric=metric, codec=None, M=4)  # type: ignore[arg-type]
    assert index.search(x[0], 2).ids.tolist() == [-1, -1]
    index.add(x, [f"n{i:03d}" for i in range(300)])
    wanted = index.search(x[:4], 5, ef=40)
    for i in range(4):
        for q in (x[i], x[i].astype(np.float64), x.T.copy().T[i]):
            one = index.search(q, 5, ef=40)
            assert one.ids.tolist() == wanted.ids[i].tolist()
            assert (one.ids.dtype, one.counts, one.scores.shape) == (object, 5, (5,))
            np.testing.assert_array_equal(one.scores, wanted.scores[i])
        assert set(one.stats) == set(wanted.stats)
    assert index.search(x[0], np.int64(3)).ids.shape == (3,)
    padded = index.search(x[0], 400)
    assert (padded.counts, padded.ids[-1]) == (300, None)
    index.set_defaults({"ef": 7})
    assert index.search(x[0], 5).ids.tolist() == index.search(x[:1], 5).ids[0].tolist()
    nan = np.full(8, np.nan, np.float32)
    for bad, error in (
        ({"q": nan}, errors.NonFiniteError),
        ({"q": x[0, :7]}, errors.ShapeError),
        ({"q": x[0], "k": True}, errors.InvalidTypeError),
        ({"q": x[0], "k": 2**31}, errors.InvalidValueError),
        ({"q": x[0], "ef": 0}, errors.InvalidValueError),
        ({"q": x[0], "ef": 10**30}, errors.InvalidValueError),
        ({"q": x[0], "num_threads": 4097}, errors.InvalidValueError),
        ({"q": x[0], "explain": 0}, errors.InvalidTypeError),
    ):
        with pytest.raises(error):
            index.search(**bad)
    if metric == "cosine":
        with pytest.raises(errors.InvalidValueError, match="zero vector"):
            index.search(np.zeros(8, np.float32))


@pytest.mark.parametrize("codec", [None, "sq4"])  # linked by add, and by the codec that comes with the rows
def test_progress_counts_the_rows_that_are_linked(codec: str | None) -> None:
    x = clustered(2500, 8, 29)
    index = rz.HNSWIndex(8, codec=None if codec is None else rz.ScalarCodec(8, 4), M=4, ef_construction=10)
    seen: list[tuple[int, int]] = []
    index.add(x, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2500), (1024, 2500), (2048, 2500), (2500, 2500)]

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    before = shape(index)
    with pytest.raises(KeyboardInterrupt):
        index.add(x + 1, progress=stop)
    assert (len(index), shape(index)) == (2500, before)
    index.add(x[:5] + 1)
    assert index.search(x[:5] + 1, 1).ids[:, 0].tolist() == list(range(2500, 2505))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
@pytest.mark.parametrize("codec", [None, "sq4"])
def test_interrupted_add_changes_nothing(codec: str | None) -> None:
    x, q = clustered(1000, 64, 29), clustered(20, 64, 30)
    index = rz.HNSWIndex(64, codec=None if codec is None else rz.ScalarCodec(64, 4))
    index.add(x)
    before, edges = index.search(q), shape(index)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        with pytest.raises(KeyboardInterrupt):
            index.add(clustered(300_000, 64, 31), num_threads=1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert len(index) == 1000
    after = index.search(q)
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.scores, after.scores)
    assert shape(index) == edges
    index.add(x[:100] + 1)
    assert recall(index, np.concatenate([x, x[:100] + 1]), q, ef=100) > 0.95


@pytest.mark.parametrize("codec", [None, "auto", "rb2", "sq8"])
@pytest.mark.parametrize("mmap", [False, True])
def test_file(tmp_path: Path, codec: str | None, mmap: bool) -> None:
    x, q = clustered(6000, 16, 25), clustered(30, 16, 26)
    chosen = {"rb2": rz.RecurrentBinaryCodec(16, 2), "sq8": rz.ScalarCodec(16, 8)}.get(codec or "", codec)
    index = rz.HNSWIndex(16, codec=chosen, M=8, ef_construction=80, seed=5)  # type: ignore[arg-type]
    index.add(x)
    index.remove(np.arange(100))
    path = tmp_path / "index.rz"
    index.save(path)
    again = rz.load(path, mmap=mmap)
    assert isinstance(again, rz.HNSWIndex)
    assert (again.M, again.ef_construction, again.plan) == (8, 80, index.plan)
    a, b = index.search(q, 10), again.search(q, 10)
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.scores, b.scores)
    for i in (index, again):  # goes on alike
        i.add(x[:50] + 1, np.arange(10_000, 10_050))
        i.compact()
    np.testing.assert_array_equal(index.search(q, 10).ids, again.search(q, 10).ids)


def test_codes_without_vectors() -> None:
    x, q = clustered(3000, 32, 27), clustered(50, 32, 28)
    index = rz.HNSWIndex(32, codec=rz.RecurrentBinaryCodec(32, 8), vectors="none")
    flat = rz.FlatIndex(32, codec=rz.RecurrentBinaryCodec(32, 8), vectors="none")
    index.add(x[:2900]), flat.add(x[:2900])
    index.add(x[2900:]), flat.add(x[2900:])
    a, b = index.search(q, 10, ef=200), flat.search(q, 10)
    same = a.ids == b.ids
    assert same.mean() > 0.95
    np.testing.assert_array_equal(a.scores[same], b.scores[same])
    codes = index.codec.encode(q)  # type: ignore[union-attr]
    a, b = index.search_codes(codes, 10, ef=200), flat.search_codes(codes, 10)
    assert (a.ids == b.ids).mean() > 0.95
    np.testing.assert_array_equal(index.get(np.arange(5)), flat.get(np.arange(5)))
    wide = index.range_search(q[:3], 0.5)
    np.testing.assert_array_equal(wide.ids, flat.range_search(q[:3], 0.5).ids)
    assert index.search(q, 10).stats["plan"] == "graph"


def test_bad_arguments() -> None:
    for options in (
        {"M": 1},
        {"M": 129},
        {"ef_construction": 0},
        {"metric": "dot"},
        {"layout": "flat"},
        {"seed": -1},
    ):
        with pytest.raises(errors.InvalidValueError):
            rz.HNSWIndex(8, **options)  # type: ignore[arg-type]
    with pytest.raises(errors.UnsupportedError):
        rz.HNSWIndex(8, codec=None, layout="turbo")
    with pytest.raises(errors.InvalidTypeError):
        rz.HNSWIndex(8, codec="best")  # type: ignore[arg-type]
    index = rz.HNSWIndex(8, codec=None)
    index.add(np.eye(8, dtype=np.float32))
    for ef in (0, -1):
        with pytest.raises(errors.InvalidValueError):
            index.search(np.ones(8), ef=ef)
    with pytest.raises(errors.InvalidTypeError):
        index.search(np.ones(8), ef=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        index.search(np.ones(8), nprobe=3)  # type: ignore[call-arg]
    assert index.search(np.ones(8), k=8, ef=1).counts == 8  # an ef below k acts as k
