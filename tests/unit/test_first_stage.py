# SPDX-License-Identifier: Apache-2.0
"""The first stage of a MultiVectorIndex: what is encoded, and what a file holds of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import residua as rz

DIM = 32


class Counting:
    """Encodes as another encoder does, and counts documents."""

    def __init__(self, encoder: rz.FDEncoder) -> None:
        self._encoder = encoder
        self.dim, self.output_dim = encoder.dim, encoder.output_dim
        self.encoded = 0

    def encode_documents(self, tokens: Any, *, num_threads: int | None = None) -> np.ndarray:
        self.encoded += len(tokens[1]) - 1
        return self._encoder.encode_documents(tokens, num_threads=num_threads)

    def encode_queries(self, tokens: Any, *, num_threads: int | None = None) -> np.ndarray:
        return self._encoder.encode_queries(tokens, num_threads=num_threads)


@pytest.fixture(scope="module")
def documents() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(t, DIM)).astype(np.float32) for t in (3, 0, *rng.integers(1, 9, 298), 0)]


@pytest.mark.parametrize(("sample", "batch_bytes"), [(4096, 2**28), (100, 2**17)])
@pytest.mark.parametrize("before", [0, 40])
def test_documents_of_the_fit_are_encoded_once(
    documents: list[np.ndarray], before: int, sample: int, batch_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that are added, some of them, or some that came before: vectors are those of their documents."""
    monkeypatch.setattr("residua._first_stage._SAMPLE", sample)
    monkeypatch.setattr("residua._first_stage._BATCH_BYTES", batch_bytes)
    encoder = rz.FDEncoder(DIM, k_sim=2, reps=5)
    counting = Counting(encoder)
    index = rz.MultiVectorIndex(DIM, encoder=counting, codec=None)
    index.add(documents[:before])
    assert counting.encoded == 0
    index.add(documents[before:])
    filled = np.flatnonzero([len(d) for d in documents])
    fitted = filled[:: -(-len(filled) // sample)]
    assert counting.encoded == len(documents) + (fitted < before).sum()
    assert index.first_stage is not None
    np.testing.assert_array_equal(
        index.first_stage.get(np.arange(len(documents))), encoder.encode_documents(documents)
    )


def test_a_fitted_codec_stands_in_a_file_once(documents: list[np.ndarray], tmp_path: Path) -> None:
    encoder = rz.FDEncoder(DIM, k_sim=2, reps=5)
    codec = rz.PQCodec(encoder.output_dim, 8).fit(encoder.encode_documents(documents[:300]), metric="ip")
    index = rz.MultiVectorIndex(DIM, encoder=encoder, codec=codec, token_codec="float16")
    paths = [tmp_path / name for name in ("codec", "empty", "filled")]
    codec.save(paths[0])
    index.save(paths[1])
    again = rz.load(paths[1])
    assert isinstance(again, rz.MultiVectorIndex)
    for one in (index, again):
        one.add(documents)
        one.save(paths[2])
        sizes = [path.stat().st_size for path in paths]
        assert sizes[0] < sizes[1]
        assert sizes[2] < 2 * sizes[0]
    kept = rz.load(paths[2])
    assert isinstance(kept, rz.MultiVectorIndex)
    for one in (again, kept):
        hits = one.search(documents[5], 20, rerank=False)
        np.testing.assert_array_equal(hits.scores, index.search(documents[5], 20, rerank=False).scores)
