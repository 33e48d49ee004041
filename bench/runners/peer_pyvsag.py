# SPDX-License-Identifier: Apache-2.0
"""VSAG: its HGraph over quantized vectors, one query per call, as its Python interface has it.

It saves whole allocation blocks of many MB; pages of the file that are all zero are not counted.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.runners.base import UnusableSpecError
from bench.runners.peer import Options, PeerRunner

__all__ = ["PyvsagRunner"]

_PAGE = 4096


class PyvsagRunner(PeerRunner):
    name = package = module_name = "pyvsag"
    search_options = frozenset({"ef"})
    wheels = (("Linux",), ("x86_64", "aarch64"), (3, 9), (3, 13))

    def make(self, base: Any, metric: str, options: Options, threads: int, seed: int) -> Any:
        library = self.module()
        library.set_logger_off()
        parameters: dict[str, Any] = {
            "base_quantization_type": options["quantization"],
            "max_degree": options.get("degree", 32),
            "ef_construction": options.get("ef_construction", 200),
            "build_thread_count": threads,
        }
        if options.get("rerank"):
            parameters.update(use_reorder=True, precise_quantization_type=options["rerank"])
        settings = {
            "dtype": "float32",
            "metric_type": "ip" if metric == "ip" else "l2",
            "dim": base.shape[1],
            "index_param": parameters,
        }
        index = library.Index("hgraph", json.dumps(settings))
        ids = np.arange(len(base), dtype=np.int64)
        index.build(vectors=base.ravel(), ids=ids, num_elements=len(base), dim=base.shape[1])
        return index

    def find(self, index: Any, queries: Any, k: int, threads: int, options: Options) -> Any:
        if threads != 1:
            raise UnusableSpecError("pyvsag searches one query per call, on one thread")
        parameters = json.dumps({"hgraph": {"ef_search": max(options.get("ef", 100), k)}})
        found = np.full((len(queries), k), -1, dtype=np.int64)
        for row, query in zip(found, queries, strict=True):
            ids = index.knn_search(vector=query, k=k, parameters=parameters)[0]
            row[: len(ids)] = ids
        return found

    def size(self, index: Any, base: Any) -> int:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            index.save(str(path))
            saved = np.fromfile(path, dtype=np.uint8)
        whole = len(saved) // _PAGE * _PAGE
        pages = saved[:whole].reshape(-1, _PAGE)
        return int(_PAGE * pages.any(axis=1).sum()) + len(saved) - whole

    def label(self, options: Options) -> str:
        rerank = f" and {options['rerank']}" if options.get("rerank") else ""
        degree = options.get("degree", 32)
        return f"HGraph {options['quantization']}{rerank}, degree {degree}, ef {options.get('ef', 100)}"
