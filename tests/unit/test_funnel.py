# SPDX-License-Identifier: Apache-2.0
"""Funnel search: stages against NumPy, what a prefix means to every codec, bad inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import InvalidTypeError, InvalidValueError, UnsupportedError

METRICS = ("cosine", "ip", "l2")
DIM, N, K = 72, 700, 7
CODECS = ("none", "float32", "float16", "bfloat16", "scalar8", "scalar4", "binary", "random", "itq")


def vectors(n: int, seed: int) -> np.ndarray:
    """Rows around 30 centres, with a spread that falls along the dims."""
    centres = np.random.default_rng(77).standard_normal((30, DIM))
    rng = np.random.default_rng(seed)
    spread = np.linspace(1.5, 0.3, DIM)
    return ((centres[rng.integers(30, size=n)] + rng.standard_normal((n, DIM))) * spread).astype(np.float32)


X, Q = vectors(N, 0), vectors(12, 1)


def codec_of(kind: str) -> rz.Codec | None:
    return {
        "none": lambda: None,
        "float32": lambda: rz.FloatCodec(DIM),
        "float16": lambda: rz.FloatCodec(DIM, "float16"),
        "bfloat16": lambda: rz.FloatCodec(DIM, "bfloat16"),
        "scalar8": lambda: rz.ScalarCodec(DIM, bits=8),
        "scalar4": lambda: rz.ScalarCodec(DIM, bits=4),
        "binary": lambda: rz.BinaryCodec(DIM),
        "random": lambda: rz.BinaryCodec(DIM, rotation="random"),
        "itq": lambda: rz.BinaryCodec(DIM, rotation="itq"),
    }[kind]()


def made(kind: str = "none", metric: str = "cosine", vectors: str = "auto", ids: Any = None) -> rz.FlatIndex:
    index = rz.FlatIndex(DIM, metric=metric, codec=codec_of(kind), vectors=vectors)
    index.add(X, ids)
    return index


def same(a: rz.Hits, b: rz.Hits) -> None:
    assert a.ids.tolist() == b.ids.tolist()
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.counts, b.counts)


def similarity(q: np.ndarray, x: np.ndarray, metric: str) -> np.ndarray:
    """Larger is better, in float64."""
    q, x = q.astype(np.float64), x.astype(np.float64)
    if metric == "l2":
        return -((q[:, None] - x[None]) ** 2).sum(-1)
    if metric == "cosine":
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return q @ x.T


def chosen(scores: np.ndarray, rows: np.ndarray, keep: int) -> np.ndarray:
    """Per query the rows of largest score among its own."""
    own = np.take_along_axis(scores, rows, 1)
    return np.take_along_axis(rows, np.argsort(-own, axis=1, kind="stable")[:, :keep], 1)


def funnel_oracle(x: np.ndarray, metric: str, stages: list[tuple[int, int]]) -> np.ndarray:
    rows = np.tile(np.arange(len(x)), (len(Q), 1))
    for dims, keep in stages:
        rows = np.sort(chosen(similarity(Q[:, :dims], x[:, :dims], metric), rows, keep), axis=1)
    return chosen(similarity(Q, x, metric), rows, K)


class TestStages:
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("stages", [[(8, 60)], [(5, 200), (33, 40)], [(1, 300), (16, 90), (71, 7)]])
    def test_every_stage_chooses_by_its_prefix(self, metric: str, stages: list[tuple[int, int]]) -> None:
        hits = made(metric=metric).search(Q, K, funnel=stages)
        assert hits.ids.tolist() == funnel_oracle(X, metric, stages).tolist()
        assert hits.stats["plan"] == "funnel"
        assert hits.stats["stages"] == [N, *(keep for _, keep in stages)]
        assert hits.stats["visited"] == N

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("kept", ["float16", "int8"])
    def test_prefixes_of_rounded_rows(self, metric: str, kept: str) -> None:
        index = made(metric=metric, vectors=kept)
        stages = [(9, 80), (40, 20)]
        assert (
            index.search(Q, K, funnel=stages).ids.tolist()
            == funnel_oracle(index.get(range(N)), metric, stages).tolist()
        )

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("kind", ["float32", "scalar8", "scalar4", "binary", "random", "itq"])
    def test_prefixes_of_codes(self, metric: str, kind: str) -> None:
        """The first stage keeps what the decoded first dims rank first, up to ties and rounding."""
        index = made(kind, metric, "none")
        assert index.codec is not None
        dims, keep = 37, 50
        hits = index.search(Q, keep, funnel=[(dims, keep)])
        x, q = index.codec.decode(index.codec.encode(X)), Q
        if kind in ("random", "itq"):
            # Signs of rotated dims: rows whose prefix differs from the query's in fewer places come first.
            assert all(len(set(row)) == keep for row in hits.ids.tolist())
            full = index.search(Q, 10).ids
            found = np.mean(
                [len(set(a) & set(b)) for a, b in zip(full.tolist(), hits.ids.tolist(), strict=True)]
            )
            assert found > 4  # of 10; 50 rows of 700 by chance hold 0.7
            return
        rank = metric
        if metric == "cosine" and kind.startswith("scalar"):
            rank = "ip"  # codes hold no norms of prefixes
        scores = similarity(q[:, :dims], x[:, :dims], rank)
        limit = np.sort(scores, axis=1)[:, -keep]
        got = np.take_along_axis(scores, hits.ids, 1)
        assert (got >= (limit - 2e-3 * np.abs(scores).max(axis=1))[:, None]).all()

    @pytest.mark.parametrize(
        ("kind", "kept"), [(k, v) for k in CODECS for v in ("none", "auto") if (k, v) != ("none", "none")]
    )
    @pytest.mark.parametrize("metric", METRICS)
    def test_keeping_everything_is_exact_search(self, kind: str, metric: str, kept: str) -> None:
        index = made(kind, metric, kept)
        exact = index.search(Q, K, rerank=None if kept == "none" or kind == "none" else N)
        for stages in ([(3, N)], [(17, 5 * N), (40, N)], [(DIM, N)]):
            same(index.search(Q, K, funnel=stages), exact)
            one = index.search(Q[3], K, funnel=stages)
            assert one.ids.tolist() == exact.ids[3].tolist()
            np.testing.assert_array_equal(one.scores, exact.scores[3])

    @pytest.mark.parametrize("kind", ["float32", "scalar8", "binary"])
    def test_rerank_false_settles_by_codes(self, kind: str) -> None:
        index = made(kind)
        same(index.search(Q, K, funnel=[(20, N)], rerank=False), index.search(Q, K, rerank=False))
        assert index.search(Q, K, funnel=[(20, N)], rerank=False).stats["reranked"] == 0
        assert index.search(Q, K, funnel=[(20, 99)]).stats["reranked"] == 99


class TestRows:
    def test_filters(self) -> None:
        index = made()
        mask = np.arange(N) % 3 == 0
        hits = index.search(Q, K, funnel=[(10, 60)], filter=mask)
        expected = [np.flatnonzero(mask)[row] for row in funnel_oracle(X[mask], "cosine", [(10, 60)])]
        assert hits.ids.tolist() == np.array(expected).tolist()
        assert hits.stats["stages"] == [int(mask.sum()), 60]
        same(index.search(Q, K, funnel=[(10, N)], filter=mask), index.search(Q, K, filter=mask))

    def test_one_filter_per_query(self) -> None:
        index = made()
        allowed: list[Any] = [np.arange(N) % 5 == i % 5 for i in range(len(Q))]
        allowed[2] = [3, 8]
        hits = index.search(Q, K, funnel=[(DIM - 1, N)], filter=allowed)
        same(hits, index.search(Q, K, filter=allowed))
        assert hits.stats["stages"][2] == [2, 2]
        assert hits.stats["stages"][0] == [140, 140]

    def test_removed_rows_and_string_ids(self) -> None:
        index = made(ids=[f"doc{N - i:04d}" for i in range(N)])
        index.remove([f"doc{i:04d}" for i in range(1, 400)])
        hits = index.search(Q, K, funnel=[(30, N)])
        same(hits, index.search(Q, K))
        assert hits.stats["stages"] == [N - 399, N - 399]

    def test_fewer_rows_than_k_and_none(self) -> None:
        index = rz.FlatIndex(DIM)
        assert index.search(Q, K, funnel=[(8, 20)]).counts.tolist() == [0] * len(Q)
        index.add(X[:3])
        same(index.search(Q, K, funnel=[(8, 20)]), index.search(Q, K))

    def test_zero_prefixes_score_zero_under_cosine(self) -> None:
        x = X.copy()
        x[::2, :8] = 0
        index = rz.FlatIndex(DIM)
        index.add(x)
        q = Q.copy()
        q[0, :8] = 0
        hits = index.search(q, K, funnel=[(8, N)])
        same(hits, index.search(q, K))
        # All rows tie at 0 for a query without a prefix, so the smallest ids are kept.
        assert set(index.search(q[0], K, funnel=[(8, K)]).ids.tolist()) == set(range(K))

    def test_prefixes_of_extreme_size(self) -> None:
        x = X.copy()
        x[:, :8] *= np.float32(1e-22)
        x[::3, :8] *= np.float32(1e-15)
        index = rz.FlatIndex(DIM)
        index.add(x)
        scores = similarity(Q[:, :8], x[:, :8].astype(np.float64) * 1e20, "cosine")
        kept = index.search(Q, 30, funnel=[(8, 30)]).ids
        limit = np.sort(scores, axis=1)[:, -30]
        assert (np.take_along_axis(scores, kept, 1) >= limit[:, None] - 1e-6).all()

    def test_an_index_that_awaits_its_codec(self) -> None:
        index = rz.FlatIndex(DIM, codec=rz.ScalarCodec(DIM))
        index.add(X[:100])
        same(index.search(Q, K, funnel=[(20, 100)]), index.search(Q, K))

    def test_saved_and_mapped(self, tmp_path: Any) -> None:
        index = made("scalar8")
        index.save(tmp_path / "index")
        for mmap in (False, True):
            loaded = rz.load(tmp_path / "index", mmap=mmap)
            same(
                loaded.search(Q, K, funnel=[(20, 90), (50, 30)]),
                index.search(Q, K, funnel=[(20, 90), (50, 30)]),
            )


class TestBadInputs:
    @pytest.mark.parametrize(
        ("funnel", "error", "message"),
        [
            ([], InvalidValueError, "empty"),
            ("64", InvalidTypeError, "pairs"),
            (64, InvalidTypeError, "pairs"),
            ({64: 100}, InvalidTypeError, "pairs"),
            ([64, 100], InvalidTypeError, "pairs"),
            ([(64,)], InvalidValueError, "1 values"),
            ([(64, 100, 1)], InvalidValueError, "3 values"),
            ([(8.0, 100)], InvalidTypeError, "dims of stage 1 must be an integer"),
            ([(8, True)], InvalidTypeError, "keep of stage 1 must be an integer"),
            ([(0, 100)], InvalidValueError, "dims of stage 1 must be at least 1"),
            ([(8, 0)], InvalidValueError, "keep of stage 1 must be at least 1"),
            ([(DIM + 1, 100)], InvalidValueError, f"{DIM + 1} dims, expected 1 to {DIM}"),
            ([(8, K - 1)], InvalidValueError, f"keeps {K - 1} rows, expected at least k = {K}"),
            ([(8, 100), (8, 50)], InvalidValueError, "stage 2 has 8 dims, expected more than the 8"),
            ([(16, 100), (8, 50)], InvalidValueError, "expected more than the 16"),
            ([(8, 100), (16, 101)], InvalidValueError, "stage 2 keeps 101 rows, expected at most the 100"),
        ],
    )
    def test_stages(self, funnel: Any, error: type[Exception], message: str) -> None:
        index = made()
        with pytest.raises(error, match=message):
            index.search(Q, K, funnel=funnel)

    def test_fewer_bits_than_dims(self) -> None:
        index = rz.FlatIndex(DIM, codec=rz.BinaryCodec(DIM, rotation="random", bits=40))
        index.add(X)
        index.search(Q, K, funnel=[(40, 100)])
        with pytest.raises(InvalidValueError, match="expected 1 to 40"):
            index.search(Q, K, funnel=[(41, 100)])

    @pytest.mark.parametrize("rows", [100, N])
    def test_recurrent_codes_have_no_prefixes(self, rows: int) -> None:
        index = rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM))
        index.add(X[:rows])
        with pytest.raises(UnsupportedError, match=r"ScalarCodec or BinaryCodec"):
            index.search(Q, K, funnel=[(8, 100)])

    def test_options_that_contradict_a_funnel(self) -> None:
        index = made("scalar8")
        with pytest.raises(UnsupportedError, match="asymmetric"):
            index.search(Q, K, funnel=[(8, 100)], scoring="symmetric")
        with pytest.raises(InvalidValueError, match="rerank=50"):
            index.search(Q, K, funnel=[(8, 100)], rerank=50)
        same(index.search(Q, K, funnel=[(8, 100)], rerank=True), index.search(Q, K, funnel=[(8, 100)]))
