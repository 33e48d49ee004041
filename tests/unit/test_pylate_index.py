# SPDX-License-Identifier: Apache-2.0
"""PyLateIndex: what PyLate's retriever calls, and what stays in its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import residua as rz

rng = np.random.default_rng(0)
TOKENS = [rng.normal(size=(rng.integers(5, 12), 16)).astype(np.float32) for _ in range(30)]
IDS = [f"d{i}" for i in range(30)]


def test_it_answers_as_pylate_expects(tmp_path: Path) -> None:
    index = rz.PyLateIndex(tmp_path / "indexes", "abstracts")
    assert index.is_end_to_end_index
    assert index.add_documents(documents_ids=IDS, documents_embeddings=TOKENS, batch_size=7) is index
    results = index(queries_embeddings=[TOKENS[3][:4], TOKENS[9][:4]], k=5)
    assert [r[0]["id"] for r in results] == ["d3", "d9"]
    assert [len(r) for r in results] == [5, 5]
    scores = [hit["score"] for hit in results[0]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(float(rz.maxsim(TOKENS[3][:4], TOKENS[3])), rel=1e-5)
    assert len(index(TOKENS[3][:4], k=100)[0]) == 30
    same = index([TOKENS[3]] * 2, subset=["d1", "d2"])
    assert [{hit["id"] for hit in r} for r in same] == [{"d1", "d2"}] * 2
    each = index([TOKENS[3]] * 2, subset=[["d1"], ["d2", "missing"]])
    assert [[hit["id"] for hit in r] for r in each] == [["d1"], ["d2"]]
    assert index([TOKENS[3]] * 2, subset=[]) == [[], []]


def test_the_folder_keeps_it(tmp_path: Path) -> None:
    rz.PyLateIndex(tmp_path, "a").add_documents(IDS, TOKENS)
    again = rz.PyLateIndex(tmp_path, "a")
    assert len(again) == 30
    again.remove_documents(["d3", "missing"])
    assert rz.PyLateIndex(tmp_path, "a")([TOKENS[3]], k=30)[0][0]["id"] != "d3"
    again.add_documents("d4", [TOKENS[3]])  # replaces
    assert len(again) == 29
    assert again([TOKENS[3]], k=1)[0][0]["id"] == "d4"
    got = again.get_documents_embeddings([["d4"], ["d5", "d6"]])
    np.testing.assert_array_equal(got[0][0], TOKENS[3])
    assert len(got[1]) == 2
    fresh = rz.PyLateIndex(tmp_path, "a", override=True)
    assert len(fresh) == 0
    assert len(rz.PyLateIndex(tmp_path, "a")) == 29  # until something is added


def test_padded_arrays_and_options(tmp_path: Path) -> None:
    index = rz.PyLateIndex(tmp_path, "b", embedding_size=16, token_codec="float16")
    padded = rng.normal(size=(4, 6, 16)).astype(np.float32)
    index.add_documents(["a", "b", "c", "d"], padded)
    assert index(padded[2], k=1)[0][0]["id"] == "c"
    assert "float16" in repr(index)


def test_bad_input(tmp_path: Path) -> None:
    index = rz.PyLateIndex(tmp_path, "c")
    with pytest.raises(ValueError, match="the index is empty"):
        index(TOKENS[:1])
    with pytest.raises(ValueError, match="2 given for 3 documents"):
        index.add_documents(["a", "b"], TOKENS[:3])
    with pytest.raises(ValueError, match="index_name"):
        rz.PyLateIndex(tmp_path, "a/b")
    with pytest.raises(TypeError, match="token_codecs"):
        rz.PyLateIndex(tmp_path, "d", token_codecs="rb2")
    rz.FDEncoder(16).save(tmp_path / "e.rz")
    with pytest.raises(TypeError, match="FDEncoder"):
        rz.PyLateIndex(tmp_path, "e")
