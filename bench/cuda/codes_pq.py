# SPDX-License-Identifier: Apache-2.0
"""Scans of product and float16 codes, k-means, and encoding.

Rows are random, as speed does not depend on them. Times are those of calls in Python: what is asked with
starts in the memory of the host, and results end there.
"""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import numpy as np

import residua as rz
from bench.cuda.frame import Measure, Setup

__all__ = ["MEASURES"]

_DIM = 768
_SUBSPACES = 96
_K = 10
_CHUNK = 1 << 18


def _normal(n: int, seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal((n, _DIM), dtype=np.float32)


def _index(setup: Setup, codec: rz.codecs.Codec, n: int) -> Any:
    """An index of n codes on the device: those of a sample, in random order."""
    rng = np.random.default_rng(0)
    encoded = codec.encode(_normal(4096, 2))
    index = rz.FlatIndex(_DIM, codec=codec, vectors="none")
    for begin in range(0, n, _CHUNK):
        index.add_codes(encoded[rng.integers(0, len(encoded), min(_CHUNK, n - begin))])
    setup.log(f"  {n:,} codes of {codec.code_bytes} bytes are on the host")
    return index.to(f"cuda:{setup.device.number}")


def _scan(setup: Setup, index: Any, label: str, n_queries: int, work: float) -> None:
    """`work`: entries or products that one query adds up for one row."""
    queries = _normal(n_queries, 1)
    seconds = setup.time(lambda: index.search(queries, _K, rerank=0))
    n, n_bytes = len(index), index.codec.code_bytes
    setup.row(
        label,
        milliseconds=seconds.map(lambda s: 1e3 * s),
        queries_per_second=seconds.map(lambda s: n_queries / s),
        gb_per_second=n * n_bytes / seconds.median / 1e9,
        share_of_copy=n * n_bytes / seconds.median / setup.device.copy_bandwidth,
        tera_terms_per_second=n_queries * n * work / seconds.median / 1e12,
    )


def _measure_product(setup: Setup, bits: Any) -> None:
    numbers = _SUBSPACES * 8 // bits
    codec = rz.PQCodec(_DIM, numbers, bits).fit(_normal(2048, 3), metric="cosine")
    n = setup.size(20_000_000, 4200)
    index = _index(setup, codec, n)
    for n_queries in (1, setup.size(1000, 5)):
        label = f"product codes of {bits} bits, {n:,} x {codec.code_bytes} bytes, {n_queries:,} queries"
        _scan(setup, index, label, n_queries, numbers)


def measure_floats(setup: Setup) -> None:
    """One query reads all rows; for a thousand, products of halves bound the scores."""
    n = setup.size(10_000_000, 2000)
    index = _index(setup, rz.FloatCodec(_DIM, "float16"), n)
    for n_queries in (1, setup.size(1000, 3)):
        _scan(setup, index, f"float16 scan of {n:,} x {_DIM}, {n_queries:,} queries", n_queries, _DIM)


def measure_kmeans(setup: Setup) -> None:
    """Ten iterations, beside the CPU's where that takes seconds."""
    n, k = setup.size(1_000_000, 300), setup.size(4096, 8)
    x = _normal(n, 4)
    seconds = setup.time(partial(rz.cuda.kmeans, x, k, n_iter=10, device=setup.device.number))
    operations = 2 * n * k * _DIM * 10
    setup.row(
        f"k-means of {n:,} x {_DIM}, {k:,} centroids, 10 iterations",
        milliseconds=seconds.map(lambda s: 1e3 * s),
        tera_operations=operations / seconds.median / 1e12,
    )


def measure_encoding(setup: Setup) -> None:
    """Rows on the device, codes on the device."""
    n = setup.size(1_000_000, 200)
    codec = rz.RecurrentBinaryCodec(_DIM, bits=2).fit(_normal(2048, 3), metric="cosine")
    x = rz.cuda.to_device(_normal(n, 5).astype(np.float16), device=setup.device.number)
    for refine in (False, "scale", True):
        action = partial(rz.cuda.encode, codec, x, refine=refine, out="device", device=setup.device.number)
        seconds = setup.time(action)
        setup.row(
            f"encoding of {n:,} x {_DIM} float16, recurrent, 2 bits, refine={refine}",
            milliseconds=seconds.map(lambda s: 1e3 * s),
            rows_per_second=n / seconds.median,
        )
    del x
    gc.collect()


MEASURES: dict[str, Measure] = {
    "product codes, 8 bits": lambda setup: _measure_product(setup, 8),
    "product codes, 4 bits": lambda setup: _measure_product(setup, 4),
    "float16 scan": measure_floats,
    "k-means": measure_kmeans,
    "recurrent encoding": measure_encoding,
}
