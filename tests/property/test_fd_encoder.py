# SPDX-License-Identifier: Apache-2.0
"""What the theory of fixed-dimensional encodings promises (MUVERA, arXiv 2405.19504)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rz

Floats = npt.NDArray[np.float32]


def tokens(rng: np.random.Generator, n: int, dim: int) -> Floats:
    x = rng.standard_normal((n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def chamfer(q: Floats, d: Floats) -> float:
    return float((q.astype(np.float64) @ d.T.astype(np.float64)).max(axis=1).sum())


@st.composite
def cases(draw: st.DrawFn) -> tuple[Floats, Floats, dict[str, Any]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dim = draw(st.integers(1, 40))
    q, d = (tokens(rng, draw(st.integers(1, 40)), dim) for _ in range(2))
    center = tokens(rng, 1, dim)[0] / 2 if draw(st.booleans()) else None
    settings = {
        "dim": dim,
        "k_sim": draw(st.integers(0, 6)),
        "reps": draw(st.integers(1, 5)),
        "seed": draw(st.integers(0, 2**40)),
        "center": center,
    }
    return q, d, settings


@settings(max_examples=100, deadline=None)
@given(cases())
def test_estimates_lie_between_the_worst_and_the_best_token(
    case: tuple[Floats, Floats, dict[str, Any]],
) -> None:
    q, d, given_settings = case
    encoder = rz.FDEncoder(**given_settings, proj="identity")
    found = (
        float(encoder.encode_queries(q).astype(np.float64) @ encoder.encode_documents(d))
        / given_settings["reps"]
    )
    scores = q.astype(np.float64) @ d.T.astype(np.float64)
    assert scores.min(axis=1).sum() - 1e-4 <= found <= scores.max(axis=1).sum() + 1e-4


@settings(max_examples=50, deadline=None)
@given(cases())
def test_short_cases_are_exact(case: tuple[Floats, Floats, dict[str, Any]]) -> None:
    q, d, given_settings = case
    reps = given_settings["reps"]
    encoder = rz.FDEncoder(**given_settings, proj="identity")
    one = encoder.encode_documents(d[:1])
    np.testing.assert_allclose(encoder.encode_queries(q) @ one / reps, (q @ d[0]).sum(), atol=1e-4)
    whole = rz.FDEncoder(**{**given_settings, "k_sim": 0}, proj="identity")
    mean = q.sum(axis=0) @ d.mean(axis=0)
    np.testing.assert_allclose(whole.encode_queries(q) @ whole.encode_documents(d) / reps, mean, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(cases(), st.sampled_from(["count_sketch", "dense"]), st.integers(1, 20))
def test_queries_add_up_and_are_sparse(
    case: tuple[Floats, Floats, dict[str, Any]], proj: Any, proj_dim: int
) -> None:
    a, b, given_settings = case
    encoder = rz.FDEncoder(**given_settings, proj=proj, proj_dim=proj_dim)
    both = encoder.encode_queries(np.concatenate([a, b]))
    np.testing.assert_allclose(both, encoder.encode_queries(a) + encoder.encode_queries(b), atol=1e-4)
    assert np.count_nonzero(encoder.encode_queries(a)) <= len(a) * given_settings["reps"] * proj_dim


@pytest.mark.parametrize("proj", ["count_sketch", "dense"])
def test_projections_are_unbiased_with_the_known_variance(proj: Any) -> None:
    rng = np.random.default_rng(0)
    q, p = tokens(rng, 2, 32).astype(np.float64)
    width, draws = 8, 4000
    # Without hyperplanes a repetition is one projected value after the other.
    encoder = rz.FDEncoder(32, 0, draws, width, proj=proj)
    a, b = (encoder.encode_queries(x[None]).reshape(draws, width).astype(np.float64) for x in (q, p))
    products = (a * b).sum(axis=1)
    variance = ((q @ q) * (p @ p) + (q @ p) ** 2 - 2 * (q**2 * p**2).sum()) / width
    assert abs(products.mean() - q @ p) <= 4 * np.sqrt(variance / draws)
    assert 0.85 <= products.var() / variance <= 1.15


def clusters(rng: np.random.Generator) -> tuple[list[Floats], list[Floats]]:
    """Documents of 4 to 40 tokens around shared topics, and queries close to some tokens of one each."""
    topics = tokens(rng, 60, 32)
    documents = []
    for _ in range(150):
        x = topics[rng.integers(0, 60, rng.integers(4, 41))] + 0.12 * rng.standard_normal((1, 32))
        documents.append((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32))
    queries = [d[rng.integers(0, len(d), 8)] + np.float32(0.05) * tokens(rng, 8, 32) for d in documents[:60]]
    return documents, queries


def test_more_hyperplanes_bring_the_estimate_closer() -> None:
    documents, queries = clusters(np.random.default_rng(1))
    exact = np.array([[chamfer(q, d) for d in documents[:60]] for q in queries[:20]])
    gaps = []
    for k_sim in (0, 2, 4, 6):
        encoder = rz.FDEncoder(32, k_sim, 10, proj="identity")
        found = encoder.encode_queries(queries[:20]) @ encoder.encode_documents(documents[:60]).T / 10
        gaps.append(float((exact - found).mean()))
    assert all(a > b > 0 for a, b in itertools.pairwise(gaps)), gaps


def test_the_sides_are_not_interchangeable() -> None:
    documents, queries = clusters(np.random.default_rng(2))
    exact = np.array([[chamfer(q, d) for d in documents] for q in queries]).argmax(axis=1)
    encoder = rz.FDEncoder(32, 5, 3, 4)

    def right(q: Floats, d: Floats) -> float:
        return float(((q @ d.T).argmax(axis=1) == exact).mean())

    good = right(encoder.encode_queries(queries), encoder.encode_documents(documents))
    swapped = right(encoder.encode_documents(queries), encoder.encode_queries(documents))
    filled = right(encoder.encode_documents(queries), encoder.encode_documents(documents))
    assert good >= 0.8
    assert swapped <= good - 0.3
    assert filled <= good - 0.1
