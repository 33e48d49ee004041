# SPDX-License-Identifier: Apache-2.0
"""quantize_embeddings and semantic_search: codes of sentence-transformers, without its known defects."""

from __future__ import annotations

import numpy as np
import pytest

import residua as rz
from residua.errors import (
    DtypeError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    UnsupportedError,
)

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


def embeddings(n: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, dim)) * np.random.default_rng(9).uniform(0.1, 3, dim)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def reference(x: np.ndarray, precision: str, ranges: np.ndarray | None = None) -> np.ndarray:
    """The definitions of sentence-transformers, for dims that are multiples of 8."""
    if precision == "float32":
        return x.astype(np.float32)
    if precision == "ubinary":
        return np.packbits(x > 0).reshape(len(x), -1)
    if precision == "binary":
        return (np.packbits(x > 0).reshape(len(x), -1).astype(np.int16) - 128).astype(np.int8)
    low, high = (x.min(axis=0), x.max(axis=0)) if ranges is None else ranges
    steps = (high - low) / 255
    level = (x - low) / steps
    return level.astype(np.uint8) if precision == "uint8" else (level - 128).astype(np.int8)


def decoded(codes: np.ndarray, precision: str, dim: int, ranges: np.ndarray) -> np.ndarray:
    if precision == "float32":
        return codes.astype(np.float64)
    if precision in ("binary", "ubinary"):
        packed = codes if precision == "ubinary" else (codes.astype(np.int16) + 128).astype(np.uint8)
        return np.unpackbits(packed, axis=1, count=dim) * 2.0 - 1
    step = (ranges[1].astype(np.float64) - ranges[0]) / 255
    level = codes + 0.5 if precision == "uint8" else codes.astype(np.float64) + 128
    return ranges[0] + step * level


@pytest.mark.parametrize("precision", PRECISIONS)
def test_codes_equal_those_of_sentence_transformers(precision: str) -> None:
    x = embeddings(300, 64)
    codes = rz.quantize_embeddings(x, precision)
    expected = reference(x, precision)
    assert codes.dtype == expected.dtype
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(
        rz.quantize_embeddings(x[5].tolist(), precision, *_own(x, precision)), expected[5]
    )
    assert codes is not x
    if precision in ("int8", "uint8"):
        ranges = np.stack([x.min(axis=0), x.max(axis=0)])
        np.testing.assert_array_equal(rz.quantize_embeddings(x[:7], precision, ranges=ranges), expected[:7])
        by_sample = rz.quantize_embeddings(x[:7], precision, calibration_embeddings=x)
        np.testing.assert_array_equal(by_sample, expected[:7])


def _own(x: np.ndarray, precision: str) -> list[np.ndarray]:
    return [np.stack([x.min(axis=0), x.max(axis=0)])] if precision in ("int8", "uint8") else []


@pytest.mark.parametrize("dim", [1, 7, 9, 15, 33, 100])
def test_rows_of_bits_are_padded_with_zeros_each(dim: int) -> None:
    x = embeddings(20, dim)
    packed = rz.quantize_embeddings(x, "ubinary")
    assert packed.shape == (20, -(-dim // 8))
    np.testing.assert_array_equal(np.unpackbits(packed, axis=1, count=dim), x > 0)
    np.testing.assert_array_equal(packed, rz.BinaryCodec(dim).encode(x))
    signed = rz.quantize_embeddings(x, "binary")
    np.testing.assert_array_equal(signed.astype(np.int16) + 128, packed)


def test_codes_of_one_embedding_are_refused_or_have_ranges() -> None:
    one = embeddings(1, 16)
    for precision in ("int8", "uint8"):
        with pytest.raises(InvalidValueError, match="calibration_embeddings"):
            rz.quantize_embeddings(one, precision)
        codes = rz.quantize_embeddings(one, precision, calibration_embeddings=embeddings(50, 16, seed=1))
        assert len(np.unique(codes)) > 3


def test_values_outside_the_ranges_saturate_and_constant_dims_stay() -> None:
    ranges = np.array([[0, 0, 0.25], [1, 1, 0.25]], np.float32)
    x = np.array([[-5, 0.5, 0.25], [7, 2, 0.5], [1e30, -1e30, -3]], np.float32)
    assert rz.quantize_embeddings(x, "uint8", ranges).tolist() == [[0, 127, 0], [255, 255, 255], [255, 0, 0]]
    assert rz.quantize_embeddings(x, "int8", ranges)[0].tolist() == [-128, 0, -128]
    same = np.full((10, 4), 0.3, np.float32)
    assert not rz.quantize_embeddings(same, "uint8").any()


@pytest.mark.parametrize("dim", [64, 100])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_results_are_those_of_float_queries_on_decoded_vectors(precision: str, dim: int) -> None:
    """Re-scoring minds the 128 between int8 and uint8, the padding, and the range of every dim."""
    x, q = embeddings(500, dim), embeddings(20, dim, seed=2)
    ranges = np.stack([x.min(axis=0), x.max(axis=0)])
    codes = rz.quantize_embeddings(x, precision)
    given = {"ranges": ranges} if precision in ("int8", "uint8") else {}
    results, seconds = rz.semantic_search(
        q, codes, corpus_precision=precision, top_k=10, rescore_multiplier=50, **given
    )
    assert seconds >= 0
    true = q.astype(np.float64) @ decoded(codes, precision, dim, ranges).T
    for hits, scores in zip(results, true, strict=True):
        order = np.lexsort((np.arange(500), -scores))[:10]
        assert [h["corpus_id"] for h in hits] == order.tolist()
        np.testing.assert_allclose([h["score"] for h in hits], scores[order], rtol=1e-5)


def test_signed_and_unsigned_bits_find_the_same() -> None:
    x, q = embeddings(400, 52), embeddings(15, 52, seed=3)
    for rescore in (True, False):
        found = [
            rz.semantic_search(q, rz.quantize_embeddings(x, p), corpus_precision=p, rescore=rescore)[0]
            for p in ("binary", "ubinary")
        ]
        assert found[0] == found[1]
    bits = (x > 0) != (q[:1] > 0)
    distance = bits.sum(axis=1)
    order = np.lexsort((np.arange(400), distance))[:10]
    assert [h["corpus_id"] for h in found[0][0]] == order.tolist()
    assert [h["score"] for h in found[0][0]] == (52 - 2 * distance[order]).tolist()


def test_re_scoring_of_levels_minds_the_range_of_every_dim() -> None:
    """A dim of a wide range counts by its values; by its raw codes the order would be the other way round."""
    ranges = np.array([[-100, -0.01], [100, 0.01]], np.float32)
    x = np.array([[50, -0.01], [0, 0.01], [100, 0.01], [-100, -0.01]], np.float32)
    for precision in ("int8", "uint8"):
        codes = rz.quantize_embeddings(x, precision, ranges)
        results, _ = rz.semantic_search([0.01, 1.0], codes, None, precision, 2, ranges)
        assert [h["corpus_id"] for h in results[0]] == [2, 0]


def test_re_scoring_orders_candidates_anew() -> None:
    x, q = embeddings(2000, 64), embeddings(50, 64, seed=4)
    true = [np.argsort(-(q @ x.T), axis=1)[:, :10]][0]
    packed = rz.quantize_embeddings(x, "ubinary")

    def recall(**options: object) -> float:
        results, _ = rz.semantic_search(q, packed, corpus_precision="ubinary", **options)  # type: ignore[arg-type]
        return rz.recall([[h["corpus_id"] for h in hits] for hits in results], true)

    assert recall(rescore=False) < recall(rescore_multiplier=2) < recall(rescore_multiplier=8)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_index_is_returned_and_used_again(precision: str) -> None:
    x, q = embeddings(100, 24), embeddings(5, 24, seed=5)
    given = {"calibration_embeddings": x} if precision in ("int8", "uint8") else {}
    codes = rz.quantize_embeddings(x, precision)
    first = rz.semantic_search(q, codes, corpus_precision=precision, output_index=True, **given)
    again, _ = rz.semantic_search(q, corpus_index=first[2], corpus_precision=precision)
    assert again == first[0]
    few = rz.semantic_search(q, codes[:3], corpus_precision=precision, top_k=10, **given)[0]
    assert [len(hits) for hits in few] == [3] * 5
    none = rz.semantic_search(q, codes[:0], corpus_precision=precision, **given)[0]
    assert none == [[]] * 5


def test_bad_input_of_quantize_embeddings() -> None:
    x = embeddings(10, 8)
    with pytest.raises(InvalidValueError, match="precision must be one of"):
        rz.quantize_embeddings(x, "int4")  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="ranges is for"):
        rz.quantize_embeddings(x, "ubinary", ranges=x[:2])
    with pytest.raises(InvalidTypeError, match="either"):
        rz.quantize_embeddings(x, "int8", x[:2], x)
    with pytest.raises(ShapeError, match=r"\(2, 8\)"):
        rz.quantize_embeddings(x, "int8", ranges=x[:3])
    with pytest.raises(ShapeError, match="8"):
        rz.quantize_embeddings(x, "int8", calibration_embeddings=x[:, :4])
    with pytest.raises(InvalidValueError, match="dim 2 ends before"):
        rz.quantize_embeddings(x, "int8", ranges=[[0] * 8, [1, 1, -1, 1, 1, 1, 1, 1]])
    with pytest.raises(NonFiniteError):
        rz.quantize_embeddings(np.full((2, 8), np.nan, np.float32), "ubinary")
    with pytest.raises(DtypeError):
        rz.quantize_embeddings(np.ones((2, 8), np.int8), "ubinary")


def test_bad_input_of_semantic_search() -> None:
    x = embeddings(10, 64)
    packed = rz.quantize_embeddings(x, "ubinary")
    levels = rz.quantize_embeddings(x, "int8")
    with pytest.raises(InvalidTypeError, match="either"):
        rz.semantic_search(x)
    with pytest.raises(InvalidTypeError, match="ranges or calibration"):
        rz.semantic_search(x, levels, corpus_precision="int8")
    with pytest.raises(ShapeError, match="unpacked"):
        rz.semantic_search(x, levels, corpus_precision="binary")
    with pytest.raises(ShapeError, match=r"expected \(n, 64\)"):
        rz.semantic_search(x, rz.quantize_embeddings(x, "binary"), corpus_precision="int8", ranges=x[:2])
    with pytest.raises(DtypeError, match="int8 and binary"):
        rz.semantic_search(x, levels, corpus_precision="ubinary")
    with pytest.raises(DtypeError):
        rz.semantic_search(x, packed)
    with pytest.raises(InvalidTypeError, match="has none"):
        rz.semantic_search(x, packed, corpus_precision="ubinary", ranges=x[:2])
    with pytest.raises(UnsupportedError, match="exact"):
        rz.semantic_search(x, x, exact=False)
    with pytest.raises(InvalidValueError, match="top_k"):
        rz.semantic_search(x, x, top_k=0)
    with pytest.raises(InvalidValueError, match="rescore_multiplier"):
        rz.semantic_search(x, x, rescore_multiplier=0)
    index = rz.semantic_search(x, packed, corpus_precision="ubinary", output_index=True)[2]
    with pytest.raises(InvalidTypeError, match="precision 'int8'"):
        rz.semantic_search(x, corpus_index=index, corpus_precision="int8")
    with pytest.raises(ShapeError, match="32 dims"):
        rz.semantic_search(x[:, :32], corpus_index=index, corpus_precision="ubinary")
    with pytest.raises(InvalidTypeError, match="an index knows"):
        rz.semantic_search(x, corpus_index=index, corpus_precision="ubinary", ranges=x[:2])
    with pytest.raises(InvalidTypeError, match="corpus_index"):
        rz.semantic_search(x, corpus_index=packed, corpus_precision="ubinary")  # type: ignore[arg-type]
    padded = rz.quantize_embeddings(embeddings(4, 60), "ubinary")
    padded[2, -1] |= 1
    with pytest.raises(InvalidValueError, match="row 2"):
        rz.semantic_search(embeddings(2, 60), padded, corpus_precision="ubinary")
