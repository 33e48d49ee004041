# SPDX-License-Identifier: Apache-2.0
"""from_faiss and to_faiss: the same ids and scores before and after, both ways, or a clear refusal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import (
    CorruptFileError,
    DuplicateIdError,
    FileError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    NotTrainedError,
    UnsupportedError,
)

faiss: Any = pytest.importorskip("faiss", reason="exchange with FAISS needs faiss: pip install '.[faiss]'")
faiss.omp_set_num_threads(1)  # its threads wait for each other without rest where CPUs are shared

K = 12


def vectors(n: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = np.random.default_rng(7).uniform(0.2, 2, dim)
    return (rng.standard_normal((n, dim)) * spread + 0.3 * spread).astype(np.float32)


def assert_same(found: Any, expected: Any) -> None:
    """Compare (scores, ids) of FAISS, or hits, with another of these."""
    pairs = [(h.scores, h.ids) if isinstance(h, rz.Hits) else h for h in (found, expected)]
    (scores, ids), (true_scores, true_ids) = pairs
    np.testing.assert_allclose(scores, true_scores, rtol=1e-5)
    for row, column in np.argwhere(ids != true_ids):
        # Equal vectors have equal scores, and FAISS gives them in any order.
        twin = np.flatnonzero(true_ids[row] == ids[row, column])
        score, limit = true_scores[row, column], 1e-6 * abs(true_scores[row, column])
        assert abs(true_scores[row, twin if len(twin) else -1] - score).max() <= limit, (row, column)


def assert_exchanged(theirs: Any, q: np.ndarray) -> rz.FlatIndex:
    """FAISS to ours, and back, and to ours again."""
    expected = theirs.search(q, K)
    ours = rz.from_faiss(theirs)
    assert_same(ours.search(q, K), expected)
    back = rz.to_faiss(ours)
    assert_same(back.search(q, K), expected)
    assert_same(rz.from_faiss(back).search(q, K), expected)
    return ours


METRICS = {"l2": faiss.METRIC_L2, "ip": faiss.METRIC_INNER_PRODUCT}
FIXED = ("QT_8bit", "QT_4bit", "QT_8bit_uniform", "QT_4bit_uniform", "QT_fp16", "QT_bf16")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 31, 64])
def test_flat(metric: str, dim: int) -> None:
    x, q = vectors(700, dim), vectors(40, dim, seed=1)
    theirs = faiss.IndexFlat(dim, METRICS[metric])
    theirs.add(x)
    ours = assert_exchanged(theirs, q)
    assert (ours.metric, ours.codec, len(ours)) == (metric, None, 700)
    np.testing.assert_array_equal(ours.get(np.arange(700)), x)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [5, 31, 64])
@pytest.mark.parametrize("name", FIXED)
def test_scalar_codes(name: str, dim: int, metric: str) -> None:
    x, q = vectors(900, dim), vectors(60, dim, seed=1)
    theirs = faiss.IndexScalarQuantizer(dim, getattr(faiss.ScalarQuantizer, name), METRICS[metric])
    theirs.train(x[:500])
    theirs.add(x)  # some values beyond the range of the first 500
    ours = assert_exchanged(theirs, q)
    np.testing.assert_allclose(ours.get(np.arange(900)), theirs.reconstruct_n(0, 900), rtol=1e-5, atol=1e-6)
    more = vectors(100, dim, seed=2)
    theirs.add(more)
    ours.add(more)
    differs = np.abs(ours.get(np.arange(900, 1000)) - theirs.reconstruct_n(900, 100)) > 1e-5
    assert differs.mean() < 0.01  # values that fall on the border of two levels


@pytest.mark.parametrize("name", ["QT_8bit_direct", "QT_8bit_direct_signed"])
@pytest.mark.parametrize("metric", METRICS)
def test_whole_numbers_as_codes(name: str, metric: str) -> None:
    low = 0 if name == "QT_8bit_direct" else -128
    x = np.random.default_rng(3).integers(low, low + 256, (600, 33)).astype(np.float32)
    theirs = faiss.IndexScalarQuantizer(33, getattr(faiss.ScalarQuantizer, name), METRICS[metric])
    theirs.add(x)
    ours = assert_exchanged(theirs, x[:30] + vectors(30, 33))
    np.testing.assert_array_equal(ours.get(np.arange(600)), x)
    ours.add(x[:5])
    np.testing.assert_array_equal(ours.get(np.arange(600, 605)), x[:5])


def test_scores_of_queries_that_are_rows() -> None:
    """Distances near zero, where products of rounded weights would be far off."""
    x = vectors(3000, 48)
    theirs = faiss.IndexScalarQuantizer(48, faiss.ScalarQuantizer.QT_8bit)
    theirs.train(x)
    theirs.add(x)
    decoded = theirs.reconstruct_n(0, 3000).astype(np.float64)
    ours = rz.from_faiss(theirs).search(x[:200], K)
    _, ids = theirs.search(x[:200], K)
    np.testing.assert_array_equal(ours.ids, ids)
    exact = ((decoded[ids] - x[:200, None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(ours.scores, exact, rtol=1e-5, atol=1e-6 * float((x**2).sum(axis=1).mean()))


def test_dims_that_never_change() -> None:
    x = vectors(300, 16)
    x[:, 3] = 0.7
    theirs = faiss.IndexScalarQuantizer(16, faiss.ScalarQuantizer.QT_8bit)
    theirs.train(x)
    theirs.add(x)
    assert_exchanged(theirs, vectors(20, 16, seed=4))


@pytest.mark.parametrize("dim", [8, 64, 200])
def test_binary_codes(dim: int) -> None:
    rng = np.random.default_rng(5)
    codes, q = (rng.integers(0, 256, (n, dim // 8)).astype(np.uint8) for n in (500, 25))
    theirs = faiss.IndexBinaryFlat(dim)
    theirs.add(codes)
    distance, ids = theirs.search(q, K)
    ours = rz.from_faiss(theirs)
    for index in (ours, rz.from_faiss(rz.to_faiss(ours))):
        hits = index.search_codes(q, K)
        np.testing.assert_array_equal(hits.scores, dim - 2 * distance)
        order = np.lexsort((ids, distance))
        np.testing.assert_array_equal(hits.ids, np.take_along_axis(ids, order, axis=1))
    np.testing.assert_array_equal(ours.codes(np.arange(500)), codes)
    again = rz.to_faiss(ours).search(q, K)
    np.testing.assert_array_equal(again[0], distance)
    np.testing.assert_array_equal(again[1], ids)


def test_packed_signs_of_dims_that_fill_no_byte() -> None:
    x, q = vectors(400, 50), vectors(20, 50, seed=1)
    ours = rz.FlatIndex(50, codec=rz.BinaryCodec(50), vectors="none")
    ours.add(x)
    theirs = rz.to_faiss(ours)
    assert theirs.d == 56
    distance, ids = theirs.search(rz.quantize_embeddings(q, "ubinary"), K)
    hits = ours.search(q, K, scoring="symmetric")
    np.testing.assert_array_equal(hits.scores, 50 - 2 * distance)
    np.testing.assert_array_equal(hits.ids, ids)


@pytest.mark.parametrize("make", [faiss.IndexIDMap, faiss.IndexIDMap2])
@pytest.mark.parametrize("inner", ["Flat", "SQ8", "SQfp16"])
def test_ids(make: Any, inner: str) -> None:
    x, q = vectors(400, 24), vectors(30, 24, seed=1)
    ids = np.random.default_rng(6).permutation(10**12 + np.arange(400) * 7)
    theirs = make(faiss.index_factory(24, inner))
    theirs.train(x)
    theirs.add_with_ids(x, ids)
    ours = assert_exchanged(theirs, q)
    assert ids[5] in ours
    assert 5 not in ours
    back = rz.to_faiss(ours)
    np.testing.assert_allclose(back.reconstruct(int(ids[9])), ours.get([ids[9]])[0], rtol=1e-5, atol=1e-6)


def test_ids_of_binary_codes() -> None:
    codes = np.random.default_rng(7).integers(0, 256, (90, 4)).astype(np.uint8)
    theirs = faiss.IndexBinaryIDMap2(faiss.IndexBinaryFlat(32))
    theirs.add_with_ids(codes, np.arange(90) * 3 + 5)
    ours = rz.from_faiss(theirs)
    assert ours.search_codes(codes[:10], 1).ids.ravel().tolist() == [5 + 3 * i for i in range(10)]
    back = rz.to_faiss(ours)
    np.testing.assert_array_equal(back.search(codes[:10], 1)[1], theirs.search(codes[:10], 1)[1])


def test_removed_rows_are_left_out() -> None:
    x, q = vectors(300, 20), vectors(30, 20, seed=1)
    theirs = faiss.IndexIDMap2(faiss.IndexFlatIP(20))
    theirs.add_with_ids(x, np.arange(300) + 50)
    theirs.remove_ids(np.arange(60, 90))
    ours = assert_exchanged(theirs, q)
    assert len(ours) == 270
    ours.remove([100, 101, 102])
    ours.add(x[:2], [7, 60])
    expected = ours.search(q, K)
    back = rz.to_faiss(ours)
    assert back.ntotal == 269
    assert_same(back.search(q, K), expected)
    compacted = rz.from_faiss(back)
    assert_same(compacted.search(q, K), expected)
    coded = rz.FlatIndex(20, metric="l2", codec=rz.FloatCodec(20, "float16"), vectors="none")
    coded.add(x)
    coded.remove(np.arange(0, 300, 2))
    assert_same(rz.to_faiss(coded).search(q, K), coded.search(q, K))


def test_cosine_becomes_inner_products_of_unit_vectors() -> None:
    x, q = vectors(300, 20), vectors(30, 20, seed=1)
    unit = q / np.linalg.norm(q, axis=1, keepdims=True)
    codec = rz.ScalarCodec.from_levels(np.full(20, -1.0), 2 / 255)
    indexes = [rz.FlatIndex(20), rz.FlatIndex(20, vectors="float16")]
    indexes += [
        rz.FlatIndex(20, codec=c, vectors="none")
        for c in (codec, rz.FloatCodec(20, "bfloat16"), rz.FloatCodec(20))
    ]
    for index in indexes:
        index.add(x)
        theirs = rz.to_faiss(index)
        assert theirs.metric_type == faiss.METRIC_INNER_PRODUCT
        assert_same(theirs.search(unit, K), index.search(q, K))
        assert rz.from_faiss(theirs).metric == "ip"


@pytest.mark.parametrize("metric", ["cosine", *METRICS])
@pytest.mark.parametrize("bits", [8, 4])
def test_given_levels(bits: int, metric: str) -> None:
    x = vectors(200, 9)
    codec = rz.ScalarCodec.from_levels(np.full(9, -3.0), 6 / (2**bits - 1), bits, metric=metric)  # type: ignore[arg-type]
    lowest, step = codec.levels
    np.testing.assert_allclose(lowest, -3, rtol=1e-6)
    seen = x / np.linalg.norm(x, axis=1, keepdims=True) if metric == "cosine" else x
    u = np.clip(np.floor((seen.astype(np.float64) - lowest) / step + 0.5), 0, 2**bits - 1)
    got = codec.decode(codec.encode(x))
    assert (np.abs(got - (lowest + u * step)) > 1e-5).mean() < 0.01
    index = rz.FlatIndex(9, metric=metric, codec=codec, vectors="none")  # type: ignore[arg-type]
    index.add(x)
    true = rz.exact_search(x[:20], got, 5, metric="ip" if metric == "cosine" else metric)  # type: ignore[arg-type]
    hits = index.search(x[:20], 5)
    length = np.linalg.norm(x[:20], axis=1, keepdims=True) if metric == "cosine" else 1
    np.testing.assert_allclose(hits.scores, true.scores / length, rtol=1e-5, atol=1e-6)


def test_levels_survive_files(tmp_path: Path) -> None:
    x = vectors(100, 9)
    codec = rz.ScalarCodec.from_levels(np.full(9, -3.0), 0.02, metric="l2")
    codec.save(tmp_path / "c.rsd")
    again = rz.load(tmp_path / "c.rsd")
    assert again.fingerprint == codec.fingerprint
    np.testing.assert_array_equal(again.encode(x), codec.encode(x))
    index = rz.FlatIndex(9, metric="l2", codec=codec, vectors="none")
    index.add(x)
    index.save(tmp_path / "i.rsd")
    q = vectors(5, 9, seed=8)
    assert_same(rz.to_faiss(rz.load(tmp_path / "i.rsd")).search(q, 3), index.search(q, 3))


def test_bad_levels() -> None:
    with pytest.raises(InvalidValueError, match="step must be positive"):
        rz.ScalarCodec.from_levels([0.0, 0.0], [1.0, 0.0])
    with pytest.raises(NonFiniteError, match="dim 1"):
        rz.ScalarCodec.from_levels([0.0, np.inf], 1.0)
    with pytest.raises(rz.errors.ShapeError):
        rz.ScalarCodec.from_levels([0.0, 0.0], [1.0])
    with pytest.raises(rz.errors.DtypeError):
        rz.ScalarCodec.from_levels(["a"], 1.0)
    with pytest.raises(InvalidValueError, match="bits"):
        rz.ScalarCodec.from_levels([0.0], 1.0, 6)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="from_levels"):
        _ = rz.ScalarCodec(8).fit(vectors(50, 8)).levels


def test_files(tmp_path: Path) -> None:
    x = vectors(100, 16)
    flat = faiss.IndexFlatL2(16)
    flat.add(x)
    faiss.write_index(flat, str(tmp_path / "flat.faiss"))
    assert_same(rz.from_faiss(tmp_path / "flat.faiss").search(x[:5], 3), flat.search(x[:5], 3))
    binary = faiss.IndexBinaryFlat(16)
    binary.add(rz.quantize_embeddings(x, "ubinary"))
    faiss.write_index_binary(binary, str(tmp_path / "binary.faiss"))
    assert len(rz.from_faiss(str(tmp_path / "binary.faiss"))) == 100
    with pytest.raises(FileError, match="No such file"):
        rz.from_faiss(tmp_path / "missing.faiss")
    with pytest.raises(FileError):
        rz.from_faiss(tmp_path)
    (tmp_path / "text").write_bytes(b"IxF? this is no index")
    with pytest.raises(CorruptFileError, match="FAISS cannot read"):
        rz.from_faiss(tmp_path / "text")


def test_empty_indexes() -> None:
    for theirs in (faiss.IndexFlatL2(6), faiss.IndexIDMap2(faiss.IndexFlatIP(6))):
        ours = rz.from_faiss(theirs)
        assert len(ours) == 0
        back = rz.to_faiss(ours)
        assert back.ntotal == 0
        assert back.search(vectors(2, 6), 3)[1].tolist() == ours.search(vectors(2, 6), 3).ids.tolist()
    assert len(rz.from_faiss(faiss.IndexBinaryFlat(16))) == 0
    empty = faiss.IndexScalarQuantizer(6, faiss.ScalarQuantizer.QT_8bit)
    empty.train(vectors(50, 6))
    ours = rz.from_faiss(empty)
    ours.add(vectors(20, 6))
    assert len(rz.from_faiss(rz.to_faiss(ours))) == 20


@pytest.mark.parametrize(
    ("spec", "says"),
    [("HNSW16", "IndexHNSWFlat"), ("PCA8,Flat", "inner index"), ("SQ8,Refine(Flat)", "base_index")],
)
def test_other_classes_are_refused(spec: str, says: str) -> None:
    theirs = faiss.index_factory(16, spec)
    theirs.train(vectors(100, 16))
    with pytest.raises(UnsupportedError, match=says):
        rz.from_faiss(theirs)


def test_refusals_of_from_faiss() -> None:
    x = vectors(60, 16)
    with pytest.raises(UnsupportedError, match="QT_6bit"):
        rz.from_faiss(_trained(faiss.IndexScalarQuantizer(16, faiss.ScalarQuantizer.QT_6bit), x))
    with pytest.raises(UnsupportedError, match="metric_type"):
        rz.from_faiss(faiss.IndexFlat(16, faiss.METRIC_L1))
    with pytest.raises(NotTrainedError, match="IndexScalarQuantizer is not trained"):
        rz.from_faiss(faiss.IndexScalarQuantizer(16, faiss.ScalarQuantizer.QT_8bit))
    for ids, error in (([-4, 1], InvalidValueError), ([3, 3], DuplicateIdError)):
        theirs = faiss.IndexIDMap(faiss.IndexFlatL2(16))
        theirs.add_with_ids(x[:2], np.array(ids))
        with pytest.raises(error, match=str(ids[0])):
            rz.from_faiss(theirs)
    theirs = faiss.IndexFlatL2(16)
    theirs.add(np.full((1, 16), np.nan, np.float32))
    with pytest.raises(NonFiniteError):
        rz.from_faiss(theirs)
    for wrong in (None, x, 5, faiss.PQDecoder8):
        with pytest.raises(InvalidTypeError, match="from_faiss takes"):
            rz.from_faiss(wrong)


def _trained(index: Any, x: np.ndarray) -> Any:
    index.train(x)
    return index


def test_refusals_of_to_faiss() -> None:
    x = vectors(400, 16)
    text = rz.FlatIndex(16)
    text.add(x[:2], ["a", "b"])
    with pytest.raises(UnsupportedError, match="str ids"):
        rz.to_faiss(text)
    waiting = rz.FlatIndex(16, codec=rz.ScalarCodec(16), vectors="none")
    waiting.add(x[:20])
    with pytest.raises(NotTrainedError):
        rz.to_faiss(waiting)
    for codec, says in (
        (rz.RecurrentBinaryCodec(16), "recurrent|FAISS has no codes"),
        (rz.ScalarCodec(16), "from_levels"),
        (rz.BinaryCodec(16, rotation="random"), "turns vectors"),
    ):
        index = rz.FlatIndex(16, codec=codec, vectors="none")
        index.add(x)
        with pytest.raises(UnsupportedError, match=says):
            rz.to_faiss(index)
    kept = rz.FlatIndex(16, codec=rz.FloatCodec(16, "float16"))
    kept.add(x)
    with pytest.raises(UnsupportedError, match="vectors='none'"):
        rz.to_faiss(kept)
    for wrong in (None, x, faiss.IndexFlatL2(4)):
        with pytest.raises(InvalidTypeError, match="to_faiss takes"):
            rz.to_faiss(wrong)  # type: ignore[arg-type]


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    index = rz.FlatIndex(4)
    for call in (lambda: rz.from_faiss("x"), lambda: rz.to_faiss(index)):
        with pytest.raises(UnsupportedError, match=r"residua\[faiss\]"):
            call()


def test_codes_go_in_as_they_came_out() -> None:
    x = vectors(300, 20)
    for codec in (
        rz.RecurrentBinaryCodec(20, 2).fit(x),
        rz.ScalarCodec(20, 4).fit(x),
        rz.BinaryCodec(20),
        rz.FloatCodec(20, "float16"),
    ):
        one = rz.FlatIndex(20, codec=codec, vectors="none")
        one.add(x, np.arange(300) + 3)
        other = rz.FlatIndex(20, codec=codec, vectors="none")
        assert other.add_codes(one.codes(np.arange(3, 203)), np.arange(3, 203)).tolist() == list(
            range(3, 203)
        )
        assert other.add_codes(codec.encode(x[200:])).tolist() == list(range(203, 303))
        assert_same(other.search(x[:20], 5), one.search(x[:20], 5))


def test_bad_codes_change_nothing() -> None:
    x = vectors(300, 20)
    index = rz.FlatIndex(20, codec=rz.ScalarCodec(20).fit(x), vectors="none")
    codes = index.codec.encode(x[:4])
    spoilt = codes.copy()
    spoilt[2, -8:-4] = np.frombuffer(np.float32(np.nan).tobytes(), np.uint8)
    with pytest.raises(InvalidValueError, match="row 2"):
        index.add_codes(spoilt)
    with pytest.raises(rz.errors.ShapeError):
        index.add_codes(codes[:, :-1])
    with pytest.raises(DuplicateIdError):
        index.add_codes(codes, [1, 2, 3, 1])
    assert len(index) == 0
    index.add_codes(codes)
    with pytest.raises(rz.errors.UnknownIdError):
        index.codes([4])
    with pytest.raises(UnsupportedError, match="vectors='none'"):
        rz.FlatIndex(20, codec=index.codec).add_codes(codes)
    with pytest.raises(UnsupportedError, match="no codec"):
        rz.FlatIndex(20).add_codes(codes)
    with pytest.raises(NotTrainedError):
        rz.FlatIndex(20, codec=rz.ScalarCodec(20)).codes([0])
    signs = rz.FlatIndex(20, codec=rz.BinaryCodec(20), vectors="none")
    with pytest.raises(InvalidValueError, match="row 0"):
        signs.add_codes(np.full((1, 3), 255, np.uint8))
    halves = rz.FlatIndex(20, codec=rz.FloatCodec(20, "float16"), vectors="none")
    with pytest.raises(InvalidValueError, match="row 0"):
        halves.add_codes(np.full((1, 40), 255, np.uint8))
    steps = rz.FlatIndex(20, codec=rz.RecurrentBinaryCodec(20, 2).fit(x), vectors="none")
    with pytest.raises(InvalidValueError, match="row 0"):
        steps.add_codes(np.full((1, steps.codec.code_bytes), 255, np.uint8))
