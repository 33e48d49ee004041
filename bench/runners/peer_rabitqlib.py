# SPDX-License-Identifier: Apache-2.0
"""The RaBitQ library: codes of 1 to 9 bits in an inverted file. Bytes are those of the file that it saves."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.runners.base import UnusableSpecError
from bench.runners.peer import Options, PeerRunner, one_of

__all__ = ["RabitqlibRunner"]


class RabitqlibRunner(PeerRunner):
    name = package = module_name = "rabitqlib"
    search_options = frozenset({"nprobe"})
    wheels = (("Linux", "Darwin", "Windows"), ("x86_64", "aarch64", "arm64", "AMD64"), (3, 11), (3, 15))

    def check(self, metric: str, dim: int, options: Options) -> None:
        one_of("bits", options["bits"], (*range(1, 10), 32))  # 32: raw vectors behind 1 bit
        if dim < 64:
            raise UnusableSpecError(f"rabitqlib clusters vectors of 64 dims and more, not {dim}")

    def make(self, base: Any, metric: str, options: Options, threads: int, seed: int) -> Any:
        library, clusters = self.module(), options.get("clusters", 1)
        exact = library.FinalAssignmentMode.Exact
        means = library.RaBitQKMeans(base.shape[1], clusters, num_threads=threads, final_assignment=exact)
        means.train(base)
        index = library.IvfIndex(
            dim=base.shape[1],
            max_elements=len(base),
            num_clusters=clusters,
            nbits=options["bits"],
            metric="ip" if metric == "ip" else "l2",
        )
        index.build(base, means.centroids, means.assignments, num_threads=threads)
        return index

    def find(self, index: Any, queries: Any, k: int, threads: int, options: Options) -> Any:
        probes = options.get("nprobe", options.get("clusters", 1))
        return index.search(queries, k, nprobe=probes, num_threads=threads)[0]

    def size(self, index: Any, base: Any) -> int:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            index.save(str(path))
            return path.stat().st_size

    def label(self, options: Options) -> str:
        clusters = options.get("clusters", 1)
        kind = "1 bit and vectors" if options["bits"] == 32 else f"{options['bits']} bit"
        return f"RaBitQ {kind}, {options.get('nprobe', clusters)} of {clusters} lists"
