# SPDX-License-Identifier: Apache-2.0
"""Indexes of product and float codes on a CUDA device: the CPU's rows, and its scores to 1e-5."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import UnsupportedError

N, DIM = 400, 24
FLOATS = ("float32", "float16", "bfloat16")


def sample(n: int, seed: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).normal(size=(n, DIM)), np.float32)


X, Q = sample(N, 1), sample(5, 2)


@cache
def codec(name: str, metric: Any) -> rz.Codec:
    if name in FLOATS:
        dtype: Any = name
        return rz.FloatCodec(DIM, dtype)
    bits: Any = 4 if name == "pq4" else 8
    return rz.PQCodec(DIM, n_subspaces=12, bits=bits).fit(X, metric=metric)


def flat(name: str, metric: Any, **options: Any) -> rz.FlatIndex:
    index = rz.FlatIndex(DIM, metric=metric, codec=codec(name, metric), **options)
    index.add(X, np.random.default_rng(3).permutation(N))
    return index


@cache
def lists(name: str, metric: Any) -> rz.IVFIndex:
    index = rz.IVFIndex(DIM, metric=metric, codec=codec(name, metric), nlist=6).train(X)
    index.add(X)
    return index


def check_close(cpu: Any, device: Any, **options: Any) -> None:
    ours, theirs = device.search(Q, **options), cpu.search(Q, **options)
    assert ours.stats["device"] == "cuda:0"
    np.testing.assert_array_equal(ours.counts, theirs.counts)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-5, atol=1e-5)
    for a, b, scores in zip(ours.ids, theirs.ids, theirs.scores, strict=True):
        moved = a != b  # only rows that score alike
        assert np.isin(a[moved], b).sum() >= moved.sum() - 1
        assert moved.sum() == 0 or np.min(np.diff(np.sort(scores[np.isfinite(scores)]))) < 2e-5


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("name", ["pq4", "pq8", *FLOATS])
def test_flat_index(name: str, metric: str) -> None:
    index = flat(name, metric)
    device = index.to("cuda")
    for options in ({"rerank": 0, "k": 30}, {"rerank": 0, "k": N + 5}, {"k": 4}):
        check_close(index, device, **options)
    check_close(index, device, rerank=0, filter=np.arange(N) % 3 == 1)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("name", ["pq4", "pq8", "float16"])
def test_lists(name: str, metric: str) -> None:
    index = lists(name, metric)
    device = index.to("cuda")
    for options in ({"rerank": 0, "k": 25, "nprobe": 3}, {"k": 5}):
        check_close(index, device, **options)


@pytest.mark.parametrize("name", ["pq4", "float32"])
def test_codes_against_codes(name: str) -> None:
    index = flat(name, "l2")
    codes = codec(name, "l2").encode(Q)
    ours, theirs = index.to("cuda").search_codes(codes, 10), index.search_codes(codes, 10)
    np.testing.assert_array_equal(ours.ids, theirs.ids)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-5, atol=1e-5)


def test_codes_without_a_scan_are_named() -> None:
    index = rz.FlatIndex(DIM, codec=rz.ResidualCodec(DIM, n_codebooks=2).fit(sample(600, 4)))
    index.add(X)
    with pytest.raises(UnsupportedError, match="residual"):
        index.to("cuda").search(Q, rerank=0)
    assert index.search(Q, rerank=0).ids.shape == (5, 10)
