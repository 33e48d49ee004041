# SPDX-License-Identifier: Apache-2.0
"""MaxSim on a CUDA device: the scores of the CPU, from tokens on either side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    OutOfMemoryError,
    OutOfRangeError,
    ShapeError,
)

DIM = 48
RNG = np.random.default_rng(0)


def sets(*counts: int, dtype: str = "float32", dim: int = DIM) -> list[np.ndarray]:
    return [RNG.normal(size=(n, dim)).astype(dtype) for n in counts]


def flat(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(parts), np.cumsum([0, *map(len, parts)])


def there(parts: list[np.ndarray]) -> tuple[Any, np.ndarray]:
    tokens, offsets = flat(parts)
    return rz.cuda.to_device(tokens), offsets


class Interface:
    """An array of another library, which knows __cuda_array_interface__ alone."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, "stream": None}


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_scores_are_those_of_the_cpu(dtype: str) -> None:
    documents, queries = sets(5, 0, 33, 1, dtype=dtype), sets(3, 20)
    expected = rz.maxsim(queries, documents)
    close(rz.maxsim(queries, documents, device="cuda"), expected)
    close(rz.maxsim(queries[0], documents, device="cuda:0"), expected[0])
    close(rz.maxsim(queries, documents[2], device="cuda"), expected[:, 2])
    close(rz.maxsim(queries, documents, device="cuda", documents=[3, 0, 3]), expected[:, [3, 0, 3]])
    close(rz.maxsim(queries, documents, device="cuda", tau=0.3), rz.maxsim(queries, documents, tau=0.3))


def test_int8_tokens_with_scales_and_masks_of_padded_ones() -> None:
    tokens = RNG.integers(-127, 128, (9, DIM), np.int8)
    scales, offsets = RNG.random(9).astype(np.float32), np.array([0, 4, 9])
    queries = sets(2, 3)
    given: dict[str, Any] = {"doc_scales": scales}
    close(
        rz.maxsim(queries, (tokens, offsets), device="cuda", **given) / 1e3,
        rz.maxsim(queries, (tokens, offsets), **given) / 1e3,
    )
    padded, mask = RNG.normal(size=(3, 5, DIM)), RNG.random((3, 5)) < 0.6
    close(rz.maxsim(queries, padded, doc_mask=mask, device="cuda"), rz.maxsim(queries, padded, doc_mask=mask))


@pytest.mark.parametrize("wrap", [lambda a: a, Interface], ids=["dlpack", "interface"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tokens_on_the_device_are_read_where_they_are(dtype: str, wrap: Any) -> None:
    documents, queries = sets(4, 4, 4, dtype=dtype), sets(3, 3)
    expected = rz.maxsim(queries, documents)
    tokens, offsets = there(documents)
    asked, q_offsets = there(queries)
    close(rz.maxsim((wrap(asked), q_offsets), (wrap(tokens), offsets), device="cuda"), expected)
    close(rz.maxsim(wrap(rz.cuda.to_device(queries[1])), (wrap(tokens), offsets), device="cuda"), expected[1])
    halves = wrap(rz.cuda.to_device(queries[0].astype(np.float16)))
    close(rz.maxsim(halves, documents, device="cuda"), rz.maxsim(queries[0].astype(np.float16), documents))
    stacked = wrap(rz.cuda.to_device(np.stack(documents)))
    close(rz.maxsim(queries, stacked, device="cuda"), expected)
    close(rz.maxsim(queries, wrap(rz.cuda.to_device(documents[1])), device="cuda"), expected[:, 1])
    # Other types go through the host, as masks do.
    close(
        rz.maxsim(queries, wrap(rz.cuda.to_device(np.stack(documents).astype(np.float64))), device="cuda"),
        expected,
    )
    mask = np.ones((3, 4), bool)
    close(rz.maxsim(queries, stacked, doc_mask=mask, device="cuda"), expected)


def test_results_may_stay_on_the_device() -> None:
    documents, queries = sets(4, 6), sets(3, 3)
    out = rz.maxsim(queries, documents, device="cuda", out="device")
    assert isinstance(out, rz.cuda.DeviceArray)
    assert (out.shape, out.dtype) == ((2, 2), np.float32)
    close(out.to_numpy(), rz.maxsim(queries, documents))


@pytest.mark.parametrize("codec", ["rb4", "rb2", "rb1"])
def test_scores_of_codes_are_those_of_the_cpu_to_the_bit(codec: str) -> None:
    documents, queries = sets(40, 0, 70, 9), sets(3, 40)
    store = rz.TokenStore(documents, codec)
    store.remove([3])
    expected = rz.maxsim(queries, store)
    held = rz.cuda.TokenDocuments(store)
    np.testing.assert_array_equal(rz.maxsim(queries, held), expected)
    np.testing.assert_array_equal(rz.maxsim(queries, store, device="cuda"), expected)
    np.testing.assert_array_equal(rz.maxsim(there(queries), held), expected)
    halves = [q.astype(np.float16) for q in queries]
    np.testing.assert_array_equal(rz.maxsim(there(halves), held), rz.maxsim(halves, store))
    queries[1][4, 0] = np.inf
    with pytest.raises(NonFiniteError, match="q_tokens"):
        rz.maxsim(there(queries), held)
    queries[1][4, 0] = 0
    expected = rz.maxsim(queries, store)
    own = rz.cuda.TokenDocuments(documents[:3], store.codec)
    np.testing.assert_array_equal(rz.maxsim(queries, own), expected[:, :3])
    assert (own.form, len(own), own.n_tokens, own.dim) == ("codes", 3, 110, DIM)


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_documents_that_stay_on_the_device(codec: str) -> None:
    documents, queries = sets(4, 0, 30), sets(3, 5)
    expected = rz.maxsim(queries, rz.TokenStore(documents, codec))
    held = rz.cuda.TokenDocuments(documents, codec)
    assert repr(held) == f"TokenDocuments(3 documents, 34 tokens, {codec}, 'cuda:0')"
    close(rz.maxsim(queries, held), expected)
    close(rz.maxsim(queries, rz.cuda.TokenDocuments(there(documents), codec), device="cuda"), expected)
    np.testing.assert_array_equal(rz.maxsim(queries, held, documents=[2]), rz.maxsim(queries, held)[:, 2:])


def test_float16_documents_on_the_device_are_not_copied() -> None:
    tokens = rz.cuda.to_device(sets(50, dtype="float16")[0])
    offsets = np.array([0, 20, 50])
    assert rz.cuda.TokenDocuments((tokens, offsets)).nbytes < 100
    assert rz.cuda.TokenDocuments((tokens, offsets), "float32").nbytes > 50 * DIM * 2


def test_nothing_to_score() -> None:
    queries = sets(3, 2)
    assert rz.maxsim(queries, [], device="cuda").shape == (2, 0)
    assert rz.maxsim(queries, sets(4, 5), device="cuda", documents=[]).shape == (2, 0)
    none = rz.maxsim(queries, sets(0, 0), device="cuda")
    assert none.shape == (2, 2)
    assert (none == -np.inf).all()


def test_what_is_wrong_is_said_and_documents_stay_usable() -> None:
    documents, query = sets(4, 6), sets(3)[0]
    held = rz.cuda.TokenDocuments(documents)
    with pytest.raises(ShapeError, match="expected 48"):
        rz.maxsim(query[:, :16], held)
    with pytest.raises(ShapeError, match="expected 48"):
        rz.maxsim(rz.cuda.to_device(np.ascontiguousarray(query[:, :16])), held)
    with pytest.raises(OutOfRangeError, match="2 is not one of the 2 documents"):
        rz.maxsim(query, held, documents=[0, 2])
    with pytest.raises(InvalidValueError, match="query 1 has no tokens"):
        rz.maxsim((rz.cuda.to_device(query), np.array([0, 3, 3])), held)
    with pytest.raises(ShapeError, match="offsets must ascend from 0 to the number of tokens, 3"):
        rz.maxsim((rz.cuda.to_device(query), np.array([0, 4])), held)
    with pytest.raises(InvalidTypeError, match="TokenDocuments"):
        rz.maxsim(query, held, doc_scales=[1.0])
    with pytest.raises(InvalidTypeError, match="has its codec"):
        rz.cuda.TokenDocuments(rz.TokenStore(documents, "rb4"), "rb2")
    with pytest.raises(InvalidValueError, match="token_codec"):
        rz.cuda.TokenDocuments(documents, "pq")
    with pytest.raises(InvalidValueError, match="'cuda:0'"):
        rz.maxsim(query, held, device="cuda:7")
    with pytest.raises(InvalidValueError, match="out"):
        rz.maxsim(query, documents, out="torch")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="device='cuda'"):
        rz.maxsim(query, documents, out="device")
    close(rz.maxsim(query, held), rz.maxsim(query, [d.astype(np.float16) for d in documents]))


@pytest.mark.parametrize("side", ["host", "device"])
def test_tokens_that_are_not_finite_are_named(side: str) -> None:
    documents, queries = sets(4, 6), sets(3, 2)
    place = there if side == "device" else flat
    documents[1][2, 5] = np.inf
    with pytest.raises(NonFiniteError, match="document 1, token 2"):
        rz.maxsim(place(queries), place(documents), device="cuda")
    documents[1][2, 5] = 1e6
    close(rz.maxsim(queries, documents, device="cuda") / 1e6, rz.maxsim(queries, documents) / 1e6)
    queries[1][1, 0] = np.nan
    with pytest.raises(NonFiniteError, match="query 1, token 1"):
        rz.maxsim(place(queries), place(documents), device="cuda")


def test_a_cap_on_memory() -> None:
    documents, query = sets(300, dtype="float16"), sets(3)[0]
    with pytest.raises(OutOfMemoryError, match="tokens of documents"):
        rz.cuda.TokenDocuments(documents, memory_limit=20_000)
    held = rz.cuda.TokenDocuments(documents, memory_limit=200_000)
    close(rz.maxsim(query, held), rz.maxsim(query, documents))
