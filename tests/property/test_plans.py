# SPDX-License-Identifier: Apache-2.0
"""Whatever filter, plan and k: a search returns min(k, matches) rows, all of them matches."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rz

N, DIM = 1500, 16
X = np.random.default_rng(5).standard_normal((N, DIM)).astype(np.float32)


@cache
def index_of(layout: str) -> rz.HNSWIndex:
    codec = None if layout == "float" else rz.RecurrentBinaryCodec(DIM, 2).fit(X, metric="l2")
    kind: Any = "compact" if layout == "float" else layout
    index = rz.HNSWIndex(DIM, metric="l2", codec=codec, layout=kind, M=6)
    index.add(X)
    index.remove(np.arange(0, N, 50))
    return index


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["turbo", "compact", "float"]),
    st.sampled_from(["auto", "scan", "graph", "filtered_graph"]),
    st.lists(st.integers(0, N), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([1, 3, 40, 2000]),
    st.one_of(st.none(), st.integers(1, 300)),
    st.integers(0, 2**31),
)
def test_every_query_gets_what_there_is(
    layout: str, plan: Any, sizes: list[int], near: bool, k: int, ef: int | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    q = X[rng.integers(0, N, len(sizes))]
    order = np.argsort(((X - q[0]) ** 2).sum(1)) if near else rng.permutation(N)
    filters = [order[:size] for size in sizes]
    hits = index_of(layout).search(q, k, filter=filters, plan=plan, ef=ef)
    for i, allowed in enumerate(filters):
        live = allowed[allowed % 50 != 0]
        found = hits.ids[i][hits.ids[i] >= 0]
        assert np.asarray(hits.counts)[i] == min(k, len(live)) == len(found)
        assert np.isin(found, live).all()
        assert len(np.unique(found)) == len(found)
        assert (np.diff(hits.scores[i][: len(found)]) >= 0).all()
