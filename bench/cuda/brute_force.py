# SPDX-License-Identifier: Apache-2.0
"""Exact search by others on the same GPU: float16 matrix product and top k, block by block of rows."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from bench.cuda.frame import Setup, SkipError

__all__ = ["PEERS", "cupy_search", "torch_search"]

_BLOCKS = (1 << 17, 1 << 18, 1 << 19)  # rows; the fastest counts
_MOST_SCORES = 1 << 33  # in one block


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SkipError(str(error)) from error


def torch_search(setup: Setup, n: int, dim: int, n_queries: int, k: int) -> dict[int, Callable[[], Any]]:
    """Per number of rows in a block, a search by PyTorch that ends when its results are there."""
    torch = _module("torch")
    on = "cpu" if setup.emulated else "cuda"
    if on == "cuda" and not torch.cuda.is_available():
        raise SkipError("this PyTorch has no CUDA")
    kind = torch.float32 if setup.emulated else torch.float16
    rows = torch.empty((n, dim), dtype=kind, device=on).normal_()
    queries = torch.empty((n_queries, dim), dtype=kind, device=on).normal_()

    def search(block: int) -> Any:
        best = None
        for begin in range(0, n, block):
            part = rows[begin : begin + block]
            scores, at = torch.topk(queries @ part.T, min(k, len(part)), dim=1)
            at += begin
            if best is not None:
                scores, at = torch.cat((best[0], scores), 1), torch.cat((best[1], at), 1)
                scores, order = torch.topk(scores, k, dim=1)
                at = torch.gather(at, 1, order)
            best = scores, at
        assert best is not None
        return best[1].cpu()

    return {b: (lambda b=b: search(b)) for b in _blocks(n, n_queries)}


def cupy_search(setup: Setup, n: int, dim: int, n_queries: int, k: int) -> dict[int, Callable[[], Any]]:
    """The same by CuPy, whose selection of the best is a partition of each row of scores."""
    if setup.emulated:
        raise SkipError("CuPy has no CPU")
    cupy = _module("cupy")
    rows = cupy.random.standard_normal((n, dim), dtype=cupy.float32).astype(cupy.float16)
    queries = cupy.random.standard_normal((n_queries, dim), dtype=cupy.float32).astype(cupy.float16)

    def search(block: int) -> Any:
        best = None
        for begin in range(0, n, block):
            scores = queries @ rows[begin : begin + block].T
            at = cupy.argpartition(-scores, k, axis=1)[:, :k]
            scores, at = cupy.take_along_axis(scores, at, 1), at + begin
            if best is not None:
                scores, at = cupy.concatenate((best[0], scores), 1), cupy.concatenate((best[1], at), 1)
                order = cupy.argsort(-scores, axis=1)[:, :k]
                scores, at = cupy.take_along_axis(scores, order, 1), cupy.take_along_axis(at, order, 1)
            best = scores, at
        assert best is not None
        return cupy.asnumpy(best[1])

    return {b: (lambda b=b: search(b)) for b in _blocks(n, n_queries)[:1]}


def _blocks(n: int, n_queries: int) -> list[int]:
    return [b for b in _BLOCKS if b * n_queries <= _MOST_SCORES and b < 2 * n] or [min(_BLOCKS[0], n)]


PEERS = {"torch": torch_search, "CuPy": cupy_search}
