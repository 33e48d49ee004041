# SPDX-License-Identifier: Apache-2.0
"""Gradient descent on the maps and steps of a recurrent codec; needs PyTorch. docs/learned.md derives it.

The recurrence of signs is trained through its sum: with every residual code at half the weight of the code
before it, the codes of a dim add up to a mid-rise level, and the gradient passes where no level is clipped.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residua import _core
from residua._checkpoint import Plan, read_state, write_state
from residua._recurrent_maps import GROUP
from residua._typing import FloatArray, IntArray
from residua.errors import InvalidValueError, UnsupportedError

Parts = dict[str, Any]

BATCH = 32  # queries of a step
_PAIRS = 128  # of a step
_QUEUE = 4096  # documents of earlier batches of pairs
_MOMENTUM = 0.98  # of the averaged weights, which are what is kept
_TEMPERATURE = 0.05
_PAIR_WEIGHT = 0.1
_RATE = 6e-3  # of the maps, relative to the root mean square of their entries
_STEP_RATE = 1e-3  # of the logarithms of the steps
_WARM_UP = 10


@dataclass(frozen=True)
class Lesson:
    """What is learned from: rows and queries as the metric sees them."""

    rows: FloatArray
    queries: FloatArray
    near: IntArray  # (queries, P) rows, nearest first
    metric: str
    pairs: Pairs | None = None


@dataclass(frozen=True)
class Pairs:
    """Queries and the documents that belong to them, row by row."""

    queries: FloatArray
    documents: FloatArray
    numbers: IntArray  # (pairs,), equal for equal documents
    hard: IntArray  # (pairs, H) rows that codes take for the document; -1 for none


def load_torch() -> Any:
    """Import PyTorch, or say what brings it."""
    try:
        import torch
    except ImportError as error:
        raise UnsupportedError(
            'train_recurrent_binary needs PyTorch; run: pip install "residua[train]". '
            "RecurrentBinaryCodec(dim, bits).fit(x) needs NumPy alone"
        ) from error
    return torch


@contextlib.contextmanager
def threads_of(torch: Any, count: int) -> Iterator[None]:
    """Let torch use this many threads; 0 leaves it as it is."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Learner:
    """Trains the parts of a codec; what is kept is a running average of them."""

    def __init__(
        self, start: Parts, lesson: Lesson, plan: Plan, device: str, *, fixed_queries: bool = False
    ) -> None:
        self._torch = torch = load_torch()
        self._start, self._lesson, self.plan = start, lesson, plan
        self._device = torch.device(device_of(torch, device))
        rows, dim = len(start["step"]), int(start["dim"])
        bits = np.repeat(start["group_bits"].astype(np.float32), GROUP)
        self._half = self._tensor(2 ** (bits - 1))
        self._center, self._query_mean = self._tensor(start["center"]), self._tensor(start["query_mean"])
        self._rows, self._queries = self._tensor(lesson.rows), self._tensor(lesson.queries)
        self._near = torch.as_tensor(lesson.near, device=self._device)
        first = [
            start["encode_map"].reshape(rows, dim),
            start["query_map"].reshape(rows, dim),
            np.log(start["step"]),
        ]
        self._weights = [self._tensor(w).requires_grad_() for w in first]
        if fixed_queries:
            for w in self._weights[1:]:
                w.requires_grad_(False)
        self._average = [w.detach().clone() for w in self._weights]
        rates = [_RATE * float(np.sqrt((w * w).mean())) for w in first[:2]] + [_STEP_RATE]
        groups = [
            {"params": [w], "rate": rate}
            for w, rate in zip(self._weights, rates, strict=True)
            if w.requires_grad
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0)
        self._done = 0
        self._queue: tuple[Any, Any, Any] | None = None
        self._unit = 1.0
        self._unit = self._error_size()

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return self._done // self.plan.steps

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self._done

    def kept(self) -> Parts:
        """Return the averaged weights by name, those that are trained."""
        encode, query, log_step = (w.cpu().numpy() for w in self._average)
        out = {"encode_map": np.ascontiguousarray(encode.ravel())}
        if self._weights[1].requires_grad:
            out |= {"query_map": np.ascontiguousarray(query.ravel()), "step": np.exp(log_step)}
        return out

    def native(self, kept: Parts) -> _core.Codec:
        """Make the codec of weights that were kept; levels are still those of the start."""
        return _core.recurrent_codec(**{**self._start, **{name: kept[name] for name in self.kept()}})

    def run_epoch(self, report: Callable[[float], None]) -> None:
        """Train one epoch; draws depend on the seed and the epoch alone."""
        torch = self._torch
        draw = np.random.Generator(np.random.PCG64([self.plan.seed, self.epoch]))
        total = 0.0
        for i in range(self.plan.steps):
            self._set_rate()
            batch = draw.integers(0, len(self._queries), self.plan.batch)
            loss = self._distillation_loss(torch.as_tensor(batch, device=self._device))
            if self._lesson.pairs is not None:
                chosen = draw.integers(0, len(self._lesson.pairs.queries), _PAIRS)
                loss = loss + _PAIR_WEIGHT * self._pair_loss(self._lesson.pairs, chosen)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            self._done += 1
            keep = min(_MOMENTUM, self._done / (self._done + _WARM_UP))
            with torch.no_grad():
                for average, weight in zip(self._average, self._weights, strict=True):
                    average.mul_(keep).add_(weight, alpha=1 - keep)
            total += float(loss.detach())
            report(total / (i + 1))

    def _tensor(self, a: npt.NDArray[Any]) -> Any:
        return self._torch.tensor(np.asarray(a, dtype=np.float32), device=self._device)

    def _set_rate(self) -> None:
        total = self.plan.epochs * self.plan.steps
        warm = min(1.0, (self._done + 1) / _WARM_UP)
        factor = warm * 0.5 * (1 + np.cos(np.pi * self._done / total))
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate"] * factor

    def _values(self, weights: list[Any], z: Any) -> Any:
        """What codes of centred rows stand for, f * v, with straight-through gradients."""
        torch = self._torch
        encode, _, log_step = weights
        y = z @ encode.T
        step = log_step.exp()
        t = y / step
        passed = torch.maximum(torch.minimum(t, self._half), -self._half)
        level = torch.maximum(torch.minimum(torch.floor(t.detach()), self._half - 1), -self._half) + 0.5
        v = step * (level + passed - passed.detach())
        # f makes the estimate exact along y; it is what the native encoder stores per vector.
        f = (y * y).sum(1, keepdim=True) / (y * v).sum(1, keepdim=True).clamp_min(1e-12)
        return f * v

    def _errors(self, q: Any, pool: Any, values: Any) -> Any:
        """Errors of scores, (queries, pool): all other parts of a score are exact."""
        asked = q - self._query_mean
        return (asked @ self._weights[1].T) @ values.T - asked @ pool.T

    def _distillation_loss(self, batch: Any) -> Any:
        """Variance of the errors of scores, against floats, among the true neighbours of a query.

        Their mean moves no rank.
        """
        torch = self._torch
        near = self._near[batch]
        rows = torch.unique(near)
        pool = self._rows[rows] - self._center
        errors = self._errors(self._queries[batch], pool, self._values(self._weights, pool))
        own = errors.gather(1, torch.searchsorted(rows, near))
        own = own - own.mean(1, keepdim=True)
        return (own * own).mean() / self._unit

    def _error_size(self) -> float:
        count = min(len(self._queries), 4 * BATCH)
        with self._torch.no_grad():
            size = float(self._distillation_loss(self._torch.arange(count, device=self._device)))
        return size if size > 0 else 1.0

    def _pair_loss(self, pairs: Pairs, chosen: IntArray) -> Any:
        """Contrast of a query's own document with those of the batch, of a queue, and hard negatives."""
        torch = self._torch
        q, d = self._tensor(pairs.queries[chosen]), self._tensor(pairs.documents[chosen])
        own = torch.as_tensor(pairs.numbers[chosen], device=self._device)
        z = d - self._center
        pools, values, numbers = [z], [self._values(self._weights, z)], [own]
        if self._queue is not None:
            for part, late in zip((pools, values, numbers), self._queue, strict=True):
                part.append(late)
        pool = torch.cat(pools)
        scores = self._scores(q, pool, torch.cat(values))
        same = own[:, None] == torch.cat(numbers)[None, :]
        same.fill_diagonal_(False)
        scale = _TEMPERATURE if self._lesson.metric == "cosine" else float(scores.detach().std()) + 1e-12
        scores = scores.masked_fill(same, -np.inf)
        scores = torch.cat([scores, self._hard_scores(q, pairs.hard[chosen])], dim=1)
        with torch.no_grad():  # the queue holds codes of the averaged weights
            late = (z, self._values(self._average, z), own)
            old = self._queue or tuple(part[:0] for part in late)
            self._queue = tuple(
                torch.cat([new, before])[:_QUEUE] for new, before in zip(late, old, strict=True)
            )
        return torch.nn.functional.cross_entropy(scores / scale, torch.arange(len(q), device=self._device))

    def _hard_scores(self, q: Any, rows_of_each: IntArray) -> Any:
        """Scores of every query's own hard negatives."""
        torch = self._torch
        hard = torch.as_tensor(rows_of_each, device=self._device)
        rows = torch.unique(hard.clamp_min(0))
        pool = self._rows[rows] - self._center
        scores = self._scores(q, pool, self._values(self._weights, pool))
        own = scores.gather(1, torch.searchsorted(rows, hard.clamp_min(0)))
        return own.masked_fill(hard < 0, -np.inf)

    def _scores(self, q: Any, pool: Any, values: Any) -> Any:
        """Code scores of queries and centred rows, up to a constant per query."""
        return self._exact(q, pool) + self._errors(q, pool, values)

    def _exact(self, q: Any, pool: Any) -> Any:
        """Similarities of queries and centred rows, up to a constant per query; halved under l2."""
        x = pool + self._center
        out = q @ x.T
        return out - (x * x).sum(1) / 2 if self._lesson.metric == "l2" else out

    def save(self, path: str | os.PathLike[str], best: dict[str, Any]) -> None:
        """Write all that training goes on from; ``best`` holds arrays and numbers."""
        arrays: dict[str, Any] = {f"best_{name}": value for name, value in best.items()}
        for i, (weight, average) in enumerate(zip(self._weights, self._average, strict=True)):
            arrays[f"weight_{i}"] = weight.detach().cpu().numpy()
            arrays[f"average_{i}"] = average.cpu().numpy()
            for name, value in self._optimizer.state.get(weight, {}).items():
                arrays[f"state_{i}_{name}"] = value.cpu().numpy()
        for i, part in enumerate(self._queue or ()):
            arrays[f"queue_{i}"] = part.cpu().numpy()
        write_state(path, self.plan, {"done": self._done, **arrays})

    def load(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Take up a checkpoint of the same plan; returns its ``best``."""
        torch = self._torch
        arrays = read_state(path, self.plan)
        with torch.no_grad():
            for i, (weight, average) in enumerate(zip(self._weights, self._average, strict=True)):
                weight.copy_(self._tensor(arrays[f"weight_{i}"]))
                average.copy_(self._tensor(arrays[f"average_{i}"]))
                state = {
                    key.split("_", 2)[2]: torch.tensor(arrays[key])
                    for key in arrays
                    if key.startswith(f"state_{i}_")
                }
                if state:
                    self._optimizer.state[weight] = {
                        key: value if key == "step" else value.to(self._device)
                        for key, value in state.items()
                    }
        if "queue_0" in arrays:
            parts = (torch.as_tensor(arrays[f"queue_{i}"], device=self._device) for i in range(3))
            self._queue = tuple(parts)
        self._done = int(arrays["done"])
        return {key[5:]: value for key, value in arrays.items() if key.startswith("best_")}


def device_of(torch: Any, device: str) -> str:
    """Return the name of a device that works; ``"auto"`` prefers CUDA."""
    if device != "auto":
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise InvalidValueError(f"device {device!r} cannot be used: {error}") from error
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
