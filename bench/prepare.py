# SPDX-License-Identifier: Apache-2.0
"""Turn a folder of raw vectors into the data folder of the benchmarks.

The queries are split once, by position: the first part may be fitted with (`train_queries.npy`), the rest is
reported (`queries.npy`). The split is the same on every machine, and no query is on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.datasets import BenchData, DataError, save_folder, stretch

__all__ = ["exact_neighbours", "prepare"]

Arrays = tuple[npt.NDArray[np.generic], npt.NDArray[np.generic], npt.NDArray[np.generic]]

_MAX_TRAIN_QUERIES = 2000


@dataclass(frozen=True)
class _Layout:
    """How one known kind of raw folder is recognised and read as (base, queries, truth)."""

    files: tuple[str, ...]
    metric: str
    read: Callable[[Path], Arrays]


def _npy(*names: str) -> Callable[[Path], Arrays]:
    def read(folder: Path) -> Arrays:
        base, queries, truth = (np.load(folder / name, allow_pickle=False) for name in names)
        return base, queries, truth

    return read


def _fashion_mnist(folder: Path) -> Arrays:
    with np.load(folder / "fashion_mnist_784.npz", allow_pickle=False) as archive:
        truth = np.load(folder / "fashion_mnist_784_gt100_l2.npy", allow_pickle=False)
        return archive["base"], archive["queries"], truth


def _layout(metric: str, *names: str) -> _Layout:
    return _Layout(names, metric, _npy(*names))


def exact_neighbours(
    base: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], k: int
) -> npt.NDArray[np.int64]:
    """Row numbers of the k largest cosines, ties to the lower row.

    The raw folders rank by inner product of vectors that float16 rounding left slightly off unit norm, which
    is not quite the order of cosines. Candidates come from a float32 product; float64 settles their order.
    """
    k = min(k, len(base))
    unit = base / np.linalg.norm(base, axis=1, keepdims=True)
    neighbours = np.empty((len(queries), k), dtype=np.int64)
    margin = min(k + 50, len(base))
    for start in range(0, len(queries), 256):
        block = queries[start : start + 256]
        candidates = np.argpartition(-(block @ unit.T), margin - 1, axis=1)[:, :margin]
        for i, (query, rows) in enumerate(zip(block, candidates, strict=True)):
            chosen = base[rows].astype(np.float64)
            cosine = chosen @ query.astype(np.float64) / np.linalg.norm(chosen, axis=1)
            neighbours[start + i] = rows[np.lexsort((rows, -cosine))[:k]]
    return neighbours


_LAYOUTS = (
    _layout("cosine", "base_vectors.npy", "query_vectors.npy", "gt100_ip.npy"),
    _layout("cosine", "doc_vectors.npy", "test_query_vectors.npy", "test_gt100_ip.npy"),
    _layout("cosine", "rebuilt2k_doc_vectors.npy", "rebuilt2k_query_vectors.npy", "rebuilt2k_gt100_ip.npy"),
    _Layout(("fashion_mnist_784.npz", "fashion_mnist_784_gt100_l2.npy"), "l2", _fashion_mnist),
)


def prepare(
    source: Path,
    target: Path,
    *,
    train_queries: int | None = None,
    rows: int | None = None,
    dims: int | None = None,
    seed: int = 0,
) -> BenchData:
    """Write `target` from `source` and return what was written.

    `train_queries` defaults to half of the queries, at most 2,000. `rows` and `dims` stretch the set for
    speed cases; such a folder carries a note, has no ground truth, and no case that reports quality takes it.
    """
    if not source.is_dir():
        raise DataError(f"{source} is not a folder")
    for layout in _LAYOUTS:
        if all((source / name).is_file() for name in layout.files):
            break
    else:
        known = "; or ".join(" + ".join(layout.files) for layout in _LAYOUTS)
        raise DataError(f"{source.name} is not a folder that is known here; expected {known}")
    base, queries, truth = layout.read(source)
    if train_queries is None:
        train_queries = min(_MAX_TRAIN_QUERIES, len(queries) // 2)
    if not 0 <= train_queries < len(queries):
        limit = f"0 ... {len(queries) - 1} for {len(queries)} queries"
        raise DataError(f"train_queries must be {limit}, got {train_queries}")
    if layout.metric == "cosine":
        truth = exact_neighbours(base.astype(np.float32), queries.astype(np.float32), truth.shape[1])
    data = BenchData(
        name=target.name,
        metric=layout.metric,
        base=base.astype(np.float32),
        queries=queries[train_queries:].astype(np.float32),
        train_queries=queries[:train_queries].astype(np.float32) if train_queries else None,
        truth=truth[train_queries:].astype(np.int64),
    )
    data = stretch(data, rows=rows, dims=dims, seed=seed)
    # float16 and uint8 sources are exact in float16 (8 bits, where float16 has 11); stretched sets are not.
    save_folder(data, target, dtype="float32" if data.note else "float16")
    return data
