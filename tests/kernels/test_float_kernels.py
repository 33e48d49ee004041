# SPDX-License-Identifier: Apache-2.0
"""Every floating-point kernel of every instruction set against a float64 oracle."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest

from residua import _core

K = _core.kernels
ISAS = K.available()
DIMS = [*range(1, 131), 767, 768, 769]
SCALE = np.float32(0.0123)
UNIT = 2.0**-24  # rounding unit of float32

DTYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}

Array = np.ndarray


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def rows_of(kind: str, rng: np.random.Generator, n: int) -> Array:
    if kind == "i8":
        return rng.integers(-128, 128, n).astype(np.int8)
    return rng.standard_normal(n).astype(DTYPES[kind])


def raw(x: Array) -> Array:
    """The array as the kernels take it: halves travel as uint16."""
    return x.view(np.uint16) if x.itemsize == 2 else x


def call(name: str, isa: str, q: Array, x: Array) -> float:
    args = (isa, q, raw(x))
    return float(getattr(K, name)(*args, SCALE) if name.endswith("l2_i8") else getattr(K, name)(*args))


def oracle(name: str, q: Array, x: Array) -> tuple[float, float]:
    """The value, and the sum of the magnitudes of what was added (with a byte row's own rounding)."""
    q64, x64 = q.astype(np.float64), x.astype(np.float64)
    if "dot" in name:
        return float(q64 @ x64), float(np.abs(q64) @ np.abs(x64))
    if name.endswith("i8"):
        x64 = x64 * np.float64(SCALE)
        diff = q64 - x64
        return float(diff @ diff), float(np.sum(diff**2 + np.abs(diff) * np.abs(x64)))
    diff = q64 - x64
    return float(diff @ diff), float(diff @ diff)


PAIRS = [f"{op}_{kind}" for op in ("dot", "l2") for kind in ("f32", "f16", "bf16", "i8")]


@pytest.mark.parametrize("name", PAIRS)
def test_pair_kernels_stay_within_their_bound(name: str, isa: str) -> None:
    rng = np.random.default_rng(1)
    for d in DIMS:
        offset = d % 7  # not a multiple of any vector width
        q = rng.standard_normal(d + offset).astype(np.float32)[offset:]
        x = rows_of(name.split("_")[1], rng, d + offset)[offset:]
        value, magnitude = oracle(name, q, x)
        assert abs(call(name, isa, q, x) - value) <= (d + 16) * UNIT * magnitude, d


@pytest.mark.parametrize("name", PAIRS)
def test_exact_kernels_agree_bit_for_bit(name: str, isa: str) -> None:
    rng = np.random.default_rng(2)
    for d in DIMS:
        q = (rng.standard_normal(d) * 10.0 ** rng.integers(-6, 6, d)).astype(np.float32)
        x = rows_of(name.split("_")[1], rng, d)
        got = call("exact_" + name, isa, q, x)
        value, magnitude = oracle(name, q, x)
        assert abs(got - value) <= (d + 16) * 2.0**-53 * magnitude
        assert got == call("exact_" + name, "scalar", q, x)


def test_l2_does_not_cancel(isa: str) -> None:
    x = np.full(100, 1000.0, np.float32)
    q = x + np.float32(2.0**-10)
    assert call("l2_f32", isa, q, x) == pytest.approx(100 * 2.0**-20, rel=1e-6)
    assert call("l2_f32", isa, x, x) == 0.0


@pytest.fixture
def guarded() -> Iterator[mmap.mmap]:
    """Two pages of which the second may not be touched."""
    page = mmap.PAGESIZE
    area = mmap.mmap(-1, 2 * page)
    anchor = ctypes.c_char.from_buffer(area)
    address = ctypes.addressof(anchor)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address + page), ctypes.c_size_t(page), 0) != 0:
        pytest.skip("mprotect refused")
    yield area
    libc.mprotect(ctypes.c_void_p(address + page), ctypes.c_size_t(page), 3)


def at_page_end(area: mmap.mmap, x: Array) -> Array:
    """A copy of x whose last byte is the last readable one."""
    view = np.frombuffer(area, np.uint8, count=mmap.PAGESIZE)[mmap.PAGESIZE - x.nbytes :].view(x.dtype)
    view[:] = x.ravel()
    return view.reshape(x.shape)


@pytest.mark.parametrize("name", [*PAIRS, *("exact_" + p for p in PAIRS)])
def test_pair_kernels_do_not_read_past_the_end(name: str, isa: str, guarded: mmap.mmap) -> None:
    rng = np.random.default_rng(3)
    for d in range(1, 131):
        q, x = rng.standard_normal(d).astype(np.float32), rows_of(name.split("_")[-1], rng, d)
        expected = call(name, isa, q, x)
        assert call(name, isa, q, at_page_end(guarded, x)) == expected
        assert call(name, isa, at_page_end(guarded, q), x) == expected


def test_packing_and_conversion_do_not_read_past_the_end(isa: str, guarded: mmap.mmap) -> None:
    rng = np.random.default_rng(4)
    for d in range(1, 40):
        for n in (1, 7, 8, 9, 16):
            for kind in DTYPES:
                x = rows_of(kind, rng, n * d).reshape(n, d)
                panel = getattr(K, f"pack_panel_{kind}")(isa, raw(at_page_end(guarded, x)))
                expected = np.zeros((d, 16), np.float32)
                expected[:, :n] = x.astype(np.float32).T
                np.testing.assert_array_equal(panel, expected)
        single = rows_of("f32", rng, d)
        np.testing.assert_array_equal(
            K.f32_to_f16(isa, at_page_end(guarded, single)), single.astype(np.float16).view(np.uint16)
        )
        np.testing.assert_array_equal(
            K.f32_to_bf16(isa, at_page_end(guarded, single)),
            single.astype(ml_dtypes.bfloat16).view(np.uint16),
        )
        for kind in ("f16", "bf16"):
            half = rows_of(kind, rng, d)
            np.testing.assert_array_equal(
                getattr(K, kind + "_to_f32")(isa, raw(at_page_end(guarded, half))), half.astype(np.float32)
            )


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_every_half_becomes_the_right_float(kind: str, isa: str) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    got, expected = getattr(K, kind + "_to_f32")(isa, bits), bits.view(DTYPES[kind]).astype(np.float32)
    nan = np.isnan(expected)
    assert np.isnan(got[nan]).all()
    np.testing.assert_array_equal(got[~nan].view(np.uint32), expected[~nan].view(np.uint32))


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_floats_round_to_half_as_numpy_rounds(kind: str, isa: str) -> None:
    infinity = 0x7C00 if kind == "f16" else 0x7F80
    halves = np.arange(infinity, dtype=np.uint16).view(DTYPES[kind]).astype(np.float32)
    middle = halves[:-1] + (halves[1:] - halves[:-1]) / 2  # ties, exact in float32
    around = np.concatenate(
        [np.nextafter(middle, np.float32(0)), middle, np.nextafter(middle, np.float32(np.inf))]
    )
    random = np.random.default_rng(5).integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32)
    edge = np.array(
        [0, 65504, 65519.996, 65520, 65536, 3.4e38, np.inf, 2.0**-25, 2.0**-24, 1e-40], np.float32
    )
    x = np.concatenate([halves, around, edge, random.view(np.float32)])
    x = np.concatenate([x, -x])
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(DTYPES[kind]).view(np.uint16)
    got = getattr(K, "f32_to_" + kind)(isa, x)
    nan = np.isnan(x)
    assert np.isnan(got[nan].view(DTYPES[kind]).astype(np.float32)).all()
    np.testing.assert_array_equal(got[~nan], expected[~nan])


def test_gemm_panel_value_does_not_depend_on_its_place(isa: str) -> None:
    rng = np.random.default_rng(6)
    for d in DIMS:
        q = rng.standard_normal((6, d)).astype(np.float32)
        x = rng.standard_normal((16, d)).astype(np.float32)
        full = K.gemm_panel(isa, q, K.pack_panel_f32(isa, x))
        bound = (d + 16) * UNIT * (np.abs(q).astype(np.float64) @ np.abs(x).T.astype(np.float64))
        assert (np.abs(full - q.astype(np.float64) @ x.T.astype(np.float64)) <= bound).all()
        order = rng.permutation(16)
        shuffled = K.pack_panel_f32(isa, np.ascontiguousarray(x[order]))
        for nq in range(1, 7):
            start = int(rng.integers(0, 7 - nq))
            part = K.gemm_panel(isa, np.ascontiguousarray(q[start : start + nq]), shuffled)
            np.testing.assert_array_equal(part, full[start : start + nq][:, order])


@pytest.mark.parametrize("d", [1, 2, 3, 4, 8, 17, 96, 385])
@pytest.mark.parametrize("panels", [1, 2, 7])
def test_nearest_panels(isa: str, d: int, panels: int) -> None:
    rng = np.random.default_rng(11)
    x = rng.integers(-9, 10, (panels * 16, d)).astype(np.float32)  # small integers: sums are exact
    packed = np.stack([K.pack_panel_f32(isa, x[i : i + 16]) for i in range(0, len(x), 16)])
    bias = rng.integers(-5, 6, (panels, 16)).astype(np.float32)
    bias[-1, 3:] = -np.inf  # rows that a panel has room for only
    for nq in range(1, 7):
        q = rng.integers(-9, 10, (nq, d)).astype(np.float32)
        wanted = (q @ x.T + bias.reshape(-1)).argmax(axis=1)  # the first of equals
        for group in (1, 2, 3, 7):
            np.testing.assert_array_equal(K.nearest_panels(isa, q, packed, bias, group), wanted)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (7, 5, 3), (50, 33, 17), (200, 64, 100), (13, 300, 130), (3, 16, 769)]
)
def test_matmul(shape: tuple[int, int, int]) -> None:
    m, n, d = shape
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((m, d)).astype(np.float32), rng.standard_normal((n, d)).astype(np.float32)
    c = K.matmul_nt(a, b)
    exact = a.astype(np.float64) @ b.T.astype(np.float64)
    assert (np.abs(c - exact) <= (d + 16) * UNIT * (np.abs(a).astype(np.float64) @ np.abs(b).T)).all()
    np.testing.assert_array_equal(K.matmul_nt(a[-1:], b), c[-1:])


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (256, 17), (700, 97), (513, 200)])
def test_gram_is_the_same_for_any_thread_count(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(8)
    x = rng.standard_normal(shape).astype(np.float32)
    got = _core.gram(x, 1)
    magnitude = np.abs(x).T.astype(np.float64) @ np.abs(x).astype(np.float64)
    assert (
        np.abs(got - x.T.astype(np.float64) @ x.astype(np.float64)) <= (256 + 16) * UNIT * magnitude
    ).all()
    np.testing.assert_array_equal(got, got.T)
    for threads in (2, 3):
        np.testing.assert_array_equal(_core.gram(x, threads), got)
