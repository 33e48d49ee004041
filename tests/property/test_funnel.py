# SPDX-License-Identifier: Apache-2.0
"""A funnel that keeps everything is exact search: any metric, filter, duplicates, codec, thread count."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import residua as rz

DIM = 21
METRICS = st.sampled_from(["cosine", "ip", "l2"])
CODECS = st.sampled_from(["none", "float32", "bfloat16", "scalar8", "scalar4", "binary"])


def rows(n: int, seed: int, whole: bool) -> np.ndarray:
    """Whole numbers give many ties and rows that stand twice, zero prefixes among them; no zero rows."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, (n, DIM)) if whole else rng.standard_normal((n, DIM))
    x = x.astype(np.float32)
    x[rng.integers(n, size=n // 4)] = x[0]
    x[~x.any(axis=1), -1] = 1
    return x


def codec_of(kind: str) -> Any:
    return {
        "none": lambda: None,
        "float32": lambda: rz.FloatCodec(DIM),
        "bfloat16": lambda: rz.FloatCodec(DIM, "bfloat16"),
        "scalar8": lambda: rz.ScalarCodec(DIM),
        "scalar4": lambda: rz.ScalarCodec(DIM, bits=4),
        "binary": lambda: rz.BinaryCodec(DIM),
    }[kind]()


@st.composite
def stages(draw: st.DrawFn, least: int) -> list[tuple[int, int]]:
    dims = sorted(draw(st.sets(st.integers(1, DIM), min_size=1, max_size=4)))
    keeps = sorted((least + draw(st.integers(0, 400)) for _ in dims), reverse=True)
    return list(zip(dims, keeps, strict=True))


@st.composite
def built(draw: st.DrawFn) -> tuple[rz.FlatIndex, Any, np.ndarray, int]:
    """An index, a filter or None, queries, and how many rows the filter allows."""
    n, seed = draw(st.integers(1, 330)), draw(st.integers(0, 2**16))
    kind = draw(CODECS)
    kept = draw(st.sampled_from(["auto", "float32", "int8"] if kind == "none" else ["auto", "none", "int8"]))
    index = rz.FlatIndex(DIM, metric=draw(METRICS), codec=codec_of(kind), vectors=kept)
    x = rows(n, seed, draw(st.booleans()))
    ids = np.random.default_rng(seed).permutation(n) if draw(st.booleans()) else None
    index.add(x, ids)
    allowed = draw(st.none() | st.integers(0, 2**16).map(lambda s: np.random.default_rng(s).random(n) < 0.4))
    q = rows(draw(st.integers(1, 9)), seed + 1, draw(st.booleans()))
    return index, allowed, q, n if allowed is None else int(allowed.sum())


@given(built(), st.data(), st.integers(1, 40), st.sampled_from([1, 2, 5]))
def test_keeping_everything_is_exact_search(
    made: tuple[rz.FlatIndex, Any, np.ndarray, int], data: st.DataObject, k: int, threads: int
) -> None:
    index, allowed, q, n = made
    funnel = data.draw(stages(max(n, k)))
    all_rows = len(index) if index._native.vectors != "none" and index.codec is not None else None
    exact = index.search(q, k, filter=allowed, rerank=all_rows, num_threads=1)
    hits = index.search(q, k, filter=allowed, funnel=funnel, num_threads=threads)
    assert hits.ids.tolist() == exact.ids.tolist()
    np.testing.assert_array_equal(hits.scores, exact.scores)
    np.testing.assert_array_equal(hits.counts, exact.counts)


@given(built(), st.data(), st.integers(1, 12))
def test_narrow_funnels_do_not_depend_on_threads_or_batches(
    made: tuple[rz.FlatIndex, Any, np.ndarray, int], data: st.DataObject, k: int
) -> None:
    index, allowed, q, n = made
    funnel = [(dims, min(keep, max(k, n // 2))) for dims, keep in data.draw(stages(k))]
    first = index.search(q, k, filter=allowed, funnel=funnel, num_threads=1)
    several = index.search(q, k, filter=allowed, funnel=funnel, num_threads=3)
    assert first.ids.tolist() == several.ids.tolist()
    np.testing.assert_array_equal(first.scores, several.scores)
    for i in range(len(q)):
        one = index.search(q[i], k, filter=allowed, funnel=funnel)
        assert one.ids.tolist() == first.ids[i].tolist()
        np.testing.assert_array_equal(one.scores, first.scores[i])
