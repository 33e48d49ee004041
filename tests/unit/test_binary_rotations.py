# SPDX-License-Identifier: Apache-2.0
"""Sign codes of fewer bits than dims and behind rotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import residua as rz
from residua import _core
from residua.errors import InvalidTypeError, InvalidValueError, NotTrainedError, UnsupportedError

METRICS = ("cosine", "ip", "l2")
SHAPES = [(40, None), (40, 17), (33, 33), (100, 64), (1, 1), (2100, None), (2100, 70)]


def vectors(n: int, dim: int, seed: int) -> np.ndarray:
    spread = 1 / np.sqrt(1 + np.arange(dim))
    return (np.random.default_rng(seed).standard_normal((n, dim)) * spread + 0.2).astype(np.float32)


def as_metric(x: np.ndarray, metric: str) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True) if metric == "cosine" else x


def check(codec: rz.BinaryCodec, dim: int, metric: str, path: Path) -> None:
    """Scores are the metric of queries and decoded codes, symmetric ones count bits; files keep all."""
    x, q = vectors(70, dim, 2), vectors(5, dim, 3)
    codes = codec.encode(x)
    assert codes.shape == (70, codec.code_bytes) == (70, (codec.bits + 7) // 8)
    np.testing.assert_array_equal(np.concatenate([codec.encode(row[None]) for row in x]), codes)
    assert not np.unpackbits(codes, axis=1)[:, codec.bits :].any()
    decoded, asked = codec.decode(codes).astype(np.float64), as_metric(q, metric)
    wanted = ((asked[:, None] - decoded[None]) ** 2).sum(axis=2) if metric == "l2" else asked @ decoded.T
    size = np.linalg.norm(asked, axis=1).max() * np.linalg.norm(decoded, axis=1).max() + np.abs(wanted).max()
    assert np.abs(codec.scores(q, codes) - wanted).max() <= (1e-3 if metric == "cosine" else 2e-3 * size)
    if metric == "cosine":
        np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(
        codec.symmetric_scores(codes[:3], codes), codec.bits - 2 * rz.hamming(codes[:3], codes)
    )
    codec.save(path)
    loaded = rz.load(path)
    assert (loaded.fingerprint, loaded.bits, loaded.rotation) == (
        codec.fingerprint,
        codec.bits,
        codec.rotation,
    )
    np.testing.assert_array_equal(loaded.encode(x), codes)
    np.testing.assert_array_equal(loaded.decode(codes), decoded)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("rotation", "dim", "bits"),
    [(r, d, b) for r in ("none", "random", "itq") for d, b in SHAPES if r != "itq" or d <= 2048],
)
def test_conformance(rotation: str, dim: int, bits: int | None, metric: str, tmp_path: Path) -> None:
    codec = rz.BinaryCodec(dim, bits, rotation)
    promised = codec.code_bytes
    codec.fit(vectors(90, dim, 1), metric=metric)
    assert (codec.code_bytes, codec.bits, codec.rotation) == (promised, bits or dim, rotation)
    check(codec, dim, metric, tmp_path / "codec")


def test_fewer_bits_are_the_first_dims() -> None:
    x = vectors(20, 50, 1) - 0.2
    for bits in (1, 8, 13, 50):
        codes = rz.BinaryCodec(50, bits).encode(x)
        np.testing.assert_array_equal(codes, np.packbits(x[:, :bits] > 0, axis=1))


@pytest.mark.parametrize("rotation", ["random", "itq"])
@pytest.mark.parametrize(("dim", "bits"), [(64, 64), (70, 70), (70, 40)])
def test_rotations_have_orthonormal_rows(rotation: str, dim: int, bits: int) -> None:
    """Decoded codes lie one amplitude per bit away from the mean, whatever the code."""
    x = vectors(300, dim, 1)
    codec = rz.BinaryCodec(dim, bits, rotation).fit(x, metric="ip")
    away = codec.decode(codec.encode(x)) - x.mean(axis=0)
    size = np.linalg.norm(away, axis=1)
    assert np.ptp(size) < 1e-4 * size[0]
    assert np.linalg.matrix_rank(away, tol=1e-3) == bits


def test_itq_beats_random_which_beats_raw_signs_of_shifted_data() -> None:
    rng = np.random.default_rng(7)
    x = (rng.standard_normal((4000, 32)) @ rng.standard_normal((32, 96)) + 8).astype(np.float32)
    q = x[:200] + 0.5 * rng.standard_normal((200, 96)).astype(np.float32)
    truth = rz.exact_search(q, x, 10, metric="l2").ids
    found = {}
    for rotation in ("none", "random", "itq"):
        codec = rz.BinaryCodec(96, 32, rotation).fit(x, metric="l2")
        near = np.argsort(-codec.symmetric_scores(codec.encode(q), codec.encode(x)), axis=1, kind="stable")
        found[rotation] = rz.recall(near[:, :10], truth)
    assert found["itq"] > found["random"] + 0.02
    assert found["random"] > found["none"] + 0.02


def pixels(n: int, seed: int) -> np.ndarray:
    """Clusters of rows without negative values, whose mean is longer than what is left of them."""
    rng = np.random.default_rng(seed)
    parts = np.random.default_rng(99).gamma(0.3, size=(60, 144))
    return (rng.gamma(0.3, size=(n, 60)) @ parts).astype(np.float32)


@pytest.mark.parametrize("bits", [70, 128, 144])
@pytest.mark.parametrize("rotation", ["random", "itq"])
def test_a_large_mean_leaves_asymmetric_scores_the_better_ones(rotation: str, bits: int) -> None:
    x, q = pixels(4000, 1), pixels(150, 2)
    truth = rz.exact_search(q, x, 10).ids
    index = rz.FlatIndex(144, codec=rz.BinaryCodec(144, bits, rotation), vectors="none")
    index.add(x)
    symmetric, asymmetric = (
        rz.recall(index.search(q, 10, scoring=s).ids, truth) for s in ("symmetric", "asymmetric")
    )
    assert asymmetric > symmetric + 0.02


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bits", [5, 32, 61])
def test_a_prefix_of_signs_scores_as_a_shorter_code(bits: int, metric: str) -> None:
    dim, keep = 96, 40
    rows = np.linalg.qr(np.random.default_rng(5).standard_normal((dim, dim)))[0].astype(np.float32)
    x, q = pixels(600, 3)[:, :dim], pixels(9, 4)[:, :dim]
    x, q = as_metric(x, "cosine").astype(np.float32), as_metric(q, "cosine").astype(np.float32)

    def made(count: int) -> rz.BinaryCodec:
        codec = rz.BinaryCodec(dim, count, "random")
        groups = -(-count // 32)
        codec._native = _core.rotated_binary_codec(
            dim,
            count,
            metric,
            "random",
            dim,
            np.zeros(groups, np.uint16),
            rows[: 32 * groups].ravel(),
            x.mean(axis=0),
            0.04,
        )
        return codec

    index = rz.FlatIndex(dim, metric=metric, codec=made(dim), vectors="none")
    index.add(x)
    chosen = index.search(q, keep, funnel=[(bits, keep)]).ids
    short = made(bits)
    scores = short.scores(q, short.encode(x)) * (-1 if metric == "l2" else 1)
    limit = np.sort(scores, axis=1)[:, -keep]
    assert (np.take_along_axis(scores, chosen, axis=1) >= limit[:, None] - 1e-5).all()


@pytest.mark.parametrize("rotation", ["random", "itq"])
def test_degenerate_data(rotation: str) -> None:
    cases = [
        vectors(1, 40, 1),
        np.repeat(vectors(1, 40, 1), 9, axis=0),
        1e-18 * vectors(30, 40, 1),
        1e15 * vectors(30, 40, 1),
    ]
    for x in cases:
        for metric in METRICS:
            codec = rz.BinaryCodec(40, 24, rotation).fit(x, metric=metric)
            codes = codec.encode(vectors(6, 40, 2))
            assert np.isfinite(codec.decode(codes)).all()
            assert np.isfinite(codec.scores(x, codes)).all()


@pytest.mark.parametrize("rotation", ["random", "itq"])
def test_a_fit_is_reproducible(rotation: str) -> None:
    x = vectors(500, 48, 1)
    prints = [
        rz.BinaryCodec(48, rotation=rotation, seed=s).fit(x, num_threads=t).fingerprint
        for s, t in ((1, 1), (1, 3), (2, 1))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_an_index_trains_a_rotation(tmp_path: Path) -> None:
    index = rz.FlatIndex(40, codec=rz.BinaryCodec(40, 24, "itq", seed=3))
    index.save(tmp_path / "waiting")
    x = vectors(2000, 40, 1)
    for waiting in (index, rz.load(tmp_path / "waiting")):
        assert not waiting.codec.is_trained
        waiting.train(x)
        waiting.add(x)
        assert (waiting.codec.bits, waiting.codec.rotation) == (24, "itq")
        assert (waiting.search(x[:50], 1).ids[:, 0] == np.arange(50)).mean() > 0.95


def test_rotations_need_a_fit_once() -> None:
    codec = rz.BinaryCodec(8, rotation="random")
    assert not codec.is_trained
    with pytest.raises(NotTrainedError):
        codec.encode(vectors(2, 8, 1))
    with pytest.raises(InvalidValueError, match="at least 1 vector"):
        codec.fit(np.empty((0, 8), np.float32))
    with pytest.raises(InvalidValueError, match="queries: row 1 is a zero vector"):
        codec.fit(vectors(9, 8, 1), queries=np.eye(3, 8, 1) * [[1], [0], [1]])
    seen: list[tuple[int, int]] = []
    codec.fit(vectors(9, 8, 1), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0
    with pytest.raises(InvalidValueError, match="fitted already"):
        codec.fit(vectors(9, 8, 1))


def test_bad_arguments() -> None:
    for bits in (0, -1, 9):
        with pytest.raises(InvalidValueError, match="bits"):
            rz.BinaryCodec(8, bits)
    with pytest.raises(InvalidTypeError, match="bits"):
        rz.BinaryCodec(8, 4.0)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="rotation"):
        rz.BinaryCodec(8, rotation="pca")  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="random"):
        rz.BinaryCodec(2049, rotation="itq")


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": 0},
        {"bits": 41},
        {"rotation": "other"},
        {"amplitude": 0.0},
        {"amplitude": np.inf},
        {"center": np.zeros(39, np.float32)},
        {"center": np.full(40, np.nan, np.float32)},
        {"map": np.zeros(40 * 32, np.float32)},
        {"map": np.full(40 * 64, np.nan, np.float32)},
        {"group_block": np.array([0, 1], np.uint16)},
        {"block_dims": 0},
    ],
)
def test_bad_parts_are_refused(changes: dict[str, object]) -> None:
    good: dict[str, object] = {
        "dim": 40,
        "bits": 40,
        "metric": "ip",
        "rotation": "random",
        "block_dims": 40,
        "group_block": np.zeros(2, np.uint16),
        "map": np.eye(64, 40, dtype=np.float32).ravel(),
        "center": np.zeros(40, np.float32),
        "amplitude": 1.0,
    }
    _core.rotated_binary_codec(**good)
    with pytest.raises(InvalidValueError):
        _core.rotated_binary_codec(**{**good, **changes})
