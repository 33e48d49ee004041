# SPDX-License-Identifier: Apache-2.0
"""from_faiss and to_faiss of product codes and inverted lists: the same ids and scores, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import DuplicateIdError, InvalidValueError, NotTrainedError, UnsupportedError

faiss: Any = pytest.importorskip("faiss", reason="exchange with FAISS needs faiss: pip install '.[faiss]'")
faiss.omp_set_num_threads(1)  # its threads wait for each other without rest where CPUs are shared

K, DIM = 12, 32
METRICS = {"l2": faiss.METRIC_L2, "ip": faiss.METRIC_INNER_PRODUCT}


def vectors(n: int, seed: int) -> np.ndarray:
    centres = np.random.default_rng(7).standard_normal((25, DIM))
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(0, 25, n)] + 0.5 * rng.standard_normal((n, DIM))).astype(np.float32)


X, Q = vectors(1500, 1), vectors(50, 2)


def filled(spec: str, metric: str, nprobe: int = 4) -> Any:
    theirs = faiss.index_factory(DIM, spec, METRICS[metric])
    theirs.train(X)
    theirs.add(X)
    if spec.startswith("IVF"):
        theirs.nprobe = nprobe
    return theirs


def assert_same(found: Any, expected: Any) -> None:
    pairs = [(h.scores, h.ids) if isinstance(h, rz.Hits) else h for h in (found, expected)]
    (scores, ids), (true_scores, true_ids) = pairs
    np.testing.assert_allclose(scores, true_scores, rtol=1e-5)
    for row, column in np.argwhere(ids != true_ids):
        # Equal codes have equal scores, and FAISS gives them in any order.
        near = np.abs(true_scores[row] - scores[row, column]) <= 1e-6 * abs(scores[row, column])
        assert near.sum() > 1 or near[-1], (row, column)


def assert_exchanged(theirs: Any) -> Any:
    expected = theirs.search(Q, K)
    ours = rz.from_faiss(theirs)
    assert_same(ours.search(Q, K), expected)
    back = rz.to_faiss(ours)
    assert type(back) is type(theirs)
    assert_same(back.search(Q, K), expected)
    assert_same(rz.from_faiss(back).search(Q, K), expected)
    return ours


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("spec", ["PQ8x4np", "PQ16x4np", "PQ4x8np"])
def test_product_codes(spec: str, metric: str) -> None:
    ours = assert_exchanged(filled(spec, metric))
    assert isinstance(ours.codec, rz.PQCodec)
    theirs = filled(spec, metric)
    theirs.add(Q)
    ours.add(Q)
    np.testing.assert_allclose(ours.get(np.arange(1550)), theirs.reconstruct_n(0, 1550), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "spec", ["IVF20,Flat", "IVF20,PQ16x4np", "IVF20,PQ4x8np", "IVF20,SQ8", "IVF20,SQ4", "IVF20,SQfp16"]
)
def test_lists(spec: str, metric: str) -> None:
    theirs = filled(spec, metric)
    ours = assert_exchanged(theirs)
    assert ours.defaults == {"nprobe": 4}
    assert ours.nlist == 20
    assert ours.drift() is None
    theirs.nprobe = 20
    assert_same(ours.search(Q, K, nprobe=20), theirs.search(Q, K))
    np.testing.assert_allclose(ours.get(np.arange(1500)), _rows(theirs), rtol=1e-5, atol=1e-5)
    # New rows go to the same lists and get the same codes.
    theirs.nprobe = 4
    theirs.add(Q)
    ours.add(Q)
    differs = np.abs(ours.get(np.arange(1500, 1550)) - _rows(theirs)[1500:]) > 1e-4
    if metric == "l2":  # for products FAISS puts rows into the list of the largest product
        assert differs.mean() < 0.01


def _rows(theirs: Any) -> np.ndarray:
    theirs.make_direct_map()
    return theirs.reconstruct_n(0, theirs.ntotal)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["pq", "sq"])
def test_codes_of_vectors_in_lists(kind: str, metric: str) -> None:
    coarse = faiss.IndexFlat(DIM, METRICS[metric])
    if kind == "pq":
        theirs = faiss.IndexIVFPQ(coarse, DIM, 15, 16, 4, METRICS[metric])
    else:
        theirs = faiss.IndexIVFScalarQuantizer(
            coarse, DIM, 15, faiss.ScalarQuantizer.QT_8bit, METRICS[metric]
        )
    theirs.by_residual = False
    theirs.train(X)
    theirs.add(X)
    theirs.nprobe = 3
    ours = assert_exchanged(theirs)
    assert not ours._native.is_residual


def test_ids_and_removed_rows_of_lists() -> None:
    theirs = faiss.index_factory(DIM, "IVF20,Flat")
    theirs.train(X)
    ids = np.random.default_rng(3).permutation(10**10 + np.arange(1500))
    theirs.add_with_ids(X, ids)
    theirs.remove_ids(ids[:100])
    theirs.nprobe = 5
    ours = assert_exchanged(theirs)
    assert len(ours) == 1400
    ours.remove(ids[100:200])
    assert_same(rz.to_faiss(ours).search(Q, K), ours.search(Q, K))
    mapped = faiss.IndexIDMap2(faiss.index_factory(DIM, "IVF20,Flat"))
    mapped.train(X)
    mapped.add_with_ids(X, ids)
    assert_same(rz.from_faiss(mapped).search(Q, K), mapped.search(Q, K))


def test_cosine_lists() -> None:
    ours = rz.IVFIndex(DIM, codec=None, nlist=20).train(X)
    ours.add(X)
    unit = Q / np.linalg.norm(Q, axis=1, keepdims=True)
    theirs = rz.to_faiss(ours)
    assert_same(theirs.search(unit, K), ours.search(Q, K))
    again = rz.from_faiss(theirs)
    assert again.metric == "cosine"
    assert_same(again.search(Q, K), ours.search(Q, K))


def test_lists_survive_files(tmp_path: Any) -> None:
    for spec in ("IVF20,Flat", "IVF20,PQ16x4np"):
        theirs = filled(spec, "l2")
        faiss.write_index(theirs, str(tmp_path / "theirs"))
        ours = rz.from_faiss(tmp_path / "theirs")
        ours.save(tmp_path / "ours")
        assert_same(rz.load(tmp_path / "ours").search(Q, K), theirs.search(Q, K))


def test_empty_lists() -> None:
    theirs = faiss.index_factory(DIM, "IVF20,Flat")
    theirs.train(X)
    ours = rz.from_faiss(theirs)
    assert len(ours) == 0
    ours.add(X)
    theirs.add(X)
    assert_same(ours.search(Q, K), theirs.search(Q, K))


def test_refusals() -> None:
    with pytest.raises(NotTrainedError):
        rz.from_faiss(faiss.index_factory(DIM, "IVF20,Flat"))
    with pytest.raises(UnsupportedError, match="which may miss the nearest"):
        rz.from_faiss(filled("IVF20_HNSW8,Flat", "l2"))
    mixed = faiss.IndexIVFFlat(faiss.IndexFlatL2(DIM), DIM, 5, faiss.METRIC_INNER_PRODUCT)
    mixed.train(X)
    mixed.add(X)
    with pytest.raises(UnsupportedError, match="chooses lists by distance"):
        rz.from_faiss(mixed)
    with pytest.raises(UnsupportedError, match="6 bits"):
        rz.from_faiss(filled("PQ4x6np", "l2"))
    for ids, error in (([-4, 1], InvalidValueError), ([3, 3], DuplicateIdError)):
        theirs = faiss.index_factory(DIM, "IVF20,Flat")
        theirs.train(X)
        theirs.add_with_ids(X[:2], np.array(ids))
        with pytest.raises(error):
            rz.from_faiss(theirs)
    auto = rz.IVFIndex(DIM, nlist=20, vectors="none").train(X)
    auto.add(X)
    with pytest.raises(UnsupportedError, match="FAISS has no lists of codes"):
        rz.to_faiss(auto)
    with pytest.raises(NotTrainedError):
        rz.to_faiss(rz.IVFIndex(DIM, codec=None))
    for codec, says in (
        (rz.PQCodec(DIM, 8, 4, "opq"), "turns vectors"),
        (rz.PQCodec(DIM, 5, 4), "not of one size"),
    ):
        index = rz.FlatIndex(DIM, metric="l2", codec=codec, vectors="none")
        index.add(X)
        with pytest.raises(UnsupportedError, match=says):
            rz.to_faiss(index)
