# SPDX-License-Identifier: Apache-2.0
"""turbovec: an exhaustive scan of TurboQuant codes of 2 or 4 bits. Bytes are those of its serialised form."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.runners.base import UnusableSpecError
from bench.runners.peer import Options, PeerRunner, one_of, pool_threads

__all__ = ["TurbovecRunner"]

_POOL = "RAYON_NUM_THREADS"


class TurbovecRunner(PeerRunner):
    name = package = module_name = "turbovec"
    wheels = (("Linux", "Darwin", "Windows"), ("x86_64", "aarch64", "arm64", "AMD64"), (3, 9), (4, 0))

    def check(self, metric: str, dim: int, options: Options) -> None:
        one_of("bits", options["bits"], (2, 4))
        if metric == "l2":
            raise UnusableSpecError("turbovec knows the inner product only, not l2")
        if dim % 8:
            raise UnusableSpecError(f"turbovec takes multiples of 8 dims, not {dim}")

    def make(self, base: Any, metric: str, options: Options, threads: int, seed: int) -> Any:
        pool_threads(_POOL)
        index = self.module().TurboQuantIndex(dim=base.shape[1], bit_width=options["bits"])
        sample = options.get("calibrate", 1024)
        if sample:
            rows = np.random.default_rng(seed).permutation(len(base))[:sample]
            index.calibrate(np.ascontiguousarray(base[rows]))
        index.add(base, chunk_size=0)
        index.prepare()
        return index

    def find(self, index: Any, queries: Any, k: int, threads: int, options: Options) -> Any:
        if pool_threads(_POOL) != threads:
            raise UnusableSpecError(f"turbovec has no argument for threads; run with {_POOL}={threads}")
        return index.search(queries, k)[1]

    def size(self, index: Any, base: Any) -> int:
        return len(index.to_bytes())

    def label(self, options: Options) -> str:
        return f"TurboQuant {options['bits']} bit" + ("" if options.get("calibrate", 1) else ", uncalibrated")
