# SPDX-License-Identifier: Apache-2.0
"""USearch: a graph over vectors of a chosen type, or an exact scan of the same type.

Bytes are the serialised length of a graph, and those of the array that an exact scan reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.runners.base import UnusableSpecError
from bench.runners.peer import Floats, Options, PeerRunner, one_of

__all__ = ["UsearchRunner"]

_DTYPES = ("f32", "f16", "i8")
_METRICS = {"cosine": "cos", "ip": "ip", "l2": "l2sq"}
_NUMPY = {"f32": np.float32, "f16": np.float16}


class UsearchRunner(PeerRunner):
    name = package = "usearch"
    module_name = "usearch.index"
    search_options = frozenset({"ef"})
    wheels = (("Linux", "Darwin", "Windows"), ("x86_64", "aarch64", "arm64", "AMD64"), (3, 10), (3, 16))

    def check(self, metric: str, dim: int, options: Options) -> None:
        one_of("dtype", options["dtype"], _DTYPES)
        if options["dtype"] == "i8" and metric != "cosine":
            raise UnusableSpecError(f"usearch's i8 drops the lengths of vectors, which {metric} needs")

    def convert(self, vectors: Floats, metric: str, options: Options) -> Any:
        plain = super().convert(vectors, metric, options)
        if not options.get("exact"):
            return plain  # the graph casts by itself
        if options["dtype"] == "i8":
            return np.rint(127 * plain).astype(np.int8)
        return plain.astype(_NUMPY[options["dtype"]])

    def make(self, base: Any, metric: str, options: Options, threads: int, seed: int) -> Any:
        if options.get("exact"):
            return base, _METRICS[metric]
        index = self.module().Index(
            ndim=base.shape[1],
            metric=_METRICS[metric],
            dtype=options["dtype"],
            connectivity=options.get("M", 16),
            expansion_add=options.get("ef_construction", 128),
        )
        index.add(np.arange(len(base)), base, threads=threads)
        return index

    def find(self, index: Any, queries: Any, k: int, threads: int, options: Options) -> Any:
        if options.get("exact"):
            rows, metric = index
            return self.module().search(rows, queries, k, metric=metric, exact=True, threads=threads).keys
        index.expansion_search = options.get("ef", 64)
        return index.search(queries, k, threads=threads).keys

    def size(self, index: Any, base: Any) -> int:
        return int(index[0].nbytes if isinstance(index, tuple) else index.serialized_length)

    def label(self, options: Options) -> str:
        if options.get("exact"):
            return f"{options['dtype']} exact"
        return f"{options['dtype']} HNSW M={options.get('M', 16)}, ef {options.get('ef', 64)}"
