# SPDX-License-Identifier: Apache-2.0
"""What the adapters of peer libraries share: whether one can run, one build per index, bytes, unit vectors.

An adapter names its package and implements `make`, `find`, `size` and `label`. Cosine runs on unit vectors.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.cases import Spec
from bench.datasets import BenchData
from bench.runners.base import RowReader, UnusableSpecError
from bench.runners.trial import run_trial

__all__ = ["PeerEngine", "PeerRunner", "comparable", "folder_bytes", "imported", "one_of", "pool_threads"]

Options = Mapping[str, Any]
Floats = npt.NDArray[np.float32]


def comparable(x: Floats, metric: str) -> Floats:
    """Rows as libraries without a cosine take them: for cosine scaled to length one; a row of zeros stays."""
    if metric == "cosine":
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-30))
    return np.ascontiguousarray(x, dtype=np.float32)


def imported(module: str, package: str) -> Any:
    """The module, or an UnusableSpecError that says how its package is installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UnusableSpecError(f"{package} is not installed; run `pip install {package}`") from error


def folder_bytes(path: Path) -> int:
    """Bytes of all files below `path`."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def one_of(option: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """`value` when it is allowed, else an UnusableSpecError that lists what is."""
    if value not in allowed:
        raise UnusableSpecError(f"{option} is {value!r}, expected one of {', '.join(map(str, allowed))}")
    return value


class PeerEngine:
    """An index of a peer. `size` is counted once; every search goes through the adapter."""

    def __init__(
        self, runner: PeerRunner, data: BenchData, options: Options, index: Any, size: int, seconds: float
    ) -> None:
        self._runner, self._options, self._metric = runner, options, data.metric
        self.name = self.family = runner.name
        self.label = runner.label(options)
        self.index = index
        self._size = size
        self.bytes_per_vector = size / len(data.base)
        self.fit_seconds = 0.0
        self.add_seconds = seconds

    def prepare(self, queries: Floats) -> Any:
        return self._runner.convert(queries, self._metric, self._options)

    def search(self, prepared: Any, k: int, threads: int) -> npt.NDArray[np.int64]:
        found = self._runner.find(self.index, prepared, k, threads, self._options)
        return np.asarray(found).astype(np.int64)

    def memory(self) -> dict[str, int]:
        return {"index": self._size}

    def encode(self, vectors: Floats, threads: int) -> object:
        raise UnusableSpecError(f"{self.name} has no encoder apart from its index")


class PeerRunner:
    """One library. Configurations that differ in `search_options` only share one build."""

    name: str
    package: str
    module_name: str
    search_options: frozenset[str] = frozenset()
    # (systems, machines, first Python, first Python without) of the wheels; None: there are none.
    wheels: tuple[tuple[str, ...], tuple[str, ...], tuple[int, int], tuple[int, int]] | None = None

    def __init__(self, trial: Callable[[str, Spec, int, str], str | None] = run_trial) -> None:
        self._trial = trial
        self._last: tuple[BenchData, Options, Any, int, float] | None = None

    def available(self) -> str | None:
        """Whether it is installed. It is not imported: that, too, can end the process on some CPUs."""
        top = self.module_name.partition(".")[0]
        if top in sys.modules or importlib.util.find_spec(top) is not None:
            return None
        return f"{self.package} is not installed; {self._wheel_note()}"

    def _wheel_note(self) -> str:
        if self.wheels is None:
            return f"it has no wheel: `pip install {self.package}` compiles it"
        systems, machines, first, end = self.wheels
        here = (platform.system(), platform.machine(), sys.version_info[:2])
        if here[0] in systems and here[1] in machines and first <= here[2] < end:
            return f"run `pip install {self.package}`"
        return f"it has no wheel for Python {here[2][0]}.{here[2][1]} on {here[0]} {here[1]}"

    def module(self) -> Any:
        return importlib.import_module(self.module_name)

    def build(self, data: BenchData, spec: Spec, *, threads: int, seed: int) -> PeerEngine:
        self.check(data.metric, data.dim, spec.options)
        options = {key: value for key, value in spec.options.items() if key not in self.search_options}
        if self._last is None or self._last[0] is not data or self._last[1] != (options, threads, seed):
            self._last = None  # frees the index before, which may be large
            reason = self._trial(self.name, spec, data.dim, data.metric)
            if reason is not None:
                raise UnusableSpecError(f"{self.package} {reason}")
            base = self.convert(data.base, data.metric, spec.options)
            start = time.perf_counter()
            index = self.make(base, data.metric, spec.options, threads, seed)
            seconds = time.perf_counter() - start
            self._last = (data, (options, threads, seed), index, self.size(index, base), seconds)
        return PeerEngine(self, data, spec.options, *self._last[2:])

    def fit(self, data: BenchData, spec: Spec, *, threads: int, seed: int) -> None:
        raise UnusableSpecError(f"{self.name} trains nothing apart from its index")

    def reader(self, data: BenchData, spec: Spec, *, threads: int, seed: int) -> RowReader:
        raise UnusableSpecError(f"{self.name} is measured by its searches only")

    # --- what an adapter fills in ---

    def check(self, metric: str, dim: int, options: Options) -> None:
        """Raise UnusableSpecError for what the library cannot do; called before anything is imported."""

    def convert(self, vectors: Floats, metric: str, options: Options) -> Any:
        """Vectors or queries in the form that `make` and `find` take; not timed."""
        return comparable(vectors, metric)

    def make(self, base: Any, metric: str, options: Options, threads: int, seed: int) -> Any:
        """The built index; timed."""
        raise NotImplementedError

    def find(self, index: Any, queries: Any, k: int, threads: int, options: Options) -> Any:
        """Row numbers (n_queries, k), best first; timed."""
        raise NotImplementedError

    def size(self, index: Any, base: Any) -> int:
        """Bytes of everything that a search reads."""
        raise NotImplementedError

    def label(self, options: Options) -> str:
        raise NotImplementedError


def pool_threads(variable: str) -> int:
    """The size of a thread pool that reads `variable` when it starts; one where it is not set."""
    return int(os.environ.setdefault(variable, "1"))
