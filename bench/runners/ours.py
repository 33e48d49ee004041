# SPDX-License-Identifier: Apache-2.0
"""Residua behind the runner protocol, through its public API only."""

from __future__ import annotations

import importlib
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.cases import Spec
from bench.datasets import BenchData
from bench.runners.base import RowReader, UnusableSpecError

__all__ = ["OursEngine", "OursRunner"]


class OursEngine:
    """A FlatIndex with one codec and one way of searching it."""

    name = "residua"

    def __init__(self, data: BenchData, spec: Spec, codec: Any, fit_seconds: float, threads: int) -> None:
        self._rz = importlib.import_module("residua")
        self._options = spec.options
        self._codec = codec
        self.family = spec.options["codec"]
        self.label = _label(spec)
        self.fit_seconds = fit_seconds
        # Re-ranking reads the kept vectors; scores alone must not pay for them.
        reranks = spec.options.get("rerank") == "auto"
        vectors = "auto" if reranks or codec is None else "none"
        self.index = self._rz.FlatIndex(data.dim, metric=data.metric, codec=codec, vectors=vectors)
        start = time.perf_counter()
        # Orders the dims of floats by variance, which gives prefixes a meaning; changes no score.
        self._basis = (
            _principal_axes(data.base) if codec is None and spec.options.get("rotation") == "pca" else None
        )
        base = data.base if self._basis is None else data.base @ self._basis
        self.index.add(base, num_threads=threads)
        self.add_seconds = time.perf_counter() - start
        self.bytes_per_vector = float(4 * data.dim if codec is None else codec.code_bytes)
        self.search_options: dict[str, Any] = {} if reranks or codec is None else {"rerank": False}
        if "scoring" in spec.options:
            self.search_options["scoring"] = spec.options["scoring"]
        if "funnel" in spec.options:
            self.search_options["funnel"] = _stages(spec.options["funnel"])

    def prepare(self, queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return queries

    def search(self, prepared: npt.NDArray[np.float32], k: int, threads: int) -> npt.NDArray[np.int64]:
        if self._basis is not None:
            prepared = prepared @ self._basis
        hits = self.index.search(prepared, k, num_threads=threads, **self.search_options)
        return np.asarray(hits.ids, dtype=np.int64)

    def encode(self, vectors: npt.NDArray[np.float32], threads: int) -> object:
        """Encode on as many threads as the caller pinned the process to; `encode` has no argument for it."""
        return vectors if self._codec is None else self._codec.encode(vectors)

    def memory(self) -> dict[str, int]:
        return dict(self.index.memory())

    def save(self, path: Path) -> None:
        self.index.save(path)


def _stages(text: str) -> list[tuple[int, int]]:
    """Read the stages of a case, `dims:keep` apart by spaces.

    >>> _stages("64:1000 128:100")
    [(64, 1000), (128, 100)]
    """
    pairs = [stage.split(":") for stage in text.split()]
    if not pairs or not all(len(pair) == 2 and pair[0].isdigit() and pair[1].isdigit() for pair in pairs):
        raise UnusableSpecError(f"funnel {text!r} is not of the form 'dims:keep dims:keep'")
    return [(int(dims), int(keep)) for dims, keep in pairs]


def _principal_axes(base: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    sample = base[:20_000].astype(np.float64)
    _, axes = np.linalg.eigh(sample.T @ sample)
    return np.ascontiguousarray(axes[:, ::-1], dtype=np.float32)


def _queries_to_fit_with(data: BenchData, options: dict[str, Any]) -> npt.NDArray[np.float32] | None:
    if options.get("fit_queries") and data.train_queries is None:
        raise UnusableSpecError(f"{data.name} has no train_queries.npy")
    return data.train_queries if options.get("fit_queries") else None


def _learned(rz: Any, data: BenchData, options: dict[str, Any], threads: int, seed: int) -> Any:
    """Train with PyTorch; where it is absent, that is why the case is skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rz.errors.FallbackWarning)
        return rz.train_recurrent_binary(
            data.base[: options.get("train_rows")],
            bits=options.get("bits", 1.0),
            metric=data.metric,
            queries=_queries_to_fit_with(data, options),
            preset=options.get("preset"),
            num_threads=threads,
            seed=seed,
        )


class OursRunner:
    name = "residua"

    def __init__(self) -> None:
        self._last: tuple[BenchData, Any, Any, float] | None = None

    def available(self) -> str | None:
        try:
            importlib.import_module("residua")
        except ImportError as error:
            return f"residua cannot be imported ({error}); run `pip install .`"
        return None

    def _codec(self, data: BenchData, spec: Spec, threads: int, seed: int) -> Any:
        rz = importlib.import_module("residua")
        try:
            return self._fresh_codec(rz, data, spec, threads, seed)
        except rz.errors.UnsupportedError as error:
            raise UnusableSpecError(str(error)) from error

    def _fresh_codec(self, rz: Any, data: BenchData, spec: Spec, threads: int, seed: int) -> Any:
        options = spec.options
        kind = options["codec"]
        if kind == "float32":
            return None
        if kind == "learned":
            return _learned(rz, data, options, threads, seed)
        if kind == "recurrent":
            codec = rz.RecurrentBinaryCodec(data.dim, bits=options.get("bits", 2.0), seed=seed)
        elif kind == "scalar":
            codec = rz.ScalarCodec(data.dim, bits=options.get("bits", 8), seed=seed)
        elif kind == "pq":
            codec = rz.PQCodec(
                data.dim,
                max(1, round(data.dim * options.get("per_dim", 0.125))),
                bits=options.get("bits", 8),
                rotation=options.get("rotation", "none"),
                seed=seed,
            )
        elif kind == "residual":
            codec = rz.ResidualCodec(
                data.dim, options.get("n_codebooks", 7), beam=options.get("beam", 4), seed=seed
            )
        elif kind == "float16":
            codec = rz.FloatCodec(data.dim, "float16")
        elif kind == "binary":
            per_dim = options.get("code_bits")
            bits = None if per_dim is None else int(per_dim * data.dim)
            codec = rz.BinaryCodec(data.dim, bits=bits, rotation=options.get("rotation", "none"), seed=seed)
        else:
            raise UnusableSpecError(
                f"codec {kind!r} is not known; known are float32, float16, scalar, pq, recurrent, learned, "
                "residual, binary"
            )
        if kind == "float16":
            codec.fit(data.base[:1], metric=data.metric)
        elif not codec.is_trained:
            queries = _queries_to_fit_with(data, options)
            rows = data.base[: options.get("train_rows")]
            codec.fit(rows, queries=queries, metric=data.metric, num_threads=threads)
        return codec

    def fit(self, data: BenchData, spec: Spec, *, threads: int, seed: int) -> None:
        self._codec(data, spec, threads, seed)

    def build(self, data: BenchData, spec: Spec, *, threads: int, seed: int) -> OursEngine:
        codec, fit_seconds = self._fitted(data, spec, threads, seed)
        return OursEngine(data, spec, codec, fit_seconds, threads)

    def reader(self, data: BenchData, spec: Spec, *, threads: int, seed: int) -> RowReader:
        """An EmbeddingTable; for codec float32 NumPy's own `take`."""
        label, family = _label(spec), spec.options["codec"]
        if family == "float32":
            base, size = data.base, 4.0 * data.dim
            return RowReader("numpy", family, "np.take", size, lambda rows, _: np.take(base, rows, axis=0))
        rz = importlib.import_module("residua")
        codec = self._codec(data, spec, threads, seed)
        table = rz.EmbeddingTable(data.base, codec, num_threads=threads)
        return RowReader(
            "residua", family, label, float(codec.code_bytes), lambda rows, n: table.take(rows, num_threads=n)
        )

    def _fitted(self, data: BenchData, spec: Spec, threads: int, seed: int) -> tuple[Any, float]:
        """The codec and the seconds of its fit; the last one is kept, as it serves every way of searching."""
        options = {
            key: value for key, value in spec.options.items() if key not in ("scoring", "rerank", "funnel")
        }
        key = (options, threads, seed)
        if self._last is None or self._last[0] is not data or self._last[1] != key:
            start = time.perf_counter()
            codec = self._codec(data, spec, threads, seed)
            self._last = (data, key, codec, time.perf_counter() - start)
        return self._last[2], self._last[3]


def _label(spec: Spec) -> str:
    options = spec.options
    if options["codec"] == "recurrent":
        parts = [f"recurrent {options.get('bits', 2.0):g} bit"]
    elif options["codec"] == "learned":
        name = f"preset {options['preset']}" if "preset" in options else "learned"
        parts = [f"{name} {options.get('bits', 1.0):g} bit"]
    elif options["codec"] == "scalar":
        parts = [f"scalar {options.get('bits', 8)} bit"]
    elif options["codec"] == "pq":
        parts = [f"PQ {options.get('per_dim', 0.125):g} per dim x{options.get('bits', 8)}"]
    elif options["codec"] == "residual":
        parts = [f"residual {options.get('n_codebooks', 7)} codebooks, beam {options.get('beam', 4)}"]
    elif options["codec"] == "binary":
        scoring = "Hamming" if options.get("scoring") == "symmetric" else "asymmetric"
        size = f" {options['code_bits']:g} bit" if "code_bits" in options else ""
        parts = [f"binary{size} {scoring}"]
    else:
        parts = [options["codec"]]
    if options.get("fit_queries"):
        parts.append("queries")
    if options["codec"] in ("recurrent", "learned", "scalar", "pq") and options.get("scoring") == "symmetric":
        parts.append("symmetric")
    if options.get("rotation", "none") != "none":
        parts.append(f"{options['rotation']} rotation")
    if options.get("rerank") == "auto":
        parts.append("re-ranked")
    if "funnel" in options:
        parts.append(f"funnel {options['funnel']}")
    return ", ".join(parts)
