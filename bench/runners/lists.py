# SPDX-License-Identifier: Apache-2.0
"""Indexes of inverted lists whose settings change from search to search: ours and those of FAISS."""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bench.cases import Spec, expand_factory
from bench.datasets import BenchData
from bench.runners.peer import comparable, imported

__all__ = ["ListEngine", "build_lists"]

_NPROBES = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
_RERANKS = (0, 13, 16, 20, 24, 32, 40, 60)  # candidates of ours
_FACTORS = (2, 3, 4, 6, 9, 12)  # candidates of FAISS, per result

Setting = tuple[int, int]


class ListEngine(Protocol):
    """A built index; bytes are those of codes, and of vectors kept for re-ranking."""

    name: str
    family: str
    label: str
    bytes_per_vector: float
    kept_bytes: float
    build_seconds: float

    def settings(self) -> Iterable[Setting]: ...

    def use(self, setting: Setting) -> None: ...

    def describe(self, setting: Setting) -> str: ...

    def prepare(self, queries: npt.NDArray[np.float32]) -> Any: ...

    def search(self, prepared: Any, k: int, threads: int) -> npt.NDArray[np.int64]: ...


class _Ours:
    name = "residua"

    def __init__(self, data: BenchData, spec: Spec, threads: int, seed: int) -> None:
        rz = importlib.import_module("residua")
        bits, nlist = spec.options.get("bits", 1.0), spec.options["nlist"]
        codec = rz.RecurrentBinaryCodec(data.dim, bits, seed=seed)
        start = time.perf_counter()
        self.index = rz.IVFIndex(data.dim, metric=data.metric, codec=codec, nlist=nlist, seed=seed)
        self.index.train(data.base, num_threads=threads)
        self.index.add(data.base, num_threads=threads)
        self.build_seconds = time.perf_counter() - start
        memory = self.index.memory()
        self.family = f"IVF, {bits:g} bits"
        self.label = f"IVF{nlist}, recurrent {bits:g} bits"
        self.bytes_per_vector = (memory["codes"] + memory["lists"]) / len(data.base)
        self.kept_bytes = memory["vectors"] / len(data.base)
        self.use((1, 0))

    def settings(self) -> Iterable[Setting]:
        return itertools.product([p for p in _NPROBES if p <= self.index.nlist], _RERANKS)

    def use(self, setting: Setting) -> None:
        self._options = {"nprobe": setting[0], "rerank": setting[1]}

    def describe(self, setting: Setting) -> str:
        return f"nprobe {setting[0]}, rerank {setting[1]}"

    def prepare(self, queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return queries

    def search(self, prepared: Any, k: int, threads: int) -> npt.NDArray[np.int64]:
        return np.asarray(self.index.search(prepared, k, num_threads=threads, **self._options).ids, np.int64)


class _Faiss:
    name = "faiss"

    def __init__(self, data: BenchData, spec: Spec, threads: int) -> None:
        self._faiss = faiss = imported("faiss", "faiss-cpu")
        self._metric = data.metric
        factory = expand_factory(spec.options["factory"], data.dim)
        base = self.prepare(data.base)
        faiss.omp_set_num_threads(threads)
        start = time.perf_counter()
        self._lists = faiss.index_factory(data.dim, factory, faiss.METRIC_L2)
        self._lists.train(base[: spec.options.get("train_rows")])
        self._lists.add(base)
        kind = spec.options.get("refine_type", "float32")
        if kind == "float32":
            self._kept = faiss.IndexFlatL2(data.dim)
        else:
            self._kept = faiss.IndexScalarQuantizer(data.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2)
            self._kept.train(base)
        self._kept.add(base)
        self.index = faiss.IndexRefine(self._lists, self._kept)
        self.build_seconds = time.perf_counter() - start
        self.family = f"{factory.split(',')[-1]}, {kind}"
        self.label = f"{factory}, refined by {kind}"
        ids = 8.0
        self.bytes_per_vector = float(self._lists.code_size) + ids
        self.kept_bytes = float(data.dim * (4 if kind == "float32" else 2))

    def settings(self) -> Iterable[Setting]:
        return itertools.product([p for p in _NPROBES if p <= self._lists.nlist], _FACTORS)

    def use(self, setting: Setting) -> None:
        self._lists.nprobe, self.index.k_factor = setting[0], float(setting[1])

    def describe(self, setting: Setting) -> str:
        return f"nprobe {setting[0]}, k_factor {setting[1]}"

    def prepare(self, queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return comparable(queries, self._metric)

    def search(self, prepared: Any, k: int, threads: int) -> npt.NDArray[np.int64]:
        self._faiss.omp_set_num_threads(threads)
        return np.asarray(self.index.search(prepared, k)[1], np.int64)


def build_lists(data: BenchData, spec: Spec, threads: int, seed: int) -> ListEngine:
    """Build the index of an entry, rows and all."""
    if spec.engine == "ours":
        return _Ours(data, spec, threads, seed)
    return _Faiss(data, spec, threads)
