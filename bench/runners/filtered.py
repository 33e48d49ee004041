# SPDX-License-Identifier: Apache-2.0
"""Indexes that are searched with filters: ours, and those of FAISS with a bitmap of the rows allowed."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.cases import Spec, expand_factory
from bench.datasets import BenchData
from bench.filter_grid import Filter, FilterGrid
from bench.runners.peer import comparable, imported, one_of

__all__ = ["FilteredEngine", "FilteredFaiss", "FilteredOurs", "powers"]

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


def powers(first: int, last: int) -> list[int]:
    """`first`, twice as many, and so on, to `last`."""
    out = [first]
    while out[-1] * 2 <= last:
        out.append(out[-1] * 2)
    return out


class FilteredEngine:
    """One built index. `prepare` is not timed; `search` is."""

    name: str
    label: str
    build_seconds: float

    def settings(self, share: float) -> Sequence[Any]:
        """Settings for a share of matching rows, cheapest first; the first with enough recall is taken."""
        return (None,)

    def describe(self, setting: Any) -> str:
        return "" if setting is None else str(setting)

    def queries(self, queries: Floats) -> Any:
        """The queries as `search` takes them."""
        return queries

    def prepare(self, filter: Filter) -> Any:
        """The filter as `search` takes it."""
        return filter

    def search(self, queries: Any, prepared: Any, k: int, setting: Any) -> Ids:
        """One filter for all queries; (n, k) row numbers, -1 where there are fewer."""
        raise NotImplementedError

    def search_each(self, queries: Any, prepared: Sequence[Any], k: int, setting: Any) -> Ids:
        """One filter per query; most libraries take one call for each."""
        parts = [self.search(queries[i : i + 1], p, k, setting) for i, p in enumerate(prepared)]
        return np.concatenate(parts)


class FilteredOurs(FilteredEngine):
    name = "residua"

    def __init__(self, data: BenchData, grid: FilterGrid, spec: Spec, threads: int, seed: int) -> None:
        rz = importlib.import_module("residua")
        kind = spec.options.get("index", "hnsw")
        makers = {"hnsw": rz.HNSWIndex, "flat": rz.FlatIndex, "ivf": rz.IVFIndex}
        one_of("index", kind, tuple(makers))
        codec = spec.options["codec"]
        options: dict[str, Any] = {} if kind == "flat" else {"seed": seed}
        if codec == "recurrent":
            options["codec"] = rz.RecurrentBinaryCodec(data.dim, spec.options.get("bits", 2.0), seed=seed)
        elif codec != "auto":
            options["codec"] = None
        start = time.perf_counter()
        self.index = makers[kind](data.dim, metric=data.metric, columns=grid.fields, **options)
        if codec != "float32" or kind == "ivf":
            self.index.train(data.base, num_threads=threads)
        self.index.add(data.base, columns=grid.columns, num_threads=threads)
        self.build_seconds = time.perf_counter() - start
        self.kind = kind
        name = makers[kind].__name__
        self.label = name if codec == "auto" else f"{name}, {codec}"

    def prepare(self, filter: Filter) -> Any:
        return filter.given

    def search(self, queries: Any, prepared: Any, k: int, setting: Any) -> Ids:
        found = self.index.search(queries, k, filter=prepared, num_threads=1)
        return np.asarray(found.ids, np.int64)

    def search_each(self, queries: Any, prepared: Sequence[Any], k: int, setting: Any) -> Ids:
        return self.search(queries, list(prepared), k, setting)


class FilteredFaiss(FilteredEngine):
    """HNSW, flat or inverted lists of FAISS with `IDSelectorBitmap`; the bitmap is made untimed."""

    name = "faiss"

    def __init__(self, data: BenchData, spec: Spec, threads: int) -> None:
        self._faiss = faiss = imported("faiss", "faiss-cpu")
        self._metric = data.metric
        factory = expand_factory(spec.options["factory"], data.dim)
        metric = faiss.METRIC_INNER_PRODUCT if data.metric == "ip" else faiss.METRIC_L2
        self.index = faiss.index_factory(data.dim, factory, metric)
        if isinstance(self.index, faiss.IndexHNSW):
            self.index.hnsw.efConstruction = spec.options.get("ef_construction", 100)
        base = self.queries(data.base)
        faiss.omp_set_num_threads(threads)
        start = time.perf_counter()
        self.index.train(base)
        self.index.add(base)
        self.build_seconds = time.perf_counter() - start
        self.label = f"{factory} + IDSelectorBitmap"

    def settings(self, share: float) -> Sequence[Any]:
        if isinstance(self.index, self._faiss.IndexHNSW):
            return powers(16, 8192)
        if isinstance(self.index, self._faiss.IndexIVF):
            return powers(1, self.index.nlist)
        return (None,)

    def describe(self, setting: Any) -> str:
        if setting is None:
            return ""
        return f"{'efSearch' if isinstance(self.index, self._faiss.IndexHNSW) else 'nprobe'} {setting}"

    def queries(self, queries: Floats) -> Floats:
        return comparable(queries, self._metric)

    def prepare(self, filter: Filter) -> Any:
        bits = np.packbits(filter.mask, bitorder="little")
        return bits, self._faiss.IDSelectorBitmap(bits)

    def search(self, queries: Any, prepared: Any, k: int, setting: Any) -> Ids:
        faiss = self._faiss
        faiss.omp_set_num_threads(1)
        if isinstance(self.index, faiss.IndexHNSW):
            parameters = faiss.SearchParametersHNSW(sel=prepared[1], efSearch=max(setting, k))
        elif isinstance(self.index, faiss.IndexIVF):
            parameters = faiss.SearchParametersIVF(sel=prepared[1], nprobe=setting)
        else:
            parameters = faiss.SearchParameters(sel=prepared[1])
        return np.asarray(self.index.search(queries, k, params=parameters)[1], np.int64)
