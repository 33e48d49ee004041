# SPDX-License-Identifier: Apache-2.0
"""Settings of a MultiVectorIndex: what is refused, and how many candidates are ranked."""

from __future__ import annotations

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
