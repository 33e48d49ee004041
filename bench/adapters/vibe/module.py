# SPDX-License-Identifier: Apache-2.0
"""Residua for VIBE; goes to ``vibe/algorithms/residua/module.py`` there."""

from __future__ import annotations

from typing import Any

import numpy as np

import residua as rz

from ..base.module import BaseANN

_METRICS = {"cosine": "cosine", "normalized": "cosine", "ip": "ip", "euclidean": "l2"}


class ResiduaHNSW(BaseANN):
    """A graph whose walks read codes and whose results are settled by float16 vectors."""

    def __init__(self, metric: str, layout: str, M: int, ef_construction: int) -> None:
        self._metric = _METRICS[metric]
        self._layout, self._links, self._width = layout, M, ef_construction
        self._ef = 64
        self.index: Any = None

    def fit(self, X: np.ndarray) -> None:
        self._build(X, None)

    def fit_ood(self, X_train: np.ndarray, X_learn: np.ndarray, X_learn_neighbors: np.ndarray) -> None:
        """Fit the codes with a sample of queries, which need not look like the vectors."""
        self._build(X_train, np.ascontiguousarray(X_learn, np.float32))

    def _build(self, x: np.ndarray, queries: np.ndarray | None) -> None:
        # VIBE builds all indexes with one thread.
        rows = np.ascontiguousarray(x, np.float32)
        self.index = rz.HNSWIndex(
            rows.shape[1],
            metric=self._metric,
            layout=self._layout,
            M=self._links,
            ef_construction=self._width,
        )
        self.index.train(rows, queries=queries, num_threads=1)
        self.index.add(rows, num_threads=1)

    def set_query_arguments(self, ef: int) -> None:
        self._ef = int(ef)

    def query(self, v: np.ndarray, n: int) -> np.ndarray:
        return self.index.search(v, n, ef=self._ef, num_threads=1).ids

    def batch_query(self, X: np.ndarray, n: int) -> None:
        self.res = self.index.search(X, n, ef=self._ef).ids

    def get_batch_results(self) -> np.ndarray:
        return self.res

    def get_memory_usage(self) -> float:
        """KB of the index; before it is there, of nothing."""
        return 0.0 if self.index is None else sum(self.index.memory().values()) / 1024

    def __str__(self) -> str:
        return (
            f"ResiduaHNSW(layout={self._layout}, M={self._links}, ef_construction={self._width}, "
            f"ef={self._ef})"
        )
