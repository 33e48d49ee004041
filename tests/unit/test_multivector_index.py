# SPDX-License-Identifier: Apache-2.0
"""MultiVectorIndex: documents of token vectors are added, searched, filtered, removed and kept."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz

DIM = 32
N = 400


def make_documents(n: int = N, seed: int = 0) -> list[np.ndarray]:
    """Unit tokens around a few topics of each document: neighbours exist, as in text."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(60, DIM))
    documents = []
    for _ in range(n):
        chosen = topics[rng.choice(60, 4)]
        x = chosen[rng.integers(0, 4, rng.integers(8, 24))] + 0.4 * rng.normal(size=(1, DIM))
        x = x + 0.3 * rng.normal(size=x.shape)
        documents.append((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32))
    return documents


def noisy(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    x = x + 0.05 * rng.normal(size=x.shape)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def documents() -> list[np.ndarray]:
    return make_documents()


@pytest.fixture(scope="module")
def queries() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [noisy(rng, make_documents()[i][:6]) for i in range(0, N, 10)]


@pytest.fixture(scope="module")
def encoder() -> rz.FDEncoder:
    return rz.FDEncoder(DIM, k_sim=3, reps=10, proj_dim=8)  # 640 dims: quick to fit


@pytest.fixture(scope="module")
def filled(documents: list[np.ndarray], encoder: rz.FDEncoder) -> rz.MultiVectorIndex:
    index = rz.MultiVectorIndex(DIM, encoder=encoder, columns={"year": "int", "lang": "category"})
    index.add(documents, columns={"year": np.arange(N) % 10, "lang": ["en", "de"] * (N // 2)})
    return index


def chamfer(q: np.ndarray, x: np.ndarray) -> float:
    return float((q.astype(np.float64) @ x.astype(np.float64).T).max(axis=1).sum())


def best(q: np.ndarray, documents: list[np.ndarray], k: int, among: Any = None) -> list[int]:
    numbers = range(len(documents)) if among is None else among
    return sorted(numbers, key=lambda i: (-chamfer(q, documents[i]), i))[:k]


def recall_of(
    hits: rz.Hits, queries: list[np.ndarray], documents: list[np.ndarray], among: Any = None
) -> float:
    return rz.recall(hits.ids, np.array([best(q, documents, hits.ids.shape[1], among) for q in queries]))


def test_it_finds_what_exact_maxsim_finds(
    filled: rz.MultiVectorIndex, documents: list[np.ndarray], queries: list[np.ndarray]
) -> None:
    assert filled.search(queries, 5).stats["reranked"] == N  # few documents
    hits = filled.search(queries, 5, candidates=60)
    assert hits.ids.shape == (40, 5)
    assert recall_of(hits, queries, documents) > 0.9
    for q, ids, scores in zip(queries, hits.ids, hits.scores, strict=True):
        exact = [chamfer(q, documents[i]) for i in ids]
        np.testing.assert_allclose(scores, exact, atol=0.25)  # six tokens, four bits a dim
    assert "maxsim" in hits.stats["plan"]
    assert hits.stats["reranked"] < N


def test_with_all_documents_as_candidates_only_token_codes_lose(
    filled: rz.MultiVectorIndex, queries: list[np.ndarray]
) -> None:
    hits = filled.search(queries, 5, candidates=N)
    expected = rz.maxsim_topk(queries, filled.tokens, 5)
    np.testing.assert_array_equal(hits.ids, expected.ids)
    np.testing.assert_array_equal(hits.scores, expected.scores)


@pytest.mark.parametrize("token_codec", ["float32", "float16", "int8", "rb4", "rb2", "rb1"])
def test_every_token_codec(
    token_codec: Any, documents: list[np.ndarray], queries: list[np.ndarray], encoder: rz.FDEncoder
) -> None:
    index = rz.MultiVectorIndex(DIM, encoder=encoder, token_codec=token_codec)
    index.add(documents)
    least = {"rb4": 0.88, "rb2": 0.7, "rb1": 0.4}.get(token_codec, 0.97)
    hits = index.search(queries, 5, candidates=N)
    assert recall_of(hits, queries, documents) >= least
    kept = index.get([3])[0]
    assert kept.shape == documents[3].shape
    if token_codec == "float32":
        np.testing.assert_array_equal(kept, documents[3])


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@pytest.mark.parametrize("encoder_name", ["fde", "learned"])
def test_first_stages(
    kind: Any, encoder_name: Any, documents: list[np.ndarray], queries: list[np.ndarray]
) -> None:
    encoder: Any = rz.FDEncoder(DIM, 3, 10, 8)
    if encoder_name == "learned":
        encoder = rz.LearnedEncoder(DIM, output_dim=128, features=256, samples=1024)
    index = rz.MultiVectorIndex(DIM, encoder=encoder, index=kind, token_codec="float32")
    index.add(documents)
    assert isinstance(index.first_stage, rz.HNSWIndex if kind == "hnsw" else rz.FlatIndex)
    hits = index.search(queries, 5, candidates=100)
    assert recall_of(hits, queries, documents) > 0.9
    few = index.search(queries, 5, candidates=5)
    first = index.search(queries, 5, rerank=False)
    if kind == "flat":
        for a, b in zip(few.ids, first.ids, strict=True):
            assert set(a) == set(b)  # ranked anew, nothing else


def test_until_it_is_trained_every_search_is_exact(
    documents: list[np.ndarray], queries: list[np.ndarray]
) -> None:
    index = rz.MultiVectorIndex(DIM, columns={"year": "int"})
    assert not index.is_trained
    index.add(documents[:100], columns={"year": np.arange(100)})
    assert not index.is_trained
    assert index.first_stage is None
    hits = index.search(queries, 5)
    assert recall_of(hits, queries, documents[:100]) == 1.0
    among = range(60, 100)
    narrow = index.search(queries, 5, filter="year >= 60")
    assert recall_of(narrow, queries, documents, among) == 1.0


def test_documents_from_before_training_stay(
    documents: list[np.ndarray], queries: list[np.ndarray], encoder: rz.FDEncoder
) -> None:
    index = rz.MultiVectorIndex(DIM, encoder=encoder, columns={"year": "int"})
    index.add(documents[:100], columns={"year": np.arange(100)})
    index.remove([7, 8])
    index.add(documents[100:], columns={"year": np.arange(100, N)})
    assert index.is_trained
    assert len(index) == N - 2
    assert index.columns([99, 100])["year"].tolist() == [99, 100]
    there = [i for i in range(N) if i not in (7, 8)]
    hits = index.search(queries, 5)
    assert recall_of(hits, queries, documents, there) > 0.9
    assert not {7, 8} & set(hits.ids.ravel().tolist())
    assert 7 not in index
    assert 9 in index


def test_train_before_anything_is_added(documents: list[np.ndarray], encoder: rz.FDEncoder) -> None:
    index = rz.MultiVectorIndex(DIM, encoder=encoder)
    assert index.train(documents) is index
    assert len(index) == 0
    index.add(documents[:3])
    assert index.search(documents[1][:4], 1).ids[0] == 1
    with pytest.raises(rz.errors.InvalidValueError, match="trained already"):
        index.train(documents)
    asked = rz.MultiVectorIndex(DIM, encoder=encoder, token_codec="rb1")
    with pytest.raises(rz.errors.InvalidValueError, match="queries: query 1 has no tokens"):
        asked.train(documents, queries=[documents[0], documents[1][:0]])
    asked.train(documents, queries=documents[:50])
    assert asked.is_trained


def test_filters_of_every_form(
    filled: rz.MultiVectorIndex, documents: list[np.ndarray], queries: list[np.ndarray]
) -> None:
    year = np.arange(N) % 10
    cases: list[tuple[Any, np.ndarray]] = [
        (rz.col("year") == 3, np.flatnonzero(year == 3)),
        ("year == 3 and lang == 'de'", np.flatnonzero((year == 3) & (np.arange(N) % 2 == 1))),
        (year < 2, np.flatnonzero(year < 2)),
        (np.array([5, 17, 250]), np.array([5, 17, 250])),
    ]
    for allowed, among in cases:
        hits = filled.search(queries, 3, filter=allowed, candidates=N)
        exact = rz.maxsim_topk(queries, filled.tokens, 3, documents=among)
        np.testing.assert_array_equal(hits.ids, exact.ids)
    each = filled.search(queries[:2], 3, filter=[np.array([4, 5, 6]), "year == 9"])
    assert set(each.ids[0].tolist()) == {4, 5, 6}
    assert set((each.ids[1] % 10).tolist()) == {9}
    nothing = filled.search(queries, 3, filter="year > 100")
    assert (nothing.ids == -1).all()
    assert (nothing.counts == 0).all()
    assert np.isneginf(nothing.scores).all()


def test_subset_is_a_filter_by_ids(filled: rz.MultiVectorIndex, queries: list[np.ndarray]) -> None:
    a = filled.search(queries, 2, subset=[9, 1, 30])
    b = filled.search(queries, 2, filter=[9, 1, 30])
    np.testing.assert_array_equal(a.ids, b.ids)
    assert set(a.ids.ravel().tolist()) <= {1, 9, 30}
    with pytest.raises(TypeError, match="not both"):
        filled.search(queries, subset=[1], filter=[1])


def test_candidates_from_elsewhere(filled: rz.MultiVectorIndex, queries: list[np.ndarray]) -> None:
    for_all = filled.search(queries, 2, candidates=[3, 200, 3, 77])
    assert set(for_all.ids.ravel().tolist()) <= {3, 77, 200}
    exact = rz.maxsim_topk(queries, filled.tokens, 2, documents=[3, 77, 200])
    np.testing.assert_array_equal(for_all.ids, exact.ids)
    padded = np.array([[1, 2, -1], [4, -1, -1]])
    each = filled.search(queries[:2], 3, candidates=padded)
    assert each.counts.tolist() == [2, 1]
    assert set(each.ids[0].tolist()) == {1, 2, -1}
    with pytest.raises(KeyError, match="id 4000 is not"):
        filled.search(queries, candidates=[1, 4000])
    with pytest.raises(ValueError, match="needs 40 of them, got 1"):
        filled.search(queries, candidates=[[1, 2]])
    with pytest.raises(TypeError, match="replace the first stage"):
        filled.search(queries, candidates=[1], filter="year == 1")


def test_one_query_gives_one_dimensional_results(
    filled: rz.MultiVectorIndex, queries: list[np.ndarray]
) -> None:
    batch = filled.search(queries, 4)
    single = filled.search(queries[3], 4)
    assert single.ids.shape == (4,)
    np.testing.assert_array_equal(single.ids, batch.ids[3])
    np.testing.assert_array_equal(single.scores, batch.scores[3])
    for threads in (1, 2):
        again = filled.search(queries, 4, num_threads=threads)
        np.testing.assert_array_equal(again.scores, batch.scores)


def test_ids_of_str_and_upsert(documents: list[np.ndarray], encoder: rz.FDEncoder) -> None:
    index = rz.MultiVectorIndex(DIM, encoder=encoder, columns={"year": "int"})
    names = [f"doc-{i}" for i in range(300)]
    added = index.add(documents[:300], names, {"year": np.arange(300)})
    assert added.tolist() == names
    assert index.search(documents[11][:5], 1).ids.tolist() == ["doc-11"]
    with pytest.raises(rz.errors.DuplicateIdError, match="doc-3"):
        index.add(documents[300:302], ["new", "doc-3"])
    with pytest.raises(rz.errors.DuplicateIdError, match="given twice"):
        index.add(documents[300:302], ["new", "new"])
    with pytest.raises(TypeError, match="never mixed"):
        index.add(documents[300:301], [5])
    assert len(index) == 300
    index.add([documents[350]], ["doc-3"], {"year": [2024]}, upsert=True)
    assert len(index) == 300
    assert index.search(documents[350][:5], 1).ids.tolist() == ["doc-3"]
    assert index.columns(["doc-3"])["year"].tolist() == [2024]
    assert index.search(documents[3][:5], 2, filter=["doc-3", "unknown"]).ids.tolist() == ["doc-3", None]
    assert index.search(documents[0][:5], 3, candidates=["doc-9", "doc-3"]).counts == 2


def test_remove_and_compact(
    documents: list[np.ndarray], queries: list[np.ndarray], encoder: rz.FDEncoder
) -> None:
    index = rz.MultiVectorIndex(DIM, encoder=encoder)
    index.add(documents)
    gone = np.arange(0, N, 2)
    before = index.memory()["tokens"]
    assert index.remove(gone) == N // 2
    assert len(index) == N // 2
    expected = index.search(queries, 5, candidates=N)
    assert not set(gone.tolist()) & set(expected.ids.ravel().tolist())
    index.compact()
    assert index.memory()["tokens"] < 0.7 * before
    np.testing.assert_array_equal(index.search(queries, 5, candidates=N).ids, expected.ids)
    with pytest.raises(KeyError, match="4"):
        index.remove([1, 4])
    assert len(index) == N // 2
    assert index.remove([1, 4], missing="ignore") == 1
    added = index.add(documents[:2])
    assert added.tolist() == [N, N + 1]
    assert index.search(documents[0][:6], 1).ids[0] == N


def test_save_and_load(
    tmp_path: Path, filled: rz.MultiVectorIndex, documents: list[np.ndarray], queries: list[np.ndarray]
) -> None:
    path = tmp_path / "abstracts.rz"
    filled.save(path)
    expected = filled.search(queries, 5, filter="year < 5")
    for mmap in (False, True):
        index = rz.load(path, mmap=mmap)
        assert isinstance(index, rz.MultiVectorIndex)
        assert repr(index) == repr(filled)
        found = index.search(queries, 5, filter="year < 5")
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_array_equal(found.scores, expected.scores)
        added = index.add(documents[:1], columns={"year": [1]})
        assert added.tolist() == [N]
        assert index.remove([N, 0]) == 2
    assert len(filled) == N


def test_save_before_training_and_with_a_learned_encoder(
    tmp_path: Path, documents: list[np.ndarray], queries: list[np.ndarray]
) -> None:
    small = rz.MultiVectorIndex(DIM, columns={"year": "int"})
    small.add(documents[:20], [f"d{i}" for i in range(20)], {"year": np.arange(20)})
    small.remove(["d3"])
    small.save(tmp_path / "small.rz")
    again = rz.load(tmp_path / "small.rz")
    assert isinstance(again, rz.MultiVectorIndex)
    np.testing.assert_array_equal(again.search(queries, 3).ids, small.search(queries, 3).ids)
    again.add(documents[20:], [f"d{i}" for i in range(20, N)], {"year": np.arange(20, N)})
    assert not isinstance(again.tokens.codec, str)
    np.testing.assert_array_equal(again.columns(["d30"])["year"], [30])
    small_encoder = rz.LearnedEncoder(DIM, output_dim=64, features=128, samples=512)
    learned = rz.MultiVectorIndex(DIM, encoder=small_encoder)
    learned.add(documents)
    learned.save(tmp_path / "learned.rz")
    back = rz.load(tmp_path / "learned.rz")
    assert isinstance(back, rz.MultiVectorIndex)
    np.testing.assert_array_equal(back.search(queries, 5).ids, learned.search(queries, 5).ids)


def test_a_damaged_file_is_refused(tmp_path: Path, filled: rz.MultiVectorIndex) -> None:
    path = tmp_path / "index.rz"
    filled.save(path)
    data = path.read_bytes()
    (tmp_path / "cut.rz").write_bytes(data[: len(data) // 2])
    with pytest.raises(rz.errors.CorruptFileError):
        rz.load(tmp_path / "cut.rz")
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    (tmp_path / "flipped.rz").write_bytes(flipped)
    with pytest.raises(rz.errors.CorruptFileError):
        rz.load(tmp_path / "flipped.rz")


def test_tune_keeps_a_number_of_candidates(
    filled: rz.MultiVectorIndex, documents: list[np.ndarray], tmp_path: Path
) -> None:
    asked = [d[:6] for d in make_documents(160, seed=5)]
    filled.save(tmp_path / "a.rz")
    index = rz.load(tmp_path / "a.rz")
    assert isinstance(index, rz.MultiVectorIndex)
    result = index.tune(asked, k=10, target_recall=0.9)
    assert result.reached
    count = result.params["candidates"]
    assert 10 <= count < N
    truth = index.search(asked, 10, candidates=N).ids
    assert rz.recall(index.search(asked, 10).ids, truth) >= 0.9
    np.testing.assert_array_equal(index.search(asked, 10).ids, index.search(asked, 10, candidates=count).ids)
    index.save(tmp_path / "b.rz")
    np.testing.assert_array_equal(
        rz.load(tmp_path / "b.rz").search(asked, 10).ids,
        index.search(asked, 10).ids,  # type: ignore[union-attr]
    )
    with pytest.raises(ValueError, match="cannot show"):
        index.tune(asked[:5])
    with pytest.raises(ValueError, match="an untrained index ranks all"):
        rz.MultiVectorIndex(DIM).tune(asked)


def test_empty_and_long_documents(documents: list[np.ndarray], encoder: rz.FDEncoder) -> None:
    rng = np.random.default_rng(3)
    long = rng.normal(size=(20_000, DIM)).astype(np.float32)
    long /= np.linalg.norm(long, axis=1, keepdims=True)
    index = rz.MultiVectorIndex(DIM, encoder=encoder)
    index.add([*documents[:299], np.empty((0, DIM), np.float32), long])
    hits = index.search(long[5000:5006], 301, candidates=301)
    assert hits.ids[0] == 300
    assert hits.counts == 300
    assert 299 not in hits.ids
    assert index.get([299, 300])[0].shape == (0, DIM)
    empty = rz.MultiVectorIndex(DIM)
    assert empty.search(long[:3], 2).counts == 0
    assert empty.add([]).shape == (0,)


def test_bad_input_changes_nothing(
    filled: rz.MultiVectorIndex, documents: list[np.ndarray], tmp_path: Path
) -> None:
    bad = [d.copy() for d in documents[:3]]
    bad[1][2, 5] = np.nan
    with pytest.raises(rz.errors.NonFiniteError, match="document 1, token 2"):
        filled.add(bad)
    with pytest.raises(rz.errors.ShapeError, match="33 dims, expected 32"):
        filled.add([np.zeros((4, 33), np.float32)])
    with pytest.raises(rz.errors.ShapeError, match="33 dims"):
        filled.search(np.zeros((4, 33), np.float32))
    with pytest.raises(ValueError, match="column"):
        filled.add(documents[:2], columns={"years": [1, 2]})
    with pytest.raises(ValueError):
        filled.add(documents[:2], columns={"year": [1, 2, 3]})
    with pytest.raises(ValueError, match="a mask hides all"):
        filled.search(np.zeros((1, 4, DIM), np.float32), mask=np.zeros((1, 4), bool))
    with pytest.raises(TypeError):
        filled.search(documents[0], candidates=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="candidates"):
        filled.search(documents[0], candidates=0)
    with pytest.raises(TypeError):
        filled.search(documents[0], rerank=20)  # type: ignore[arg-type]
    huge = rz.MultiVectorIndex(DIM, token_codec="float16")
    with pytest.raises(rz.errors.InvalidValueError, match="document 0, token 1"):
        huge.add([np.array([[1.0] * DIM, [1e6] * DIM], np.float32)])
    assert len(huge) == 0
    assert len(filled) == N
    with pytest.raises(OSError):
        filled.save(tmp_path / "missing" / "x.rz")


class Means:
    """An encoder from elsewhere: the mean of the tokens."""

    dim = output_dim = DIM

    def encode_documents(self, tokens: Any, *, num_threads: int | None = None) -> Any:
        flat, offsets = tokens
        sums = np.add.reduceat(np.vstack([flat, np.zeros((1, DIM))]), offsets[:-1], axis=0)
        return (sums / np.maximum(np.diff(offsets), 1)[:, None]).astype(np.float32)

    encode_queries = encode_documents


def test_an_encoder_from_elsewhere(
    documents: list[np.ndarray], queries: list[np.ndarray], tmp_path: Path
) -> None:
    index = rz.MultiVectorIndex(DIM, encoder=Means(), codec=None)
    index.add(documents)
    assert recall_of(index.search(queries, 5, candidates=200), queries, documents) > 0.8
    with pytest.raises(rz.errors.UnsupportedError, match="encoder"):
        index.save(tmp_path / "x.rz")


def test_searches_beside_changes(
    documents: list[np.ndarray], queries: list[np.ndarray], encoder: rz.FDEncoder
) -> None:
    index = rz.MultiVectorIndex(DIM, encoder=encoder)
    index.add(documents[:300])
    stop = threading.Event()
    failures: list[BaseException] = []

    def search() -> None:
        rerank = True
        while not stop.is_set():
            try:
                rerank = not rerank
                hits = index.search(queries, 5, candidates=60, rerank=rerank)
                assert (hits.counts >= (5 if rerank else 1)).all()
                assert all(len(set(ids)) >= (5 if rerank else 1) for ids in hits.ids.tolist())
            except BaseException as e:
                failures.append(e)
                return

    threads = [threading.Thread(target=search) for _ in range(2)]
    for t in threads:
        t.start()
    for i in range(300, N, 10):
        index.add(documents[i : i + 10])
        index.remove(np.arange(i - 300, i - 290))
    index.compact()
    stop.set()
    for t in threads:
        t.join()
    assert not failures
    assert len(index) == 300


def test_results_do_not_depend_on_threads_or_batches(
    documents: list[np.ndarray], queries: list[np.ndarray], encoder: rz.FDEncoder
) -> None:
    a, b = (rz.MultiVectorIndex(DIM, encoder=encoder) for _ in range(2))
    a.train(documents, num_threads=1)
    b.train(documents, num_threads=2)
    a.add(documents, num_threads=1)
    for i in range(0, N, 150):
        b.add(documents[i : i + 150], num_threads=2)
    np.testing.assert_array_equal(a.search(queries, 5).scores, b.search(queries, 5).scores)


def test_progress_and_repr(documents: list[np.ndarray], encoder: rz.FDEncoder) -> None:
    index = rz.MultiVectorIndex(DIM, encoder=encoder)
    seen: list[tuple[int, int]] = []
    index.add(documents, progress=lambda done, of: seen.append((done, of)))
    assert seen[0] == (0, N)
    assert seen[-1] == (N, N)
    assert "n=400" in repr(index)
    assert "rb4" in repr(index)
    assert "candidates" in index.plan
    assert sum(index.memory().values()) > 0
    assert index.memory()["first_stage"] / N < 640 / 8 + 20
