# SPDX-License-Identifier: Apache-2.0
"""Graphs whose beam changes from search to search: ours, and those of hnswlib, rabitqlib and scalable-vs."""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bench.cases import Spec
from bench.datasets import BenchData
from bench.runners.base import UnusableSpecError
from bench.runners.peer import comparable, folder_bytes, imported, one_of

__all__ = ["GraphEngine", "OurGraph", "build_graph", "our_index"]

Floats = npt.NDArray[np.float32]
PACKAGES = {"hnswlib": "hnswlib", "rabitqlib": "rabitqlib", "svs": "scalable-vs"}


class GraphEngine(Protocol):
    """A built graph; bytes are all that a search reads, vectors included."""

    name: str
    family: str
    label: str
    bytes_per_vector: float
    build_seconds: float

    def prepare(self, queries: Floats) -> Any: ...

    def search(self, prepared: Any, k: int, ef: int) -> npt.NDArray[np.int64]:
        """With one thread."""


def our_index(data: BenchData, spec: Spec, threads: int, seed: int, base: Floats | None = None) -> Any:
    """The index of an entry, built by as many threads."""
    rz = importlib.import_module("residua")
    rows = data.base if base is None else base
    options = {key: spec.options[key] for key in ("layout", "M", "ef_construction") if key in spec.options}
    kept = spec.options.get("vectors", "auto")
    codec: Any = "auto"
    if spec.options["codec"] == "scalar":
        codec = rz.ScalarCodec(data.dim, int(spec.options.get("bits", 4)))
    elif spec.options["codec"] == "recurrent":
        codec = rz.RecurrentBinaryCodec(data.dim, spec.options["bits"], seed=seed)
    vectors = "float32" if kept == "mmap" else kept
    index = rz.HNSWIndex(data.dim, metric=data.metric, codec=codec, vectors=vectors, seed=seed, **options)
    index.train(rows, num_threads=threads)
    index.add(rows, num_threads=threads)
    return index


class OurGraph:
    name = "residua"

    def __init__(self, data: BenchData, spec: Spec, threads: int, seed: int) -> None:
        rz = importlib.import_module("residua")
        start = time.process_time()
        self.index = our_index(data, spec, threads, seed)
        self.build_seconds = time.process_time() - start
        kept = spec.options.get("vectors", "auto")
        if kept == "mmap":
            with tempfile.TemporaryDirectory() as folder:  # what is mapped stays
                self.index.save(Path(folder) / "index")
                self.index = rz.load(Path(folder) / "index", mmap=True)
        memory = self.index.memory()
        layout = self.index.layout
        named = {"mmap": "float32 on disk", "auto": "float16"}.get(kept, kept)
        self.family = f"{layout}, {named}"
        self.label = f"{layout}, {8 * self.index.codec.code_bytes / data.dim:.2g} bits per dim, {named}"
        resident = sum(memory.values()) - memory["vectors_on_disk"]
        self.bytes_per_vector = resident / len(data.base)

    def prepare(self, queries: Floats) -> Floats:
        return queries

    def search(self, prepared: Any, k: int, ef: int) -> npt.NDArray[np.int64]:
        return np.asarray(self.index.search(prepared, k, ef=ef, num_threads=1).ids, np.int64)


class _Peer:
    """Cosine runs on unit vectors."""

    def __init__(self, data: BenchData, spec: Spec, threads: int, seed: int) -> None:
        self.name = self.family = spec.options["library"]
        self._module = imported(self.name, PACKAGES[self.name])
        self._metric = data.metric
        self._by_product = data.metric == "ip"
        base = self.prepare(data.base)
        start = time.process_time()
        self.label = self.build(base, spec, threads, seed)
        self.build_seconds = time.process_time() - start
        self.bytes_per_vector = self.size() / len(base)

    def prepare(self, queries: Floats) -> Any:
        return comparable(queries, self._metric)

    def build(self, base: Any, spec: Spec, threads: int, seed: int) -> str:
        raise NotImplementedError

    def size(self) -> int:
        """Bytes of the files that it saves."""
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder))
            return folder_bytes(Path(folder))

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    def search(self, prepared: Any, k: int, ef: int) -> npt.NDArray[np.int64]:
        raise NotImplementedError


class _Hnswlib(_Peer):
    def build(self, base: Any, spec: Spec, threads: int, seed: int) -> str:
        links, width = spec.options.get("M", 16), spec.options.get("ef_construction", 200)
        space = "ip" if self._by_product else "l2"
        self.index = self._module.Index(space=space, dim=base.shape[1])
        self.index.init_index(max_elements=len(base), M=links, ef_construction=width, random_seed=seed)
        self.index.add_items(base, num_threads=threads)
        return f"M {links}, float32"

    def save(self, folder: Path) -> None:
        self.index.save_index(str(folder / "index"))

    def search(self, prepared: Any, k: int, ef: int) -> npt.NDArray[np.int64]:
        self.index.set_ef(max(ef, k))
        return np.asarray(self.index.knn_query(prepared, k=k, num_threads=1)[0]).astype(np.int64)


class _Symqg(_Peer):
    def build(self, base: Any, spec: Spec, threads: int, seed: int) -> str:
        degree, width = spec.options.get("degree", 32), spec.options.get("ef_construction", 200)
        if base.shape[1] < 64:
            raise UnusableSpecError("rabitqlib takes vectors of 64 dims and more")
        self.index = self._module.SymqgIndex(base.shape[1], degree, metric="ip" if self._by_product else "l2")
        self.index.build(base, width, num_threads=threads)
        return f"SymphonyQG, degree {degree}"

    def save(self, folder: Path) -> None:
        self.index.save(str(folder / "index"))

    def search(self, prepared: Any, k: int, ef: int) -> npt.NDArray[np.int64]:
        return np.asarray(self.index.search_batch(prepared, k, max(ef, k), num_threads=1)[0]).astype(np.int64)


class _Vamana(_Peer):
    def build(self, base: Any, spec: Spec, threads: int, seed: int) -> str:
        svs = self._module
        distance = svs.DistanceType.MIP if self._by_product else svs.DistanceType.L2
        parameters = svs.VamanaBuildParameters(
            alpha=0.95 if self._by_product else 1.2,
            graph_max_degree=spec.options.get("degree", 32),
            window_size=spec.options.get("ef_construction", 200),
        )
        self.index = svs.Vamana.build(parameters, base, distance, num_threads=threads)
        return f"Vamana float32, degree {spec.options.get('degree', 32)}"

    def save(self, folder: Path) -> None:
        self.index.save(*(str(folder / part) for part in ("config", "graph", "data")))

    def search(self, prepared: Any, k: int, ef: int) -> npt.NDArray[np.int64]:
        self.index.num_threads = 1
        self.index.search_window_size = max(ef, k)
        return np.asarray(self.index.search(prepared, k)[0]).astype(np.int64)


_LIBRARIES: dict[str, type[_Peer]] = {"hnswlib": _Hnswlib, "rabitqlib": _Symqg, "svs": _Vamana}


def build_graph(data: BenchData, spec: Spec, threads: int, seed: int) -> GraphEngine:
    """Build the graph of an entry, rows and all."""
    if spec.engine == "ours":
        return OurGraph(data, spec, threads, seed)
    library = one_of("library", spec.options["library"], tuple(_LIBRARIES))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    return _LIBRARIES[library](data, spec, threads, seed)
