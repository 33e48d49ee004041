# SPDX-License-Identifier: Apache-2.0
"""Byte kernels on every instruction set against NumPy: sums, bounds, decoded values."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from residua import _core

kernels = _core.kernels
ISAS = kernels.available()
DIMS = (*range(1, 42), 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 767, 768, 769)
BLOCK = 32


def row_codes(levels: np.ndarray, bits: int) -> np.ndarray:
    """Levels (n, dim) as row codes of whole cells."""
    n, dim = levels.shape
    filled = np.zeros((n, -(-dim * bits // 32) * 32 // bits), np.uint8)
    filled[:, :dim] = levels
    return filled if bits == 8 else filled[:, ::2] | filled[:, 1::2] << 4


def make(seed: int, dim: int, bits: int, n: int) -> tuple[np.random.Generator, np.ndarray, ...]:
    rng = np.random.default_rng([seed, dim, bits])
    levels = rng.integers(2**bits, size=(n, dim))
    levels[n // 2] = 2**bits - 1
    add = rng.normal(size=n).astype(np.float32)
    scale = rng.uniform(0, 2, n).astype(np.float32)
    blocks = kernels.byte_pack(bits, row_codes(levels, bits), add, scale)
    return rng, levels, add, scale, blocks


def order(dim: int, bits: int) -> np.ndarray:
    """Place of every dim's weight in the kernels' order, from the data sheet."""
    i = np.arange(dim)
    return i if bits == 8 else i // 8 * 8 + i % 2 * 4 + i % 8 // 2


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("isa", ISAS)
def test_exact_sums(isa: str, bits: int) -> None:
    for dim in DIMS:
        rng, levels, add, scale, blocks = make(1, dim, bits, 50)
        for weights in (rng.normal(size=dim), np.ones(dim), -np.ones(dim), np.zeros(dim)):
            weights = weights.astype(np.float32)
            fine = kernels.byte_query(bits, dim, weights)["fine"][order(dim, bits)].astype(np.int64)
            unit = np.abs(weights).max() / 32767
            np.testing.assert_allclose(fine * unit, weights, atol=0.51 * unit)
            sums, scores = kernels.byte_exact(isa, bits, dim, blocks, weights)
            np.testing.assert_array_equal(sums[:50], levels @ fine)
            assert not sums[50:].any()  # rows that are not there are zero codes
            exact = add + scale * ((levels - (2**bits - 1) / 2) @ (fine * unit))
            np.testing.assert_allclose(scores[:50], exact, rtol=1e-5, atol=1e-5 * (1 + np.abs(exact).max()))


@pytest.mark.parametrize("bits", [8, 4])
def test_exact_is_equal_on_all_instruction_sets(bits: int) -> None:
    for dim in (1, 33, 768, 4099):
        rng, _, _, _, blocks = make(2, dim, bits, 64)
        weights = rng.standard_t(2, dim).astype(np.float32)
        results = [kernels.byte_exact(isa, bits, dim, blocks, weights) for isa in ISAS]
        for sums, scores in results[1:]:
            np.testing.assert_array_equal(sums, results[0][0])
            np.testing.assert_array_equal(scores, results[0][1])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("isa", ISAS)
def test_sums_at_their_largest(isa: str, bits: int) -> None:
    """Every code and weight at its limit, for the most dims that a codec takes."""
    dim, top = 65_536, 2**bits - 1
    codes = np.full((BLOCK, dim * bits // 8), 255, np.uint8)
    blocks = kernels.byte_pack(bits, codes, np.zeros(BLOCK, "f4"), np.ones(BLOCK, "f4"))
    for sign in (1, -1):
        weights = np.full(dim, sign, np.float32)
        sums, _ = kernels.byte_exact(isa, bits, dim, blocks, weights)
        assert (sums == sign * 32767 * top * dim).all()
        coarse = int(kernels.byte_query(bits, dim, weights)["coarse"][0])
        assert abs(coarse) == (64 if bits == 8 else 127)
        score = sign * top * dim / 2
        for threshold, found in ((score * (1 - sign * 1e-4), 0), (score * (1 + sign * 1e-3), 1)):
            assert kernels.byte_scan(isa, bits, dim, blocks, weights[None], [threshold])[0] == found


def bounds(
    bits: int, dim: int, levels: np.ndarray, add: np.ndarray, scale: np.ndarray, w: np.ndarray
) -> np.ndarray:
    """Upper bounds of the rows' scores, step by step in float32 as the data sheet has them."""
    query = kernels.byte_query(bits, dim, w)
    sums = (levels @ query["coarse"][order(dim, bits)].astype(np.int64)).astype(np.float32)
    inner = np.float32(query["bound_unit"]) * sums + np.float32(query["bound_upper"])
    return scale * inner + add


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("isa", ISAS)
def test_scan_finds_the_rows_whose_bound_reaches_the_threshold(isa: str, bits: int) -> None:
    for dim in (1, 3, 4, 5, 8, 31, 64, 100, 384, 769):
        n = 333
        rng, levels, add, scale, blocks = make(3, dim, bits, n)
        for nq in range(1, kernels.byte_tile(isa) + 1):
            weights = rng.normal(size=(nq, dim)).astype(np.float32)
            upper = np.stack([bounds(bits, dim, levels, add, scale, w) for w in weights])
            for share in (0.0, 0.9, 0.995, 1.0):
                limits = [float(np.quantile(u, share, method="higher")) for u in upper]
                reached = np.zeros((nq, -(-n // BLOCK) * BLOCK), bool)
                reached[:, :n] = upper >= np.array(limits, np.float32)[:, None]
                at, seen = -1, {}
                while True:
                    at, mask = kernels.byte_scan(isa, bits, dim, blocks, weights, limits, at + 1)
                    if at == reached.shape[1] // BLOCK:
                        break
                    real = min(BLOCK, n - at * BLOCK)
                    seen[at] = [m & ((1 << real) - 1) for m in mask]
                for b in range(reached.shape[1] // BLOCK):
                    want = [
                        sum(1 << int(r) for r in np.flatnonzero(q))
                        for q in reached[:, b * BLOCK :][:, :BLOCK]
                    ]
                    assert seen.get(b, [0] * nq) == want


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", ["normal", "heavy tails", "one large", "zero", "tiny", "one sign"])
def test_the_bound_is_never_below_the_score(bits: int, shape: str) -> None:
    for dim in (1, 2, 7, 64, 384, 1000):
        rng, levels, add, scale, blocks = make(4, dim, bits, 320)
        weights = {
            "normal": rng.normal(size=dim),
            "heavy tails": rng.standard_t(1, dim),
            "one large": np.where(np.arange(dim) == dim // 2, 1e4, rng.normal(size=dim)),
            "zero": np.zeros(dim),
            "tiny": 1e-44 * rng.normal(size=dim),
            "one sign": np.abs(rng.normal(size=dim)),
        }[shape].astype(np.float32)
        # Codes that follow the sign of what the coarse weights miss are the worst case.
        for follow in (1, -1):
            query = kernels.byte_query(bits, dim, weights)
            fine = query["fine"][order(dim, bits)] * np.float64(query["unit"])
            missed = fine - query["coarse"][order(dim, bits)] * np.float64(query["bound_unit"])
            levels[7] = np.where(follow * missed > 0, 2**bits - 1, 0)
            blocks = kernels.byte_pack(bits, row_codes(levels, bits), add, scale)
            _, scores = kernels.byte_exact(ISAS[0], bits, dim, blocks, weights)
            assert (bounds(bits, dim, levels, add, scale, weights) >= scores[:320]).all()


@pytest.fixture(scope="module")
def page_end() -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """Places bytes so that they end where an unreadable page begins."""
    page, size = mmap.PAGESIZE, 4 * mmap.PAGESIZE
    whole = np.frombuffer(mmap.mmap(-1, size + page), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.c_void_p(whole.ctypes.data + size)
    if libc.mprotect(address, ctypes.c_size_t(page), 0) != 0:
        pytest.skip("mprotect is not available")

    def place(a: np.ndarray) -> np.ndarray:
        out = whole[size - a.nbytes : size].reshape(a.shape)
        out[:] = a
        return out

    yield place
    libc.mprotect(address, ctypes.c_size_t(page), mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("isa", ISAS)
def test_decoded_values(isa: str, bits: int, page_end: Callable[[np.ndarray], np.ndarray]) -> None:
    for dim in DIMS:
        rng, levels, _, scale, _ = make(5, dim, bits, 9)
        step, center = rng.uniform(0.1, 2, dim).astype("f4"), rng.normal(size=dim).astype("f4")
        codes = row_codes(levels, bits)
        found = kernels.byte_decode(isa, bits, codes, step, center, scale[:9])
        value = (levels - (2**bits - 1) / 2).astype("f4")
        np.testing.assert_array_equal(found, (scale[:9, None] * step) * value + center)
        at_end = kernels.byte_decode(isa, bits, page_end(codes), step, center, scale[:9])
        np.testing.assert_array_equal(at_end, found)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="8 or 4"):
        kernels.byte_query(5, 3, np.zeros(3, "f4"))
    with pytest.raises(ValueError, match="4 dims got 5"):
        kernels.byte_query(8, 4, np.zeros(5, "f4"))
    with pytest.raises(ValueError, match="infinite or NaN"):
        kernels.byte_query(8, 4, np.full(4, np.nan, "f4"))
    many = kernels.byte_tile(ISAS[0]) + 1
    with pytest.raises(ValueError, match=f"1 to {many - 1}"):
        kernels.byte_scan(ISAS[0], 8, 4, np.zeros(0, "u1"), np.zeros((many, 4), "f4"), [0.0] * many)
