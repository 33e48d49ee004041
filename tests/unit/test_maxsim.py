# SPDX-License-Identifier: Apache-2.0
"""MaxSim over floats, int8 and codes: values, forms, refusals."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import residua as rz
from residua import errors

Floats = npt.NDArray[np.float32]


def unit(rng: np.random.Generator, n: int, dim: int) -> Floats:
    x = rng.standard_normal((n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def oracle(queries: list[Floats], documents: list[Floats]) -> npt.NDArray[np.float64]:
    return np.array(
        [
            [
                (q.astype(np.float64) @ d.T.astype(np.float64)).max(axis=1, initial=-np.inf).sum()
                for d in documents
            ]
            for q in queries
        ]
    )


@pytest.fixture(params=[(1, 3), (17, 40), (128, 33)])
def case(request: pytest.FixtureRequest) -> tuple[list[Floats], list[Floats]]:
    """Queries and documents of (dim, largest size) such that tiles, panels and chunks end everywhere."""
    dim, largest = request.param
    rng = np.random.default_rng(dim)
    sizes = [1, 2, 47, 48, 49, 100, *rng.integers(1, 70, 6)]
    return [unit(rng, n, dim) for n in (1, 15, 16, 17, largest)], [unit(rng, n, dim) for n in sizes]


def test_scores_are_those_of_numpy(case: tuple[list[Floats], list[Floats]]) -> None:
    queries, documents = case
    found = rz.maxsim(queries, documents)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, oracle(queries, documents), atol=1e-4)
    for i, q in enumerate(queries):  # whatever else is in the call
        np.testing.assert_array_equal(rz.maxsim(q, documents), found[i])
    np.testing.assert_array_equal(rz.maxsim(queries, documents, num_threads=3), found)
    single = rz.maxsim(queries[1], documents[2])
    assert single.shape == ()
    assert single == found[1, 2]


def test_element_types(case: tuple[list[Floats], list[Floats]]) -> None:
    queries, documents = case
    half = [d.astype(np.float16) for d in documents]
    widened = [d.astype(np.float32) for d in half]
    np.testing.assert_array_equal(rz.maxsim(queries, half), rz.maxsim(queries, widened))
    scales = [np.abs(d).max(axis=1) / 127 for d in documents]
    levels = [np.rint(d / s[:, None]).astype(np.int8) for d, s in zip(documents, scales, strict=True)]
    restored = [d.astype(np.float32) * s[:, None] for d, s in zip(levels, scales, strict=True)]
    flat_scales = np.concatenate(scales)
    found = rz.maxsim(queries, levels, doc_scales=flat_scales)
    np.testing.assert_array_equal(found, rz.maxsim(queries, restored))
    np.testing.assert_array_equal(
        rz.maxsim(queries, levels), rz.maxsim(queries, [d.astype(np.float32) for d in levels])
    )
    half_queries = [q.astype(np.float16) for q in queries]
    np.testing.assert_array_equal(
        rz.maxsim(half_queries, documents), rz.maxsim([q.astype(np.float32) for q in half_queries], documents)
    )


def test_best_tokens(case: tuple[list[Floats], list[Floats]]) -> None:
    queries, documents = case
    for q in queries:
        scores, tokens = rz.maxsim_tokens(q, documents)
        assert scores.shape == tokens.shape == (len(documents), len(q))
        for d, s, t in zip(documents, scores, tokens, strict=True):
            products = q @ d.T
            np.testing.assert_allclose(s, products.max(axis=1), atol=1e-5)
            np.testing.assert_allclose(products[np.arange(len(q)), t], s, atol=1e-5)
    twice = np.concatenate([documents[3], documents[3]])  # ties go to the first token
    np.testing.assert_array_equal(
        rz.maxsim_tokens(queries[2], twice)[1], rz.maxsim_tokens(queries[2], documents[3])[1]
    )


def test_documents_by_number(case: tuple[list[Floats], list[Floats]]) -> None:
    queries, documents = case
    found = rz.maxsim(queries, documents)
    numbers = [4, 0, 4, 11]
    np.testing.assert_array_equal(rz.maxsim(queries, documents, documents=numbers), found[:, numbers])
    store = rz.TokenStore(documents, "rb2")
    np.testing.assert_array_equal(
        rz.maxsim(queries, store, documents=numbers), rz.maxsim(queries, store)[:, numbers]
    )
    np.testing.assert_array_equal(
        rz.maxsim_tokens(queries[0], store, documents=numbers)[1],
        rz.maxsim_tokens(queries[0], store)[1][numbers],
    )


def test_top_k_orders_and_pads() -> None:
    rng = np.random.default_rng(3)
    a, b, c = (unit(rng, n, 8) for n in (5, 4, 3))
    documents = [a, b, a, np.zeros((0, 8), np.float32), c]
    q = [a[:2], unit(rng, 6, 8)]
    hits = rz.maxsim_topk(q, documents, 6)
    assert hits.ids.shape == (2, 6)
    assert hits.ids[0, :2].tolist() == [0, 2]  # equal scores: the smaller number first
    assert hits.counts.tolist() == [4, 4]
    assert hits.ids[:, 4:].tolist() == [[-1, -1]] * 2
    assert np.isneginf(hits.scores[:, 4:]).all()
    exact = oracle(q, documents)[1]
    assert hits.ids[1, :4].tolist() == np.lexsort((np.arange(5), -exact))[:4].tolist()
    again = rz.maxsim_topk(q[0], documents, 2, documents=[4, 2, 1])
    assert again.ids[0] == 2
    assert again.counts == 2


@pytest.mark.parametrize("documents", [None, [0]])
def test_one_document_ranked_for_several_queries(documents: list[int] | None) -> None:
    rng = np.random.default_rng(9)
    q, document = [unit(rng, n, 8) for n in (2, 6, 3)], unit(rng, 5, 8)
    hits = rz.maxsim_topk(q, document, 2, documents=documents)
    assert hits.ids.tolist() == [[0, -1]] * 3
    assert hits.counts.tolist() == [1] * 3
    np.testing.assert_allclose(hits.scores[:, 0], rz.maxsim(q, document), rtol=1e-6)
    one = rz.maxsim_topk(q[1], document, 2, documents=documents)
    assert one.ids.tolist() == [0, -1]


def test_padded_forms_and_masks() -> None:
    rng = np.random.default_rng(4)
    documents = [unit(rng, n, 8) for n in (3, 5, 2)]
    padded = np.full((3, 5, 8), np.nan, np.float32)
    mask = np.arange(5) < np.array([3, 5, 2])[:, None]
    padded[mask] = np.concatenate(documents)
    expected = rz.maxsim(documents[:2], documents)
    found = rz.maxsim(padded[:2], padded, q_mask=mask[:2], doc_mask=mask)
    np.testing.assert_array_equal(found, expected)
    hidden = mask.copy()
    hidden[1] = False
    assert np.isneginf(rz.maxsim(documents[0], padded, doc_mask=hidden)[1])
    scores, tokens = rz.maxsim_tokens(documents[0], padded, doc_mask=hidden)
    assert np.isneginf(scores[1]).all()
    assert (tokens[1] == -1).all()
    assert rz.maxsim(documents[0], np.zeros((0, 2, 8), np.float32)).shape == (0,)


@pytest.mark.parametrize(("codec", "least"), [("rb4", 0.995), ("rb2", 0.93), ("rb1", 0.75)])
def test_codes_estimate_the_scores(codec: str, least: float) -> None:
    rng = np.random.default_rng(5)
    topics = unit(rng, 40, 64)
    sizes = rng.integers(1, 80, 60)
    documents = [topics[rng.integers(0, 40, n)] + np.float32(0.4) * unit(rng, n, 64) for n in sizes]
    queries = [d[rng.integers(0, len(d), 9)] + np.float32(0.3) * unit(rng, 9, 64) for d in documents[:20]]
    store = rz.TokenStore(documents, codec)
    found, exact = rz.maxsim(queries, store), oracle(queries, documents)
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] >= least
    # Against the decoded tokens: what is left is the rounding of query weights and the scale of the estimate.
    scores, tokens = rz.maxsim_tokens(queries[0], store)
    for i in (0, 7, 20):
        decoded = queries[0] @ store.get(i).T
        chosen = decoded[np.arange(9), tokens[i]]
        assert (decoded.max(axis=1) - chosen).max() <= 0.12
    np.testing.assert_allclose(scores.sum(axis=1), found[0], atol=1e-4)


def test_codes_do_not_depend_on_how_they_came() -> None:
    rng = np.random.default_rng(6)
    documents = [unit(rng, n, 40) for n in (32, 0, 33, 1, 64, 700, 5)]
    whole = rz.TokenStore(documents, "rb4")
    queries = [unit(rng, n, 40) for n in (1, 9, 20)]
    expected = rz.maxsim(queries, whole)
    assert np.isneginf(expected[:, 1]).all()
    parts = rz.TokenStore(documents[:2], whole.codec)
    parts.add(documents[2:4])
    parts.add((np.concatenate(documents[4:]), [0, 64, 764, 769]), num_threads=2)
    assert (len(parts), parts.n_tokens) == (7, 835)
    np.testing.assert_array_equal(rz.maxsim(queries, parts, num_threads=3), expected)
    np.testing.assert_array_equal(rz.maxsim(queries[1], parts), expected[1])
    np.testing.assert_array_equal(parts.get(2), whole.get(2))
    assert parts.get(1).shape == (0, 40)
    assert parts.memory()["codes"] >= (1 + 2 + 1 + 2 + 22 + 1) * 32 * whole.codec.code_bytes
    assert "7 documents, 835 tokens" in repr(parts)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_saved_store_is_the_same(mmap: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    documents = [unit(rng, n, 24) for n in (32, 0, 33, 5, 300)]
    store = rz.TokenStore(documents, "rb2")
    store.save(tmp_path / "tokens.rsd")
    loaded = rz.load(tmp_path / "tokens.rsd", mmap=mmap)
    assert isinstance(loaded, rz.TokenStore)
    assert repr(loaded) == repr(store)
    np.testing.assert_array_equal(rz.maxsim(documents[0], loaded), rz.maxsim(documents[0], store))
    for s in (store, loaded):
        s.add(documents[2:4])
    np.testing.assert_array_equal(rz.maxsim(documents[0], loaded), rz.maxsim(documents[0], store))
    again = rz.load(tmp_path / "tokens.rsd")  # the file has not changed
    assert isinstance(again, rz.TokenStore)
    assert len(again) == 5


def test_a_changed_store_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.rsd"
    rz.TokenStore([unit(np.random.default_rng(1), 40, 8)], "rb1").save(path)
    data = path.read_bytes()
    for at in range(0, len(data), 29):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(errors.CorruptFileError):
            rz.load(path)


def test_stores_are_read_while_they_grow() -> None:
    rng = np.random.default_rng(10)
    documents = [unit(rng, 20, 16) for _ in range(40)]
    store = rz.TokenStore(documents[:20], "rb4")
    expected = rz.maxsim(documents[3], store)
    with ThreadPoolExecutor(3) as pool:
        reads = [pool.submit(rz.maxsim, documents[3], store) for _ in range(40)]
        for d in documents[20:]:
            store.add([d])
        for read in reads:
            np.testing.assert_array_equal(read.result()[:20], expected)
    assert len(store) == 40


def test_ball_carving() -> None:
    q = np.array([[1, 0], [0, 1], [0.9, 0.1], [0.05, 0.95]], np.float32)
    np.testing.assert_allclose(rz.ball_carve(q, 0.7), [[1.9, 0.1], [0.05, 1.95]], rtol=1e-6)
    np.testing.assert_array_equal(rz.ball_carve(q, 2.0), q)
    rng = np.random.default_rng(7)
    queries, documents = [unit(rng, 12, 4) for _ in range(3)], [unit(rng, 9, 4) for _ in range(5)]
    carved = rz.maxsim(queries, documents, tau=0.7)
    np.testing.assert_array_equal(carved, rz.maxsim([rz.ball_carve(q, 0.7) for q in queries], documents))
    assert (carved <= rz.maxsim(queries, documents) + 1e-5).all()


def test_token_pooling() -> None:
    rng = np.random.default_rng(8)
    centres = np.eye(4, 16, dtype=np.float32)
    labels = np.array([0, 1, 0, 2, 3, 1, 2, 3, 0, 1, 2, 3])
    x = centres[labels] + np.float32(0.01) * rng.standard_normal((12, 16)).astype(np.float32)
    expected = np.stack([x[labels == i].mean(axis=0) for i in range(4)])
    np.testing.assert_allclose(rz.pool_tokens(x, 3), expected, atol=1e-6)
    kept = rz.pool_tokens([x, x[:1], x[:0]], 3, protected=2)
    assert [len(k) for k in kept] == [2 + 3, 1, 0]
    np.testing.assert_array_equal(kept[0][:2], x[:2])
    np.testing.assert_array_equal(rz.pool_tokens(x, 1), x)
    long = rz.pool_tokens(rng.standard_normal((1100, 3), dtype=np.float32), 10)
    assert len(long) == 51 + 51 + 7


X = np.eye(3, 4, dtype=np.float32)
BAD = np.stack([X, X])
BAD[1, 2, 0] = np.inf


@pytest.mark.parametrize(
    ("q", "documents", "options", "error", "message"),
    [
        (X, list(BAD), {}, errors.NonFiniteError, "doc_tokens: document 1, token 2 contains NaN or infinity"),
        (X, list(BAD.astype(np.float16)), {}, errors.NonFiniteError, "document 1, token 2"),
        (X, -BAD, {}, errors.NonFiniteError, "document 1, token 2"),
        (BAD[1], [X], {}, errors.NonFiniteError, "q_tokens: token 2"),
        (list(BAD), [X], {}, errors.NonFiniteError, "q_tokens: query 1, token 2"),
        ([X, X[:0]], [X], {}, errors.InvalidValueError, "query 1 has no tokens"),
        (X[None], [X], {"q_mask": np.zeros((1, 3), bool)}, errors.InvalidValueError, "query 0 has no tokens"),
        (X[:, :3], [X], {}, errors.ShapeError, "tokens have 3 dims, expected 4"),
        (X, [X, X[:, :2]], {}, errors.ShapeError, "document 1 have 2 dims, expected 4"),
        (X, [X.astype(np.int8), X], {}, errors.DtypeError, "int8 tokens beside others"),
        (X.astype(np.int8), [X], {}, errors.DtypeError, "dtype int8"),
        (X, [X], {"doc_scales": [1, 1, 1]}, errors.InvalidTypeError, "belongs to int8 tokens"),
        (X, [X.astype(np.int8)], {"doc_scales": [1, 1]}, errors.ShapeError, "2 values for 3 tokens"),
        (X, [X.astype(np.int8)], {"doc_scales": [1, np.nan, 1]}, errors.NonFiniteError, "doc_scales"),
        (X, [X], {"documents": [1]}, errors.OutOfRangeError, "1 is not one of the 1 documents"),
        (X, [X], {"documents": [-1]}, errors.OutOfRangeError, "-1 is not one"),
        (X, [X], {"documents": [0.5]}, errors.InvalidTypeError, "expected numbers of documents"),
        (X, [X], {"tau": np.nan}, errors.InvalidValueError, "tau must be finite"),
        (X, [X], {"num_threads": 0}, errors.InvalidValueError, "num_threads"),
        (X, [X], {"doc_mask": [[True] * 3]}, errors.InvalidTypeError, "mask= belongs to a padded"),
    ],
)
def test_bad_input(
    q: Any, documents: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rz.maxsim(q, documents, **options)


def test_the_first_bad_document_is_named_for_any_threads() -> None:
    documents = [X] * 50 + [BAD[1]] * 50
    for threads in (1, 4):
        with pytest.raises(errors.NonFiniteError, match="document 50, token 2"):
            rz.maxsim(X, documents, num_threads=threads)
    assert rz.maxsim(X, documents, documents=range(50)).shape == (50,)


def test_bad_stores() -> None:
    with pytest.raises(errors.InvalidValueError, match="'rb4', 'rb2', 'rb1'"):
        rz.TokenStore([X], "rb3")
    with pytest.raises(errors.InvalidTypeError, match="RecurrentBinaryCodec"):
        rz.TokenStore([X], rz.FloatCodec(4))  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidValueError, match="at least 1 token"):
        rz.TokenStore([X[:0]])
    tokens = unit(np.random.default_rng(0), 300, 8)
    with pytest.raises(errors.InvalidValueError, match="MaxSim needs 'ip'"):
        rz.TokenStore([tokens], rz.RecurrentBinaryCodec(8, bits=2).fit(tokens, metric="l2"))
    store = rz.TokenStore([tokens])
    with pytest.raises(errors.ShapeError, match="4 dims, expected 8"):
        store.add([X])
    with pytest.raises(errors.NonFiniteError, match="document 1, token 0"):
        store.add([tokens, np.full((1, 8), np.nan)])
    assert (len(store), store.n_tokens) == (1, 300)
    with pytest.raises(errors.OutOfRangeError, match="document 1 is not"):
        store.get(1)
    with pytest.raises(errors.InvalidTypeError, match="belong to arrays"):
        rz.maxsim(tokens[:2], store, doc_scales=[1.0])
