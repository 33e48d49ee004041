# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for peer libraries: the calls that the adapters make, with their signatures, searching exactly.

Each notes in a record what it was told; whatever is saved takes 12,345 bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

Record = dict[str, Any]


def nearest(base: np.ndarray, queries: np.ndarray, k: int, metric: str) -> np.ndarray:
    base, queries = base.astype(np.float64), queries.astype(np.float64)
    scores = 2 * queries @ base.T
    if metric == "l2":
        scores -= (base**2).sum(axis=1)
    if metric == "cosine":
        scores /= np.linalg.norm(base, axis=1)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


class FakeHnsw:
    def __init__(self, record: Record) -> None:
        self.record = record

    def __call__(self, space: str, dim: int) -> FakeHnsw:
        self.space = space
        return self

    def init_index(self, max_elements: int, M: int, ef_construction: int, random_seed: int) -> None:
        self.record.update(made=self.record.get("made", 0) + 1, M=M, ef_construction=ef_construction)

    def add_items(self, data: np.ndarray, ids: np.ndarray, num_threads: int) -> None:
        self.base = data
        self.record["build_threads"] = num_threads

    def set_ef(self, ef: int) -> None:
        self.record["ef"] = ef

    def knn_query(self, queries: np.ndarray, k: int, num_threads: int) -> tuple[np.ndarray, None]:
        self.record["threads"] = num_threads
        return nearest(self.base, queries, k, self.space).astype(np.uint64), None

    def index_file_size(self) -> int:
        return 12345


def fake_hnswlib(record: Record) -> ModuleType:
    return module("hnswlib", Index=FakeHnsw(record))


class FakeUsearch(FakeHnsw):
    serialized_length = 12345

    def __call__(
        self, ndim: int, metric: str, dtype: str, connectivity: int, expansion_add: int
    ) -> FakeUsearch:
        self.space = {"cos": "cosine", "ip": "ip", "l2sq": "l2"}[metric]
        self.record["dtype"] = dtype
        return self

    def add(self, keys: np.ndarray, vectors: np.ndarray, threads: int) -> None:
        self.base = vectors
        self.record["build_threads"] = threads

    def search(self, queries: np.ndarray, k: int, threads: int) -> SimpleNamespace:
        self.record["threads"] = threads
        return SimpleNamespace(keys=nearest(self.base, queries, k, self.space).astype(np.uint64))


def fake_usearch(record: Record) -> ModuleType:
    def search(
        rows: np.ndarray, queries: np.ndarray, k: int, *, metric: str, exact: bool, threads: int
    ) -> SimpleNamespace:
        assert exact
        assert rows.dtype == queries.dtype
        record.update(threads=threads, dtype=rows.dtype)
        space = {"cos": "cosine", "ip": "ip", "l2sq": "l2"}[metric]
        return SimpleNamespace(keys=nearest(rows, queries, k, space))

    package = module("usearch")
    package.index = module("usearch.index", Index=FakeUsearch(record), search=search)
    return package


def fake_rabitqlib(record: Record) -> ModuleType:
    class KMeans:
        def __init__(self, d: int, k: int, num_threads: int, final_assignment: str) -> None:
            assert final_assignment == "exact"
            record["train_threads"] = num_threads
            self.centroids, self.assignments = np.zeros((k, d), np.float32), None

        def train(self, data: np.ndarray) -> None:
            self.assignments = np.zeros(len(data), np.uint32)

    class Ivf:
        def __init__(self, dim: int, max_elements: int, num_clusters: int, nbits: int, metric: str) -> None:
            self.metric = metric

        def build(self, data: np.ndarray, centroids: Any, assignments: Any, num_threads: int) -> None:
            self.base = data
            record["build_threads"] = num_threads

        def search(
            self, queries: np.ndarray, k: int, nprobe: int, num_threads: int
        ) -> tuple[np.ndarray, None]:
            record.update(threads=num_threads, nprobe=nprobe)
            return nearest(self.base, queries, k, self.metric).astype(np.uint32), None

        def save(self, path: str) -> None:
            Path(path).write_bytes(bytes(12345))

    exact = SimpleNamespace(Exact="exact")
    return module("rabitqlib", RaBitQKMeans=KMeans, IvfIndex=Ivf, FinalAssignmentMode=exact)


def fake_turbovec(record: Record) -> ModuleType:
    class Index:
        def __init__(self, dim: int, bit_width: int) -> None:
            record["bits"] = bit_width

        def calibrate(self, sample: np.ndarray) -> None:
            record["sample"] = sample

        def add(self, vectors: np.ndarray, chunk_size: int) -> None:
            assert "sample" in record  # calibration after adding would quantize twice
            self.base = vectors

        def prepare(self) -> None:
            record["threads"] = int(os.environ["RAYON_NUM_THREADS"])

        def search(self, queries: np.ndarray, k: int) -> tuple[None, np.ndarray]:
            return None, nearest(self.base, queries, k, "ip")

        def to_bytes(self) -> bytes:
            return bytes(12345)

    return module("turbovec", TurboQuantIndex=Index)


def fake_scann(record: Record) -> ModuleType:
    class Builder:
        def __init__(self, base: np.ndarray, count: int, measure: str) -> None:
            self.base, self.metric = base, {"squared_l2": "l2", "dot_product": "ip"}[measure]

        def score_ah(self, dims: int, anisotropic_quantization_threshold: float) -> None:
            assert np.isnan(anisotropic_quantization_threshold) == (self.metric == "l2")

        def reorder(self, candidates: int) -> None:
            record["reorder"] = candidates

        def set_n_training_threads(self, threads: int) -> Builder:
            record["build_threads"] = threads
            return self

        def build(self) -> Builder:
            return self

        def search_batched(self, queries: np.ndarray, final_num_neighbors: int) -> tuple[np.ndarray, None]:
            record["threads"] = 1
            return nearest(self.base, queries, final_num_neighbors, self.metric).astype(np.uint32), None

        def set_num_threads(self, threads: int) -> None:
            self.pool = threads

        def search_batched_parallel(
            self, queries: np.ndarray, final_num_neighbors: int
        ) -> tuple[np.ndarray, None]:
            found = self.search_batched(queries, final_num_neighbors)
            record["threads"] = self.pool
            return found

        def serialize(self, folder: str) -> None:
            (Path(folder) / "codes").write_bytes(bytes(12000))
            (Path(folder) / "config").write_bytes(bytes(345))

    return module("scann", scann_ops_pybind=SimpleNamespace(builder=Builder))


def fake_svs(record: Record) -> ModuleType:
    class Vamana:
        def __init__(self, base: np.ndarray, metric: str, threads: int) -> None:
            self.base, self.metric = base, metric
            record.update(build_threads=threads, dtype=base.dtype)

        @classmethod
        def build(cls, parameters: Any, base: np.ndarray, distance: str, num_threads: int) -> Vamana:
            record.update(parameters)
            return cls(base, distance, num_threads)

        def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, None]:
            record["threads"] = self.num_threads
            return nearest(self.base, queries, k, self.metric).astype(np.uint64), None

        def save(self, *folders: str) -> None:
            for folder, size in zip(folders, (45, 300, 12000), strict=True):
                Path(folder).mkdir()
                (Path(folder) / "part").write_bytes(bytes(size))

    class Flat:
        def __init__(self, base: np.ndarray, distance: str, num_threads: int) -> None:
            self.inner = Vamana(base, distance, num_threads)

        def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, None]:
            self.inner.num_threads = self.num_threads
            return self.inner.search(queries, k)

    kinds = SimpleNamespace(MIP="ip", L2="l2")
    return module(
        "svs", Vamana=Vamana, Flat=Flat, DistanceType=kinds, VamanaBuildParameters=lambda **given: given
    )


def fake_pyvsag(record: Record) -> ModuleType:
    class Index:
        def __init__(self, name: str, parameters: str) -> None:
            settings = json.loads(parameters)
            self.metric = settings["metric_type"]
            record.update(
                settings["index_param"], build_threads=settings["index_param"]["build_thread_count"]
            )

        def build(self, vectors: np.ndarray, ids: np.ndarray, num_elements: int, dim: int) -> None:
            self.base = vectors.reshape(num_elements, dim)

        def knn_search(self, vector: np.ndarray, k: int, parameters: str) -> tuple[np.ndarray, None]:
            assert vector.ndim == 1
            record.update(threads=1, ef=json.loads(parameters)["hgraph"]["ef_search"])
            return nearest(self.base, vector[None], k, self.metric)[0], None

        def save(self, path: str) -> None:
            Path(path).write_bytes(b"\1" + bytes(4095) + bytes(40960) + b"\1" + bytes(56))

    return module("pyvsag", Index=Index, set_logger_off=lambda: None)


def module(name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(content)
    return made


FAKES: dict[str, Callable[[Record], ModuleType]] = {
    "hnswlib": fake_hnswlib,
    "usearch": fake_usearch,
    "rabitqlib": fake_rabitqlib,
    "turbovec": fake_turbovec,
    "scann": fake_scann,
    "svs": fake_svs,
    "pyvsag": fake_pyvsag,
}
