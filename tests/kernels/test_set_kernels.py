# SPDX-License-Identifier: Apache-2.0
"""Byte-set kernels of every instruction set against NumPy; nothing past the array is read."""

from __future__ import annotations

import numpy as np
import pytest

from residua._core import kernels


def table(members: np.ndarray) -> np.ndarray:
    """The 32 bytes of the data sheet (cpp/kernel/set_kernels.hpp)."""
    out = np.zeros(32, np.uint8)
    for x in np.flatnonzero(members):
        out[x // 128 * 16 + x % 16] |= 1 << (x // 16 % 8)
    return out


@pytest.mark.parametrize("n", [0, 1, 15, 16, 31, 32, 63, 64, 65, 127, 128, 200, 4096, 5000])
def test_members(isa: str, n: int) -> None:
    rng = np.random.default_rng(n)
    for share in (0.0, 0.01, 0.5, 1.0):
        members = rng.random(256) < share
        values = rng.integers(0, 256, n, np.uint8)
        words = kernels.members(isa, values, table(members))
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        assert len(words) == -(-n // 64)
        np.testing.assert_array_equal(bits[:n], members[values])
        assert not bits[n:].any()


def test_every_byte_alone(isa: str) -> None:
    values = np.arange(256, dtype=np.uint8)
    for x in range(256):
        words = kernels.members(isa, values, table(values == x))
        assert np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")).tolist() == [x]
