# SPDX-License-Identifier: Apache-2.0
"""Queries of a new model against codes of an old one: maps, scores, indexes, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import residua as rz
from residua import _core

Matrix = np.ndarray[Any, Any]
N_DOCS, DIM = 2000, 128


@pytest.fixture(scope="module")
def x() -> Matrix:
    return np.asarray(rz.datasets.load_sample().documents[:N_DOCS, :DIM], dtype=np.float32)


@pytest.fixture(scope="module")
def q() -> Matrix:
    return np.asarray(rz.datasets.load_sample().queries[:150, :DIM], dtype=np.float32)


@pytest.fixture(scope="module")
def codec(x: Matrix) -> rz.RecurrentBinaryCodec:
    return rz.RecurrentBinaryCodec(DIM, bits=2).fit(x)


@pytest.fixture(scope="module")
def turn() -> Matrix:
    rng = np.random.default_rng(0)
    return np.asarray(np.linalg.qr(rng.normal(size=(DIM, DIM)))[0], dtype=np.float32)


def recall(scores: Matrix, queries: Matrix, base: Matrix, metric: Any = "cosine") -> float:
    order = np.argsort(scores if metric == "l2" else -scores, axis=1)[:, :10]
    return rz.recall(order, rz.exact_search(queries, base, metric=metric).ids)


@pytest.mark.parametrize(
    ("variant", "floor"),
    [("truncated", 0.95), ("rotated", 0.97), ("translated", 0.95), ("noised", 0.95), ("fine-tuned", 0.95)],
)
def test_an_upgrade_keeps_recall(
    x: Matrix, q: Matrix, codec: rz.RecurrentBinaryCodec, turn: Matrix, variant: str, floor: float
) -> None:
    rng = np.random.default_rng(1)
    weights = (rng.normal(size=(DIM, DIM)) / np.sqrt(DIM)).astype("f4")

    def model(v: Matrix) -> Matrix:
        if variant == "truncated":
            return v[:, :96]
        if variant == "rotated":
            return v @ turn.T
        if variant == "translated":
            return v + weights[0] * 0.1
        if variant == "noised":
            return v @ turn.T + rng.normal(size=v.shape).astype("f4") * 0.05 / np.sqrt(DIM)
        return v + 0.25 * np.tanh(v @ weights)

    new_x, new_q = model(x), model(q)
    queries = rz.compatible_queries(codec, old=x[:800], new=new_x[:800])
    again = rz.RecurrentBinaryCodec(new_x.shape[1], bits=2).fit(new_x)
    wanted = recall(again.scores(new_q, again.encode(new_x)), new_q, new_x)
    kept = recall(queries.scores(new_q, codec.encode(x)), new_q, new_x)
    assert kept >= floor * wanted, f"{queries}: {kept} of {wanted}"


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("dim", [64, 100])
def test_fused_scores_are_those_of_translated_queries(metric: Any, dim: int) -> None:
    rng = np.random.default_rng(2)
    old = rng.normal(size=(400, 64)).astype("f4") + 0.3
    codec = rz.RecurrentBinaryCodec(64, bits=3).fit(old, metric=metric)
    matrix, offset = rng.normal(size=(64, dim)) / 8, rng.normal(size=64)
    queries = rz.CompatibleCodec(codec, matrix, offset)
    new = rng.normal(size=(30, dim)).astype("f4")
    codes = codec.encode(old)
    seen = new / np.linalg.norm(new, axis=1, keepdims=True) if metric == "cosine" else new
    mapped = seen @ matrix.T + offset
    np.testing.assert_allclose(queries.translate(new), mapped, rtol=1e-4, atol=1e-4)
    decoded = codec.decode(codes).astype("f8")
    # The codec's own estimate for the same queries; under cosine it is scaled to unit length there.
    wanted = codec.scores(mapped.astype("f4"), codes)
    got = queries.scores(new, codes)
    if metric == "cosine":
        assert np.corrcoef(got.ravel(), (mapped @ old.T / np.linalg.norm(old, axis=1)).ravel())[0, 1] > 0.98
        assert np.abs(got - mapped @ decoded.T).max() < 0.2 * np.abs(mapped @ decoded.T).max()
    else:
        spread = np.abs(wanted).max()
        np.testing.assert_allclose(got, wanted, atol=2e-3 * spread)
    np.testing.assert_array_equal(queries.scores(new[3], codes), got[3])


def test_maps_of_block_transforms_are_fused() -> None:
    rng = np.random.default_rng(3)
    old = rng.normal(size=(90, 300)).astype("f4")  # few rows: a transform of blocks, with query scales
    codec = rz.RecurrentBinaryCodec(300, bits=2).fit(old, metric="ip")
    parts = _core.recurrent_parts(codec._native)
    assert parts["block_dims"] < 300
    assert len(parts["query_scale"])
    queries = rz.CompatibleCodec(codec, np.eye(300), np.zeros(300))
    codes, asked = codec.encode(old), rng.normal(size=(20, 300)).astype("f4")
    wanted = codec.scores(asked, codes)
    np.testing.assert_allclose(queries.scores(asked, codes), wanted, atol=2e-3 * np.abs(wanted).max())


def test_parts_make_the_codec_again(codec: rz.RecurrentBinaryCodec, x: Matrix, q: Matrix) -> None:
    again = _core.recurrent_codec(**_core.recurrent_parts(codec._native))
    np.testing.assert_array_equal(again.encode(x[:50], 1, "rounded"), codec.encode(x[:50]))
    codes = codec.encode(x[:50])
    np.testing.assert_array_equal(again.scores(q, codes, 1), codec.scores(q, codes))


def test_an_index_takes_both_models_and_refuses_others(
    x: Matrix, q: Matrix, codec: rz.RecurrentBinaryCodec, turn: Matrix
) -> None:
    queries = rz.compatible_queries(codec, old=x[:500], new=x[:500] @ turn.T, method="procrustes")
    index = rz.FlatIndex(DIM, codec=codec)
    index.add(x[:1000])
    assert queries.add(index, x[1000:] @ turn.T).tolist() == list(range(1000, N_DOCS))
    asked = q @ turn.T
    found = queries.search(index, asked, 10)
    assert rz.recall(found.ids, rz.exact_search(q, x).ids) > 0.98
    assert queries.search(index, asked[0], k=3).ids.shape == (3,)
    assert queries.encode(x[:5] @ turn.T).shape == (5, codec.code_bytes)

    other = rz.RecurrentBinaryCodec(DIM, bits=2, seed=1).fit(x[:1000])
    wrong = rz.FlatIndex(DIM, codec=other)
    wrong.add(x[:300])
    before = len(wrong)
    with pytest.raises(rz.errors.UnsupportedError, match=f"{other.fingerprint}.*{codec.fingerprint}"):
        queries.search(wrong, asked)
    with pytest.raises(rz.errors.UnsupportedError, match="holds codes of codec"):
        queries.add(wrong, x[:5])
    with pytest.raises(rz.errors.UnsupportedError, match="holds no codes"):
        queries.add(rz.FlatIndex(DIM), x[:5])
    with pytest.raises(rz.errors.UnsupportedError, match="cannot be the codec of an index"):
        rz.FlatIndex(DIM, codec=queries)
    with pytest.raises(
        rz.errors.UnsupportedError, match="cannot be the codec of an index, a table or a token store"
    ):
        rz.EmbeddingTable(x, queries)
    with pytest.raises(TypeError, match="must be an index"):
        queries.search(x, asked)  # type: ignore[arg-type]
    assert len(wrong) == before


def test_upgrades_add_up(x: Matrix, q: Matrix, codec: rz.RecurrentBinaryCodec, turn: Matrix) -> None:
    shift = np.full(DIM, 0.02, np.float32)
    codec = rz.RecurrentBinaryCodec(DIM, bits=2).fit(x, metric="ip")
    second = rz.compatible_queries(codec, old=x, new=x @ turn.T, method="procrustes")
    third = rz.compatible_queries(second, old=x @ turn.T, new=x @ turn.T + shift, method="mean_shift")
    assert third.compatible_with == codec.fingerprint
    assert len({codec.fingerprint, second.fingerprint, third.fingerprint}) == 3
    codes = codec.encode(x[:300])
    np.testing.assert_allclose(third.scores(q @ turn.T + shift, codes), codec.scores(q, codes), atol=5e-3)


def test_the_codec_stays_as_it_is(x: Matrix, codec: rz.RecurrentBinaryCodec) -> None:
    before = codec.fingerprint
    queries = rz.compatible_queries(codec, old=x[:100], new=x[:100], method="ridge")
    assert codec.fingerprint == before
    again = rz.CompatibleCodec(codec, queries.matrix, queries.offset)
    np.testing.assert_allclose(
        again.scores(x[:5], codec.encode(x[:9])), queries.scores(x[:5], codec.encode(x[:9])), atol=1e-5
    )
    queries.matrix[:] = 0
    assert queries.matrix.any()
    for refused in (lambda: queries.save("x"), lambda: queries.fit(x)):
        with pytest.raises(ValueError, match=r"matrix|fitted already"):
            refused()


def test_bad_pairs(x: Matrix, codec: rz.RecurrentBinaryCodec) -> None:
    spoiled = x[:20].copy()
    spoiled[4, 2] = np.nan
    empty = x[:20].copy()
    empty[3] = 0
    for old, new, method, error, message in [
        (x[:20], x[:19], "auto", rz.errors.ShapeError, "20 rows and 19 rows"),
        (x[:20, :8], x[:20], "auto", rz.errors.ShapeError, "8 dims, expected 128"),
        (x[:20], spoiled, "auto", rz.errors.NonFiniteError, "new: row 4"),
        (empty, x[:20], "auto", ValueError, "old: row 3 is a zero vector"),
        (x[:1], x[:1], "auto", ValueError, "at least 8 pairs"),
        (x[:1], x[:1], "ridge", ValueError, "at least 2 pairs"),
        (x[:20], x[:20, :8], "mean_shift", ValueError, "same dim, got 128 and 8"),
        (x[:20], x[:20], "mlp", ValueError, "method must be one of"),
        (x[:20].astype(int), x[:20], "auto", TypeError, "astype"),
    ]:
        with pytest.raises(error, match=message):
            rz.compatible_queries(codec, old=old, new=new, method=method)  # type: ignore[arg-type]
    with pytest.raises(rz.errors.NotTrainedError):
        rz.compatible_queries(rz.RecurrentBinaryCodec(DIM), old=x, new=x)
    with pytest.raises(TypeError, match="must be a RecurrentBinaryCodec, got ScalarCodec"):
        rz.compatible_queries(rz.ScalarCodec(DIM), old=x, new=x)  # type: ignore[arg-type]
    with pytest.raises(rz.errors.ShapeError, match="matrix and offset"):
        rz.CompatibleCodec(codec, np.eye(8), np.zeros(8))
    with pytest.raises(rz.errors.NonFiniteError):
        rz.CompatibleCodec(codec, np.full((DIM, 4), np.inf), np.zeros(DIM))


def test_few_pairs_of_one_text(codec: rz.RecurrentBinaryCodec, x: Matrix) -> None:
    """Equal rows leave nothing to fit; the map stays finite and the methods do not fail."""
    same = np.repeat(x[:1], 8, axis=0)
    for method in ("auto", "procrustes", "ridge", "low_rank", "adjoint"):
        queries = rz.compatible_queries(codec, old=same, new=same, method=method)  # type: ignore[arg-type]
        assert np.isfinite(queries.scores(x[:3], codec.encode(x[:9]))).all()
