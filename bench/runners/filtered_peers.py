# SPDX-License-Identifier: Apache-2.0
"""Other libraries searched with filters, each in the way that its Python interface offers.

hnswlib calls a Python function per visited row. USearch and VSAG have no filter there: more rows than wanted
are fetched, and those that match are kept. LanceDB filters before it searches, by SQL over its own columns.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.cases import Spec
from bench.datasets import BenchData
from bench.filter_grid import Filter, FilterGrid
from bench.runners.base import UnusableSpecError
from bench.runners.filtered import FilteredEngine, Floats, Ids, powers
from bench.runners.peer import comparable, imported

__all__ = ["build_filtered_peer"]

_MOST_FETCHED = 16_384


class _Peer(FilteredEngine):
    def __init__(self, data: BenchData, spec: Spec) -> None:
        self._data_metric = data.metric
        self._metric = "ip" if data.metric == "ip" else "l2"
        self._options = spec.options
        self.name = spec.engine

    def queries(self, queries: Floats) -> Floats:
        return comparable(queries, self._data_metric)

    def _timed(self, make: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        made = make()
        self.build_seconds = time.perf_counter() - start
        return made


class _Hnswlib(_Peer):
    def __init__(self, data: BenchData, grid: FilterGrid, spec: Spec, threads: int, seed: int) -> None:
        super().__init__(data, spec)
        index = imported("hnswlib", "hnswlib").Index(space=self._metric, dim=data.dim)
        base, width = self.queries(data.base), spec.options.get("ef_construction", 100)
        index.init_index(len(base), M=spec.options.get("M", 16), ef_construction=width, random_seed=seed)
        self._timed(lambda: index.add_items(base, np.arange(len(base)), num_threads=threads))
        self.index = index
        self.label = f"HNSW M={spec.options.get('M', 16)}, Python function"

    def settings(self, share: float) -> Sequence[Any]:
        return powers(16, self._options["ef"])

    def describe(self, setting: Any) -> str:
        return f"ef {setting}"

    def prepare(self, filter: Filter) -> Any:
        return filter.mask.tolist().__getitem__, filter.count

    def search(self, queries: Any, prepared: Any, k: int, setting: Any) -> Ids:
        allowed, count = prepared
        found = np.full((len(queries), k), -1, np.int64)
        wanted = min(k, count)
        self.index.set_ef(max(setting, k))
        for row, query in zip(found, queries, strict=True):
            try:
                row[:wanted] = self.index.knn_query(query, wanted, num_threads=1, filter=allowed)[0][0]
            except RuntimeError:  # what it does when it finds fewer
                continue
        return found


class _Fetching(_Peer):
    """Fetches more rows than are wanted; a setting is how many times k / share."""

    def settings(self, share: float) -> Sequence[Any]:
        self._share = share
        return [f for f in powers(1, 16) if f == 1 or 10 * f / share <= 2 * _MOST_FETCHED]

    def describe(self, setting: Any) -> str:
        return f"{self._count(10, setting)} fetched"

    def _count(self, k: int, setting: Any) -> int:
        return min(math.ceil(setting * k / self._share), _MOST_FETCHED, self._n)

    def prepare(self, filter: Filter) -> Any:
        return filter.mask

    def fetch(self, query: Any, count: int) -> Ids:
        raise NotImplementedError

    def search(self, queries: Any, prepared: Any, k: int, setting: Any) -> Ids:
        found = np.full((len(queries), k), -1, np.int64)
        for row, query in zip(found, queries, strict=True):
            ids = self.fetch(query, self._count(k, setting))
            ids = ids[prepared[ids]][:k]
            row[: len(ids)] = ids
        return found


class _Usearch(_Fetching):
    def __init__(self, data: BenchData, grid: FilterGrid, spec: Spec, threads: int, seed: int) -> None:
        super().__init__(data, spec)
        library = imported("usearch.index", "usearch")
        self._n, base = len(data.base), self.queries(data.base)
        self.index = library.Index(
            ndim=data.dim,
            metric="ip" if data.metric == "ip" else "l2sq",
            dtype=spec.options["dtype"],
            connectivity=spec.options.get("M", 16),
            expansion_add=spec.options.get("ef_construction", 100),
        )
        self._timed(lambda: self.index.add(np.arange(self._n), base, threads=threads))
        self.label = f"HNSW {spec.options['dtype']}, over-fetched"

    def fetch(self, query: Any, count: int) -> Ids:
        return np.asarray(self.index.search(query, count, threads=1).keys).astype(np.int64)


class _Pyvsag(_Fetching):
    def __init__(self, data: BenchData, grid: FilterGrid, spec: Spec, threads: int, seed: int) -> None:
        super().__init__(data, spec)
        library = imported("pyvsag", "pyvsag")
        library.set_logger_off()
        self._n, base = len(data.base), self.queries(data.base)
        parameters = {
            "base_quantization_type": spec.options["quantization"],
            "max_degree": spec.options.get("degree", 32),
            "ef_construction": spec.options.get("ef_construction", 100),
            "build_thread_count": threads,
        }
        settings = {
            "dtype": "float32",
            "metric_type": self._metric,
            "dim": data.dim,
            "index_param": parameters,
        }
        self.index = library.Index("hgraph", json.dumps(settings))
        ids = np.arange(self._n, dtype=np.int64)
        self._timed(
            lambda: self.index.build(vectors=base.ravel(), ids=ids, num_elements=self._n, dim=data.dim)
        )
        self.label = f"HGraph {spec.options['quantization']}, over-fetched"

    def fetch(self, query: Any, count: int) -> Ids:
        parameters = json.dumps({"hgraph": {"ef_search": max(count, 50)}})
        ids = np.asarray(self.index.knn_search(vector=query, k=count, parameters=parameters)[0])
        return ids[(ids >= 0) & (ids < self._n)]


class _Lancedb(_Peer):
    """A table on disk with an index of the vectors and one of every column."""

    def __init__(self, data: BenchData, grid: FilterGrid, spec: Spec, threads: int, seed: int) -> None:
        super().__init__(data, spec)
        library, arrow = imported("lancedb", "lancedb"), imported("pyarrow", "pyarrow")
        self._folder = tempfile.TemporaryDirectory()
        base = self.queries(data.base)
        columns = {name: arrow.array(values) for name, values in grid.columns.items()}
        flat = arrow.array(base.ravel())
        columns["vector"] = arrow.FixedSizeListArray.from_arrays(flat, data.dim)
        columns["row"] = arrow.array(np.arange(len(base)))

        def make() -> Any:
            table = library.connect(self._folder.name).create_table("rows", arrow.table(columns))
            metric = "dot" if data.metric == "ip" else "l2"
            table.create_index(metric=metric, index_type=spec.options["index"])
            for name, kind in grid.fields.items():
                indexes = {"int": "BTREE", "category": "BITMAP", "tags": "LABEL_LIST"}
                table.create_scalar_index(name, index_type=indexes[kind])
            return table

        self.index = self._timed(make)
        self.label = f"{spec.options['index']}, filtered first"

    def settings(self, share: float) -> Sequence[Any]:
        return powers(4, 256)

    def describe(self, setting: Any) -> str:
        return f"nprobes {setting}"

    def prepare(self, filter: Filter) -> Any:
        return filter.sql

    def search(self, queries: Any, prepared: Any, k: int, setting: Any) -> Ids:
        found = np.full((len(queries), k), -1, np.int64)
        for row, query in zip(found, queries, strict=True):
            search = (
                self.index.search(query).where(prepared, prefilter=True).select(["row", "_distance"]).limit(k)
            )
            # As many candidates as it re-ranks with the vectors.
            ids = search.nprobes(setting).ef(max(setting, 4 * k)).refine_factor(4).to_arrow()["row"]
            row[: len(ids)] = ids.to_numpy()
        return found


_PEERS: dict[str, Callable[..., FilteredEngine]] = {
    "hnswlib": _Hnswlib,
    "usearch": _Usearch,
    "pyvsag": _Pyvsag,
    "lancedb": _Lancedb,
}


def build_filtered_peer(
    data: BenchData, grid: FilterGrid, spec: Spec, threads: int, seed: int
) -> FilteredEngine:
    """The index of an entry, rows, columns and all."""
    if spec.engine not in _PEERS:
        raise UnusableSpecError(f"{spec.engine} is not measured with filters; {', '.join(_PEERS)} are")
    return _PEERS[spec.engine](data, grid, spec, threads, seed)
