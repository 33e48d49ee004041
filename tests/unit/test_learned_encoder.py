# SPDX-License-Identifier: Apache-2.0
"""LearnedEncoder: what it finds, that it repeats itself, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import residua as rz
from residua import errors

Floats = npt.NDArray[np.float32]
Sets = list[Floats]


def _sets(rng: np.random.Generator, topics: Floats, n: int, words: int) -> Sets:
    """Unit tokens around a few topics per set, as models make them."""
    out = []
    for _ in range(n):
        own = topics[rng.choice(len(topics), 6, replace=False)]
        x = own[rng.integers(0, 6, words)] + 0.1 * rng.standard_normal((words, topics.shape[1]))
        out.append((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32))
    return out


@pytest.fixture(scope="module")
def collection() -> tuple[Sets, Sets]:
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((60, 24)).astype(np.float32)
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    return _sets(rng, topics, 600, 30), _sets(rng, topics, 40, 8)


@pytest.fixture(scope="module")
def encoder(collection: tuple[Sets, Sets]) -> rz.LearnedEncoder:
    return rz.LearnedEncoder(24, output_dim=96, features=256, samples=1500).fit(collection[0])


def _found(encoder: Any, documents: Sets, queries: Sets) -> float:
    """Return the share of the ten best by MaxSim among the fifty best by inner product."""
    scores = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
    return rz.recall(np.argsort(-scores, axis=1)[:, :50], rz.maxsim_topk(queries, documents, 10).ids)


def test_finds_more_than_a_fixed_encoding_of_ten_times_the_values(
    encoder: rz.LearnedEncoder, collection: tuple[Sets, Sets]
) -> None:
    found = _found(encoder, *collection)
    assert found > 0.95  # 50 of 600 documents by chance: 0.08
    assert found > _found(rz.FDEncoder(24, k_sim=3, reps=15, proj_dim=8), *collection) + 0.05


def test_scores_follow_maxsim_but_for_a_term_per_query(
    encoder: rz.LearnedEncoder, collection: tuple[Sets, Sets]
) -> None:
    documents, queries = collection
    scores = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
    exact = rz.maxsim(queries, documents)
    exact -= exact.mean(axis=1, keepdims=True)
    assert np.square(scores - exact).mean() < 0.2 * np.square(exact).mean()


def test_documents_that_were_not_fitted_are_found(collection: tuple[Sets, Sets]) -> None:
    documents, queries = collection
    encoder = rz.LearnedEncoder(24, output_dim=96, features=256, samples=1500).fit(documents[:300])
    assert _found(encoder, documents, queries) > 0.9


def test_queries_of_the_fit_help_where_they_are_unlike_documents(collection: tuple[Sets, Sets]) -> None:
    documents, queries = collection
    rng = np.random.default_rng(5)
    turn = rng.standard_normal((24, 24)).astype(np.float32) * 0.35
    unlike = [(q @ turn).astype(np.float32) for q in queries]
    sample = [rng.standard_normal((8, 24)).astype(np.float32) @ turn for _ in range(80)]
    small = {"output_dim": 96, "features": 256, "samples": 1200}
    plain = rz.LearnedEncoder(24, **small).fit(documents)  # type: ignore[arg-type]
    asked = rz.LearnedEncoder(24, **small).fit(documents, queries=sample)  # type: ignore[arg-type]
    assert _found(asked, documents, unlike) > _found(plain, documents, unlike)


def test_repeats_itself_for_any_threads_and_form(
    encoder: rz.LearnedEncoder, collection: tuple[Sets, Sets]
) -> None:
    documents, queries = collection
    again = rz.LearnedEncoder(24, output_dim=96, features=256, samples=1500).fit(
        (np.concatenate(documents), np.arange(601) * 30), num_threads=3
    )
    vectors = encoder.encode_documents(documents, num_threads=1)
    np.testing.assert_array_equal(again.encode_documents(documents, num_threads=2), vectors)
    np.testing.assert_array_equal(
        again.encode_queries(np.stack(queries), num_threads=2), encoder.encode_queries(queries)
    )
    np.testing.assert_allclose(encoder.encode_documents(documents[3]), vectors[3], rtol=1e-3, atol=1e-5)
    assert encoder.encode_documents(documents[3]).shape == (96,)
    other = rz.LearnedEncoder(24, output_dim=96, features=256, samples=1500, seed=2).fit(documents)
    assert not np.array_equal(other.encode_documents(documents), vectors)


def test_masks_hide_tokens_and_empty_sets_are_zero(
    encoder: rz.LearnedEncoder, collection: tuple[Sets, Sets]
) -> None:
    padded = np.stack(collection[0][:3])
    mask = np.ones((3, 30), bool)
    mask[0, 10:], mask[1] = False, False
    found = encoder.encode_documents(padded, mask=mask)
    expected = encoder.encode_documents([padded[0, :10], np.empty((0, 24), np.float32), padded[2]])
    np.testing.assert_array_equal(found, expected)
    assert not found[1].any()
    assert found[0].any()
    asked = encoder.encode_queries(padded, mask=mask)
    assert not asked[1].any()
    np.testing.assert_allclose(asked[0], encoder.encode_queries(padded[0, :10]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-7, 1e7])
def test_tokens_of_any_scale_rank_alike(collection: tuple[Sets, Sets], factor: float) -> None:
    documents, queries = ([(s * factor).astype(np.float32) for s in sets] for sets in collection)
    encoder = rz.LearnedEncoder(24, output_dim=96, features=256, samples=1500).fit(documents)
    assert _found(encoder, documents, queries) > 0.95


def test_fewer_documents_than_values_leave_the_last_ones_zero(collection: tuple[Sets, Sets]) -> None:
    documents = collection[0][:20]
    encoder = rz.LearnedEncoder(24, output_dim=64, features=100, samples=400).fit(documents)
    vectors = encoder.encode_documents(documents)
    assert vectors.shape == (20, 64)
    assert not vectors[:, 20:].any()
    scores = encoder.encode_queries(documents) @ vectors.T
    assert (scores.argmax(axis=1) == np.arange(20)).mean() > 0.9


@pytest.mark.parametrize("mmap", [False, True])
def test_saved_and_loaded_gives_the_same_vectors(
    encoder: rz.LearnedEncoder, collection: tuple[Sets, Sets], tmp_path: Path, mmap: bool
) -> None:
    path = tmp_path / "encoder.rsd"
    encoder.save(path)
    loaded = rz.load(path, mmap=mmap)
    assert isinstance(loaded, rz.LearnedEncoder)
    assert repr(loaded) == repr(encoder)
    assert loaded.config == encoder.config
    documents, queries = collection
    np.testing.assert_array_equal(loaded.encode_documents(documents), encoder.encode_documents(documents))
    np.testing.assert_array_equal(loaded.encode_queries(queries), encoder.encode_queries(queries))
    assert sum(encoder.memory().values()) < path.stat().st_size < sum(encoder.memory().values()) + 4096


def test_damaged_files_are_refused(encoder: rz.LearnedEncoder, tmp_path: Path) -> None:
    path = tmp_path / "encoder.rsd"
    encoder.save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.CorruptFileError):
        rz.load(path)
    other = rz.LearnedEncoder(23)
    other._maps = encoder._maps
    other.save(path)
    with pytest.raises(errors.CorruptFileError, match="anchors holds"):
        rz.load(path)


def test_an_encoder_that_is_not_fitted_says_so(tmp_path: Path) -> None:
    encoder = rz.LearnedEncoder(24)
    assert not encoder.is_trained
    assert "not fitted" in repr(encoder)
    for call in (encoder.encode_documents, encoder.encode_queries):
        with pytest.raises(errors.NotTrainedError, match="call fit"):
            call(np.ones((2, 24), np.float32))
    with pytest.raises(errors.NotTrainedError, match="call fit"):
        encoder.save(tmp_path / "encoder.rsd")


def test_bad_tokens_are_named(encoder: rz.LearnedEncoder, collection: tuple[Sets, Sets]) -> None:
    documents = [d.copy() for d in collection[0][:4]]
    documents[2][7, 3] = np.nan
    for call in (encoder.encode_documents, rz.LearnedEncoder(24).fit):
        with pytest.raises(errors.NonFiniteError, match="document 2, token 7"):
            call(documents)
    with pytest.raises(errors.NonFiniteError, match="query 2, token 7"):
        encoder.encode_queries(documents)
    with pytest.raises(errors.NonFiniteError, match="query 2, token 7"):
        rz.LearnedEncoder(24).fit(collection[0], queries=documents)
    with pytest.raises(errors.ShapeError, match="expected 24"):
        encoder.encode_queries(np.ones((3, 23), np.float32))
    with pytest.raises(errors.InvalidValueError, match="at least 1 token"):
        rz.LearnedEncoder(24).fit([np.empty((0, 24), np.float32)])
    with pytest.raises(errors.InvalidValueError, match="1e15"):
        rz.LearnedEncoder(24).fit([np.full((2, 24), 1e20, np.float32)])
    with pytest.raises(errors.InvalidValueError, match="set 0 overflow"):
        encoder.encode_documents([np.full((2, 24), 3e38, np.float32)])


@pytest.mark.parametrize("setting", ["output_dim", "samples", "features", "seed"])
def test_bad_settings_are_refused(setting: str) -> None:
    with pytest.raises(errors.InvalidValueError, match=setting):
        rz.LearnedEncoder(24, **{setting: -1})
    with pytest.raises(errors.InvalidTypeError, match=setting):
        rz.LearnedEncoder(24, **{setting: 2.5})  # type: ignore[arg-type]
