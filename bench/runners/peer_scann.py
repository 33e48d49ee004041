# SPDX-License-Identifier: Apache-2.0
"""ScaNN: anisotropic product codes of 4 bits per block, re-ordered by kept vectors on request.

Bytes are those of the files that it serialises, kept vectors included.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.runners.peer import Options, PeerRunner, folder_bytes

__all__ = ["ScannRunner"]


class ScannRunner(PeerRunner):
    name = package = module_name = "scann"
    wheels = (("Linux",), ("x86_64", "aarch64"), (3, 9), (3, 14))

    def make(self, base: Any, metric: str, options: Options, threads: int, seed: int) -> Any:
        measure = "squared_l2" if metric == "l2" else "dot_product"
        builder = self.module().scann_ops_pybind.builder(base, 10, measure)
        # 0.2 is the setting of ScaNN's own examples; it is defined for inner products only.
        threshold = options.get("anisotropic", float("nan") if metric == "l2" else 0.2)
        builder.score_ah(options["dims_per_block"], anisotropic_quantization_threshold=threshold)
        if options.get("reorder"):
            builder.reorder(options["reorder"])
        return builder.set_n_training_threads(threads).build()

    def find(self, index: Any, queries: Any, k: int, threads: int, options: Options) -> Any:
        if threads == 1:
            return index.search_batched(queries, final_num_neighbors=k)[0]
        index.set_num_threads(threads)
        return index.search_batched_parallel(queries, final_num_neighbors=k)[0]

    def size(self, index: Any, base: Any) -> int:
        with tempfile.TemporaryDirectory() as folder:
            index.serialize(folder)
            return folder_bytes(Path(folder))

    def label(self, options: Options) -> str:
        reorder = f", re-ordered {options['reorder']}" if options.get("reorder") else ""
        return f"AH blocks of {options['dims_per_block']} dims{reorder}"
