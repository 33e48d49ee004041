# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds per code of the integer kernels, one thread, beside FAISS in the same process.

    python bench/kernels/plane_bench.py DATA [--rows 128000] [--queries 300] [--repeats 7]

DATA holds base_vectors.npy and query_vectors.npy. Rows are tiled up to --rows. Codes are made with
a PCA and fixed allocations: what matters here is how fast they are scanned, not how good they are.
Every figure is the median (and the least) of the repeats, in CPU time of the process; engines take
turns within each repeat.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from residua._core import kernels

STEP = [0.0, 1.596, 0.996, 0.586, 0.335, 0.188, 0.104, 0.057, 0.031]
ALLOCATION = {
    1: [3, 2, 2, 1, 1, 1, 1, 1, 0, 0, 0, 0],
    2: [4, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 0],
    4: [6, 5, 5, 5, 4, 4, 4, 4, 3, 3, 3, 2],
}


def hadamard(n):
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(n)


class Codes:
    """Plane codes of x and the weights of q at one allocation."""

    def __init__(self, x, q, bits, seed=0):
        self.bits = [b for b in bits if b]
        dims = 32 * len(self.bits)
        self.per_dim = np.repeat(self.bits, 32)
        mean = x.mean(0)
        _, vectors = np.linalg.eigh(np.cov((x - mean)[:20_000].T))
        rng = np.random.default_rng(seed)
        basis = vectors[:, ::-1][:, :dims] * rng.choice([-1.0, 1.0], dims)
        for g in range(len(self.bits)):
            basis[:, 32 * g : 32 * g + 32] = basis[:, 32 * g : 32 * g + 32] @ hadamard(32)
        self.y = ((x - mean) @ basis).astype(np.float32)
        sigma = np.repeat(self.y.reshape(len(x), -1, 32).std(axis=(0, 2)), 32)
        step = (sigma * np.array(STEP)[self.per_dim]).astype(np.float32)
        half = 2 ** (self.per_dim - 1)
        self.levels = np.clip(np.floor(self.y / step) + half, 0, 2 * half - 1).astype(np.int32)
        decoded = (self.levels - half + 0.5) * step
        scale = (self.y**2).sum(1) / np.maximum((self.y * decoded).sum(1), 1e-9)
        self.scale = scale.astype(np.float16)
        self.add = ((x - mean) @ mean).astype(np.float32)
        self.weights = np.ascontiguousarray(((q - mean) @ basis) * step, np.float32)
        planes = [
            np.packbits((self.levels[:, self.per_dim > t] >> t) & 1, axis=1)
            for t in range(max(self.bits) - 1, -1, -1)
        ]
        self.codes = np.ascontiguousarray(np.concatenate(planes, axis=1), np.uint8)

    def blocks(self, copies):
        return kernels.plane_pack(
            kernels.active(),
            self.bits,
            np.tile(self.codes, (copies, 1)),
            np.tile(self.add, copies),
            np.tile(self.scale, copies).view(np.uint16),
        )


def measure(jobs, repeats, codes_per_job):
    """Nanoseconds per code of every job, the jobs taking turns."""
    times = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            times[name].append((time.process_time() - start) * 1e9 / codes_per_job[name])
    return {name: (float(np.median(t[1:])), min(t[1:])) for name, t in times.items()}


def bound_statistics(codes, thresholds):
    """Violations of the scan's bound over all pairs, and the share of rows and blocks that survive."""
    print("bits  plane  checked  violations  slack/sd  rows passed  blocks passed  true blocks")
    n = len(codes.levels) // 32 * 32
    planes = max(codes.bits)
    nibbles = [
        ((codes.levels[:n, codes.per_dim > t] >> t) & 1).reshape(n, -1, 4) @ np.array([8, 4, 2, 1])
        for t in range(planes)
    ]
    totals = np.zeros((planes, 6))
    for w, threshold in zip(codes.weights, thresholds, strict=True):
        q = kernels.plane_query(codes.bits, w)
        table = q["coarse"].reshape(-1, 16).astype(np.int32)
        signed = 2 * codes.levels[:n] - (2**codes.per_dim - 1)
        exact = signed.astype(np.float32) @ q["weights"].astype(np.float32) * np.float32(0.5 * q["unit"])
        score = codes.scale[:n].astype(np.float32) * exact + codes.add[:n]
        wanted = (score >= threshold).reshape(-1, 32).any(1).mean()
        total = np.zeros(n, np.int32)
        for t in range(planes - 1, -1, -1):
            plane = nibbles[t]
            entries = np.take_along_axis(table[: plane.shape[1]].T, plane, axis=0)
            total = 2 * total + entries.sum(1, dtype=np.int32)
            inner = q["bound_unit"][t] * total + q["bound_upper"][t]
            bound = codes.scale[:n].astype(np.float32) * inner + codes.add[:n]
            passed = bound >= threshold
            totals[t] += [
                q["check_planes"] >> t & 1,
                (bound < score).sum(),
                np.mean(inner - exact) / exact.std(),
                passed.mean(),
                passed.reshape(-1, 32).any(1).mean(),
                wanted,
            ]
    label = len(codes.codes[0])
    for t in range(planes - 1, -1, -1):
        checked, violated, slack, rows, blocks, wanted = totals[t] / len(codes.weights)
        violations = int(violated * len(codes.weights))
        print(
            f"{label:4d}  {t:5d}  {checked:7.2f}  {violations:10d}  {slack:8.2f}  {rows:11.5f}"
            f"  {blocks:13.4f}  {wanted:11.5f}"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=128_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--bits", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--no-faiss", action="store_true")
    parser.add_argument(
        "--bounds",
        type=int,
        default=0,
        metavar="Q",
        help="check the bound on Q queries",
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    x = np.load(args.data / "base_vectors.npy").astype(np.float32)
    q = np.load(args.data / "query_vectors.npy")[: args.bounds or args.queries].astype(np.float32)
    copies = -(-args.rows // len(x))
    n, k, nq = copies * len(x), 10, len(q)
    isa = kernels.active()
    jobs, pairs = {}, {}

    def job(name, run, queries=nq):
        jobs[name], pairs[name] = run, n * queries

    for b in args.bits:
        codes = Codes(x, q, ALLOCATION[b])
        if args.bounds:
            blocks = codes.blocks(copies)
            scores, _ = kernels.plane_topk(isa, codes.bits, blocks, n, codes.weights, k)
            bound_statistics(codes, scores[:, -1])
            continue
        blocks = codes.blocks(copies)

        def run(tile, codes=codes, blocks=blocks):
            return kernels.plane_topk(isa, codes.bits, blocks, n, codes.weights, k, tile)

        job(f"planes {b} bit, batch", lambda run=run: run(0))
        job(f"planes {b} bit, one at a time", lambda run=run: run(1))
    if args.bounds:
        return

    signs = np.packbits(x > x.mean(0), axis=1)
    signs, query_signs = np.tile(signs, (copies, 1)), np.packbits(q > x.mean(0), axis=1)
    sign_blocks = kernels.hamming_pack(isa, signs)
    job("hamming, batch", lambda: kernels.hamming_topk(isa, query_signs, sign_blocks, n, k))
    if not args.no_faiss:
        import faiss

        faiss.omp_set_num_threads(1)
        tiled = np.tile(x, (copies, 1))
        d = x.shape[1]
        for b in args.bits:
            bytes_ = d * b // 8
            m = 2 * bytes_
            if d % m == 0:
                index = faiss.index_factory(d, f"PQ{m}x4fs", faiss.METRIC_INNER_PRODUCT)
                data, queries = tiled, q
            else:  # more sub-quantizers than dims: the scan's cost depends on their number alone
                index = faiss.index_factory(m, f"PQ{m}x4fs", faiss.METRIC_INNER_PRODUCT)
                reps = -(-m // d)
                data = np.tile(x, (1, reps))[:, :m]
                data, queries = np.tile(data, (copies, 1)), np.tile(q, (1, reps))[:, :m]
            index.train(data[:4000])
            index.add(data)
            queries = np.ascontiguousarray(queries)
            name = f"faiss PQ{m}x4fs ({bytes_} bytes)"
            job(
                name + ", batch",
                lambda i=index, v=queries: i.search(v, k),
            )
            if b < 4:
                job(
                    name + ", one at a time",
                    lambda i=index, v=queries: [i.search(r[None], k) for r in v],
                )
        index = faiss.index_factory(d, "RaBitQfs", faiss.METRIC_INNER_PRODUCT)
        index.train(x[:20_000])
        index.add(tiled)
        job("faiss RaBitQfs, batch", lambda i=index: i.search(q, k))
        index = faiss.IndexBinaryFlat(d)
        index.add(signs)
        job("faiss BinaryFlat, batch", lambda i=index: i.search(query_signs, k))
    result = measure(jobs, args.repeats, pairs)
    for name, (median, least) in result.items():
        print(f"{name:44s} {median:7.2f} ns per code (least {least:.2f})")
    if args.json:
        args.json.write_text(
            json.dumps({"rows": n, "queries": nq, "isa": isa, "ns_per_code": result}, indent=1)
        )


if __name__ == "__main__":
    main()
