# SPDX-License-Identifier: Apache-2.0
"""What the harness asks of an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bench.cases import Spec
from bench.datasets import BenchData

__all__ = ["Engine", "RowReader", "Runner", "UnusableSpecError"]


class UnusableSpecError(Exception):
    """This engine, or this version of it, cannot do what the spec asks on this data; the message says why."""


class Engine(Protocol):
    """One built index. `prepare` is not timed, `search` and `encode` are."""

    name: str
    family: str
    label: str
    bytes_per_vector: float
    fit_seconds: float
    add_seconds: float

    def prepare(self, queries: npt.NDArray[np.float32]) -> Any: ...

    def search(self, prepared: Any, k: int, threads: int) -> npt.NDArray[np.int64]: ...

    def memory(self) -> dict[str, int]:
        """Bytes per part, vectors kept for re-ranking included."""

    def encode(self, vectors: npt.NDArray[np.float32], threads: int) -> object: ...


@dataclass(frozen=True)
class RowReader:
    """Vectors kept in some form, and how rows are read back from it; only `read` is timed."""

    name: str
    family: str
    label: str
    bytes_per_vector: float
    read: Callable[[npt.NDArray[np.int64], int], npt.NDArray[np.float32]]


class Runner(Protocol):
    name: str

    def available(self) -> str | None:
        """None when the engine can run here, else the reason why not, with what would help."""

    def build(self, data: BenchData, spec: Spec, *, threads: int, seed: int) -> Engine: ...

    def fit(self, data: BenchData, spec: Spec, *, threads: int, seed: int) -> None:
        """Train the codec of `spec` and nothing else: what the fit measurements time."""

    def reader(self, data: BenchData, spec: Spec, *, threads: int, seed: int) -> RowReader:
        """The rows of `data.base` in the codes of `spec`."""
