# SPDX-License-Identifier: Apache-2.0
"""FAISS on the CPU behind the runner protocol, at the settings that served it best.

Cosine is run as L2 on normalised vectors: the order is the same for exact vectors, and codes that keep a
scale per vector (EDEN, SQ) reach up to two points more recall this way than under the inner product.
"""

from __future__ import annotations

import importlib
import os
import re
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.cases import Spec, expand_factory
from bench.datasets import BenchData
from bench.runners.base import RowReader, UnusableSpecError
from bench.runners.peer import comparable

__all__ = ["FaissRunner"]


def family_of(factory: str) -> str:
    """The family that a bar names: RaBitQ, EDEN, SQ, PQ, OPQ, RQ, PRQ, LSQ, Flat or
    BinaryFlat.

    >>> family_of("PRQ2x4x8")
    'PRQ'
    >>> family_of("OPQ48,PQ48x8"), family_of("RR384,EDEN2"), family_of("PQ96x4fs")
    ('OPQ', 'EDEN', 'PQ')
    """
    if factory == "BFlat":
        return "BinaryFlat"
    if factory.startswith("OPQ"):
        return "OPQ"
    match = re.match(r"(RaBitQ|EDEN|SQ|PQ|RQ|PRQ|LSQ|Flat)", factory.split(",")[-1])
    return match.group(1) if match else factory


class _FloatEngine:
    """An index over float vectors."""

    name = "faiss"

    def __init__(self, faiss: Any, data: BenchData, spec: Spec, factory: str, threads: int) -> None:
        self._faiss = faiss
        self._metric = data.metric
        self.index = _make(faiss, data, spec, factory)
        self.family = family_of(factory)
        self.label = factory + (f", re-ranked x{spec.options['refine']}" if "refine" in spec.options else "")
        if data.metric == "cosine" and spec.options.get("search_metric") == "ip":
            self.label += ", inner product"
        base = self.prepare(data.base)
        faiss.omp_set_num_threads(threads)
        start = time.perf_counter()
        if not self.index.is_trained:
            self.index.train(base[: spec.options.get("train_rows")])
        self.fit_seconds = time.perf_counter() - start
        start = time.perf_counter()
        self.index.add(base)
        self.add_seconds = time.perf_counter() - start
        self.bytes_per_vector = float(_core(faiss, self.index).code_size)
        if "refine" in spec.options:
            refine = faiss.IndexRefineFlat(self.index, faiss.swig_ptr(base))
            refine.k_factor = float(spec.options["refine"])
            self._inner, self.index = (
                self.index,
                refine,
            )  # the wrapper does not keep its parts alive by itself

    def prepare(self, queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return comparable(queries, self._metric)

    def search(self, prepared: npt.NDArray[np.float32], k: int, threads: int) -> npt.NDArray[np.int64]:
        self._faiss.omp_set_num_threads(threads)
        return np.asarray(self.index.search(prepared, k)[1], dtype=np.int64)

    def memory(self) -> dict[str, int]:
        kept = 4 * self.index.d if isinstance(self.index, self._faiss.IndexRefineFlat) else 0
        per_vector = {"codes": int(self.bytes_per_vector), "vectors": kept}
        return {part: size * self.index.ntotal for part, size in per_vector.items()}

    def encode(self, vectors: npt.NDArray[np.float32], threads: int) -> object:
        self._faiss.omp_set_num_threads(threads)
        return self.index.sa_encode(vectors)


class _BinaryEngine:
    """Sign codes under the Hamming distance: the same codes as our `binary` codec without rotation."""

    name = "faiss"
    family = "BinaryFlat"
    label = "BinaryFlat"
    fit_seconds = 0.0

    def __init__(self, faiss: Any, data: BenchData, threads: int) -> None:
        self._faiss = faiss
        faiss.omp_set_num_threads(threads)
        self.bytes_per_vector = float(-(-data.dim // 8))
        self.index = faiss.IndexBinaryFlat(8 * int(self.bytes_per_vector))
        start = time.perf_counter()
        self.index.add(self.prepare(data.base))
        self.add_seconds = time.perf_counter() - start

    def prepare(self, queries: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        return np.packbits(queries > 0, axis=1)

    def search(self, prepared: npt.NDArray[np.uint8], k: int, threads: int) -> npt.NDArray[np.int64]:
        self._faiss.omp_set_num_threads(threads)
        return np.asarray(self.index.search(prepared, k)[1], dtype=np.int64)

    def memory(self) -> dict[str, int]:
        return {"codes": int(self.bytes_per_vector) * self.index.ntotal}

    def encode(self, vectors: npt.NDArray[np.float32], threads: int) -> object:
        return self.prepare(vectors)


def _core(faiss: Any, index: Any) -> Any:
    """The index that holds the codes, below a rotation."""
    index = faiss.downcast_index(index)
    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index


def _make(faiss: Any, data: BenchData, spec: Spec, factory: str) -> Any:
    by_product = data.metric == "ip" or spec.options.get("search_metric") == "ip"
    metric = faiss.METRIC_INNER_PRODUCT if by_product else faiss.METRIC_L2
    try:
        index = faiss.index_factory(data.dim, factory, metric)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UnusableSpecError(f"FAISS {faiss.__version__} refuses {factory!r}: {reason}") from error
    core = _core(faiss, index)
    if hasattr(core, "qb"):
        core.qb = int(spec.options.get("query_bits", 8))
    return index


class FaissRunner:
    name = "faiss"

    def available(self) -> str | None:
        # Workers that spin while they wait make k-means crawl when the CPUs are shared. OpenMP reads this
        # once, when it is loaded; on one thread it changes nothing.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        try:
            importlib.import_module("faiss")
        except ImportError:
            return "faiss is not installed; run `pip install faiss-cpu`"
        return None

    def fit(self, data: BenchData, spec: Spec, *, threads: int, seed: int) -> None:
        faiss = importlib.import_module("faiss")
        faiss.omp_set_num_threads(threads)
        index = _make(faiss, data, spec, expand_factory(spec.options["factory"], data.dim))
        rows = data.base[: spec.options.get("train_rows")]
        index.train(comparable(rows, data.metric))

    def reader(self, data: BenchData, spec: Spec, *, threads: int, seed: int) -> RowReader:
        faiss = importlib.import_module("faiss")
        faiss.omp_set_num_threads(threads)
        factory = expand_factory(spec.options["factory"], data.dim)
        index = _make(faiss, data, spec, factory)
        if not index.is_trained:
            index.train(data.base[: spec.options.get("train_rows")])
        codes = index.sa_encode(data.base)

        def read(rows: npt.NDArray[np.int64], threads: int) -> npt.NDArray[np.float32]:
            faiss.omp_set_num_threads(threads)
            return np.asarray(index.sa_decode(codes[rows]), dtype=np.float32)

        return RowReader("faiss", family_of(factory), factory, float(codes.shape[1]), read)

    def build(self, data: BenchData, spec: Spec, *, threads: int, seed: int) -> _FloatEngine | _BinaryEngine:
        faiss = importlib.import_module("faiss")
        factory = expand_factory(spec.options["factory"], data.dim)
        if factory == "BFlat":
            return _BinaryEngine(faiss, data, threads)
        return _FloatEngine(faiss, data, spec, factory, threads)
