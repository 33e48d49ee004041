# SPDX-License-Identifier: Apache-2.0
"""Codecs on arrays that Hypothesis makes up: any shape, any finite values, any bits."""

from __future__ import annotations

import os
import tempfile

import ml_dtypes
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import residua as rz

METRICS = st.sampled_from(["cosine", "ip", "l2"])
FAST = settings(max_examples=150, deadline=None, derandomize=True)


@st.composite
def matrices(draw: st.DrawFn, max_rows: int = 40, limit: float = 1e6) -> np.ndarray:
    """Finite float32 rows, none of them zero."""
    shape = draw(st.tuples(st.integers(1, max_rows), st.integers(1, 70)))
    values = st.floats(-limit, limit, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6)
    if draw(st.booleans()):
        x = draw(hnp.arrays(np.float32, shape, elements=values))
    else:
        seed = draw(st.integers(0, 2**32))
        x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    x[~x.any(axis=1), 0] = 1
    return x


def round_trip(codec: rz.Codec) -> rz.Codec:
    handle, path = tempfile.mkstemp()
    os.close(handle)
    try:
        codec.save(path)
        return rz.load(path)
    finally:
        os.unlink(path)


@FAST
@given(x=matrices(), bits=st.floats(0.5, 8), metric=METRICS, aware=st.booleans(), seed=st.integers(0, 9))
def test_recurrent_codes(x: np.ndarray, bits: float, metric: str, aware: bool, seed: int) -> None:
    dim = x.shape[1]
    codec = rz.RecurrentBinaryCodec(dim, bits, query_aware=aware, seed=seed)
    promised = codec.code_bytes
    codec.fit(x, metric=metric)
    codes = codec.encode(x)
    assert codes.shape == (len(x), promised)
    decoded = codec.decode(codes)
    assert np.isfinite(decoded).all()
    assert np.isfinite(codec.scores(x, codes)).all()
    assert np.isfinite(codec.symmetric_scores(codes, codes)).all()
    loaded = round_trip(codec)
    assert loaded.fingerprint == codec.fingerprint
    np.testing.assert_array_equal(loaded.encode(x), codes)
    np.testing.assert_array_equal(loaded.decode(codes), decoded)


@FAST
@given(x=matrices(), bits=st.sampled_from([4, 8]), metric=METRICS, fitted=st.integers(1, 40))
def test_scalar_codes(x: np.ndarray, bits: int, metric: str, fitted: int) -> None:
    codec = rz.ScalarCodec(x.shape[1], bits)
    promised = codec.code_bytes
    codec.fit(x[:fitted], metric=metric)
    codes = codec.encode(x)
    assert codes.shape == (len(x), promised)
    decoded = codec.decode(codes)
    assert np.isfinite(decoded).all()
    assert np.isfinite(codec.scores(x, codes)).all()
    assert np.isfinite(codec.symmetric_scores(codes, codes)).all()
    loaded = round_trip(codec)
    assert loaded.fingerprint == codec.fingerprint
    np.testing.assert_array_equal(loaded.encode(x), codes)
    np.testing.assert_array_equal(loaded.decode(codes), decoded)
    # The scan behind the bound finds what scoring every code finds.
    index = rz.FlatIndex(x.shape[1], metric=metric, codec=codec, vectors="none")
    index.add(x)
    hits = index.search(x[:5], 3, rerank=False)
    scores = codec.scores(x[:5], codes) * (-1 if metric == "l2" else 1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    have = best.shape[1]
    found = np.take_along_axis(scores, hits.ids[:, :have], axis=1)
    np.testing.assert_array_equal(found, np.take_along_axis(scores, best, axis=1))


def enough_rows(x: np.ndarray, wanted: int) -> np.ndarray:
    """Repeat rows up to a number: k-means has fewer distinct rows than codewords then."""
    return np.resize(x, (max(wanted, len(x)), x.shape[1]))


@FAST
@given(
    x=matrices(limit=1e4),
    part=st.floats(0, 1),
    rotation=st.sampled_from(["none", "none", "opq"]),
    metric=METRICS,
)
def test_product_codes(x: np.ndarray, part: float, rotation: str, metric: str) -> None:
    dim = x.shape[1]
    codec = rz.PQCodec(dim, max(1, round(part * dim)), bits=4, rotation=rotation)
    promised = codec.code_bytes
    codec.fit(enough_rows(x, 16), metric=metric)
    codes = codec.encode(x)
    assert codes.shape == (len(x), promised)
    decoded = codec.decode(codes)
    assert np.isfinite(decoded).all()
    assert np.isfinite(codec.symmetric_scores(codes, codes)).all()
    loaded = round_trip(codec)
    assert loaded.fingerprint == codec.fingerprint
    np.testing.assert_array_equal(loaded.encode(x), codes)
    np.testing.assert_array_equal(loaded.decode(codes), decoded)
    # The scan behind the bound finds what scoring every code finds.
    index = rz.FlatIndex(dim, metric=metric, codec=codec, vectors="none")
    index.add(x)
    hits = index.search(x[:5], 3, rerank=False)
    scores = codec.scores(x[:5], codes) * (-1 if metric == "l2" else 1)
    best = -np.sort(-scores, axis=1)[:, :3]
    found = np.take_along_axis(scores, hits.ids[:, : best.shape[1]], axis=1)
    np.testing.assert_array_equal(found, best)


@settings(FAST, max_examples=30)
@given(x=matrices(max_rows=12, limit=1e4), metric=METRICS, columns=st.integers(1, 4))
def test_product_codes_of_bytes(x: np.ndarray, metric: str, columns: int) -> None:
    dim = x.shape[1]
    codec = rz.PQCodec(dim, min(dim, columns), bits=8).fit(enough_rows(x, 256), metric=metric)
    codes = codec.encode(x)
    # No more distinct rows than codewords: every row is one of them, up to rounding.
    wanted = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) if metric == "cosine" else x
    np.testing.assert_allclose(codec.decode(codes), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    index = rz.FlatIndex(dim, metric=metric, codec=codec, vectors="none")
    index.add(x)
    hits = index.search(x[:5], 3, rerank=False)
    scores = codec.scores(x[:5], codes) * (-1 if metric == "l2" else 1)
    best = -np.sort(-scores, axis=1)[:, :3]
    found = np.take_along_axis(scores, hits.ids[:, : best.shape[1]], axis=1)
    np.testing.assert_array_equal(found, best)


TABLE = rz.EmbeddingTable(
    np.random.default_rng(0).standard_normal((30, 5)).astype("f4"), rz.ScalarCodec(5, 4)
)
ROWS = TABLE[:]
INDEX = st.one_of(
    st.integers(-30, 29),
    st.slices(30),
    hnp.arrays(
        st.sampled_from([np.int8, np.int64]), hnp.array_shapes(max_dims=3), elements=st.integers(-30, 29)
    ),
    hnp.arrays(np.bool_, 30),
    st.lists(st.integers(-30, 29)),
)


@FAST
@given(ids=INDEX, threads=st.integers(1, 3))
def test_a_table_is_indexed_as_an_array(ids: object, threads: int) -> None:
    wanted = ROWS[np.asarray(ids, np.int64) if isinstance(ids, list) else ids]
    np.testing.assert_array_equal(TABLE[ids], wanted)
    np.testing.assert_array_equal(TABLE.take(ids, num_threads=threads), wanted)


@FAST
@given(x=matrices(), metric=METRICS)
def test_sign_codes(x: np.ndarray, metric: str) -> None:
    dim = x.shape[1]
    codec = rz.BinaryCodec(dim).fit(x, metric=metric)
    codes = codec.encode(x)
    np.testing.assert_array_equal(codes, np.packbits(x > 0, axis=1))
    hamming = ((x[:, None] > 0) != (x[None] > 0)).sum(axis=2)
    np.testing.assert_array_equal(codec.symmetric_scores(codes, codes), dim - 2 * hamming)
    np.testing.assert_array_equal(rz.hamming(codes, codes), hamming)
    assert round_trip(codec).fingerprint == codec.fingerprint


@FAST
@given(x=matrices(), part=st.floats(0, 1), rotation=st.sampled_from(["random", "itq"]), metric=METRICS)
def test_rotated_sign_codes(x: np.ndarray, part: float, rotation: str, metric: str) -> None:
    dim = x.shape[1]
    codec = rz.BinaryCodec(dim, max(1, round(part * dim)), rotation).fit(x, metric=metric)
    codes = codec.encode(x)
    assert np.isfinite(codec.decode(codes)).all()
    scores = codec.scores(x[:5], codes) * (-1 if metric == "l2" else 1)
    # The scan behind the bound finds what scoring every code finds.
    index = rz.FlatIndex(dim, metric=metric, codec=codec, vectors="none")
    index.add(x)
    hits = index.search(x[:5], 3, rerank=False)
    best = -np.sort(-scores, axis=1)[:, :3]
    found = np.take_along_axis(scores, hits.ids[:, : best.shape[1]], axis=1)
    np.testing.assert_array_equal(found, best)


@FAST
@given(x=matrices(limit=6e4), dtype=st.sampled_from(["float32", "float16", "bfloat16"]), metric=METRICS)
def test_float_codes(x: np.ndarray, dtype: str, metric: str) -> None:
    codec = rz.FloatCodec(x.shape[1], dtype).fit(x, metric=metric)
    codes = codec.encode(x)
    decoded = codec.decode(codes)
    wanted = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) if metric == "cosine" else x
    if dtype != "float32":
        half = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
        np.testing.assert_array_equal(decoded, decoded.astype(half).astype(np.float32))
        rtol, atol = (1e-3, 1e-7) if dtype == "float16" else (4e-3, 1e-12)
        np.testing.assert_allclose(decoded, wanted, rtol=rtol, atol=atol)
    else:
        np.testing.assert_allclose(decoded, wanted, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(round_trip(codec).encode(x), codes)


@FAST
@given(x=matrices(max_rows=60), k=st.integers(1, 80), metric=METRICS, threads=st.integers(1, 4))
def test_exact_search(x: np.ndarray, k: int, metric: str, threads: int) -> None:
    """Scores are right to float32 for the ids that stand with them, and no better row is missing."""
    q = x[:3]
    hits = rz.exact_search(q, x, k, metric=metric, num_threads=threads)
    a, b = q.astype(np.float64), x.astype(np.float64)
    if metric == "cosine":
        a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    scores = -((a[:, None] - b[None]) ** 2).sum(axis=2) if metric == "l2" else a @ b.T
    have = min(k, len(x))
    largest, each = np.linalg.norm(b, axis=1).max(), np.linalg.norm(a, axis=1)[:, None]
    size = ((each + largest) ** 2 if metric == "l2" else each * largest) + 1e-30
    got = hits.scores[:, :have] * (-1 if metric == "l2" else 1)
    ids = hits.ids[:, :have]
    assert all(len(set(row.tolist())) == have for row in ids)
    assert (np.abs(got - np.take_along_axis(scores, ids, axis=1)) <= 1e-5 * size).all()
    assert (
        np.abs(np.sort(got, axis=1)[:, ::-1] - np.sort(scores, axis=1)[:, ::-1][:, :have]) <= 1e-5 * size
    ).all()


@settings(FAST, max_examples=60)
@given(
    x=matrices(), books=st.integers(1, 4), beam=st.integers(1, 9), metric=METRICS, fitted=st.integers(1, 40)
)
def test_residual_codes(x: np.ndarray, books: int, beam: int, metric: str, fitted: int) -> None:
    codec = rz.ResidualCodec(x.shape[1], books, beam=beam).fit(x[:fitted], metric=metric)
    codes = codec.encode(x)
    assert codes.shape == (len(x), books + 1)
    decoded = codec.decode(codes)
    assert np.isfinite(decoded).all()
    assert np.isfinite(codec.scores(x, codes)).all()
    assert np.isfinite(codec.symmetric_scores(codes, codes)).all()
    np.testing.assert_array_equal(codec.encode(x[::-1]), codes[::-1])
    loaded = round_trip(codec)
    assert loaded.fingerprint == codec.fingerprint
    np.testing.assert_array_equal(loaded.encode(x), codes)
