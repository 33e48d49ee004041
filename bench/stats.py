# SPDX-License-Identifier: Apache-2.0
"""Statistics of repeated measurements, and recall. NumPy only; nothing here knows an engine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Spread", "interleave", "pair_ratios", "recall_at", "spread"]


@dataclass(frozen=True)
class Spread:
    """The median of some repetitions, with the smallest and the largest value beside it."""

    median: float
    low: float
    high: float
    repeats: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    def map(self, function: Callable[[float], float]) -> Spread:
        """Apply a monotonic function (a change of unit, seconds to rate) to all three values."""
        ends = sorted((function(self.low), function(self.high)))
        return Spread(function(self.median), ends[0], ends[1], self.repeats)


def spread(values: Sequence[float]) -> Spread:
    if not values:
        raise ValueError("a spread needs at least one value, got none")
    return Spread(statistics.median(values), min(values), max(values), len(values))


def interleave(
    actions: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every action, run as A B A B ... after one untimed warm-up round.

    A slow spell of the machine then falls on neighbours of the same round, and the ratio of a round stays
    meaningful where the ratio of two separate medians would not.
    """
    for action in actions.values():
        action()
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            start = clock()
            action()
            seconds[name].append(clock() - start)
    return seconds


def pair_ratios(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """Spread of the ratios taken round by round, as `interleave` produced them."""
    if len(numerator) != len(denominator):
        raise ValueError(f"rounds must pair up, got {len(numerator)} and {len(denominator)}")
    return spread([a / b for a, b in zip(numerator, denominator, strict=True)])


def recall_at(found: npt.ArrayLike, truth: npt.ArrayLike, k: int) -> float:
    """Mean share of the true first k that stand among the found first k; padding (-1) never counts.

    A query whose truth holds fewer than k rows is judged on those that exist.
    """
    found_ids = np.asarray(found)[:, :k]
    true_ids = np.asarray(truth)[:, :k]
    if len(found_ids) != len(true_ids):
        raise ValueError(f"found has {len(found_ids)} queries, truth has {len(true_ids)}")
    valid = true_ids >= 0
    hit = (found_ids[:, None, :] == true_ids[:, :, None]).any(axis=2) & valid
    counts = valid.sum(axis=1)
    judged = counts > 0
    return float((hit.sum(axis=1)[judged] / counts[judged]).mean()) if judged.any() else float("nan")
