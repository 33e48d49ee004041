# SPDX-License-Identifier: Apache-2.0
"""The look-up scans of every instruction set against sums in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from residua import _core

K = _core.kernels
Array = np.ndarray
BYTES = [1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 31, 48, 96, 97, 256]


@pytest.fixture(params=K.available())
def isa(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def blocks_of(rows: Array, bits: int) -> Array:
    """Lay rows (n * 32, bytes) out as the data sheet says."""
    n, length = len(rows) // 32, rows.shape[1]
    by_block = rows.reshape(n, 32, length)
    if bits == 8:
        return np.ascontiguousarray(by_block.transpose(0, 2, 1)).reshape(n, -1)
    halves = np.stack([by_block >> 4, by_block & 15], axis=-1).reshape(n, 32, 2 * length)
    strips = halves[:, :16] | halves[:, 16:] << 4
    return np.ascontiguousarray(strips.transpose(0, 2, 1)).reshape(n, -1)


def sums_of(rows: Array, tables: Array, bits: int) -> Array:
    """Sums (nq, n) of the tables (nq, numbers of a code, entries)."""
    codes = rows if bits == 8 else np.stack([rows >> 4, rows & 15], axis=-1).reshape(len(rows), -1)
    at = np.arange(codes.shape[1])
    return np.stack([t[at, codes].astype(np.int64).sum(1) for t in tables])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("length", BYTES)
def test_scan_keeps_exactly_the_rows_that_reach_the_least(isa: str, bits: int, length: int) -> None:
    rng = np.random.default_rng(length)
    numbers, entries, top = (2 * length, 16, 127) if bits == 4 else (length, 256, 127)
    for n_blocks in (1, 2, 5):
        rows = rng.integers(0, 256, (32 * n_blocks, length)).astype(np.uint8)
        for nq in range(1, 5):
            tables = rng.integers(0, top + 1, (nq, numbers, entries)).astype(np.uint8)
            tables[rng.random(tables.shape) < 0.1] = top  # the largest sums occur, too
            padding = -numbers % 4 if bits == 4 else 0
            padded = np.pad(tables, ((0, 0), (0, padding), (0, 0))).reshape(nq, -1)
            sums = sums_of(rows, tables, bits)
            for rank in (0, 3, len(rows)):
                below = np.zeros(nq, np.int32) if rank == len(rows) else np.sort(sums)[:, -1 - rank]
                least = below.astype(np.int32)
                found, mask = K.lookup_scan(isa, bits, blocks_of(rows, bits), padded, least)
                kept = (sums >= least[:, None]).reshape(nq, n_blocks, 32)
                assert found == int(kept.any(axis=(0, 2)).argmax())
                wanted = (kept[:, found] * (1 << np.arange(32, dtype=np.int64))).sum(1)
                np.testing.assert_array_equal(mask, wanted)
            found, _ = K.lookup_scan(
                isa, bits, blocks_of(rows, bits), padded, (sums.max(1) + 1).astype(np.int32)
            )
            assert found == n_blocks


@pytest.mark.parametrize("bits", [4, 8])
def test_largest_sums_are_exact(isa: str, bits: int) -> None:
    length = 65534 // (2 * 127) if bits == 4 else 65534 // 127
    numbers, entries, top = (2 * length, 16, 127) if bits == 4 else (length, 256, 127)
    rows = np.random.default_rng(0).integers(0, 256, (32, length)).astype(np.uint8)
    padding = -numbers % 4 if bits == 4 else 0
    tables = np.pad(np.full((1, numbers * entries), top, np.uint8), ((0, 0), (0, padding * entries)))
    for least, found in ((numbers * top, 0), (numbers * top + 1, 1), (65535, 1)):
        got, _ = K.lookup_scan(isa, bits, blocks_of(rows, bits), tables, np.array([least], np.int32))
        assert got == found
