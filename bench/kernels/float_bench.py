# SPDX-License-Identifier: Apache-2.0
"""Float kernels against the machine's limits, and exact search next to FAISS IndexFlat.

Prints ns per row and GB/s of the streaming kernels with their share of the measured read bandwidth,
GFMA/s of the gemm tile, and queries/s of a batch with its share of the tile's best rate. One thread.

    python bench/kernels/float_bench.py [--rows 128000] [--dim 384] [--queries 1000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from residua import _core

K = _core.kernels


def seconds(run: Callable[[], object], repeats: int = 7) -> float:
    """The shortest of several runs: what the machine does when nothing disturbs it."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def streaming(rows: np.ndarray, query: np.ndarray, bandwidth: float) -> None:
    for dtype in ("float32", "float16"):
        x = rows.astype(dtype)
        for metric in ("ip", "l2"):
            t = seconds(lambda x=x, metric=metric: _core.exact_search(query, x, 10, metric, 1))
            rate = x.nbytes / t / 1e9
            print(
                f"one query   {dtype} {metric:3} {t / len(x) * 1e9:7.1f} ns/row {rate:6.1f} GB/s"
                f" {rate / bandwidth:5.0%} of read bandwidth"
            )


def tile(isa: str) -> float:
    best = 0.0
    for d in (64, 128, 384, 1024):
        q = np.ones((6, d), np.float32)
        panel = K.pack_panel_f32(isa, np.ones((16, d), np.float32))
        times = max(1, 2_000_000 // d)
        rate = 96 * d * times / seconds(lambda q=q, p=panel, n=times: K.gemm_repeat(isa, q, p, n)) / 1e9
        print(f"gemm tile   {isa} d={d:<5} {rate:6.1f} GFMA/s")
        best = max(best, rate)
    return best


def batch(rows: np.ndarray, queries: np.ndarray, peak: float) -> None:
    try:
        import faiss
    except ImportError:
        faiss = None
    else:
        faiss.omp_set_num_threads(1)
    for metric in ("ip", "l2"):
        index = None
        if faiss is not None:
            index = (faiss.IndexFlatIP if metric == "ip" else faiss.IndexFlatL2)(rows.shape[1])
            index.add(rows)
        ours, theirs = [], []
        for _ in range(5):  # in turn, so that both meet the same disturbances
            ours.append(seconds(lambda metric=metric: _core.exact_search(queries, rows, 10, metric, 1), 1))
            if index is not None:
                theirs.append(seconds(lambda index=index: index.search(queries, 10), 1))
        t = min(ours)
        line = f"batch       float32 {metric:3} {len(queries) / t:8.0f} queries/s"
        line += f" {rows.size * len(queries) / t / 1e9 / peak:5.0%} of the tile's best rate"
        if theirs:
            ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
            line += f"; faiss Flat {len(queries) / min(theirs):8.0f}, ratio {ratio:.2f}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=128_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=1000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((args.rows, args.dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries = rng.standard_normal((args.queries, args.dim), np.float32)
    # Summing 64-bit integers in order costs next to nothing but the reading.
    bandwidth = rows.nbytes / seconds(lambda: rows.reshape(-1).view(np.int64).sum()) / 1e9
    print(f"kernels {K.active()}, read bandwidth {bandwidth:.1f} GB/s")
    streaming(rows, queries[:1], bandwidth)
    peak = tile(K.active())
    batch(rows, queries, peak)


if __name__ == "__main__":
    main()
