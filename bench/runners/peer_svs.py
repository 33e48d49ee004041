# SPDX-License-Identifier: Apache-2.0
"""Scalable Vector Search: a Vamana graph over floats or LVQ codes, or a flat scan of floats.

Bytes of a graph are those of the folders that it saves, graph and vectors; a flat index holds its array.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.runners.base import UnusableSpecError
from bench.runners.peer import Floats, Options, PeerRunner, folder_bytes, one_of

__all__ = ["SvsRunner"]

_FLOATS = {"float32": np.float32, "float16": np.float16}
_LVQ = {"lvq4": (4, 0), "lvq8": (8, 0), "lvq4x4": (4, 4), "lvq4x8": (4, 8)}


class SvsRunner(PeerRunner):
    name = "svs"
    package = "scalable-vs"
    module_name = "svs"
    search_options = frozenset({"window"})
    wheels = (("Linux",), ("x86_64",), (3, 10), (3, 15))

    def check(self, metric: str, dim: int, options: Options) -> None:
        one_of("index", options["index"], ("vamana", "flat"))
        storage = one_of("storage", options.get("storage", "float32"), (*_FLOATS, *_LVQ))
        if options["index"] == "flat" and storage in _LVQ:
            raise UnusableSpecError("svs cannot save a flat index, so the bytes of its LVQ codes are unknown")

    def convert(self, vectors: Floats, metric: str, options: Options) -> Any:
        plain = super().convert(vectors, metric, options)
        return plain.astype(_FLOATS.get(options.get("storage", "float32"), np.float32))

    def make(self, base: Any, metric: str, options: Options, threads: int, seed: int) -> Any:
        svs = self.module()
        distance = svs.DistanceType.MIP if metric == "ip" else svs.DistanceType.L2
        if options["index"] == "flat":
            return svs.Flat(base, distance, num_threads=threads)
        parameters = svs.VamanaBuildParameters(
            alpha=0.95 if metric == "ip" else 1.2,
            graph_max_degree=options.get("degree", 32),
            window_size=options.get("build_window", 100),
        )
        bits = _LVQ.get(options.get("storage", "float32"))
        if bits is None:
            return svs.Vamana.build(parameters, base, distance, num_threads=threads)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "base.fvecs")
            svs.write_vecs(base, path)
            vectors = svs.VectorDataLoader(path, svs.float32, dims=base.shape[1])
            codes = svs.LVQLoader(vectors, primary=bits[0], residual=bits[1])
            return svs.Vamana.build(parameters, codes, distance, num_threads=threads)

    def find(self, index: Any, queries: Any, k: int, threads: int, options: Options) -> Any:
        index.num_threads = threads
        if options["index"] == "vamana":
            index.search_window_size = max(options.get("window", 50), k)
        return index.search(queries, k)[0]

    def size(self, index: Any, base: Any) -> int:
        if not hasattr(index, "save"):
            return int(base.nbytes)
        with tempfile.TemporaryDirectory() as folder:
            index.save(*(str(Path(folder) / part) for part in ("config", "graph", "data")))
            return folder_bytes(Path(folder))

    def label(self, options: Options) -> str:
        storage = options.get("storage", "float32")
        if options["index"] == "flat":
            return f"flat {storage}"
        return f"Vamana {storage}, degree {options.get('degree', 32)}, window {options.get('window', 50)}"
