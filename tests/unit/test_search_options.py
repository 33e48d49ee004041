# SPDX-License-Identifier: Apache-2.0
"""Nothing given to a search is ignored, and its statistics say what each filter left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import InvalidTypeError, InvalidValueError

DIM, N = 16, 400
RNG = np.random.default_rng(0)
X, Q = (RNG.standard_normal((n, DIM)).astype(np.float32) for n in (N, 3))


def made(codec: rz.Codec | None = None, **options: Any) -> rz.FlatIndex:
    index = rz.FlatIndex(DIM, codec=codec, **options)
    index.add(X)
    return index


def test_an_exact_index_has_nothing_to_rerank() -> None:
    index = made()
    expected = index.search(Q)
    for rerank in (None, False, 0):
        hits = index.search(Q, rerank=rerank)
        np.testing.assert_array_equal(hits.ids, expected.ids)
    for bad in (True, 1, np.int64(5)):
        with pytest.raises(InvalidTypeError, match=r"rerank=.*scans float vectors exactly: leave rerank out"):
            index.search(Q, rerank=bad)
    with pytest.raises(InvalidValueError):
        index.search(Q, rerank=-1)


def test_an_index_that_awaits_its_codec_takes_rerank() -> None:
    index = rz.FlatIndex(DIM, codec=rz.ScalarCodec(DIM))
    index.add(X[:100])
    assert index.search(Q, rerank=20).stats["reranked"] == 0
    index.add(X[100:])
    assert index.search(Q, rerank=20).stats["reranked"] == 20


def test_without_kept_vectors_nothing_is_reranked() -> None:
    index = made(rz.ScalarCodec(DIM), vectors="none")
    codes = index.codec.encode(Q)  # type: ignore[union-attr]
    for bad in (True, 5):
        with pytest.raises(InvalidValueError, match="vectors='none'"):
            index.search(Q, rerank=bad)
        with pytest.raises(InvalidValueError, match="vectors='none'"):
            index.search_codes(codes, rerank=bad)
    for rerank in (None, False, 0):
        assert index.search(Q, rerank=rerank).stats["reranked"] == 0


@pytest.mark.parametrize("bad", ["x", 1, None, np.True_])
def test_explain_is_a_bool(bad: Any) -> None:
    index = made(rz.ScalarCodec(DIM))
    with pytest.raises(InvalidTypeError, match="explain must be True or False"):
        index.search(Q, explain=bad)
    with pytest.raises(InvalidTypeError, match="explain must be True or False"):
        index.search_codes(index.codec.encode(Q), explain=bad)  # type: ignore[union-attr]
    assert "rows" in index.search(Q, explain=True).stats
    assert "rows" not in index.search(Q).stats


@pytest.mark.parametrize("kind", ["none", "scalar", "funnel"])
def test_matches_are_the_live_rows_that_pass(kind: str) -> None:
    index = made(rz.ScalarCodec(DIM) if kind == "scalar" else None)
    options: dict[str, Any] = {"funnel": [(8, 50)]} if kind == "funnel" else {}
    if kind == "scalar":
        options["rerank"] = 60

    def stats(**more: Any) -> tuple[Any, Any]:
        found = index.search(Q, 5, **options, **more).stats
        return found["matches"], found["reranked"]

    full = {"none": 0, "scalar": 60, "funnel": 50}[kind]
    assert stats() == (N, full)
    index.remove(range(30))
    mask = np.zeros(N - 30, bool)
    mask[:40] = True
    assert stats() == (N - 30, full)
    assert stats(filter=mask)[0] == 40
    assert stats(filter=[5, 31, 31, 32, 10**6])[0] == 2
    matches, reranked = stats(filter=[None, mask, [31, 32]])
    assert matches == [N - 30, 40, 2]
    assert reranked == ([0, 0, 0] if kind == "none" else [full, min(full, 40), min(full, 2)])


def test_codes_and_plain_vectors_count_matches_too() -> None:
    index = made(rz.ScalarCodec(DIM))
    codes = index.codec.encode(Q)  # type: ignore[union-attr]
    assert index.search_codes(codes, filter=[1, 2]).stats["matches"] == 2
    assert index.search_codes(codes, filter=[None, [1], [2, 3]]).stats["matches"] == [N, 1, 2]
    assert rz.exact_search(Q, X).stats["matches"] == N
