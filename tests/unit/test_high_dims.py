# SPDX-License-Identifier: Apache-2.0
"""Recurrent codes whose transform is made of blocks: above 2,048 dims, or for few rows."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import residua as rz
from residua import _core
from residua._recurrent_maps import blocks_of
from residua.errors import InvalidValueError

METRICS = ("cosine", "ip", "l2")


def vectors(n: int, dim: int, seed: int) -> np.ndarray:
    """Rows whose neighbouring dims go together and whose spread falls along the dims."""
    rng = np.random.default_rng(seed)
    spread = np.linspace(2.0, 0.2, dim)
    rough = rng.standard_normal((n, dim + 15)).astype(np.float32)
    running = np.cumsum(rough, axis=1)
    smooth = running[:, 15:] - np.concatenate([np.zeros((n, 1)), running[:, : dim - 1]], axis=1)
    return (smooth * spread / 4 + 0.3).astype(np.float32)


def exact(q: np.ndarray, x: np.ndarray, metric: str) -> np.ndarray:
    q, x = q.astype(np.float64), x.astype(np.float64)
    if metric == "l2":
        return ((q**2).sum(1)[:, None] + (x**2).sum(1)[None] - 2 * q @ x.T).clip(0)
    if metric == "cosine":
        q, x = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (q, x))
    return q @ x.T


def top(scores: np.ndarray, k: int = 10) -> np.ndarray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("dim", "n", "bits"), [(2049, 150, 1), (3000, 40, 2.5), (5120, 600, 0.5), (65_536, 9, 1)]
)
def test_conformance(dim: int, n: int, bits: float, metric: str, tmp_path: Path) -> None:
    codec = rz.RecurrentBinaryCodec(dim, bits)
    promised = codec.code_bytes
    codec.fit(vectors(n, dim, 1), metric=metric)
    x, q = vectors(70, dim, 2)[:, :dim], vectors(3, dim, 3)
    codes = codec.encode(x)
    assert codes.shape == (70, promised)
    np.testing.assert_array_equal(codec.encode(x, num_threads=1), codes)
    np.testing.assert_array_equal(np.concatenate([codec.encode(row[None]) for row in x[:9]]), codes[:9])
    decoded = codec.decode(codes)
    assert np.isfinite(decoded).all()
    np.testing.assert_array_equal(codec.decode(codes[64:65]), decoded[64:65])
    scores = codec.scores(q, codes)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(codec.scores(q[1], codes), scores[1])
    assert np.isfinite(codec.symmetric_scores(codes[:2], codes)).all()
    codec.save(tmp_path / "codec")
    loaded = rz.load(tmp_path / "codec")
    assert loaded.fingerprint == codec.fingerprint
    np.testing.assert_array_equal(loaded.encode(x[:5]), codes[:5])
    np.testing.assert_array_equal(loaded.scores(q, codes), scores)


@pytest.mark.parametrize("metric", METRICS)
def test_eight_bits_are_nearly_exact(metric: str) -> None:
    dim = 2500
    codec = rz.RecurrentBinaryCodec(dim, 8).fit(vectors(3000, dim, 1), metric=metric)
    x, q = vectors(80, dim, 2), vectors(9, dim, 3)
    codes = codec.encode(x)
    scores, wanted = codec.scores(q, codes), exact(q, x, metric)
    assert np.corrcoef(scores.ravel(), wanted.ravel())[0, 1] > 0.9995
    rows = x / np.linalg.norm(x, axis=1, keepdims=True) if metric == "cosine" else x
    missed = np.linalg.norm(codec.decode(codes) - rows, axis=1) / np.linalg.norm(rows, axis=1)
    assert missed.max() < 0.02


def test_queries_weigh_the_groups() -> None:
    """Decoding and scores agree for weights that queries set: both go through the scale of the groups."""
    dim = 2304
    rng = np.random.default_rng(5)
    asked = (rng.standard_normal((200, dim)) * np.where(np.arange(dim) < 300, 3.0, 0.05)).astype(np.float32)
    x = vectors(900, dim, 1)
    codec = rz.RecurrentBinaryCodec(dim, 4).fit(x, queries=asked[:150], metric="ip")
    rows, q = vectors(60, dim, 2), asked[150:]
    codes = codec.encode(rows)
    scores, centre = codec.scores(q, codes), asked[:150].mean(axis=0)
    predicted = (q - centre) @ codec.decode(codes).T + centre @ rows.T
    assert np.abs(scores - predicted).max() < 0.01 * np.abs(scores - scores.mean()).max()


def test_one_bit_ranks_better_than_signs_behind_a_random_rotation() -> None:
    dim, rng = 2560, np.random.default_rng(3)
    x = vectors(2500, dim, 1)
    q = vectors(100, dim, 2) + x[:100]
    truth = rz.exact_search(q, x, 10, metric="ip").ids
    codec = rz.RecurrentBinaryCodec(dim, 1).fit(x, metric="ip")
    ours = rz.recall(top(codec.scores(q, codec.encode(x))), truth)
    turn = np.linalg.qr(rng.standard_normal((dim, dim)).astype(np.float32))[0]
    centre = x.mean(axis=0)
    y = (x - centre) @ turn
    scale = (y**2).sum(axis=1) / np.abs(y).sum(axis=1)  # RaBitQ's estimate
    theirs = rz.recall(top((q @ turn) @ np.sign(y).T * scale + (q @ centre)[:, None]), truth)
    assert ours >= theirs + 0.03


@pytest.mark.parametrize(("bits", "limit"), [(1, 25e6), (8, 25e6)])
def test_a_codec_of_10240_dims_is_small(bits: float, limit: float, tmp_path: Path) -> None:
    codec = rz.RecurrentBinaryCodec(10_240, bits).fit(vectors(520, 10_240, 1), metric="ip")
    codec.save(tmp_path / "codec")
    assert (tmp_path / "codec").stat().st_size <= limit
    assert codec._native.memory_bytes <= limit
    # A row of the map has one block's dims, and there are no more rows than dims.
    assert codec._native.block_dims == 512


@pytest.mark.parametrize("bits", [0.5, 8])
def test_scans_of_many_dims_do_not_overflow(bits: float) -> None:
    """Queries and rows at the ends of all ranges: the largest sums that 65,536 dims can give."""
    dim = 65_536
    x = np.where(np.arange(dim) % 7 < 3, 1, -1) * np.linspace(-2, 2, 40)[:, None]
    x = (x + 0.3 * np.random.default_rng(1).standard_normal((40, dim))).astype(np.float32)
    codec = rz.RecurrentBinaryCodec(dim, bits).fit(x, metric="ip")
    q = x[[0, 20, 39]]
    wanted = exact(q, x, "ip")
    scores = codec.scores(q, codec.encode(x))
    assert np.corrcoef(scores.ravel(), wanted.ravel())[0, 1] > 0.999
    index = rz.FlatIndex(dim, metric="ip", codec=codec, vectors="none")
    index.add(x)
    hits = index.search(q, 10)
    np.testing.assert_array_equal(hits.ids, top(scores))
    np.testing.assert_array_equal(hits.scores, np.take_along_axis(scores, hits.ids, axis=1))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "kind", ["one row", "one row many times", "constant dims", "rank 1", "outlier", "tiny", "zero dims"]
)
def test_degenerate_data(kind: str, metric: str) -> None:
    dim = 2100
    x = {
        "one row": lambda: vectors(1, dim, 6),
        "one row many times": lambda: np.repeat(vectors(1, dim, 6), 40, axis=0),
        "constant dims": lambda: np.where(np.arange(dim) % 3 == 0, vectors(60, dim, 6), 0.25),
        "rank 1": lambda: np.linspace(1, 2, 60)[:, None] * vectors(1, dim, 6),
        "outlier": lambda: np.concatenate([vectors(59, dim, 6), 1e6 * vectors(1, dim, 7)]),
        "tiny": lambda: 1e-18 * vectors(60, dim, 6),
        "zero dims": lambda: np.where(np.arange(dim) < 20, vectors(60, dim, 6), 0),
    }[kind]().astype(np.float32)
    for bits in (0.5, 3):
        codec = rz.RecurrentBinaryCodec(dim, bits).fit(x, queries=x[:2] if bits == 3 else None, metric=metric)
        for rows in (x, vectors(4, dim, 8)):
            codes = codec.encode(rows)
            assert np.isfinite(codec.decode(codes)).all()
            assert np.isfinite(codec.scores(rows[:3], codes)).all()


def test_a_fit_is_reproducible() -> None:
    x, q = vectors(700, 2200, 10), vectors(90, 2200, 11)
    prints = {
        rz.RecurrentBinaryCodec(2200, 1.5).fit(x, queries=q, metric="ip", num_threads=t).fingerprint
        for t in (1, 2, 3)
    }
    assert len(prints) == 1


def test_few_rows_get_blocks_that_they_can_fill() -> None:
    """A covariance of 384 dims from 96 rows is mostly made up; other rows show it."""
    sample = rz.datasets.load_sample()
    documents, q = sample.documents[:4000], sample.queries[:200]
    few = rz.RecurrentBinaryCodec(384, 2).fit(documents[:96])
    assert few._native.block_dims == 96
    assert rz.RecurrentBinaryCodec(384, 2).fit(documents[:191])._native.block_dims < 384
    assert rz.RecurrentBinaryCodec(384, 2).fit(documents[:192])._native.block_dims == 384
    truth = rz.exact_search(q, documents, 10).ids
    assert rz.recall(top(few.scores(q, few.encode(documents))), truth) > 0.68


def test_dims_beyond_the_limit() -> None:
    rz.RecurrentBinaryCodec(65_536)
    with pytest.raises(InvalidValueError, match=r"65536"):
        rz.RecurrentBinaryCodec(65_537)


def parts(dim: int = 102, **changes: object) -> dict[str, object]:
    """What a native codec is made of: blocks of 32, 32 and 32 + 6 dims, the last six without a row."""
    blocks = np.array([2, 0, 1], np.uint16)
    widths = [38, 32, 32]
    good: dict[str, object] = {
        "dim": dim,
        "bits": 1.0,
        "metric": "ip",
        "group_bits": np.array([2, 1, 1], np.uint8),
        "center": np.zeros(dim, np.float32),
        "query_mean": np.zeros(dim, np.float32),
        "block_dims": 32,
        "group_block": blocks,
        "encode_map": np.concatenate([np.eye(32, w, dtype=np.float32).ravel() for w in widths]),
        "query_map": np.empty(0, np.float32),
        "query_scale": np.ones(3, np.float32),
        "step": np.ones(96, np.float32),
        "levels": np.array([-1.5, -0.5, 0.5, 1.5, -0.5, 0.5, -0.5, 0.5], np.float32),
    }
    return {**good, **changes}


def test_groups_read_their_blocks() -> None:
    """With unit maps the code is the sign of every dim, wherever its group stands."""
    codec = _core.recurrent_codec(**parts())
    x = np.random.default_rng(4).choice([-0.5, 0.5], (70, 102)).astype(np.float32)
    x[:, 96:] = 0
    np.testing.assert_allclose(codec.decode(codec.encode(x, 1), 1), x, atol=1e-3)
    halved = _core.recurrent_codec(**parts(query_scale=np.full(3, 0.5, np.float32)))
    np.testing.assert_allclose(halved.decode(halved.encode(x, 1), 1), x / 2, atol=1e-3)
    for rows in (1, 5, 6, 7, 64, 65):
        np.testing.assert_array_equal(
            codec.decode(codec.encode(x[:rows], 1), 1), codec.decode(codec.encode(x, 2), 2)[:rows]
        )


def test_dims_are_cut_into_blocks() -> None:
    for dim in [1, 31, 32, 33, 65, 70, 96, 97, 2049, 2080, 4097, 10_240, 10_241, 65_536]:
        for most in (32, 64, 96, 512):
            blocks = blocks_of(dim, most)
            assert [b.start for b in blocks] == [i * blocks[0].stop for i in range(len(blocks))]
            assert blocks[-1].stop == dim
            assert all(a.stop == b.start and a.stop % 32 == 0 for a, b in itertools.pairwise(blocks))
            widths = [b.stop - b.start for b in blocks]
            assert max(widths) <= (most if dim > 2048 and most == 512 else most + 31)
            # Whole groups: as many as one block would have.
            assert sum(-(-w // 32) for w in widths) == -(-dim // 32)


@pytest.mark.parametrize(
    "changes",
    [
        {"group_block": np.array([3, 0, 1], np.uint16)},
        {"group_block": np.array([0, 0], np.uint16)},
        {"block_dims": 0},
        {"block_dims": 103},
        {"block_dims": 16},
        {"encode_map": np.ones(100, np.float32)},
        {"encode_map": np.full(102 * 32, np.nan, np.float32)},
        {"query_scale": np.ones(2, np.float32)},
        {"query_scale": np.full(3, np.inf, np.float32)},
        {"query_scale": np.empty(0, np.float32)},
        {"query_map": np.ones(102 * 32, np.float32)},
    ],
)
def test_bad_parts_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidValueError):
        _core.recurrent_codec(**parts(**changes))
