# SPDX-License-Identifier: Apache-2.0
"""Settings of a MultiVectorIndex: what is refused, and how many candidates are ranked."""

from __future__ import annotations

import numpy as np
import pytest

import residua as rz
from residua._candidates import Count

DIM = 32


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="token_codec"):
        rz.MultiVectorIndex(DIM, token_codec="rb3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="encoder"):
        rz.MultiVectorIndex(DIM, encoder="muvera")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="encode_documents"):
        rz.MultiVectorIndex(DIM, encoder=3)  # type: ignore[arg-type]
    with pytest.raises(rz.errors.ShapeError, match="64 dims, the index has 32"):
        rz.MultiVectorIndex(DIM, encoder=rz.FDEncoder(64))
    with pytest.raises(rz.errors.ShapeError):
        rz.MultiVectorIndex(DIM, codec=rz.RecurrentBinaryCodec(100, bits=1))
    with pytest.raises(ValueError, match="index"):
        rz.MultiVectorIndex(DIM, index="ivf")  # type: ignore[arg-type]


def test_candidates_grow_with_k_and_documents() -> None:
    guessed = Count(10, 100, 4000)
    assert guessed.for_search(10, 900) == 900  # few are all ranked
    assert guessed.for_search(10, 4000) == 100
    assert guessed.for_search(20, 4000) == 200
    assert guessed.for_search(5, 4000) == 100
    assert guessed.for_search(10, 64_000) == 200  # a quarter of the exponent
    assert Count(10, 40, 500, tuned=True).for_search(10, 500) == 40


def test_tune_reaches_a_recall_of_one() -> None:
    """Where every query finds its own document by one candidate."""
    rng = np.random.default_rng(0)
    documents = [rng.normal(size=(6, DIM)).astype(np.float32) for _ in range(300)]
    index = rz.MultiVectorIndex(DIM, encoder=rz.FDEncoder(DIM, k_sim=2, reps=10), codec=None)
    index.add(documents)
    result = index.tune(documents[:100], k=1, target_recall=1)
    assert (result.recall, result.ci_high, result.params) == (1, 1, {"candidates": 1})
    assert result.reached
