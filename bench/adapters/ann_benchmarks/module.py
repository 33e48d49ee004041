# SPDX-License-Identifier: Apache-2.0
"""Residua for ann-benchmarks; goes to ``ann_benchmarks/algorithms/residua/module.py`` there."""

from __future__ import annotations

from typing import Any

import numpy as np

import residua as rz

from ..base.module import BaseANN

_METRICS = {"angular": "cosine", "euclidean": "l2"}


class ResiduaHNSW(BaseANN):
    """A graph whose walks read codes and whose results are settled by float16 vectors."""

    def __init__(self, metric: str, options: dict[str, Any]) -> None:
        """``options`` are those of ``rz.HNSWIndex``: layout, M, ef_construction."""
        if metric not in _METRICS:
            raise NotImplementedError(f"Residua has no metric {metric!r}; it has {', '.join(_METRICS)}")
        self._metric = _METRICS[metric]
        self._options = dict(options)
        self._ef = 64
        self.index: Any = None

    def fit(self, X: np.ndarray) -> None:
        rows = np.ascontiguousarray(X, np.float32)
        self.index = rz.HNSWIndex(rows.shape[1], metric=self._metric, **self._options)
        self.index.train(rows)
        self.index.add(rows)

    def set_query_arguments(self, ef: int) -> None:
        self._ef = int(ef)

    def query(self, q: np.ndarray, n: int) -> np.ndarray:
        return self.index.search(q, n, ef=self._ef, num_threads=1).ids

    def batch_query(self, X: np.ndarray, n: int) -> None:
        self.res = self.index.search(X, n, ef=self._ef).ids

    def get_batch_results(self) -> np.ndarray:
        return self.res

    def get_memory_usage(self) -> float:
        """KB of the index; before it is there, of nothing."""
        return 0.0 if self.index is None else sum(self.index.memory().values()) / 1024

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self._options.items())
        return f"ResiduaHNSW({options}, ef={self._ef})"
