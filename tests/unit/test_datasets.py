# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import residua as rz


@pytest.fixture(scope="module")
def sample() -> rz.datasets.Sample:
    return rz.datasets.load_sample()


def test_shapes_and_types(sample: rz.datasets.Sample) -> None:
    assert sample.documents.shape == (8000, 384)
    assert sample.queries.shape == (500, 384)
    assert sample.documents.dtype == sample.queries.dtype == np.float16
    assert sample.ground_truth.shape == (500, 100)
    assert sample.ground_truth.dtype == np.int32
    assert sample.metric == "cosine"
    assert "Apache-2.0" in sample.license


def test_vectors_have_unit_length(sample: rz.datasets.Sample) -> None:
    for vectors in (sample.documents, sample.queries):
        np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1.0, atol=1e-3)


def test_columns_are_complete(sample: rz.datasets.Sample) -> None:
    kinds = {
        "title": "U",
        "venue": "U",
        "venue_type": "U",
        "year": "i",
        "n_authors": "i",
        "has_code": "b",
        "has_doi": "b",
    }
    for columns, n in ((sample.attributes, 8000), (sample.query_attributes, 500)):
        assert {name: values.dtype.kind for name, values in columns.items()} == kinds
        assert all(values.shape == (n,) for values in columns.values())
        assert all((columns[name] != "").all() for name in ("title", "venue"))
        assert set(columns["venue_type"]) <= {"conference", "journal", "workshop", ""}
        assert columns["year"].min() >= 1980
        assert columns["n_authors"].min() >= 1


def test_ids_are_unique_and_queries_are_held_out(sample: rz.datasets.Sample) -> None:
    assert len(np.unique(sample.ids)) == 8000
    assert len(np.unique(sample.query_ids)) == 500
    assert not np.isin(sample.query_ids, sample.ids).any()


def test_ground_truth_is_the_exact_cosine_order(sample: rz.datasets.Sample) -> None:
    documents = sample.documents.astype(np.float64)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    scores = sample.queries.astype(np.float64) @ documents.T
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :100]
    found = np.take_along_axis(scores, sample.ground_truth.astype(np.int64), axis=1)
    # Rows are compared by score: two scores may differ by less than the rounding of another BLAS.
    np.testing.assert_allclose(found, np.take_along_axis(scores, expected, axis=1), rtol=0, atol=1e-12)
    assert all(len(set(row)) == 100 for row in sample.ground_truth.tolist())


def test_sample_is_frozen_and_fresh(sample: rz.datasets.Sample) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample.metric = "l2"  # type: ignore[misc, assignment]
    other = rz.datasets.load_sample()
    other.documents[0] = 0
    assert sample.documents[0].any()
    assert len(repr(sample)) < 1000
