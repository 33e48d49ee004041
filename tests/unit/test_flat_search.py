# SPDX-License-Identifier: Apache-2.0
"""FlatIndex: what a search returns, for every way of keeping and scoring vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import InvalidValueError, NotTrainedError, ShapeError, UnsupportedError

METRICS = ("cosine", "ip", "l2")
DIM = 40
N = 600


def vectors(n: int, seed: int = 0) -> np.ndarray:
    """Rows around 30 centres, so that there are neighbours to find."""
    centres = np.random.default_rng(77).standard_normal((30, DIM))
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(30, size=n)] + 0.5 * rng.standard_normal((n, DIM))).astype(np.float32)


X, Q = vectors(N), vectors(16, 1)


def codec_of(kind: str) -> rz.Codec | None:
    return {
        "none": lambda: None,
        "float32": lambda: rz.FloatCodec(DIM),
        "float16": lambda: rz.FloatCodec(DIM, "float16"),
        "bfloat16": lambda: rz.FloatCodec(DIM, "bfloat16"),
        "binary": lambda: rz.BinaryCodec(DIM),
        "recurrent": lambda: rz.RecurrentBinaryCodec(DIM, 2),
        "recurrent4": lambda: rz.RecurrentBinaryCodec(DIM, 4),
    }[kind]()


def made(kind: str = "none", metric: str = "cosine", ids: Any = None, **options: Any) -> rz.FlatIndex:
    index = rz.FlatIndex(DIM, metric=metric, codec=codec_of(kind), **options)
    index.add(X, ids)
    return index


def exact(q: np.ndarray, x: np.ndarray, metric: str) -> np.ndarray:
    q, x = q.astype(np.float64), x.astype(np.float64)
    if metric == "l2":
        return ((q[:, None] - x[None]) ** 2).sum(axis=2)
    if metric == "cosine":
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return q @ x.T


def same(a: rz.Hits, b: rz.Hits) -> None:
    assert a.ids.tolist() == b.ids.tolist()
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.counts, b.counts)


def close(a: rz.Hits, b: rz.Hits) -> None:
    """Equal but for the last bits of scores, which two ways of summing may round apart."""
    assert a.ids.tolist() == b.ids.tolist()
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(a.counts, b.counts)


CODECS = ("none", "float32", "float16", "bfloat16", "binary", "recurrent", "recurrent4")
ways = pytest.mark.parametrize(("kind", "metric"), [(c, m) for c in CODECS for m in METRICS])
coded = pytest.mark.parametrize(("kind", "metric"), [(c, m) for c in CODECS if c != "none" for m in METRICS])


@ways
def test_shapes_order_and_padding(kind: str, metric: str) -> None:
    index = made(kind, metric)
    for rerank in (None, False):
        for k in (1, 10, N, N + 7):
            hits = index.search(Q, k, rerank=rerank)
            have = min(k, N)
            assert hits.ids.shape == hits.scores.shape == (16, k)
            assert (hits.ids.dtype, hits.scores.dtype) == (np.int64, np.float32)
            assert hits.counts.tolist() == [have] * 16
            assert (hits.ids[:, have:] == -1).all()
            assert (hits.scores[:, have:] == (np.inf if metric == "l2" else -np.inf)).all()
            assert all(len(set(row.tolist())) == have for row in hits.ids[:, :have])
            order = hits.scores[:, :have] * (1 if metric == "l2" else -1)
            assert (np.diff(order) >= 0).all()
            tied = np.diff(order) == 0
            assert (np.diff(hits.ids[:, :have])[tied] > 0).all()
            ids, scores = hits
            assert ids is hits.ids
            assert scores is hits.scores
            one = index.search(Q[2], k, rerank=rerank)
            assert one.ids.shape == one.scores.shape == (k,)
            assert one.counts == have
            np.testing.assert_array_equal(one.ids, hits.ids[2])
            np.testing.assert_array_equal(one.scores, hits.scores[2])
            assert isinstance(repr(one), str)
            assert isinstance(repr(hits), str)


@ways
def test_scores_after_reranking_are_exact(kind: str, metric: str) -> None:
    hits = made(kind, metric, vectors="float32").search(Q, 10)
    wanted = np.take_along_axis(exact(Q, X, metric), hits.ids, axis=1)
    np.testing.assert_allclose(hits.scores, wanted, rtol=2e-6, atol=2e-6)
    truth = rz.exact_search(Q, X, 10, metric=metric)
    assert rz.recall(hits.ids, truth.ids) >= (0.97 if kind != "none" else 1.0)
    if kind == "none":
        close(hits, truth)


@coded
def test_code_scores_are_those_of_the_codec(kind: str, metric: str) -> None:
    for mode in ("auto", "none"):
        index = made(kind, metric, vectors=mode)
        hits = index.search(Q, 20, rerank=False)
        scores = index.codec.scores(Q, index.codec.encode(X))
        best = np.argsort(scores if metric == "l2" else -scores, axis=1, kind="stable")[:, :20]
        np.testing.assert_allclose(
            hits.scores, np.take_along_axis(scores, best, axis=1), rtol=1e-5, atol=1e-5
        )
        np.testing.assert_allclose(
            hits.scores, np.take_along_axis(scores, hits.ids, axis=1), rtol=1e-5, atol=1e-5
        )
        same(index.search(Q, 20, rerank=0), hits)
        assert hits.stats["reranked"] == 0
        if mode == "none":
            same(index.search(Q, 20), hits)


@ways
def test_symmetric_scores_are_those_of_the_codec(kind: str, metric: str) -> None:
    if kind == "none":
        with pytest.raises((ValueError, TypeError)):
            made().search(Q, scoring="symmetric")
        return
    index = made(kind, metric)
    codec = index.codec
    hits = index.search(Q, 20, scoring="symmetric", rerank=False)
    codes = codec.encode(Q, refine="scale") if kind.startswith("recurrent") else codec.encode(Q)
    scores = codec.symmetric_scores(codes, codec.encode(X))
    larger_is_better = metric != "l2" or kind == "binary"
    wanted = -np.sort(-scores, axis=1)[:, :20] if larger_is_better else np.sort(scores, axis=1)[:, :20]
    np.testing.assert_allclose(hits.scores, wanted, rtol=1e-5, atol=1e-5)
    if kind == "binary":
        best = np.argsort(-scores, axis=1, kind="stable")[:, :20]
        np.testing.assert_array_equal(hits.ids, best)
        np.testing.assert_array_equal(hits.scores, np.take_along_axis(scores, best, axis=1))
    by_code = index.search_codes(codes, 20)
    same(by_code, hits)
    one = index.search_codes(codes[3], 20)
    np.testing.assert_array_equal(one.ids, hits.ids[3])
    assert one.counts == 20
    reranked = index.search(Q, 10, scoring="symmetric")
    assert rz.recall(reranked.ids, rz.exact_search(Q, X, 10, metric=metric).ids) > 0.8


def test_search_codes_takes_what_search_takes() -> None:
    index = made("recurrent", vectors="float32")
    codes = index.codec.encode(Q)
    plain = index.search_codes(codes, 10)
    allowed = np.arange(0, N, 3)
    same(index.search_codes(codes, 10, scoring="symmetric", rerank=False, plan="scan", num_threads=2), plain)
    assert index.search_codes(codes, 10, explain=True).stats["rows"] == N
    one = index.search_codes(codes, 10, filter=allowed)
    assert (one.ids % 3 == 0).all()
    each = index.search_codes(codes, 10, filter=[allowed if i % 2 else None for i in range(16)])
    np.testing.assert_array_equal(each.ids[1::2], one.ids[1::2])
    np.testing.assert_array_equal(each.ids[::2], plain.ids[::2])
    for bad, error in [({"ef": 3}, TypeError), ({"nprobe": 3}, TypeError), ({"k": 0}, ValueError)]:
        with pytest.raises(error):
            index.search_codes(codes, **bad)
    for wrong in (codes[:, :-1], np.zeros((2, 2, codes.shape[1]), np.uint8)):
        with pytest.raises(ShapeError, match=str(codes.shape[1])):
            index.search_codes(wrong)
    with pytest.raises(TypeError, match="uint8"):
        index.search_codes(codes.astype(np.int32))
    with pytest.raises(UnsupportedError, match="codec"):
        made().search_codes(codes)
    with pytest.raises(NotTrainedError, match="train"):
        rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 2)).search_codes(codes)


def test_how_many_are_reranked() -> None:
    index = made("recurrent", vectors="float32")
    truth = rz.exact_search(Q, X, 10).ids
    found = [rz.recall(index.search(Q, 10, rerank=r).ids, truth) for r in (0, 10, 30, N)]
    assert found[0] < 1
    assert found == sorted(found)
    assert found[-1] == 1
    same(index.search(Q, 10, rerank=N), index.search(Q, 10, rerank=2**31 - 1))
    # Fewer candidates than k: all k that are returned are scored exactly.
    hits = index.search(Q, 10, rerank=3)
    np.testing.assert_allclose(
        hits.scores, np.take_along_axis(exact(Q, X, "cosine"), hits.ids, axis=1), rtol=1e-5
    )
    assert index.search(Q, 10, rerank=50).stats["reranked"] == 50
    assert index.search(Q, 10).stats["reranked"] >= 10
    for bad, error in [(-1, ValueError), (2.5, TypeError), ("all", TypeError)]:
        with pytest.raises(error, match="rerank"):
            index.search(Q, 10, rerank=bad)
    bare = made("recurrent", vectors="none")
    with pytest.raises(ValueError, match="vectors"):
        bare.search(Q, 10, rerank=20)


def test_stats_and_explain() -> None:
    for kind in ("none", "recurrent"):
        index = made(kind)
        stats = index.search(Q, 5).stats
        assert isinstance(stats["plan"], str)
        assert stats["visited"] == N
        assert index.search(Q, 5, filter=np.arange(50)).stats["visited"] == 50
        more = index.search(Q, 5, explain=True).stats
        assert set(more) > set(stats)
        for plan in ("auto", "scan"):
            same(index.search(Q, 5, plan=plan), index.search(Q, 5))
        for plan, error in [("graph", ValueError), ("cells", ValueError), (3, TypeError)]:
            with pytest.raises(error, match="plan"):
                index.search(Q, 5, plan=plan)
        with pytest.raises(ValueError, match="'sum'"):
            index.search(Q, 5, scoring="sum")


@pytest.mark.parametrize("option", ["ef", "nprobe", "efSearch", "candidates", "metric"])
def test_what_this_index_cannot_use_is_a_type_error(option: str) -> None:
    with pytest.raises(TypeError, match=option):
        made().search(Q, 5, **{option: 10})
    with pytest.raises(TypeError, match=option):
        made().range_search(Q, 0.5, **{option: 10})
    with pytest.raises(TypeError):
        made().search(Q, 5, None)
    with pytest.raises(TypeError):
        rz.FlatIndex(DIM, "l2")


def test_k() -> None:
    index = made()
    for k, error, message in [
        (0, ValueError, "at least 1, got 0"),
        (-3, ValueError, "at least 1, got -3"),
        (2**31, ValueError, "2147483648"),
        (2**70, ValueError, "at most"),
        (1.0, TypeError, "1.0"),
        ("3", TypeError, "'3'"),
        (True, TypeError, "True"),
        (None, TypeError, "None"),
        ([3], TypeError, r"\[3\]"),
    ]:
        with pytest.raises(error, match=message):
            index.search(Q, k)
    same(index.search(Q, np.int32(4)), index.search(Q, 4))
    with pytest.raises(InvalidValueError, match=f"k={2**31 - 1} .*use k <= {N}"):
        index.search(np.repeat(Q, 1000, axis=0), 2**31 - 1)


class TestFilters:
    @pytest.mark.parametrize("kind", CODECS)
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
    def test_masks_and_ids(self, kind: str, metric: str, share: float) -> None:
        index = made(kind, metric, vectors="float32")
        mask = np.random.default_rng(2).random(N) < share
        allowed = np.flatnonzero(mask)
        hits = index.search(Q, 25, filter=mask, rerank=None if kind == "none" else N)
        assert hits.counts.tolist() == [min(25, len(allowed))] * 16
        if len(allowed):
            truth = rz.exact_search(Q, X[allowed], 25, metric=metric)
            wanted = np.where(truth.ids >= 0, allowed[truth.ids], -1)
            np.testing.assert_array_equal(hits.ids, wanted)
        same(index.search(Q, 25, filter=allowed, rerank=None if kind == "none" else N), hits)
        for rerank in (None, 0):
            plain = index.search(Q, 25, filter=mask, rerank=rerank)
            same(index.search(Q, 25, filter=allowed[::-1].tolist(), rerank=rerank), plain)
            assert set(plain.ids.ravel().tolist()) <= {*allowed.tolist(), -1}
            assert plain.counts.tolist() == [min(25, len(allowed))] * 16

    def test_a_mask_counts_live_rows(self) -> None:
        index = made()
        index.remove(np.arange(0, N, 2))
        mask = np.zeros(len(index), bool)
        mask[:5] = True
        assert sorted(index.search(Q[0], 5, filter=mask).ids.tolist()) == [1, 3, 5, 7, 9]
        index.add(X[:1])
        mask = np.zeros(len(index), bool)
        mask[-1] = True
        assert index.search(Q[0], 1, filter=mask).ids.tolist() == [N]
        for length in (N, len(index) - 1, 0):
            with pytest.raises(ShapeError, match=rf"{len(index)}.*{length}"):
                index.search(Q, filter=np.ones(length, bool))
        index.compact()
        assert index.search(Q[0], 1, filter=mask).ids.tolist() == [N]

    def test_kinds_of_filters(self) -> None:
        index = made()
        wanted = index.search(Q, 3, filter=np.array([5, 6, 7]))
        mask = np.isin(np.arange(N), [5, 6, 7])
        for given in (
            [5, 6, 7],
            (7, 6, 5),
            {5, 6, 7},
            np.array([5, 6, 7, 7, 5]),
            np.array([5, 6, 7], np.uint8),
            [5, 6, 7, 100_000],
            mask.tolist(),
            np.repeat(mask, 2)[::2],
        ):
            same(index.search(Q, 3, filter=given), wanted)
        assert (index.search(Q, 3, filter=[]).counts == 0).all()
        assert (index.search(Q, 3, filter=np.array([], np.int64)).counts == 0).all()

    def test_strings(self) -> None:
        index = made(ids=[f"n{i}" for i in range(N)])
        wanted = made().search(Q, 4, filter=[1, 2, 3])
        for given in (["n1", "n2", "n3"], np.array(["n1", "n2", "n3", "x"]), {"n1", "n2", "n3"}):
            hits = index.search(Q, 4, filter=given)
            assert [[i and int(i[1:]) for i in row] for row in hits.ids.tolist()] == [
                [None if i < 0 else i for i in row] for row in wanted.ids.tolist()
            ]
            np.testing.assert_array_equal(hits.scores, wanted.scores)

    @pytest.mark.parametrize("kind", ["none", "recurrent"])
    def test_one_per_query(self, kind: str) -> None:
        index = made(kind)
        mask = np.arange(N) % 5 == 0
        filters = [None, mask, [3, 4, 5], np.array([9]), {1, 2}, [], mask, None] * 2
        hits = index.search(Q, 6, filter=filters)
        assert hits.counts.tolist() == [6, 6, 3, 1, 2, 0, 6, 6] * 2
        for i, f in enumerate(filters):
            one = index.search(Q[i], 6, filter=f)
            np.testing.assert_array_equal(hits.ids[i], one.ids)
            np.testing.assert_array_equal(hits.scores[i], one.scores)
        found = index.range_search(Q, -1.0, filter=filters)
        for i, f in enumerate(filters):
            np.testing.assert_array_equal(found[i][0], index.range_search(Q[i], -1.0, filter=f).ids)
        with pytest.raises(ShapeError, match="expected 16, got 3"):
            index.search(Q, filter=[None, mask, [3]])

    def test_refused(self) -> None:
        index = made()
        for bad, error, message in [
            ("year > 2000", ValueError, "columns"),
            (np.array([1.0, 2.0]), TypeError, "filter"),
            (np.ones((2, N), bool), ValueError, "mask|filter"),
            (3, (TypeError, ValueError), "filter|ids"),
            (object(), TypeError, "filter|ids"),
            ([1, "a"], TypeError, "mixed"),
            ([-4], ValueError, "-4"),
        ]:
            with pytest.raises(error, match=message) as caught:
                index.search(Q[0], filter=bad)
            assert isinstance(caught.value, rz.errors.ResiduaError)
            with pytest.raises(error):
                index.range_search(Q[0], 0.5, filter=bad)


class TestRangeSearch:
    @ways
    def test_against_the_oracle(self, kind: str, metric: str) -> None:
        index = made(kind, metric, vectors="float32")
        scores = exact(Q, X, metric)
        for quantile in (0.0, 0.02, 0.5, 1.0):
            limit = float(np.quantile(scores, quantile if metric == "l2" else 1 - quantile)) + 1e-4
            found = index.range_search(Q, limit)
            assert len(found) == 16
            assert found.offsets.dtype == np.int64
            assert found.offsets[0] == 0
            assert found.offsets[-1] == len(found.ids) == len(found.scores)
            for i, (ids, got) in enumerate(found):
                inside = scores[i] <= limit if metric == "l2" else scores[i] >= limit
                assert set(ids.tolist()) == set(np.flatnonzero(inside).tolist())
                np.testing.assert_allclose(got, scores[i][ids], rtol=2e-6, atol=2e-6)
                assert (np.diff(got if metric == "l2" else -got) >= 0).all()
            assert found[-1][0].tolist() == found[15][0].tolist()
            with pytest.raises(IndexError):
                found[16]
            assert isinstance(repr(found), str)

    def test_filters_and_removed_rows(self) -> None:
        for kind in ("none", "recurrent"):
            index = made(kind)
            index.remove([3, 4])
            everything = index.range_search(Q, -2.0)
            assert np.diff(everything.offsets).tolist() == [N - 2] * 16
            some = index.range_search(Q, -2.0, filter=[1, 2, 3])
            assert sorted(some[5][0].tolist()) == [1, 2]

    def test_without_vectors_scores_are_those_of_codes(self) -> None:
        for kind in ("binary", "recurrent"):
            for metric in METRICS:
                index = made(kind, metric, vectors="none")
                scores = index.codec.scores(Q, index.codec.encode(X))
                limit = float(np.median(scores))
                found = index.range_search(Q, limit)
                inside = (scores <= limit) if metric == "l2" else (scores >= limit)
                assert abs(len(found.ids) - inside.sum()) <= 2
                np.testing.assert_allclose(found[0][1], scores[0][found[0][0]], rtol=1e-5, atol=1e-5)

    def test_strings_and_one_query(self) -> None:
        index = made(ids=[str(i) for i in range(N)])
        found = index.range_search(Q[0], 0.0)
        assert len(found) == 1
        assert found.ids.dtype == object
        assert all(type(i) is str for i in found.ids)

    def test_refused(self) -> None:
        index = made()
        for bad, error in [
            (np.nan, ValueError),
            ("0.5", TypeError),
            (None, TypeError),
            ([0.5, 1], TypeError),
        ]:
            with pytest.raises(error, match="threshold"):
                index.range_search(Q, bad)
        assert len(index.range_search(Q, np.inf).ids) == 0
        assert len(index.range_search(Q, np.float32(-1.5)).ids) == 16 * N
