# SPDX-License-Identifier: Apache-2.0
"""Arrays of every accepted kind give what their float32 values give, and are never written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import residua as rz
from residua.errors import ResiduaError

ml_dtypes = pytest.importorskip("ml_dtypes")

N, DIM = 41, 37


class OnlyDLPack:
    """A tensor of another library: DLPack and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class OnlyArray:
    """A data frame, more or less: __array__ and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array if dtype is None else self.array.astype(dtype)


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def padded(x: np.ndarray) -> np.ndarray:
    wide = np.full((2 * len(x), 3 * x.shape[1]), np.nan, np.float32)
    wide[::2, 1::3] = x
    return wide[::2, 1::3]


def unaligned(x: np.ndarray) -> np.ndarray:
    raw = bytearray(x.nbytes + 1)
    out = np.frombuffer(raw, np.uint8, offset=1)[: x.nbytes].view(np.uint8)
    out[:] = np.frombuffer(x.tobytes(), np.uint8)
    return np.ndarray(x.shape, x.dtype, buffer=raw, offset=1)


# All values fit bfloat16 (8 bits), so that no conversion rounds.
FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "float32": lambda x: x,
    "float16": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: x.astype(ml_dtypes.bfloat16),
    "float64": lambda x: x.astype(np.float64),
    "big endian": lambda x: x.astype(">f4"),
    "list": lambda x: x.tolist(),
    "tuple of arrays": lambda x: tuple(x),
    "Fortran order": np.asfortranarray,
    "read-only": read_only,
    "strided": padded,
    "negative strides": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "unaligned": unaligned,
    "subclass": lambda x: x.view(np.recarray),
    "DLPack": OnlyDLPack,
    "strided DLPack": lambda x: OnlyDLPack(padded(x)),
    "float64 DLPack": lambda x: OnlyDLPack(x.astype(np.float64)),
    "__array__": OnlyArray,
    "memoryview": lambda x: memoryview(x),
}


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x, q = (rng.integers(-127, 128, (n, DIM)).astype(np.float32) / 32 for n in (N, 5))
    return x, q


def raw_bytes(form: Any) -> bytes:
    if isinstance(form, (OnlyDLPack, OnlyArray)):
        form = form.array
    return np.asarray(form).tobytes()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: rz.FloatCodec(DIM, "float16"),
        lambda: rz.BinaryCodec(DIM),
        lambda: rz.RecurrentBinaryCodec(DIM, 2),
    ],
    ids=["float", "binary", "recurrent"],
)
def test_codecs(form: str, make: Callable[[], rz.Codec], data: tuple[np.ndarray, np.ndarray]) -> None:
    x, q = data
    given_x, given_q = FORMS[form](x), FORMS[form](q)
    before = raw_bytes(given_x), raw_bytes(given_q)
    plain, other = make().fit(x, queries=q), make().fit(given_x, queries=given_q)
    assert other.fingerprint == plain.fingerprint
    codes = plain.encode(x)
    np.testing.assert_array_equal(other.encode(given_x), codes)
    np.testing.assert_array_equal(other.scores(given_q, codes), plain.scores(q, codes))
    assert before == (raw_bytes(given_x), raw_bytes(given_q))


@pytest.mark.parametrize("form", FORMS)
def test_index_and_exact_search(form: str, data: tuple[np.ndarray, np.ndarray]) -> None:
    x, q = data
    given_x, given_q = FORMS[form](x), FORMS[form](q)
    before = raw_bytes(given_x), raw_bytes(given_q)
    for metric in ("cosine", "ip", "l2"):
        plain, other = rz.FlatIndex(DIM, metric=metric), rz.FlatIndex(DIM, metric=metric)
        plain.add(x)
        other.add(given_x)
        np.testing.assert_array_equal(other.get(np.arange(N)), x)
        for found, wanted in [
            (other.search(given_q, 7), plain.search(q, 7)),
            (rz.exact_search(given_q, given_x, 7, metric=metric), rz.exact_search(q, x, 7, metric=metric)),
        ]:
            np.testing.assert_array_equal(found.ids, wanted.ids)
            np.testing.assert_array_equal(found.scores, wanted.scores)
    assert before == (raw_bytes(given_x), raw_bytes(given_q))


def test_the_index_keeps_a_copy(data: tuple[np.ndarray, np.ndarray]) -> None:
    x = data[0].copy()
    index = rz.FlatIndex(DIM)
    index.add(x)
    x[:] = 1
    np.testing.assert_array_equal(index.get(np.arange(N)), data[0])
    taken = index.get([0])
    taken[:] = 5
    np.testing.assert_array_equal(index.get([0]), data[0][:1])


@pytest.mark.parametrize("form", ["Fortran order", "strided", "read-only", "list of arrays"])
def test_codes_of_every_layout(form: str, data: tuple[np.ndarray, np.ndarray]) -> None:
    x, q = data
    codec = rz.RecurrentBinaryCodec(DIM, 2).fit(x)
    codes = codec.encode(x)
    wide = np.zeros((2 * N, 2 * codec.code_bytes), np.uint8)
    wide[::2, ::2] = codes
    given = {
        "Fortran order": np.asfortranarray(codes),
        "strided": wide[::2, ::2],
        "read-only": codes,
        "list of arrays": list(codes),
    }[form]
    if form == "read-only":
        codes.flags.writeable = False
    np.testing.assert_array_equal(codec.decode(given), codec.decode(codes.copy()))
    np.testing.assert_array_equal(codec.scores(q, given), codec.scores(q, codes.copy()))


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.ones((3, DIM), np.int64), TypeError, r'int64.*\.astype\("float32"\)'),
        (np.ones((3, DIM), np.int8), TypeError, r'int8.*\.astype\("float32"\)'),
        (np.ones((3, DIM), np.uint8), TypeError, r'uint8.*\.astype\("float32"\)'),
        (np.ones((3, DIM), bool), TypeError, r'bool.*\.astype\("float32"\)'),
        (np.ones((3, DIM), object), TypeError, r'object.*\.astype\("float32"\)'),
        (np.ones((3, DIM), complex), TypeError, r'complex128.*\.astype\("float32"\)'),
        (np.full((3, DIM), "1.0"), TypeError, r'<U3.*\.astype\("float32"\)'),
        (np.full((3, DIM), b"1.0"), TypeError, r'\|S3.*\.astype\("float32"\)'),
        ([[1] * DIM], TypeError, r'int64.*\.astype\("float32"\)'),
        ([["a"] * DIM], TypeError, "expected"),
        ([[None] * DIM], TypeError, "object"),
        ([[1.0] * DIM, [1.0]], ValueError, "unequal length"),
        (None, TypeError, "object|None"),
        ("text", TypeError, "expected"),
        (3.0, ValueError, r"got \(\)"),
        (np.float32(3), ValueError, r"got \(\)"),
        (np.ones((2, 3, DIM), np.float32), ValueError, rf"got \(2, 3, {DIM}\)"),
        (np.ones((3, DIM + 1), np.float32), ValueError, rf"{DIM + 1} dims, expected {DIM}"),
        (np.ones((3, 0), np.float32), ValueError, "0 dims"),
        ({1.0, 2.0}, TypeError, "object|set"),
        ([], ValueError, r"\(0,\)|dims"),
    ],
    ids=str,
)
def test_what_is_not_vectors_is_refused(bad: Any, error: type[Exception], message: str) -> None:
    codec = rz.RecurrentBinaryCodec(DIM, 2).fit(np.random.default_rng(2).standard_normal((50, DIM)))
    codes = np.zeros((1, codec.code_bytes), np.uint8)
    index = rz.FlatIndex(DIM)
    index.add(np.ones((1, DIM)))
    for call in (
        lambda: index.add(bad),
        lambda: index.search(bad),
        lambda: index.range_search(bad, 0.5),
        lambda: index.train(bad),
        lambda: codec.encode(bad),
        lambda: codec.scores(bad, codes),
        lambda: rz.RecurrentBinaryCodec(DIM, 2).fit(bad),
        lambda: rz.BinaryCodec(DIM).fit(bad),
        lambda: rz.exact_search(bad, np.ones((2, DIM))),
    ):
        with pytest.raises(error, match=message) as caught:
            call()
        assert isinstance(caught.value, ResiduaError)
    assert len(index) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bfloat16"])
def test_the_first_row_that_is_not_finite_is_named(value: float, dtype: str) -> None:
    x = np.random.default_rng(3).standard_normal((20, DIM)).astype(np.float32)
    x[13, DIM - 1] = x[17, 0] = value
    x = x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    codec = rz.BinaryCodec(DIM)
    index = rz.FlatIndex(DIM)
    for call in (
        lambda: index.add(x),
        lambda: index.search(x),
        lambda: codec.encode(x),
        lambda: codec.scores(x, np.zeros((1, codec.code_bytes), np.uint8)),
        lambda: rz.RecurrentBinaryCodec(DIM, 2).fit(x),
    ):
        with pytest.raises(rz.errors.NonFiniteError, match="row 13 "):
            call()


def test_float64_beyond_float32_is_not_finite() -> None:
    x = np.ones((4, DIM))
    x[2, 3] = 1e39
    with pytest.raises(rz.errors.NonFiniteError, match="row 2 "):
        rz.FlatIndex(DIM).add(x)
