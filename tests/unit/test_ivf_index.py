# SPDX-License-Identifier: Apache-2.0
"""IVFIndex: training, what a search reads and finds, changes, drift, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import DriftWarning, InvalidTypeError, InvalidValueError, ShapeError

DIM = 24
N = 1500


def clustered(n: int, seed: int = 0, spread: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((30, DIM))
    return (centres[rng.integers(0, 30, n)] + spread * rng.standard_normal((n, DIM))).astype(np.float32)


CODECS: dict[str, Any] = {
    "none": lambda: None,
    "auto": lambda: "auto",
    "recurrent": lambda: rz.RecurrentBinaryCodec(DIM, 2),
    "scalar": lambda: rz.ScalarCodec(DIM, 8),
    "binary": lambda: rz.BinaryCodec(DIM),
    "float": lambda: rz.FloatCodec(DIM, "float16"),
}


def made(metric: str = "cosine", codec: str = "auto", nlist: int | None = 16, **options: Any) -> rz.IVFIndex:
    index = rz.IVFIndex(DIM, metric=metric, codec=CODECS[codec](), nlist=nlist, **options)
    x = clustered(N)
    index.train(x)
    index.add(x)
    return index


def truth(q: np.ndarray, metric: str, k: int = 10, x: np.ndarray | None = None) -> np.ndarray:
    return rz.exact_search(q, clustered(N) if x is None else x, k, metric=metric).ids


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("codec", CODECS)
def test_all_lists_and_enough_candidates_give_the_exact_result(metric: str, codec: str) -> None:
    index = made(metric, codec)
    q = clustered(20, 5)
    hits = index.search(q, 10, nprobe=16, rerank=None if codec == "none" else N)
    exact = rz.exact_search(q, index.get(np.arange(N)), 10, metric=metric)
    assert hits.ids.tolist() == exact.ids.tolist()
    np.testing.assert_allclose(hits.scores, exact.scores, rtol=1e-5, atol=1e-5)
    assert hits.stats["visited"] == N
    assert hits.stats["nprobe"] == 16
    assert index.search(q, 10, plan="scan").ids.shape == (20, 10)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("codec", ["auto", "recurrent", "scalar", "float"])
def test_code_scores_estimate_the_metric(metric: str, codec: str) -> None:
    index = made(metric, codec)
    q = clustered(20, 5)
    hits = index.search(q, N, nprobe=16, rerank=False)
    x = index.get(np.arange(N))
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
    rows = x[hits.ids]
    exact = ((rows - q[:, None]) ** 2).sum(2) if metric == "l2" else (rows * q[:, None]).sum(2)
    assert np.abs(hits.scores - exact).mean() < (0.3 if codec == "auto" else 0.15) * exact.std()
    order = hits.scores if metric == "l2" else -hits.scores
    assert (np.diff(order, axis=1) >= 0).all()


def test_residual_codes_rank_better_than_codes_of_vectors() -> None:
    x, q = clustered(N), clustered(100, 5)
    residual = made("cosine", "auto")
    direct = rz.IVFIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 1).fit(x), nlist=16).train(x)
    direct.add(x)
    assert "residuals" in residual.plan
    assert "residuals" not in direct.plan
    recalls = [
        rz.recall(i.search(q, 10, nprobe=16, rerank=False).ids, truth(q, "cosine"))
        for i in (residual, direct)
    ]
    assert recalls[0] > recalls[1] + 0.05


def test_more_lists_find_more() -> None:
    x, q = clustered(N, spread=1.5), clustered(200, 5, spread=1.5)
    index = rz.IVFIndex(DIM, nlist=16).train(x)
    index.add(x)
    wanted = truth(q, "cosine", 10, x)
    recalls = [rz.recall(index.search(q, 10, nprobe=p).ids, wanted) for p in (1, 2, 4, 16)]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9
    assert recalls[-1] >= 0.995
    assert index.search(q, 10, nprobe=10_000).stats["nprobe"] == 16  # more than there are: all


@pytest.mark.parametrize("codec", ["none", "auto", "binary"])
def test_filters_are_honoured_and_counts_are_full(codec: str) -> None:
    index = made("cosine", codec)
    q = clustered(9, 5)
    mask = np.zeros(N, bool)
    mask[np.random.default_rng(1).permutation(N)[:7]] = True
    for given in (mask, np.flatnonzero(mask)):
        hits = index.search(q, 10, nprobe=1, filter=given)
        assert (hits.counts == 7).all()
        assert {*hits.ids[:, :7].ravel()} == {*np.flatnonzero(mask)}
        assert hits.stats["matches"] == 7
    assert (index.search(q, N, nprobe=1).counts == N).all()
    assert (index.search(q, 5, nprobe=1, filter=np.zeros(N, bool)).counts == 0).all()
    hits = index.search(q, 3, nprobe=1, filter=[mask] + [None] * 8)
    assert (hits.counts == 3).all()
    wide = np.random.default_rng(2).random(N) < 0.5
    hits = index.search(q, 10, nprobe=16, filter=wide, rerank=None if codec == "none" else N)
    kept = np.flatnonzero(wide)
    assert hits.ids.tolist() == kept[truth(q, "cosine", 10, index.get(kept))].tolist()


def test_filters_that_leave_nothing_near_the_query() -> None:
    sample = rz.datasets.load_sample()
    q = sample.queries[:20]
    index = rz.IVFIndex(384, metric="cosine")
    index.add(sample.documents)
    scores = q @ sample.documents.T
    far = scores < np.partition(scores, -100, axis=1)[:, -100:-99]
    wanted = np.argsort(np.where(far, -scores, np.inf), axis=1, kind="stable")[:, :10]
    chosen = index.search(q, 10, filter=list(far))
    assert rz.recall(chosen.ids, wanted) >= 0.9
    few = index.search(q, 10, nprobe=4, filter=list(far))  # as many lists as asked for
    assert rz.recall(few.ids, wanted) < 0.8
    assert np.mean(few.stats["visited"]) < np.mean(chosen.stats["visited"]) / 4
    assert (few.counts == 10).all()


@pytest.mark.parametrize("codec", ["none", "auto", "scalar"])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_rows_come_and_go_without_training(codec: str, metric: str) -> None:
    index = made(metric, codec)
    more = clustered(700, 8)
    ids = index.add(more)
    assert ids.tolist() == list(range(N, N + 700))
    index.remove(np.arange(0, N, 3))
    index.add(clustered(200, 9), np.arange(1, 601, 3), upsert=True)
    q = clustered(15, 5)
    live = [i for i in range(N + 700) if i >= N or i % 3]
    rerank = None if codec == "none" else 3000
    for _ in range(2):
        assert len(index) == len(live)
        exact = np.array(live)[truth(q, metric, 10, index.get(live))]
        assert index.search(q, 10, nprobe=16, rerank=rerank).ids.tolist() == exact.tolist()
        np.testing.assert_allclose(index.get([1, 4]), clustered(200, 9)[:2], rtol=2e-3, atol=2e-3)
        index.compact()


def test_get_decodes_residuals_where_no_vectors_are_kept() -> None:
    x = clustered(N)
    index = rz.IVFIndex(
        DIM, metric="l2", codec=rz.RecurrentBinaryCodec(DIM, 6), vectors="none", nlist=8
    ).train(x)
    index.add(x)
    np.testing.assert_allclose(index.get([3, 700, 3]), x[[3, 700, 3]], atol=0.2)
    ids, scores = index.range_search(x[5], 0.2)[0]
    assert 5 in ids.tolist()
    assert (scores <= 0.2).all()
    with pytest.raises(InvalidValueError, match="kept vectors"):
        index.search(x[:2], rerank=10)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("codec", ["auto", "scalar", "binary"])
def test_codes_as_queries_and_symmetric_scoring(metric: str, codec: str) -> None:
    index = made(metric, codec)
    q = clustered(30, 5)
    symmetric = index.search(q, 10, nprobe=16, scoring="symmetric", rerank=40)
    assert rz.recall(symmetric.ids, truth(q, metric)) > 0.4
    hits = index.search_codes(index.codec.encode(q), 10, nprobe=16, rerank=False)
    assert hits.ids.shape == (30, 10)
    assert (hits.counts == 10).all()
    if codec == "scalar":
        assert rz.recall(hits.ids, truth(q, metric)) > 0.8


def test_range_search_reads_all_rows() -> None:
    index = made("l2", "auto")
    q = clustered(3, 5)
    x = index.get(np.arange(N)).astype(np.float64)
    found = index.range_search(q, 8.0)
    for i in range(3):
        wanted = np.flatnonzero(((x - q[i]) ** 2).sum(1) <= 8.0)
        assert sorted(found[i][0].tolist()) == wanted.tolist()


@pytest.mark.parametrize("codec", ["none", "auto", "scalar"])
def test_results_do_not_depend_on_threads_or_batches(codec: str) -> None:
    a, b = made("cosine", codec, seed=3), None
    x = clustered(N)
    b = rz.IVFIndex(DIM, codec=CODECS[codec](), nlist=16, seed=3).train(x, num_threads=1)
    b.add(x, num_threads=1)
    q = clustered(70, 5)
    options: dict[str, Any] = {"nprobe": 5} if codec == "none" else {"nprobe": 5, "rerank": False}
    wanted = a.search(q, 10, num_threads=1, **options)
    for index in (a, b):
        for threads in (1, 2, 5):
            hits = index.search(q, 10, num_threads=threads, **options)
            assert hits.ids.tolist() == wanted.ids.tolist()
            assert hits.scores.tobytes() == wanted.scores.tobytes()
    for i in (0, 33):
        assert a.search(q[i], 10, num_threads=3, **options).ids.tolist() == wanted.ids[i].tolist()
    other = rz.IVFIndex(DIM, codec=CODECS[codec](), nlist=16, seed=4).train(x)
    other.add(x)
    assert other._native.list_sizes().tolist() != a._native.list_sizes().tolist()


def test_rows_are_scored_exactly_until_there_are_enough() -> None:
    index = rz.IVFIndex(DIM)
    x = clustered(5200)
    index.add(x[:4999])
    assert not index.is_trained
    assert index.nlist == 0
    hits = index.search(x[:5], 3)
    assert hits.stats["plan"] == "exact"
    assert hits.ids[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert not index.codec.is_trained
    index.add(x[4999:])
    assert index.is_trained
    assert index.codec.is_trained
    assert index.nlist == 144
    assert index.search(x[:5], 3).ids[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert len(index) == 5200


def test_a_given_codec_is_fitted_at_256_rows_and_never_below_nlist() -> None:
    index = rz.IVFIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 2), nlist=300)
    index.add(clustered(299))
    assert not index.is_trained
    index.add(clustered(1, 4))
    assert index.nlist == 300
    small = rz.IVFIndex(DIM, codec=rz.ScalarCodec(DIM, 8))
    small.add(clustered(256))
    assert small.codec.is_trained
    assert small.nlist == 32


def test_no_codec_trains_from_kept_rows() -> None:
    index = rz.IVFIndex(DIM, codec=None, metric="l2")
    x = clustered(5000)
    index.add(x)
    assert index.is_trained
    assert index.codec is None
    assert "codes" in index.memory()
    assert index.search(x[:4], 1).ids[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("mmap", [False, True])
def test_saved_and_loaded(codec: str, mmap: bool, tmp_path: Path) -> None:
    index = made("l2", codec)
    index.remove([3, 4, 5])
    index.add(clustered(300, 8))
    index.save(tmp_path / "x")
    loaded = rz.load(tmp_path / "x", mmap=mmap, verify="full")
    assert isinstance(loaded, rz.IVFIndex)
    assert (loaded.plan, loaded.nlist, len(loaded)) == (index.plan, index.nlist, len(index))
    q = clustered(10, 5)
    for thing in (index, loaded):
        thing.add(clustered(40, 7))
        thing.remove([N, N + 1])
    a, b = (i.search(q, 10, nprobe=4) for i in (index, loaded))
    assert a.ids.tolist() == b.ids.tolist()
    assert a.scores.tobytes() == b.scores.tobytes()
    assert index.drift() is None
    assert loaded.drift() is None


def test_a_waiting_index_keeps_its_codec(tmp_path: Path) -> None:
    fitted = rz.ScalarCodec(DIM, 8).fit(clustered(500), metric="l2")
    for codec in ("auto", fitted, rz.ScalarCodec(DIM, 4), None):
        index = rz.IVFIndex(DIM, metric="l2", codec=codec, nlist=12, seed=5)
        index.add(clustered(100))
        index.save(tmp_path / "x")
        loaded = rz.load(tmp_path / "x")
        assert repr(loaded.codec) == repr(index.codec)
        if codec is fitted:
            assert loaded.codec.fingerprint == fitted.fingerprint
        assert loaded._fit_at() == index._fit_at()
        loaded.train(clustered(600))
        assert loaded.nlist == 12
        assert len(loaded) == 100


def test_drift_is_told_and_only_drift(tmp_path: Path) -> None:
    index = made("l2", "auto")
    index.add(clustered(2000, 31))
    assert index.drift() is None
    assert index.search(clustered(2, 5)).stats["warning"] is None
    far = rz.IVFIndex(DIM, metric="l2", nlist=16).train(clustered(N))
    far.add(clustered(N))
    far.add(clustered(499, 32) + 3)
    far.save(tmp_path / "x")
    far = rz.load(tmp_path / "x")
    far.add(clustered(400, 33) + 3)
    warning = far.search(clustered(2, 5)).stats["warning"]
    assert isinstance(warning, DriftWarning)
    assert isinstance(warning, UserWarning)
    assert warning.error_ratio > 1.2
    assert "anew" in str(warning)


def test_one_list_filling_up_is_drift() -> None:
    x = clustered(N)
    index = rz.IVFIndex(DIM, metric="l2", nlist=16).train(x)
    index.add(x)
    index.add(np.repeat(x[:1], 4000, axis=0) + 0.01 * clustered(4000, 3))
    warning = index.drift()
    assert warning is not None
    assert warning.imbalance_ratio > 2


def test_equal_rows_train(tmp_path: Path) -> None:
    x = np.tile(np.arange(1, DIM + 1, dtype=np.float32), (400, 1))
    for codec in ("auto", None):
        index = rz.IVFIndex(DIM, metric="l2", codec=codec, nlist=8).train(x)
        index.add(x)
        hits = index.search(x[:2], 5)
        assert hits.ids.tolist() == [[0, 1, 2, 3, 4]] * 2
        np.testing.assert_allclose(hits.scores, 0, atol=1e-3)


def test_progress_and_an_interrupt_while_training() -> None:
    calls: list[tuple[int, int]] = []
    index = rz.IVFIndex(DIM, nlist=8)
    index.train(clustered(600), progress=lambda done, total: calls.append((done, total)))
    assert calls[0][0] == 0
    assert calls[-1][0] == calls[-1][1]
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    other = rz.IVFIndex(DIM, nlist=8)
    other.add(clustered(50))
    with pytest.raises(KeyboardInterrupt):
        other.train(clustered(600), progress=stop)
    assert not other.is_trained
    assert len(other) == 50
    other.train(clustered(600))
    assert other.search(clustered(1), 1).ids.shape == (1, 1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"nlist": 0}, ValueError),
        ({"nlist": 2**22 + 1}, ValueError),
        ({"nlist": 1.5}, TypeError),
        ({"codec": "best"}, InvalidTypeError),
        ({"codec": rz.ScalarCodec(DIM + 1, 8)}, ShapeError),
        ({"vectors": "none", "codec": None}, ValueError),
        ({"metric": "dot"}, ValueError),
        ({"seed": -1}, ValueError),
        ({"columns": {"year": "integer"}}, ValueError),
        ({"M": 16}, TypeError),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        rz.IVFIndex(DIM, **options)


def test_bad_searches_and_training() -> None:
    index = made()
    q = clustered(2, 5)
    for options, error in [
        ({"nprobe": 0}, ValueError),
        ({"nprobe": -1}, ValueError),
        ({"nprobe": 1.5}, TypeError),
        ({"nprobe": True}, TypeError),
        ({"plan": "graph"}, ValueError),
        ({"plan": "scan", "nprobe": 3}, ValueError),
        ({"ef": 10}, TypeError),
        ({"funnel": [(8, 20)]}, TypeError),
    ]:
        with pytest.raises(error):
            index.search(q, 5, **options)
    with pytest.raises(InvalidValueError, match="trained already"):
        index.train(clustered(600))
    with pytest.raises(InvalidValueError, match="too few"):
        rz.IVFIndex(DIM, nlist=50).train(clustered(49))
    with pytest.raises(ShapeError):
        rz.IVFIndex(DIM).train(np.ones((600, DIM + 1)))
    with pytest.raises(InvalidValueError, match="zero"):
        rz.IVFIndex(DIM).train(np.zeros((600, DIM)))
    with pytest.raises(InvalidTypeError):
        made("cosine", "none").search(q, 5, rerank=20)


def test_the_sample_is_searched_well_by_default() -> None:
    sample = rz.datasets.load_sample()
    index = rz.IVFIndex(384).train(sample.documents)
    index.add(sample.documents)
    hits = index.search(sample.queries, 10)
    assert rz.recall(hits.ids, sample.ground_truth[:, :10]) >= 0.93
    assert hits.stats["visited"] < len(index) / 2
