# SPDX-License-Identifier: Apache-2.0
"""Stores of document tokens: forms, removal, ranking of candidates, files, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import residua as rz
from residua import _core, errors

Floats = npt.NDArray[np.float32]
DIM = 24
SIZES = [40, 0, 1, 33, 49, 7, 100, 12]
FORMS = ["float32", "float16", "int8", "rb4"]


def unit(rng: np.random.Generator, n: int) -> Floats:
    x = rng.standard_normal((n, DIM))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def documents() -> list[Floats]:
    rng = np.random.default_rng(0)
    return [unit(rng, n) for n in SIZES]


@pytest.fixture(scope="module")
def queries() -> list[Floats]:
    rng = np.random.default_rng(1)
    return [unit(rng, n) for n in (5, 17, 1, 32)]


def rank(
    store: rz.TokenStore, queries: list[Floats], lists: list[list[int]] | None, k: int, threads: int = 1
) -> tuple[Any, Any, Any]:
    def offsets(sizes: list[int]) -> npt.NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    flat, ends = np.concatenate(queries), offsets([len(q) for q in queries])
    if lists is None:
        return store._native.rank(flat, ends, None, None, k, threads)
    candidates = np.array([c for given in lists for c in given], np.int64)
    return store._native.rank(flat, ends, offsets([len(c) for c in lists]), candidates, k, threads)


@pytest.mark.parametrize("form", ["float32", "float16", "int8"])
@pytest.mark.parametrize("given", [np.float32, np.float16])
def test_floats_are_kept_and_scored_as_arrays_are(
    form: str, given: type, documents: list[Floats], queries: list[Floats]
) -> None:
    tokens = [d.astype(given) for d in documents]
    store = rz.TokenStore(tokens[:3], form)
    store.add(tokens[3:], num_threads=2)
    assert (len(store), store.n_tokens, store.dim, store.codec) == (8, sum(SIZES), DIM, form)
    as_floats = [t.astype(np.float32) for t in tokens]
    if form == "int8":
        scales = [np.abs(t).max(axis=1, keepdims=True, initial=0) / np.float32(127) for t in as_floats]
        kept = [
            np.rint(t / np.maximum(s, 1e-30)).astype(np.int8) for t, s in zip(as_floats, scales, strict=True)
        ]
        expected = [s * t.astype(np.float32) for t, s in zip(kept, scales, strict=True)]
    else:
        expected = [t.astype(form).astype(np.float32) for t in as_floats]
    for i, e in enumerate(expected):
        np.testing.assert_array_equal(store.get(i), e)
    np.testing.assert_array_equal(rz.maxsim(queries, store), rz.maxsim(queries, expected))
    best = rz.maxsim_tokens(queries[0], store, documents=[6, 1, 0])
    wanted = rz.maxsim_tokens(queries[0], [expected[i] for i in (6, 1, 0)])
    for found, e in zip(best, wanted, strict=True):
        np.testing.assert_array_equal(found, e)
    hits = rz.maxsim_topk(queries, store, 9)
    np.testing.assert_array_equal(hits.ids, rz.maxsim_topk(queries, expected, 9).ids)
    size = {"float32": 4, "float16": 2, "int8": 1}[form]
    memory = store.memory()
    assert memory["tokens"] >= sum(SIZES) * DIM * size
    assert ("scales" in memory) == (form == "int8")
    assert repr(store) == f"TokenStore(8 documents, {sum(SIZES)} tokens, {form!r})"


def test_what_float16_does_not_hold() -> None:
    tokens = [np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)]
    tokens[1][2, 1] = -65504
    store = rz.TokenStore(tokens, "float16")
    tokens[1][3, 0] = -70000
    with pytest.raises(
        errors.InvalidValueError, match=r"document 1, token 3 holds -70000.0*, float16 at most 65504"
    ):
        store.add(tokens)
    assert (len(store), store.n_tokens) == (2, 6)
    np.testing.assert_allclose(rz.TokenStore(tokens, "int8").get(1)[3, 0], -70000, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_removed_documents_are_empty_until_they_vanish(
    form: str, documents: list[Floats], queries: list[Floats], tmp_path: Path
) -> None:
    store = rz.TokenStore(documents, form)
    before = rz.maxsim(queries, store)
    store.remove([6, 0])
    store.remove(3)
    left = [1, 2, 4, 5, 7]
    store.save(tmp_path / "s.rsd")
    mapped = rz.load(tmp_path / "s.rsd", mmap=True)
    assert isinstance(mapped, rz.TokenStore)
    for s in (store, mapped):
        assert (len(s), s.n_tokens) == (8, 49 + 1 + 7 + 12)
        assert "8 documents (3 removed), 69 tokens" in repr(s)
        found = rz.maxsim(queries, s)
        np.testing.assert_array_equal(found[:, left], before[:, left])
        assert np.isneginf(found[:, [0, 3, 6]]).all()
        assert s.get(6).shape == (0, DIM)
        assert (rz.maxsim_tokens(queries[0], s)[1][[0, 3, 6]] == -1).all()
        assert set(rank(s, queries, None, 8)[0].ravel()) == {2, 4, 5, 7, -1}
        with pytest.raises(errors.InvalidValueError, match="documents: 3 is removed already"):
            s.remove([7, 3])
        with pytest.raises(errors.InvalidValueError, match="7 is given twice"):
            s.remove([7, 7])
        with pytest.raises(errors.OutOfRangeError, match="8 is not one of the 8 documents"):
            s.remove([7, 8])
        assert s.n_tokens == 69
        bytes_before = s.memory()["codes" if form == "rb4" else "tokens"]
        s.compact()
        s.compact()
        assert s.memory()["codes" if form == "rb4" else "tokens"] < bytes_before
        assert len(s) == 8
        np.testing.assert_array_equal(rz.maxsim(queries, s), found)
        with pytest.raises(errors.InvalidValueError, match="documents: 3 is removed already"):
            s.remove([3])
        s.add(documents[3:4])
        np.testing.assert_array_equal(rz.maxsim(queries, s)[:, -1], before[:, 3])
        np.testing.assert_array_equal(rz.maxsim(queries, s)[:, left], before[:, left])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threads", [1, 3])
def test_candidates_are_ranked(
    form: str, threads: int, documents: list[Floats], queries: list[Floats]
) -> None:
    store = rz.TokenStore([*documents, *documents[2:5]], form)  # ties: 2 with 8, 3 with 9, 4 with 10
    scores = rz.maxsim(queries, store)
    lists = [[10, 4, 1, 3, 4, 9], [], [7], list(range(11))]
    for k in (1, 3, 20):
        numbers, best, counts = rank(store, queries, lists, k, threads)
        assert numbers.shape == best.shape == (4, min(k, 11))
        for i, given in enumerate(lists):
            distinct = np.array(sorted({c for c in given if c != 1}), np.int64)
            order = distinct[np.lexsort((distinct, -scores[i][distinct]))][:k]
            assert counts[i] == len(order)
            assert numbers[i].tolist() == order.tolist() + [-1] * (numbers.shape[1] - len(order))
            np.testing.assert_array_equal(best[i, : len(order)], scores[i][order])
            assert np.isneginf(best[i, len(order) :]).all()
            alone = rank(store, [queries[i]], [given], k, threads)
            assert alone[0][0].tolist() == order.tolist() + [-1] * (alone[0].shape[1] - len(order))
    whole = rank(store, queries, None, 4, threads)
    np.testing.assert_array_equal(whole[0], rz.maxsim_topk(queries, store, 4).ids)
    np.testing.assert_array_equal(whole[1], rz.maxsim_topk(queries, store, 4).scores)


def test_bad_candidates(documents: list[Floats], queries: list[Floats]) -> None:
    store = rz.TokenStore(documents, "int8")
    for bad in (-1, 8):
        with pytest.raises(errors.OutOfRangeError, match=f"{bad} is not one of the 8 documents"):
            rank(store, queries[:1], [[0, bad]], 3)
    with pytest.raises(errors.ShapeError, match="offsets of candidates"):
        rank(store, queries, [[1]], 3)
    with pytest.raises(errors.ShapeError, match="query tokens have 3 dims, expected 24"):
        rank(store, [np.ones((1, 3), np.float32)], [[1]], 3)
    with pytest.raises(errors.ShapeError, match="tokens have 3 dims, expected 24"):
        store._native.add(np.ones((1, 3), np.float32), np.array([0, 1]), 1)
    with pytest.raises(errors.ShapeError, match="offsets must ascend"):
        store._native.add(np.ones((1, DIM), np.float32), np.array([0, 2]), 1)


@pytest.mark.parametrize("form", FORMS)
def test_files_keep_stores_and_damage_is_refused(
    form: str, documents: list[Floats], queries: list[Floats], tmp_path: Path
) -> None:
    store = rz.TokenStore(documents, form)
    store.remove([2])
    path = tmp_path / "s.rsd"
    store.save(path)
    for mmap in (False, True):
        loaded = rz.load(path, mmap=mmap)
        assert isinstance(loaded, rz.TokenStore)
        assert repr(loaded) == repr(store)
        np.testing.assert_array_equal(rz.maxsim(queries, loaded), rz.maxsim(queries, store))
        loaded.add(documents[:1])
        np.testing.assert_array_equal(loaded.get(8), store.get(0))
    data = path.read_bytes()
    for size in (len(data) - 1, len(data) // 2, 100):
        path.write_bytes(data[:size])
        for mmap in (False, True):
            with pytest.raises(errors.CorruptFileError):
                rz.load(path, mmap=mmap)
    for at in range(0, len(data), 997):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(errors.CorruptFileError):
            rz.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "float64"}, "'float64'"),
        ({"tokens": bytes(8)}, "tokens"),
        ({"scales": np.array([1, -1], np.float32).tobytes()}, "impossible scales"),
        ({"offsets": np.array([0, 3, 2], np.int64).tobytes()}, "does not ascend"),
        ({"removed": np.array([1, 1], np.int64).tobytes()}, "ascending numbers"),
        ({"removed": np.array([2], np.int64).tobytes()}, "ascending numbers"),
        ({"dim": 0}, "dim"),
    ],
)
def test_files_that_contradict_themselves(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    parts = {
        "form": "int8",
        "dim": 3,
        "offsets": np.array([0, 1, 2], np.int64).tobytes(),
        "tokens": bytes(6),
        "scales": np.ones(2, np.float32).tobytes(),
    }
    for given, works in ((parts, True), ({**parts, **changes}, False)):
        writer = _core.store.Writer("token_store")
        for name, value in given.items():
            put = {str: writer.put_string, int: writer.put_int, bytes: writer.put}[type(value)]
            put(name, value)  # type: ignore[operator]
        writer.write_file(str(tmp_path / "s.rsd"))
        if works:
            assert isinstance(rz.load(tmp_path / "s.rsd"), rz.TokenStore)
        else:
            with pytest.raises(errors.CorruptFileError, match=message):
                rz.load(tmp_path / "s.rsd")


@pytest.mark.parametrize("form", ["float16", "rb4"])
def test_readers_see_whole_changes(form: str, documents: list[Floats], queries: list[Floats]) -> None:
    store = rz.TokenStore(documents, form)
    expected = rz.maxsim(queries[0], store)

    def read() -> None:
        for _ in range(60):
            found = rz.maxsim(queries[0], store)  # a removed document is one that a compaction drops
            left = found[np.isfinite(found)]
            assert set(left) <= set(expected[np.isfinite(expected)])
            best = rank(store, queries[:1], None, 3)
            assert best[1][0, 0] == expected.max()

    with ThreadPoolExecutor(3) as pool:
        reads = [pool.submit(read) for _ in range(2)]
        for _ in range(20):
            n = len(store)
            store.add(documents[3:6])
            store.remove([n, n + 1])
            store.compact()
        for done in reads:
            done.result()
    assert len(store) == len(SIZES) + 60


def test_empty_stores() -> None:
    store = rz.TokenStore((np.empty((0, 5), np.float32), [0]), "float16")
    assert (len(store), store.n_tokens, store.dim) == (0, 0, 5)
    assert rz.maxsim(np.ones((2, 5)), store).shape == (0,)
    assert rank(store, [np.ones((1, 5), np.float32)], None, 3)[0].shape == (1, 0)
    store.compact()
    store.add([np.ones((1, 5))])
    assert rz.maxsim(np.ones((2, 5)), store).tolist() == [10]
    with pytest.raises(errors.ShapeError, match="no document tells the dims"):
        rz.TokenStore([], "int8")
    with pytest.raises(errors.InvalidTypeError, match="expected numbers of documents"):
        store.remove([0.5])
    with pytest.raises(errors.InvalidValueError, match="'rb1', 'float32', 'float16', 'int8'"):
        rz.TokenStore([np.ones((1, 5))], "float64")


def test_query_maps_are_refused() -> None:
    tokens = unit(np.random.default_rng(3), 300)
    codec = rz.RecurrentBinaryCodec(DIM, bits=2).fit(tokens, metric="ip")
    upgraded = rz.CompatibleCodec(codec, np.eye(DIM, dtype=np.float32), np.zeros(DIM, np.float32))
    with pytest.raises(errors.UnsupportedError, match="an index, a table or a token store"):
        rz.TokenStore([tokens], upgraded)


@pytest.mark.parametrize("form", FORMS)
def test_a_document_of_20000_tokens(form: str, documents: list[Floats]) -> None:
    rng = np.random.default_rng(4)
    long = np.float32(0.1) * unit(rng, 20_000)
    long[17_777] = documents[0][3]
    store = rz.TokenStore([documents[0][:2], long], form)
    scores, tokens = rz.maxsim_tokens(documents[0][3:4], store)
    assert tokens[1].tolist() == [17_777]
    np.testing.assert_allclose(scores[1], [1.0], atol=0.05)
    assert store.get(1).shape == (20_000, DIM)
