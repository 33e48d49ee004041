# SPDX-License-Identifier: Apache-2.0
"""ScalarCodec: what only it promises. What all codecs promise stands in test_codecs.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import residua as rz
from residua import _core
from residua.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError

METRICS = ("cosine", "ip", "l2")


def vectors(n: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = np.random.default_rng(7).uniform(0.2, 2, dim)
    return (rng.standard_normal((n, dim)) * spread + spread).astype(np.float32)


def plain(x: np.ndarray, bits: int) -> np.ndarray:
    """Rounding to equal levels between the smallest and the largest value of every dim."""
    low, high = x.min(axis=0), x.max(axis=0)
    step = np.maximum(high - low, 1e-6) / (2**bits - 1)
    return low + step * np.rint((x - low) / step)


@pytest.mark.parametrize("dim", [1, 2, 7, 8, 9, 31, 384, 769])
def test_bytes(dim: int) -> None:
    for bits in (8, 4):
        codec = rz.ScalarCodec(dim, bits)
        assert dim * bits / 8 <= codec.code_bytes - 8 < dim * bits / 8 + 4
        assert codec.fit(vectors(20, dim)).code_bytes == codec.code_bytes
        assert codec.encode(vectors(3, dim)).shape == (3, codec.code_bytes)
    assert rz.ScalarCodec(384, 8).code_bytes == 392
    assert rz.ScalarCodec(384, 4).code_bytes == 200


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bits", [8, 4])
def test_recall_on_the_sample_beats_plain_rounding(bits: int, metric: str) -> None:
    sample = rz.datasets.load_sample()
    x = sample.documents.astype("f4") * np.float32(1 if metric == "cosine" else 3)
    codec = rz.ScalarCodec(384, bits).fit(x, metric=metric)
    assert codec.ranges == "per vector"
    index = rz.FlatIndex(384, metric=metric, codec=codec, vectors="none")
    index.add(x)
    truth = rz.exact_search(sample.queries, x, 10, metric=metric).ids
    found = rz.recall(index.search(sample.queries, 10, rerank=False).ids, truth)
    rounded = rz.exact_search(sample.queries, plain(x, bits).astype("f4"), 10, metric=metric).ids
    assert found >= rz.recall(rounded, truth) + (-0.001 if bits == 8 else 0.005)
    assert found >= (0.993 if bits == 8 else 0.925)
    symmetric = rz.recall(index.search(sample.queries, 10, rerank=False, scoring="symmetric").ids, truth)
    assert symmetric >= (0.992 if bits == 8 else 0.905)


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_whole_numbers_are_kept_exactly(metric: str) -> None:
    x = np.random.default_rng(1).integers(0, 256, (3000, 40)).astype(np.float32)
    x[:, 5] = 17
    x[:, 6] = np.minimum(x[:, 6], 200)
    codec = rz.ScalarCodec(40, 8).fit(x, metric=metric)
    assert codec.ranges == "per dimension"
    np.testing.assert_allclose(codec.decode(codec.encode(x)), x, atol=1e-3)


def test_values_beyond_the_sample_saturate() -> None:
    x = np.random.default_rng(2).integers(0, 16, (500, 24)).astype(np.float32)
    codec = rz.ScalarCodec(24, 4).fit(x, metric="ip")
    assert codec.ranges == "per dimension"
    far = x[:1].copy()
    far[0, 3] = 1e4
    code = codec.encode(far)
    levels = np.stack([code[0, :12] & 15, code[0, :12] >> 4], axis=1).ravel()
    assert levels[3] == 15
    wide = rz.ScalarCodec(24, 8).fit(vectors(500, 24), metric="l2")
    big = 1000 * vectors(5, 24, seed=3)
    if wide.ranges == "per vector":  # the range follows the vector
        assert np.abs(wide.decode(wide.encode(big)) - big).max() <= 0.02 * np.abs(big).max()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("metric", METRICS)
def test_scores_are_those_of_the_decoded_vectors(bits: int, metric: str) -> None:
    """Up to what is known exactly of the vector: score - exact = <query - mean, decoded - vector>."""
    x, q = vectors(500, 50), vectors(20, 50, seed=4)
    codec = rz.ScalarCodec(50, bits).fit(x, metric=metric)
    rows, queries = x[:80].astype("f8"), q.astype("f8")
    if metric == "cosine":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    codes = codec.encode(rows.astype("f4"))
    missed = (queries - x.mean(axis=0)) @ (codec.decode(codes) - rows).T
    wanted = queries @ rows.T + missed
    if metric == "l2":
        wanted = ((queries[:, None] - rows[None]) ** 2).sum(axis=2) - 2 * missed
    np.testing.assert_allclose(codec.scores(q, codes), wanted, rtol=2e-4, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("bits", [8, 4])
def test_many_dims(bits: int) -> None:
    x = vectors(40, 65_536)
    codec = rz.ScalarCodec(65_536, bits).fit(x, metric="ip")
    scores = codec.scores(x[:3], codec.encode(x))
    exact = x[:3].astype("f8") @ x.T.astype("f8")
    assert np.corrcoef(scores.ravel(), exact.ravel())[0, 1] > 0.999


def test_a_search_equals_scoring_every_code(isa: str) -> None:
    """The bound drops no row, whatever the filter, the number of queries, of results or of threads."""
    assert isa in _core.kernels.available()
    x, q = vectors(2000, 33), vectors(9, 33, seed=5)
    x[100:140] = x[7]  # ties
    for bits in (8, 4):
        for metric in METRICS:
            index = rz.FlatIndex(
                33, metric=metric, codec=rz.ScalarCodec(33, bits).fit(x, metric=metric), vectors="none"
            )
            index.add(x)
            scores = index.codec.scores(q, index.codec.encode(x)) * (-1 if metric == "l2" else 1)
            keep = np.random.default_rng(6).random(2000) < 0.1
            for mask in (None, keep):
                allowed = np.arange(2000) if mask is None else np.flatnonzero(mask)
                for k in (1, 10, 300):
                    part = scores[:, allowed]
                    ids = allowed[np.argsort(-part, axis=1, kind="stable")[:, :k]]
                    for threads in (1, 2):
                        hits = index.search(q, k, rerank=False, filter=mask, num_threads=threads)
                        have = min(k, len(allowed))
                        np.testing.assert_array_equal(hits.ids[:, :have], ids)


def test_a_fit_does_not_depend_on_threads() -> None:
    x, q = vectors(3000, 30), vectors(200, 30, seed=8)
    prints = {
        rz.ScalarCodec(30, 4, seed=3).fit(x, queries=q, metric="ip", num_threads=t).fingerprint
        for t in (1, 2, 4)
    }
    assert len(prints) == 1
    assert rz.ScalarCodec(30, 4).fit(x, metric="ip").fingerprint not in prints  # without the queries' mean


def test_queries_at_fit_centre_the_estimate() -> None:
    """Queries far from the vectors: what is known of their mean is not estimated."""
    x = vectors(2000, 64)
    q = vectors(300, 64, seed=9) + 20
    errors = []
    for given in (None, q[:150]):
        codec = rz.ScalarCodec(64, 4).fit(x, queries=given, metric="ip")
        scores = codec.scores(q[150:], codec.encode(x))
        errors.append(np.abs(scores - q[150:] @ x.T).mean())
    assert errors[1] < errors[0] / 3


def test_an_index_waits_for_its_codec(tmp_path: Path) -> None:
    index = rz.FlatIndex(12, codec=rz.ScalarCodec(12, 4, seed=5), metric="l2")
    index.add(vectors(100, 12))
    index.save(tmp_path / "waits")
    loaded = rz.load(tmp_path / "waits")
    assert not loaded.codec.is_trained
    for i in (index, loaded):
        i.add(vectors(200, 12, seed=1))
        assert i.codec.is_trained
    assert loaded.codec.fingerprint == index.codec.fingerprint
    assert repr(loaded.codec) == "ScalarCodec(dim=12, bits=4, 16 bytes/vector, l2)"
    hits = index.search(vectors(5, 12, seed=2), 10)
    exact = rz.exact_search(
        vectors(5, 12, seed=2), np.concatenate([vectors(100, 12), vectors(200, 12, seed=1)]), 10, metric="l2"
    )
    assert rz.recall(hits.ids, exact.ids) == 1.0
    assert hits.stats["plan"] == "codes+rerank"


def test_refused() -> None:
    wrong = [(2, InvalidValueError), (5, InvalidValueError), (16, InvalidValueError)]
    wrong += [(8.0, InvalidTypeError), ("8", InvalidTypeError), (True, InvalidTypeError)]
    for bits, error in wrong:
        with pytest.raises(error, match="bits must be"):
            rz.ScalarCodec(4, bits)
    codec = rz.ScalarCodec(4)
    for bad, error in (
        (vectors(3, 5), ShapeError),
        (np.zeros((0, 4), "f4"), InvalidValueError),
        (np.full((2, 4), np.nan, "f4"), NonFiniteError),
        (np.zeros((2, 4), "f4"), InvalidValueError),  # no cosine
    ):
        with pytest.raises(error):
            codec.fit(bad)
        assert not codec.is_trained
    with pytest.raises(InvalidValueError, match="metric"):
        codec.fit(vectors(3, 4), metric="l1")
    with pytest.raises(ShapeError):
        codec.fit(vectors(3, 4), queries=vectors(3, 5))
    codec.fit(vectors(3, 4))
    with pytest.raises(ShapeError, match=r"\(n, 12\)"):
        codec.decode(np.zeros((1, 4), np.uint8))
    with pytest.raises(NonFiniteError, match="row 1"):
        codec.encode(np.array([[1, 2, 3, 4], [1, np.inf, 3, 4]], "f4"))
