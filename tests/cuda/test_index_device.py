# SPDX-License-Identifier: Apache-2.0
"""Indexes on a CUDA device find what they find on the CPU: the same ids, and scores of the same bits."""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import (
    InvalidTypeError,
    InvalidValueError,
    NotTrainedError,
    OutOfMemoryError,
    UnsupportedError,
)

N, DIM, METRICS = 300, 48, ("cosine", "ip", "l2")


def sample(n: int, seed: int) -> np.ndarray:
    """Vectors on a coarse grid: many score alike."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.integers(-2, 3, (n, DIM)) + 0.25 * (np.arange(DIM) == 0), np.float32)


X, Q = sample(N, 1), sample(3, 2)


def codec_of(name: str) -> rz.Codec:
    return {
        "recurrent": lambda: rz.RecurrentBinaryCodec(DIM, 2),
        "binary": lambda: rz.BinaryCodec(DIM),
        "scalar": lambda: rz.ScalarCodec(DIM),
        "pq": lambda: rz.PQCodec(DIM, n_subspaces=12, bits=4),
        "float": lambda: rz.FloatCodec(DIM, "float16"),
    }[name]()


def flat(codec: str = "binary", metric: Any = "cosine", ids: Any = None, **options: Any) -> rz.FlatIndex:
    index = rz.FlatIndex(DIM, metric=metric, codec=codec_of(codec), **options)
    index.add(X, ids)
    return index


@cache
def ivf(metric: Any, codec: str = "auto", vectors: Any = "auto") -> rz.IVFIndex:
    chosen: Any = codec if codec == "auto" else codec_of(codec)
    index = rz.IVFIndex(DIM, metric=metric, codec=chosen, nlist=7, vectors=vectors).train(X)
    index.add(X, np.random.default_rng(5).permutation(N))
    return index


def check_same(cpu: rz.FlatIndex | rz.IVFIndex, device: Any, q: Any = Q, **options: Any) -> None:
    ours, theirs = device.search(q, **options), cpu.search(q, **options)
    np.testing.assert_array_equal(ours.ids, theirs.ids)
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    np.testing.assert_array_equal(ours.counts, theirs.counts)
    assert ours.stats["device"] == "cuda:0"
    assert {**theirs.stats, "device": "cuda:0"} == ours.stats


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("codec", ["recurrent", "binary", "scalar", "pq"])
def test_flat_index_equals_the_cpu(codec: str, metric: str) -> None:
    index = flat(codec, metric)
    device = index.to("cuda")
    for options in (
        {"rerank": False, "k": 30},
        {"rerank": 50, "k": 3},
        {"scoring": "symmetric", "rerank": 0},
    ):
        check_same(index, device, **options)


@pytest.mark.parametrize("metric", METRICS)
def test_float_codes_agree_to_rounding(metric: str) -> None:
    index = flat("float", metric, vectors="none")
    ours, theirs = index.to("cuda").search(Q, k=30), index.search(Q, k=30)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ours.ids, theirs.ids)


@pytest.mark.parametrize("vectors", ["auto", "none"])
@pytest.mark.parametrize("metric", METRICS)
def test_lists_equal_the_cpu(metric: str, vectors: str) -> None:
    index = ivf(metric, vectors=vectors)
    device = index.to("cuda")
    for options in ({"rerank": 0, "k": 40, "nprobe": 5}, {"plan": "scan", "k": N + 3}):
        check_same(index, device, **options)
    for codec in ("scalar", "pq"):
        check_same(ivf(metric, codec), ivf(metric, codec).to("cuda"), rerank=0, scoring="symmetric")


@pytest.mark.parametrize(
    "ids", [np.arange(N)[::-1] * 3, [f"d{i * 7919 % N}" for i in range(N)]], ids=["descending", "str"]
)
def test_ties_go_by_id(ids: Any) -> None:
    index = flat(ids=ids, metric="ip")
    hits = index.search(Q, k=50, rerank=0)
    assert (np.diff(hits.scores) == 0).any(), "no ties to tell apart"
    check_same(index, index.to("cuda"), k=50, rerank=0)


def test_filters_one_and_one_per_query() -> None:
    year = np.arange(N) % 7
    index = rz.FlatIndex(DIM, codec=rz.BinaryCodec(DIM), columns={"year": "int"})
    index.add(X, columns={"year": year})
    device = index.to("cuda")
    expression = rz.col("year") >= 5
    for rows in (expression, year == 2, np.arange(40), np.zeros(N, bool)):
        check_same(index, device, filter=rows, rerank=0)
    check_same(index, device, filter=expression)
    check_same(index, device, filter=[expression, None, "year == 3"], rerank=0)
    lists = ivf("cosine")
    check_same(lists, lists.to("cuda"), filter=np.arange(N) % 5 == 0, rerank=0)


def test_search_codes() -> None:
    for index in (flat("recurrent"), flat("binary"), ivf("cosine", "scalar")):
        codes = index.codec.encode(Q)  # type: ignore[union-attr]
        device = index.to("cuda")
        for options in ({}, {"rerank": 20, "scoring": "asymmetric"}):
            ours, theirs = device.search_codes(codes, 10, **options), index.search_codes(codes, 10, **options)
            np.testing.assert_array_equal(ours.ids, theirs.ids)
            np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_changes_are_seen_from_both_sides() -> None:
    index = flat()
    device = index.to("cuda")
    check_same(index, device, rerank=0)
    device.add(sample(100, 3))
    assert len(index) == N + 100
    check_same(index, device, rerank=0)
    index.remove(np.arange(0, 100, 3))
    check_same(index, device, rerank=0)
    index.compact()
    check_same(index, device, rerank=0)
    device.add(sample(50, 4), np.arange(120, 170), upsert=True)
    check_same(index, device, rerank=0)
    index.add(Q[:1], [10**9])
    assert 10**9 in device.search(Q[0], k=3).ids
    assert device.to("cpu").search(Q, k=4).ids.tolist() == index.search(Q, k=4).ids.tolist()


def test_changes_of_lists_are_seen() -> None:
    index = rz.IVFIndex(DIM, nlist=8).train(X)
    device = index.to("cuda")
    check_same(index, device, rerank=0)  # no rows
    index.add(X)
    check_same(index, device, rerank=0)
    index.remove(np.arange(0, 150, 2))
    check_same(index, device, rerank=0)
    index.compact()
    device.add(X[:60])
    check_same(index, device, rerank=0)


def test_an_index_that_is_fitted_later() -> None:
    index = rz.FlatIndex(DIM, codec=rz.RecurrentBinaryCodec(DIM, 1))
    device = index.to("cuda")
    device.add(X[:80])
    with pytest.raises(NotTrainedError, match="not fitted yet"):
        device.search(Q)
    device.add(np.tile(X, (2, 1)))  # fits the codec
    assert index.codec is device.codec
    check_same(index, device)


def test_replaced_codec_is_seen_from_both_sides() -> None:
    codec = rz.RecurrentBinaryCodec(DIM, 1).fit(X)
    index = rz.FlatIndex(DIM, codec=codec)
    index.add(X[:150])
    device = index.to("cuda")
    device.replace_codec(rz.RecurrentBinaryCodec(DIM, 1).fit(X))  # the same, by fingerprint
    assert index.codec is device.codec
    assert index.codec is not codec
    device.add(X[150:])
    check_same(index, device, rerank=0)


def test_searches_at_once() -> None:
    index = flat("recurrent", vectors="none")
    device = index.to("cuda")
    stop, wrong = threading.Event(), []

    def search(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            hits = device.search(Q[rng.integers(0, len(Q))], k=5)
            if not (np.diff(hits.scores) <= 0).all() or hits.counts != 5:
                wrong.append(hits)

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for i in range(5):
        index.add(sample(20, 10 + i))
        device.remove([i])
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    check_same(index, device)


def test_memory_limit() -> None:
    index = flat("scalar")
    with pytest.raises(OutOfMemoryError, match=r"KiB of device memory.*limit of 1 KiB"):
        index.to("cuda", memory_limit=1000)
    assert len(index.search(Q).ids) == len(Q)
    device = index.to("cuda", memory_limit=2 << 20)
    check_same(index, device, k=3)
    index.add(np.tile(X, (150, 1)))
    with pytest.raises(OutOfMemoryError, match=r"limit of 2(048 K| M)iB"):
        device.search(Q)
    index.remove(np.arange(N, 151 * N))
    index.compact()
    check_same(index, device, k=3)


def test_what_an_index_says_of_its_device() -> None:
    index = flat()
    device = index.to("cuda")
    assert (index.device, device.device) == ("cpu", "cuda:0")
    assert "device='cuda:0'" in repr(device)
    assert "device" not in repr(index)
    assert device.memory()["device"] >= N * 6
    assert "device" not in index.memory()
    assert type(device) is rz.FlatIndex
    assert index.to("cpu") is index
    assert device.to("cpu").device == "cpu"
    assert "device" not in index.search(Q).stats


def test_save_from_either_side(tmp_path: Path) -> None:
    index = ivf("ip")
    index.to("cuda").save(tmp_path / "device")
    index.save(tmp_path / "cpu")
    assert (tmp_path / "device").read_bytes() == (tmp_path / "cpu").read_bytes()
    loaded: Any = rz.load(tmp_path / "device", mmap=True)
    check_same(index, loaded.to("cuda"), rerank=0)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "cuda:0:1", "cuda:77"])
def test_devices_that_are_not_there(device: str) -> None:
    with pytest.raises(InvalidValueError, match="device"):
        flat().to(device)


@pytest.mark.parametrize("device", [None, 1.5, True, b"cuda"])
def test_devices_of_wrong_types(device: Any) -> None:
    with pytest.raises(InvalidTypeError, match="device must be"):
        flat().to(device)


def test_what_devices_cannot_do() -> None:
    with pytest.raises(UnsupportedError, match="HNSWIndex searches on the CPU alone; FlatIndex and IVFIndex"):
        rz.HNSWIndex(DIM).to("cuda")
    with pytest.raises(UnsupportedError, match="make it with codec="):
        rz.FlatIndex(DIM).to("cuda")
    with pytest.raises(UnsupportedError, match="the GPU does not scan codes of a"):
        rz.FlatIndex(DIM, codec=rz.ResidualCodec(DIM, 4).fit(X)).to("cuda")
    device = flat().to("cuda")
    with pytest.raises(UnsupportedError, match="funnel runs on the CPU"):
        device.search(Q, k=3, funnel=[(8, 100)])
    device.add(np.tile(X, (35, 1)))
    with pytest.raises(UnsupportedError, match=r"at most 8192 rows.*asks for 9000.*lower k or rerank"):
        device.search(Q, k=9000, rerank=0)


@pytest.mark.parametrize(("metric", "works"), [("ip", True), ("l2", False)])
def test_residual_lists_of_faiss(metric: str, works: bool) -> None:
    faiss = pytest.importorskip("faiss")
    kind = {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}[metric]
    theirs = faiss.index_factory(DIM, "IVF2,PQ4x4", kind)
    theirs.train(X)
    theirs.add(X)
    index = rz.from_faiss(theirs)
    if works:
        check_same(index, index.to("cuda"), k=20)
        return
    with pytest.raises(UnsupportedError, match=r"residuals under l2.*on the CPU"):
        index.to("cuda")
    assert len(index.search(Q).ids) == len(Q)


def test_streams() -> None:
    class Stream:
        cuda_stream = 0

    class Protocol:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, 0

    index = flat()
    for stream in (0, Stream(), Protocol()):
        device = index.to("cuda", stream=stream)
        assert device._place.context.stream == 1  # type: ignore[union-attr]
        check_same(index, device, rerank=0)
    with pytest.raises(InvalidTypeError, match="stream must be"):
        index.to("cuda", stream="fast")
    with pytest.raises(InvalidValueError, match="memory_limit must be at least 1"):
        index.to("cuda", memory_limit=0)


def test_lists_that_a_rare_filter_widens_beyond_what_a_device_keeps() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((19_000, 8)).astype(np.float32)
    x[:, 0] += np.where(np.arange(len(x)) < 10_000, 9, -9)
    index = rz.IVFIndex(8, metric="l2", codec=rz.ScalarCodec(8), nlist=64)
    index.train(x[::4])
    index.add(x)
    far = np.arange(10_000, len(x))  # from all queries
    expected = index.search(x[:2], 300, filter=far)
    found = index.to("cuda").search(x[:2], 300, filter=far)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.scores, expected.scores)
