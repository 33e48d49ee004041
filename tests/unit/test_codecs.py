# SPDX-License-Identifier: Apache-2.0
"""What every codec promises, in one suite over codecs, metrics and dims; then what each promises alone."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import residua as rz
from residua.errors import InvalidValueError, NotTrainedError

DIMS = (1, 2, 7, 31, 32, 33, 100, 384)
METRICS = ("cosine", "ip", "l2")
RECURRENT_BITS = (0.5, 1, 1.5, 2, 4, 8)
CODECS = {
    "float32": lambda dim: rz.FloatCodec(dim),
    "float16": lambda dim: rz.FloatCodec(dim, "float16"),
    "bfloat16": lambda dim: rz.FloatCodec(dim, "bfloat16"),
    "binary": lambda dim: rz.BinaryCodec(dim),
    "pq8": lambda dim: rz.PQCodec(dim, -(-dim // 4)),
    "pq4": lambda dim: rz.PQCodec(dim, -(-dim // 3), bits=4),
    "opq4": lambda dim: rz.PQCodec(dim, -(-dim // 2), bits=4, rotation="opq"),
    "scalar8": lambda dim: rz.ScalarCodec(dim, 8),
    "scalar4": lambda dim: rz.ScalarCodec(dim, 4),
    "residual": lambda dim: rz.ResidualCodec(dim, 3),
    **{f"rb{b:g}": lambda dim, b=b: rz.RecurrentBinaryCodec(dim, b) for b in RECURRENT_BITS},
}


def vectors(n: int, dim: int, seed: int) -> np.ndarray:
    """Rows with a mean, a few strong directions and noise in the others, as embeddings have."""
    base = np.random.default_rng(99)
    spread = 1 / np.sqrt(1 + np.arange(dim))
    turn = np.linalg.qr(base.standard_normal((dim, dim)))[0] if 1 < dim <= 400 else np.eye(dim)
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((n, dim)) * spread) @ turn.T + 0.1 * base.standard_normal(dim)
    return rows.astype(np.float32)


def sample(dim: int, name: str = "") -> np.ndarray:
    """Rows to fit to; few of them for large dims, where a fit on many takes seconds, but one per codeword."""
    return vectors(300 if dim <= 100 or name == "pq8" else 60, dim, 1)


def unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def exact(q: np.ndarray, x: np.ndarray, metric: str) -> np.ndarray:
    q, x = q.astype(np.float64), x.astype(np.float64)
    if metric == "l2":
        return ((q[:, None] - x[None]) ** 2).sum(axis=2)
    return unit(q) @ unit(x).T if metric == "cosine" else q @ x.T


@cache
def trained(name: str, dim: int, metric: str) -> tuple[rz.Codec, np.ndarray, np.ndarray, np.ndarray]:
    """A codec, 64 rows that it was not fitted to, 16 queries and the codes of the rows."""
    codec = CODECS[name](dim).fit(sample(dim, name), metric=metric)
    x, q = vectors(64, dim, 2), vectors(16, dim, 3)
    return codec, x, q, codec.encode(x)


suite = pytest.mark.parametrize(
    ("name", "dim", "metric"),
    [(c, d, m) for c in CODECS for d in DIMS for m in METRICS if d <= 100 or m == "cosine"],
)
large = pytest.mark.parametrize(
    ("name", "dim", "metric"),
    [(c, d, m) for c in ("float16", "binary", "scalar4", "scalar8", "residual", "rb2") for d, m in
     ((384, "l2"), (768, "ip"), (769, "l2"))] + [("rb0.5", 2048, "cosine")],
)  # fmt: skip


def check_conformance(name: str, dim: int, metric: str) -> None:
    codec, x, q, codes = trained(name, dim, metric)
    assert (codec.dim, codec.metric, codec.is_trained) == (dim, metric, True)
    assert codes.dtype == np.uint8
    assert codes.shape == (64, codec.code_bytes)
    one_by_one = np.concatenate([codec.encode(row[None]) for row in x])
    np.testing.assert_array_equal(one_by_one, codes)

    decoded = codec.decode(codes)
    assert decoded.dtype == np.float32
    assert decoded.shape == x.shape
    assert np.isfinite(decoded).all()
    np.testing.assert_array_equal(codec.decode(codes[5:6]), decoded[5:6])

    scores = codec.scores(q, codes)
    assert scores.dtype == np.float32
    assert scores.shape == (16, 64)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(codec.scores(q[3], codes), scores[3])
    np.testing.assert_array_equal(codec.scores(q, codes[7:40]), scores[:, 7:40])
    if metric == "l2":
        assert (scores >= 0).all()

    symmetric = codec.symmetric_scores(codes[:9], codes)
    assert symmetric.dtype == np.float32
    assert symmetric.shape == (9, 64)
    assert np.isfinite(symmetric).all()
    np.testing.assert_array_equal(codec.symmetric_scores(codes[4], codes), symmetric[4])


@suite
def test_conformance(name: str, dim: int, metric: str) -> None:
    check_conformance(name, dim, metric)


@large
def test_conformance_of_large_dims(name: str, dim: int, metric: str) -> None:
    check_conformance(name, dim, metric)


@suite
def test_saved_and_loaded(name: str, dim: int, metric: str, tmp_path: Path) -> None:
    codec, x, q, codes = trained(name, dim, metric)
    codec.save(tmp_path / "codec")
    loaded = rz.load(str(tmp_path / "codec"))
    assert type(loaded) is type(codec)
    assert repr(loaded) == repr(codec)
    assert (loaded.fingerprint, loaded.metric, loaded.dim) == (codec.fingerprint, metric, dim)
    assert loaded.code_bytes == codec.code_bytes
    np.testing.assert_array_equal(loaded.encode(x), codes)
    np.testing.assert_array_equal(loaded.decode(codes), codec.decode(codes))
    np.testing.assert_array_equal(loaded.scores(q, codes), codec.scores(q, codes))
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "codec").read_bytes()
    with pytest.raises(InvalidValueError, match="fitted already"):
        loaded.fit(x, metric=metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", DIMS)
def test_scores_of_float_and_sign_codes_are_the_metric_of_what_they_decode_to(dim: int, metric: str) -> None:
    for name, tolerance in [("float32", 1e-5), ("float16", 1e-5), ("bfloat16", 1e-5), ("binary", 0.02)]:
        codec, _, q, codes = trained(name, dim, metric)
        decoded = codec.decode(codes)
        queries = unit(q) if metric == "cosine" else q
        wanted = exact(queries, decoded, "ip" if metric == "cosine" else metric)
        size = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(decoded, axis=1)[None]
        if metric == "l2":
            size = 2 * size + wanted
        assert (np.abs(codec.scores(q, codes) - wanted) <= tolerance * size + 1e-6).all(), name


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", DIMS[:-1])
def test_recurrent_scores_miss_only_along_what_decoding_lost(dim: int, metric: str) -> None:
    """score - exact = <query - mean, decoded - vector>, twice that for l2, and the query's own rounding."""
    for bits in RECURRENT_BITS:
        codec, x, q, codes = trained(f"rb{bits:g}", dim, metric)
        rows, queries, fitted = x, q, sample(dim)
        if metric == "cosine":
            rows, queries, fitted = unit(x), unit(q), unit(fitted)
        away = queries - fitted.mean(axis=0)
        factor = -2 if metric == "l2" else 1
        scores = codec.scores(q, codes)
        missed = scores - exact(q, x, metric)
        predicted = factor * away @ (codec.decode(codes) - rows).T
        size = abs(factor) * np.linalg.norm(away, axis=1).max() * np.linalg.norm(rows, axis=1).max()
        raised = (scores == 0) & (metric == "l2")  # a squared distance is never below 0
        # Decoding puts the mean of a level in place of its middle: with few dims that shows.
        assert np.abs(missed - predicted)[~raised].max() <= (0.03 if dim > 7 else 0.13) * size, bits


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [64, 96, 100])
def test_more_bits_lose_less(dim: int, metric: str) -> None:
    errors, correlations, symmetric = [], [], []
    for bits in RECURRENT_BITS:
        codec, x, q, codes = trained(f"rb{bits:g}", dim, metric)
        rows = unit(x) if metric == "cosine" else x
        errors.append(float(((codec.decode(codes) - rows) ** 2).mean()))
        wanted = exact(q, x, metric)
        correlations.append(np.corrcoef(codec.scores(q, codes).ravel(), wanted.ravel())[0, 1])
        among = exact(x, x, metric)
        symmetric.append(np.corrcoef(codec.symmetric_scores(codes, codes).ravel(), among.ravel())[0, 1])
    assert all(b < a for a, b in itertools.pairwise(errors)), errors
    for found, wanted in zip(correlations, (0.6, 0.8, 0.88, 0.94, 0.99, 0.9995), strict=True):
        assert found > wanted, correlations
    for found, wanted in zip(symmetric, (0.5, 0.7, 0.8, 0.9, 0.98, 0.999), strict=True):
        assert found > wanted, symmetric


@pytest.mark.parametrize("dim", DIMS[:-1])
def test_eight_bits_are_nearly_exact(dim: int) -> None:
    for metric in METRICS:
        codec, x, q, codes = trained("rb8", dim, metric)
        rows, queries = (unit(x), unit(q)) if metric == "cosine" else (x, q)
        size = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(rows, axis=1)[None]
        missed = codec.scores(q, codes) - exact(q, x, metric)
        if metric == "l2":
            size = 2 * size + exact(q, x, "l2")
        # Rows beyond the range of the sample are cut off: the few that are may miss by more.
        assert np.sqrt((missed**2).mean() / (size**2).mean()) <= 0.015, metric
        assert np.quantile(np.abs(missed) / size, 0.95) <= 0.02, metric


@pytest.mark.parametrize("dim", [*DIMS, 2048])
def test_sign_codes_are_packbits_row_by_row(dim: int) -> None:
    x = np.random.default_rng(dim).standard_normal((33, dim)).astype(np.float32)
    x[::3, :: max(1, dim // 5)] = 0.0
    x[1, 0] = -0.0
    x[:, -1] += x.sum(axis=1) == 0
    x[~x.any(axis=1), 0] = 1.0
    codec = rz.BinaryCodec(dim)
    codes = codec.encode(x)
    np.testing.assert_array_equal(codes, np.packbits(x > 0, axis=1))
    assert codec.code_bytes == (dim + 7) // 8
    bits = np.unpackbits(codes, axis=1)[:, :dim].astype(np.int32)
    hamming = (bits[:, None] != bits[None]).sum(axis=2)
    np.testing.assert_array_equal(rz.hamming(codes, codes), hamming)
    np.testing.assert_array_equal(rz.hamming(codes[2], codes), hamming[2])
    assert rz.hamming(codes, codes).dtype == np.int32
    for metric in METRICS:
        fitted = rz.BinaryCodec(dim).fit(x, metric=metric)
        np.testing.assert_array_equal(fitted.symmetric_scores(codes, codes), dim - 2 * hamming)
    np.testing.assert_array_equal(np.sign(codec.decode(codes)), 2.0 * bits - 1)


@pytest.mark.parametrize("dim", DIMS)
def test_float_codes_decode_to_the_vectors(dim: int) -> None:
    for metric in METRICS:
        for name, tolerance in [("float32", 2e-7), ("float16", 1e-3), ("bfloat16", 4e-3)]:
            codec, x, _, codes = trained(name, dim, metric)
            wanted = unit(x) if metric == "cosine" else x
            np.testing.assert_allclose(codec.decode(codes), wanted, rtol=tolerance, atol=tolerance / 10)
            assert codec.code_bytes == dim * (4 if name == "float32" else 2)
        if metric != "cosine":
            codec, x, _, codes = trained("float32", dim, metric)
            np.testing.assert_array_equal(codec.decode(codes), x)


@pytest.mark.parametrize("dim", [*DIMS, 768, 769, 1024, 2048])
@pytest.mark.parametrize("bits", [0.5, 0.75, 1, 1.3, 2, 3, 4, 5.5, 8])
def test_bytes_of_recurrent_codes(dim: int, bits: float) -> None:
    """Whole groups of 32 dims at whole bits, and 6 bytes of scalars."""
    codec = rz.RecurrentBinaryCodec(dim, bits)
    assert (codec.code_bytes - 6) % 4 == 0
    assert dim * bits / 8 <= codec.code_bytes - 6 < dim * bits / 8 + 4 * (bits + 1)
    if dim % 32 == 0 and (dim * bits) % 32 == 0:
        assert codec.code_bytes == dim * bits / 8 + 6


def test_codes_have_the_bytes_that_were_promised() -> None:
    for dim in DIMS:
        for bits in RECURRENT_BITS:
            promised = rz.RecurrentBinaryCodec(dim, bits).code_bytes
            codec, _, _, codes = trained(f"rb{bits:g}", dim, "cosine")
            assert codes.shape[1] == codec.code_bytes == promised


@pytest.mark.parametrize("name", CODECS)
def test_a_second_fit_is_an_error(name: str) -> None:
    x = vectors(300, 33, 4)
    codec = CODECS[name](33)
    assert codec.fit(x, metric="ip") is codec
    before = codec.fingerprint
    for metric in METRICS:
        with pytest.raises(InvalidValueError, match="fitted"):
            codec.fit(x, metric=metric)
    assert (codec.fingerprint, codec.metric) == (before, "ip")


@pytest.mark.parametrize("name", ["rb2", "scalar4", "residual"])
def test_an_untrained_codec_says_so(name: str, tmp_path: Path) -> None:
    codec = CODECS[name](33)
    x = vectors(3, 33, 5)
    codes = np.zeros((3, codec.code_bytes), np.uint8)
    assert not codec.is_trained
    assert "not trained" in repr(codec)
    for call in (
        lambda: codec.encode(x),
        lambda: codec.decode(codes),
        lambda: codec.scores(x, codes),
        lambda: codec.symmetric_scores(codes, codes),
        lambda: codec.save(tmp_path / "x"),
        lambda: codec.fingerprint,
        lambda: codec.metric,
    ):
        with pytest.raises(NotTrainedError, match=r"not trained.*fit\(x\)") as caught:
            call()
        assert isinstance(caught.value, (RuntimeError, rz.errors.ResiduaError))
    assert list(tmp_path.iterdir()) == []


DEGENERATE = {
    "one row": lambda d: vectors(1, d, 6),
    "two rows": lambda d: vectors(2, d, 6),
    "one row many times": lambda d: np.repeat(vectors(1, d, 6), 70, axis=0),
    "few rows many times": lambda d: np.tile(vectors(3, d, 6), (40, 1)),
    "constant dims": lambda d: np.where(np.arange(d) % 3 == 0, vectors(90, d, 6), 0.25).astype("f4"),
    "one dim varies": lambda d: np.where(np.arange(d) == d // 2, vectors(90, d, 6), 1).astype("f4"),
    "rank 2": lambda d: (np.random.default_rng(6).standard_normal((90, 2)) @ vectors(2, d, 6)).astype("f4"),
    "fewer rows than dims": lambda d: vectors(max(1, d // 3), d, 6),
    "heavy tails": lambda d: np.random.default_rng(6).standard_t(1.2, (300, d)).astype("f4"),
    "one outlier": lambda d: np.concatenate([vectors(200, d, 6), 1e6 * vectors(1, d, 7)]),
    "opposite pairs": lambda d: np.concatenate([vectors(50, d, 6), -vectors(50, d, 6)]),
    "tiny": lambda d: 1e-18 * vectors(90, d, 6),
    "large": lambda d: 1e15 * vectors(90, d, 6),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("name", ["binary", "scalar4", "scalar8", "residual", "rb0.5", "rb1.5", "rb4", "rb8"])
def test_degenerate_data(name: str, kind: str, metric: str, tmp_path: Path) -> None:
    for dim in (1, 7, 65):
        x = DEGENERATE[kind](dim)
        codec = CODECS[name](dim).fit(x, metric=metric)
        codes = codec.encode(x)
        decoded = codec.decode(codes)
        assert np.isfinite(decoded).all()
        assert np.isfinite(codec.scores(x[:5], codes)).all()
        assert np.isfinite(codec.symmetric_scores(codes[:5], codes)).all()
        if name in ("rb8", "scalar8") and kind not in ("heavy tails", "one outlier"):
            wanted = unit(x) if metric == "cosine" else x
            assert np.abs(decoded - wanted).max() <= 0.05 * np.abs(wanted).max()
        other = vectors(4, dim, 8)  # nothing like the sample
        assert np.isfinite(codec.decode(codec.encode(other))).all()
        codec.save(tmp_path / "codec")
        loaded = rz.load(tmp_path / "codec")
        np.testing.assert_array_equal(loaded.encode(x), codes)
        assert loaded.fingerprint == codec.fingerprint


def test_zero_rows_where_they_have_a_meaning() -> None:
    x = vectors(60, 40, 9)
    x[7] = 0
    for metric in ("ip", "l2"):
        for name in CODECS:
            codec = CODECS[name](40).fit(x, metric=metric)
            codes = codec.encode(x)
            assert np.isfinite(codec.decode(codes)).all()
            assert np.isfinite(codec.scores(x, codes)).all()


def test_a_fit_is_reproducible() -> None:
    x, q = vectors(700, 70, 10), vectors(90, 70, 11)
    prints = {
        rz.RecurrentBinaryCodec(70, 1.5, seed=seed).fit(x, queries=q, num_threads=threads).fingerprint
        for seed in (4,)
        for threads in (1, 2, 3, None)
    }
    assert len(prints) == 1
    other = rz.RecurrentBinaryCodec(70, 1.5, seed=5).fit(x, queries=q)
    assert other.fingerprint not in prints


def test_queries_at_fit_shape_the_code() -> None:
    """Queries that spread along a few dims only: a code that knows them ranks better."""
    rng = np.random.default_rng(12)
    x = rng.standard_normal((2000, 64)).astype(np.float32)
    spread = np.where(np.arange(64) < 8, 1.0, 0.02)
    sample, asked = (rng.standard_normal((2, 300, 64)) * spread).astype(np.float32)
    truth = rz.exact_search(asked, x, 10, metric="ip").ids
    found = {}
    for given in (None, sample):
        codec = rz.RecurrentBinaryCodec(64, 1).fit(x, queries=given, metric="ip")
        order = np.argsort(-codec.scores(asked, codec.encode(x)), axis=1)[:, :10]
        found[given is None] = rz.recall(order, truth)
    assert found[False] > found[True] + 0.1


def test_a_fingerprint_tells_codecs_apart() -> None:
    x = vectors(200, 33, 13)
    codecs = [
        *(rz.FloatCodec(33, t).fit(x, metric=m) for t in ("float32", "float16", "bfloat16") for m in METRICS),
        *(rz.BinaryCodec(33).fit(x, metric=m) for m in METRICS),
        *(rz.RecurrentBinaryCodec(33, b).fit(x, metric=m) for b in (1, 2) for m in METRICS),
        rz.RecurrentBinaryCodec(33, 1).fit(x[:150]),
        *(rz.ScalarCodec(33, b).fit(x, metric=m) for b in (4, 8) for m in METRICS),
        *(rz.ResidualCodec(33, 2).fit(x, metric=m) for m in METRICS),
        rz.FloatCodec(34),
        rz.BinaryCodec(34),
    ]
    prints = [c.fingerprint for c in codecs]
    assert len(set(prints)) == len(prints)
    assert all(len(p) == 16 and int(p, 16) >= 0 for p in prints)


def test_empty_batches() -> None:
    for name in CODECS:
        codec, x, q, codes = trained(name, 33, "cosine")
        assert codec.encode(x[:0]).shape == (0, codec.code_bytes)
        assert codec.decode(codes[:0]).shape == (0, 33)
        assert codec.scores(q[:0], codes).shape == (0, 64)
        assert codec.scores(q, codes[:0]).shape == (16, 0)
        assert codec.symmetric_scores(codes[:0], codes).shape == (0, 64)


def test_progress_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    x, seen = vectors(400, 33, 14), []
    rz.RecurrentBinaryCodec(33, 1).fit(x, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    rz.RecurrentBinaryCodec(33, 1).fit(x)
    out, err = capfd.readouterr()
    assert out == err == ""
    rz.RecurrentBinaryCodec(33, 1).fit(x, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "100 %" in err
