# SPDX-License-Identifier: Apache-2.0
"""hnswlib: a graph over float32 vectors. Bytes are those of the file that `save_index` would write."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.runners.peer import Options, PeerRunner

__all__ = ["HnswlibRunner"]


class HnswlibRunner(PeerRunner):
    name = package = module_name = "hnswlib"
    search_options = frozenset({"ef"})

    def make(self, base: Any, metric: str, options: Options, threads: int, seed: int) -> Any:
        index = self.module().Index(space="ip" if metric == "ip" else "l2", dim=base.shape[1])
        index.init_index(
            max_elements=len(base),
            M=options.get("M", 16),
            ef_construction=options.get("ef_construction", 200),
            random_seed=seed,
        )
        index.add_items(base, np.arange(len(base)), num_threads=threads)
        return index

    def find(self, index: Any, queries: Any, k: int, threads: int, options: Options) -> Any:
        index.set_ef(max(options["ef"], k))
        return index.knn_query(queries, k, num_threads=threads)[0]

    def size(self, index: Any, base: Any) -> int:
        return int(index.index_file_size())

    def label(self, options: Options) -> str:
        return f"HNSW M={options.get('M', 16)}, ef {options['ef']}"
