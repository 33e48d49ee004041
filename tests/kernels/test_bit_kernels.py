# SPDX-License-Identifier: Apache-2.0
"""Hamming kernels of every instruction set against NumPy; nothing past a row's end is read."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest

from residua._core import kernels

ISAS = kernels.available()
LENGTHS = [*range(1, 131), 767, 768, 769]


@pytest.fixture(scope="module")
def page_end():
    """Places bytes so that they end where an unreadable page begins."""
    page = mmap.PAGESIZE
    size = 256 * page
    memory = mmap.mmap(-1, size + page)
    whole = np.frombuffer(memory, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.c_void_p(whole.ctypes.data + size)
    if libc.mprotect(address, ctypes.c_size_t(page), 0) != 0:
        pytest.skip("mprotect is not available")

    def place(a):
        out = whole[size - a.nbytes : size].reshape(a.shape)
        out[:] = a
        return out

    yield place
    libc.mprotect(address, ctypes.c_size_t(page), mmap.PROT_READ | mmap.PROT_WRITE)


def oracle(queries, rows):
    return np.bitwise_count(queries[:, None, :] ^ rows[None, :, :]).sum(-1, dtype=np.int32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("nq", [1, 2, 3, 4, 7])
def test_hamming(isa, nq, page_end):
    rng = np.random.default_rng(nq)
    for length in LENGTHS:
        queries = rng.integers(0, 256, (nq, length), np.uint8)
        rows = rng.integers(0, 256, (int(rng.integers(1, 70)), length), np.uint8)
        expected = oracle(queries, rows)
        np.testing.assert_array_equal(kernels.hamming(isa, queries, page_end(rows)), expected)
        np.testing.assert_array_equal(kernels.hamming(isa, page_end(queries), rows), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_hamming_of_nothing(isa):
    empty = np.zeros((0, 8), np.uint8)
    assert kernels.hamming(isa, empty, np.zeros((3, 8), np.uint8)).shape == (0, 3)
    assert kernels.hamming(isa, np.zeros((2, 8), np.uint8), empty).shape == (2, 0)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("nq", [1, 2, 3, 4])
def test_hamming_scan(isa, nq, page_end):
    rng = np.random.default_rng(nq)
    for length in [*LENGTHS, 2048, 8192]:
        n = int(rng.integers(1, 100))
        queries = rng.integers(0, 256, (nq, length), np.uint8)
        rows = np.zeros((-(-n // 32) * 32, length), np.uint8)
        rows[:n] = rng.integers(0, 256, (n, length), np.uint8)
        if length == 8192:
            rows[0] = ~queries[0]  # the largest distance there is: 65,536
        dist = oracle(queries, rows)
        blocks = page_end(kernels.hamming_pack(isa, rows[:n]))
        for quantile in (0.0, 0.05, 0.5):
            limits = np.quantile(dist, quantile, axis=1, method="lower").astype(np.int32)
            limits[0] -= 1
            at, mask, got = kernels.hamming_scan(isa, queries, blocks, limits)
            hits = dist <= limits[:, None]
            expected = int(np.flatnonzero(hits.any(0))[0]) // 32 if hits.any() else len(rows) // 32
            assert at == expected
            if at < len(rows) // 32:
                here = slice(32 * at, 32 * at + 32)
                np.testing.assert_array_equal(got, dist[:, here])
                for i in range(nq):
                    assert mask[i] == sum(1 << int(j) for j in np.flatnonzero(hits[i, here]))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 9, 1000, 1001])
def test_hamming_topk(isa, n):
    rng = np.random.default_rng(n)
    queries, rows = (
        rng.integers(0, 256, (7, 6), np.uint8),
        rng.integers(0, 256, (n, 6), np.uint8),
    )
    dist, row = kernels.hamming_topk(isa, queries, kernels.hamming_pack(isa, rows), n, 10)
    expected = oracle(queries, rows)
    for i in range(len(queries)):
        order = np.lexsort((np.arange(n), expected[i]))[:10]
        np.testing.assert_array_equal(row[i], order)
        np.testing.assert_array_equal(dist[i], expected[i][order])
