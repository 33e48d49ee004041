# SPDX-License-Identifier: Apache-2.0
"""How far a recall measured on a sample of queries may be from that of all such queries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residua._typing import AnyArray, FloatArray, IntArray

CHOOSING = 3.1  # normal quantile: one-sided 99.9 %
REPORTING = 1.96  # two-sided 95 %
# Results of one query are right or wrong together. The spread between queries shows how much, but for few
# wrong ones that is uncertain itself: then as if every two results were one.
_LEAST_CLUSTERING = 2.0


@dataclass(frozen=True)
class Estimate:
    """Mean recall of a sample, and how many independent results it is worth."""

    mean: float
    results: float

    def bound(self, z: float) -> float:
        """Upper (z > 0) or lower (z < 0) bound: Wilson's interval for the independent results."""
        n, p = self.results, self.mean
        if p == (z > 0):
            return p  # where all or none is right; rounding would miss it
        middle = p + z * z / (2 * n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (middle + half) / (1 + z * z / n)


def estimate(recalls: npt.NDArray[np.float64], groups: IntArray, k: int) -> Estimate:
    """Estimate from the recall per query; queries of one group count as one (equal queries, asked twice)."""
    mean = float(recalls.mean())
    _, group = np.unique(groups, return_inverse=True)
    n_groups = int(group.max()) + 1
    results = float(len(recalls) * k)
    largest = results / n_groups  # every group is worth one result
    clustering = min(_LEAST_CLUSTERING, float(k)) * len(recalls) / n_groups
    if 0 < mean < 1 and n_groups > 1:
        # Variance of the mean between groups against that of independent results.
        sums = np.bincount(group, weights=recalls - mean)
        variance = float(np.square(sums).sum()) * n_groups / (n_groups - 1) / len(recalls) ** 2
        clustering = max(clustering, variance * results / (mean * (1 - mean)))
    return Estimate(mean, results / max(1.0, min(clustering, largest)))


def queries_needed(target: float, k: int) -> int:
    """How many queries show a recall of ``target`` when all their results are right."""
    if target >= 1:
        return 10
    results = CHOOSING**2 * target / (1 - target)
    return max(10, math.ceil(results * min(_LEAST_CLUSTERING, k) / k))


def groups_of_equal(x: FloatArray) -> IntArray:
    """A number per row, the same for equal rows, in order of first appearance."""
    keys = np.ascontiguousarray(x).view(np.dtype((np.void, x.shape[1] * x.itemsize))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[inverse.ravel()], np.int64)


def recall_per_query(found: AnyArray, true: AnyArray) -> npt.NDArray[np.float64]:
    """Share of the true ids that were found, per query; -1 and None are missing slots."""
    out = np.empty(len(true))
    for i, (f, t) in enumerate(zip(found.tolist(), true.tolist(), strict=True)):
        wanted = set(t) - {-1, None}
        out[i] = len(wanted & set(f)) / len(wanted) if wanted else 1.0
    return out
