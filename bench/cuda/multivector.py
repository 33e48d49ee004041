# SPDX-License-Identifier: Apache-2.0
"""MaxSim and fixed-dimensional encodings. Tokens are random, a thousand documents over and over.

Time on the device is what more documents add, so that what a call costs in Python is no part of it; the
whole call is reported beside it (of PyTorch the call alone).
"""

from __future__ import annotations

import gc
from typing import Any

import numpy as np

import residua as rz
from bench.cuda.brute_force import _module
from bench.cuda.frame import Measure, Setup, SkipError

__all__ = ["MEASURES"]

_DIM = 128
_TOKENS = 300
_QUERY = 32
_TIMES = 4  # more documents than the case has, for the slope


def _documents(n: int, tokens: int) -> Any:
    rng = np.random.default_rng(0)
    some = rng.standard_normal((min(n, 1000), tokens, _DIM), dtype=np.float32)
    some /= np.linalg.norm(some, axis=2, keepdims=True)
    return np.resize(some.astype(np.float16), (n, tokens, _DIM))


def _query(n: int = 1) -> Any:
    q = np.random.default_rng(1).standard_normal((n, _QUERY, _DIM), dtype=np.float32)
    return q / np.linalg.norm(q, axis=2, keepdims=True)


def _measure_maxsim(setup: Setup, codec: str, bar: float) -> None:
    """One query of 32 tokens against 5,000 documents of 300, and 32 queries beside it."""
    n = setup.size(5000, 12)
    tokens = _TOKENS if not setup.emulated else 20
    where = f"cuda:{setup.device.number}"
    few = _documents(n, tokens)
    held = rz.cuda.TokenDocuments(few, codec, device=where)
    more = rz.cuda.TokenDocuments(_documents(n * (1 + _TIMES), tokens), codec, device=where)
    name = f"MaxSim of {n:,} x {tokens} x {_DIM}, {codec}"
    for n_queries in (1, 32) if not setup.emulated else (1, 2):
        queries = rz.cuda.to_device(_query(n_queries), where)
        label = f"{name}, {n_queries} x {_QUERY} query tokens"
        call, longer = (
            setup.time(lambda q=queries, d=d: rz.maxsim(q, d, out="device")) for d in (held, more)
        )
        seconds = max(longer.median - call.median, 1e-9) / _TIMES
        n_bytes = (more.nbytes - held.nbytes) / _TIMES
        setup.row(
            label,
            milliseconds=1e3 * seconds,
            milliseconds_of_call=call.map(lambda s: 1e3 * s),
            gb_per_second=n_bytes / seconds / 1e9,
            share_of_copy=n_bytes / seconds / setup.device.copy_bandwidth,
            tera_products=n_queries * _QUERY * n * tokens * _DIM / seconds / 1e12,
        )
        if n_queries == 1:
            setup.expect(f"{label}: on the device", 1e3 * seconds, bar, "ms", at_most=True)
    del held, more
    gc.collect()
    if codec == "float16":
        with setup.contained("torch"):
            _torch_maxsim(setup, few, name)


def _torch_maxsim(setup: Setup, documents: Any, name: str) -> None:
    """The matrix of products and its maxima, as PyTorch does them."""
    torch = _module("torch")
    on = "cpu" if setup.emulated else "cuda"
    if on == "cuda" and not torch.cuda.is_available():
        raise SkipError("this PyTorch has no CUDA")
    kind = torch.float32 if setup.emulated else torch.float16
    n, tokens, _ = documents.shape
    docs = torch.from_numpy(documents).to(on, kind).reshape(n * tokens, _DIM)
    query = torch.from_numpy(_query()[0]).to(on, kind)

    def score() -> Any:
        best = (docs @ query.T).reshape(n, tokens, _QUERY).amax(1).sum(1)
        return best.cpu()

    setup.row(f"torch float16, {name}", milliseconds=setup.time(score).map(lambda s: 1e3 * s))


def measure_encoding(setup: Setup) -> None:
    """Documents of 80 tokens at the settings of the paper, tokens and encodings on the device."""
    n, tokens = setup.size(100_000, 6), 80
    where = f"cuda:{setup.device.number}"
    encoder = rz.FDEncoder(_DIM, k_sim=5, reps=20 if not setup.emulated else 2, proj_dim=16, device=where)
    documents = rz.cuda.to_device(_documents(n, tokens), where)
    seconds = setup.time(lambda: encoder.encode_documents(documents, out="device"))
    name = f"fixed-dimensional encodings of {n:,} x {tokens} x {_DIM}, 20/5/16"
    n_bytes = documents.nbytes + 4 * n * encoder.output_dim
    setup.row(
        name,
        milliseconds=seconds.map(lambda s: 1e3 * s),
        documents_per_second=seconds.map(lambda s: n / s),
        share_of_copy=n_bytes / seconds.median / setup.device.copy_bandwidth,
    )
    setup.expect(name, n / seconds.median / 1e6, 2, "M documents/s")


MEASURES: dict[str, Measure] = {
    "maxsim, float16": lambda setup: _measure_maxsim(setup, "float16", 0.12),
    "maxsim, 4 bits": lambda setup: _measure_maxsim(setup, "rb4", 0.06),
    "maxsim, 1 bit": lambda setup: _measure_maxsim(setup, "rb1", 0.06),
    "fixed-dimensional encodings": measure_encoding,
}
