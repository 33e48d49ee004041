# SPDX-License-Identifier: Apache-2.0
"""Damage to files, for every robustness test: exhaustive where small, seeded and random where not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

__all__ = ["bit_flips", "mutations", "truncations"]


def bit_flips(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield every single-bit flip of ``data``, with a description."""
    buffer = bytearray(data)
    for byte in range(len(data)):
        for bit in range(8):
            buffer[byte] ^= 1 << bit
            yield f"bit {bit} of byte {byte} flipped", bytes(buffer)
            buffer[byte] ^= 1 << bit


def truncations(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield every proper prefix of ``data``, with a description."""
    for length in range(len(data)):
        yield f"cut to {length} bytes", data[:length]


def mutations(data: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield ``count`` random damages of ``data``, none of which leaves it as it was.

    Half of them aim at the first 4 KiB, where the header, the section table and small values lie.
    """
    rng = np.random.default_rng(seed)
    kinds: tuple[Callable[[bytes, int, np.random.Generator], bytes], ...]
    kinds = (_flip, _overwrite, _extreme, _zero, _cut, _extend, _insert, _delete, _swap, _duplicate)
    done = 0
    while done < count:
        kind = kinds[int(rng.integers(len(kinds)))]
        limit = min(len(data), 4096) if rng.random() < 0.5 else len(data)
        at = int(rng.integers(limit))
        changed = kind(data, at, rng)
        if changed != data:
            done += 1
            yield f"{kind.__name__.strip('_')} at byte {at} (seed {seed}, mutation {done})", changed


def _splice(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + piece[: len(data) - at] + data[at + len(piece) :]


def _length(rng: np.random.Generator) -> int:
    return int(2 ** rng.uniform(0, 10))


def _flip(data: bytes, at: int, rng: np.random.Generator) -> bytes:
    return _splice(data, at, bytes([data[at] ^ (1 << int(rng.integers(8)))]))


def _overwrite(data: bytes, at: int, rng: np.random.Generator) -> bytes:
    return _splice(data, at, rng.bytes(_length(rng)))


def _extreme(data: bytes, at: int, rng: np.random.Generator) -> bytes:
    """Put a number that overflows sums and products into an aligned field."""
    width = int(rng.choice([2, 4, 8]))
    bits = 8 * width
    number = (2**bits - 1, 2 ** (bits - 1), 2 ** (bits - 1) - 1, 2**bits - 64, 1)[int(rng.integers(5))]
    return _splice(data, at // width * width, number.to_bytes(width, "little"))


def _zero(data: bytes, at: int, rng: np.random.Generator) -> bytes:
    return _splice(data, at, bytes(_length(rng)))


def _cut(data: bytes, at: int, rng: np.random.Generator) -> bytes:
    return data[:at]


def _extend(data: bytes, at: int, rng: np.random.Generator) -> bytes:
    return data + (bytes(_length(rng)) if rng.random() < 0.5 else rng.bytes(_length(rng)))


def _insert(data: bytes, at: int, rng: np.random.Generator) -> bytes:
    return data[:at] + rng.bytes(_length(rng)) + data[at:]


def _delete(data: bytes, at: int, rng: np.random.Generator) -> bytes:
    return data[:at] + data[at + _length(rng) :]


def _swap(data: bytes, at: int, rng: np.random.Generator) -> bytes:
    """Exchange two blocks of 64 bytes, as two sections or table entries."""
    n_blocks = len(data) // 64
    if n_blocks < 2:
        return data
    i, j = sorted(int(b) * 64 for b in rng.choice(n_blocks, size=2, replace=False))
    first, second = data[i : i + 64], data[j : j + 64]
    return data[:i] + second + data[i + 64 : j] + first + data[j + 64 :]


def _duplicate(data: bytes, at: int, rng: np.random.Generator) -> bytes:
    block = at // 64 * 64
    return data[: block + 64] + data[block : block + 64] + data[block + 64 :]
