# SPDX-License-Identifier: Apache-2.0
"""Scans of binary and recurrent codes. Rows are random bits, as speed does not depend on them.

Times are those of `index.search` in Python: queries start in the memory of the host, and results end there.
"""

from __future__ import annotations

import gc
import operator
from functools import partial
from typing import Any

import numpy as np

import residua as rz
from bench.cuda.brute_force import PEERS
from bench.cuda.frame import Measure, Setup
from bench.stats import Spread

__all__ = ["MEASURES"]

_DIM = 768
_K = 10
_CHUNK = 1 << 18


def _queries(n: int) -> Any:
    return np.random.default_rng(1).standard_normal((n, _DIM), dtype=np.float32)


def _index(setup: Setup, codec: rz.codecs.Codec, bits: int, n: int) -> Any:
    """An index of n codes on the device: random levels, and the other bytes of codes that were encoded."""
    rng = np.random.default_rng(0)
    sample = rng.standard_normal((2048, _DIM), dtype=np.float32)
    if not codec.is_trained:
        codec.fit(sample)
    encoded = codec.encode(sample)
    levels = _DIM * bits // 8
    index = rz.FlatIndex(_DIM, codec=codec, vectors="none")
    for begin in range(0, n, _CHUNK):
        rows = min(_CHUNK, n - begin)
        codes = encoded[rng.integers(0, len(encoded), rows)]
        codes[:, :levels] = np.frombuffer(rng.bytes(rows * levels), np.uint8).reshape(rows, levels)
        index.add_codes(codes)
    setup.log(f"  {n:,} codes of {codec.code_bytes} bytes are on the host")
    return index.to(f"cuda:{setup.device.number}")


def _scan(setup: Setup, index: Any, label: str, n_queries: int, **options: Any) -> tuple[Spread, float]:
    """Seconds of a search, and its operations per second: two per query, row and dim."""
    queries = _queries(n_queries)
    seconds = setup.time(lambda: index.search(queries, _K, **options))
    n, n_bytes = len(index), index.codec.code_bytes
    operations = 2 * n_queries * n * _DIM / seconds.median
    peak, reached = setup.device.int8_peak, setup.device.int8_reached
    setup.row(
        label,
        milliseconds=seconds.map(lambda s: 1e3 * s),
        queries_per_second=seconds.map(lambda s: n_queries / s),
        gb_per_second=n * n_bytes / seconds.median / 1e9,
        share_of_copy=n * n_bytes / seconds.median / setup.device.copy_bandwidth,
        tera_operations=operations / 1e12,
        share_of_int8_peak=None if peak is None else operations / peak,
        share_of_int8_of_torch=None if reached is None else operations / reached,
    )
    return seconds, operations


def _share(amount: float, peak: float | None) -> float | None:
    return None if peak is None else amount / peak


def measure_binary(setup: Setup) -> None:
    """100 M x 768 at one bit: one query reads all codes; a thousand are bound by products."""
    n = setup.size(100_000_000, 640)
    index = _index(setup, rz.BinaryCodec(_DIM), 1, n)
    name = f"1-bit scan of {n:,} x {_DIM}"
    seconds, _ = _scan(setup, index, f"{name}, one query", 1)
    share = _share(n * index.codec.code_bytes / seconds.median, setup.device.copy_bandwidth)
    setup.expect(f"{name}, one query: codes read, of copy bandwidth", share, 0.8, "share")
    many = setup.size(1000, 3)
    _, operations = _scan(setup, index, f"{name}, {many:,} queries", many)
    share = _share(operations, setup.device.int8_peak)
    setup.expect(f"{name}, {many:,} queries: of the int8 tensor peak", share, 0.4, "share")
    _scan(setup, index, f"{name}, {many:,} queries, symmetric", many, scoring="symmetric")
    _scan(setup, index, f"{name}, one query, symmetric", 1, scoring="symmetric")
    _extra_memory(setup, index, f"{name}, {many:,} queries", many)


def _extra_memory(setup: Setup, index: Any, label: str, n_queries: int) -> None:
    """Device memory at its highest during a search, beyond codes and queries."""
    queries = _queries(n_queries)
    context = index._place.context  # what is allocated is not public
    context.reset_peak()
    before = context.used
    index.search(queries, _K)
    beyond = context.peak - before - queries.nbytes
    claim = f"{label}: memory beyond codes and queries"
    setup.row(claim, device_mb=beyond / 1e6)
    setup.expect(f"{claim}, per 1,000", beyond / 1e3 / n_queries, 64, "MB", at_most=True)


def _measure_recurrent(setup: Setup, bits: int) -> None:
    """10 M x 768 and 10,000 queries, beside exact search of float16 rows."""
    n, n_queries = setup.size(10_000_000, 320), setup.size(10_000, 3)
    index = _index(setup, rz.RecurrentBinaryCodec(_DIM, bits=bits), bits, n)
    name = f"recurrent {bits}-bit scan of {n:,} x {_DIM}, {n_queries:,} queries"
    seconds, operations = _scan(setup, index, name, n_queries)
    setup.expect(f"{name}: of the int8 tensor peak", _share(operations, setup.device.int8_peak), 0.5, "share")
    _scan(setup, index, f"recurrent {bits}-bit scan of {n:,} x {_DIM}, one query", 1)
    _extra_memory(setup, index, name, n_queries)
    # 0.25 and 0.125 for the levels; scalars of a row add six bytes to 1,536.
    memory = index.codec.code_bytes / (2 * _DIM)
    setup.expect(f"{name}: bytes of a row, of float16", memory, bits / 16 + 0.005, "share", at_most=True)
    del index
    gc.collect()
    theirs = _brute_force(setup, n, n_queries)
    if theirs is not None:
        setup.expect(f"{name}: queries/s by torch float16", theirs / seconds.median, 3, "x")


def _brute_force(setup: Setup, n: int, n_queries: int) -> float | None:
    """Seconds of PyTorch at its best block; CuPy beside it with a tenth of the queries: it sorts slowly."""
    best = None
    for peer, search in PEERS.items():
        count = n_queries if peer == "torch" else max(1, n_queries // 10)
        with setup.contained(peer):
            runs = {block: setup.time(action) for block, action in search(setup, n, _DIM, count, _K).items()}
            block = min(runs, key=lambda b: runs[b].median)
            setup.row(
                f"{peer} float16, {n:,} x {_DIM}, {count:,} queries, blocks of {block:,} rows",
                milliseconds=runs[block].map(lambda s: 1e3 * s),
                queries_per_second=runs[block].map(partial(operator.truediv, count)),
            )
            if peer == "torch":
                best = runs[block].median
        gc.collect()
    return best


MEASURES: dict[str, Measure] = {
    "binary scan": measure_binary,
    "recurrent scan, 2 bits": lambda setup: _measure_recurrent(setup, 2),
    "recurrent scan, 4 bits": lambda setup: _measure_recurrent(setup, 4),
}
