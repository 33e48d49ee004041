# SPDX-License-Identifier: Apache-2.0
"""Gradient descent on the maps and steps of a recurrent codec; needs PyTorch. docs/learned.md derives it.

The recurrence of signs is trained through its sum: with every residual code at half the weight of the code
before it, the codes of a dim add up to a mid-rise level, and the gradient passes where no level is clipped.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residua._io.write import atomic_output
from residua._recurrent_maps import GROUP
from residua._typing import FloatArray, IntArray
from residua.errors import CorruptFileError, InvalidValueError, UnsupportedError

Parts = dict[str, Any]

_QUERIES = 32  # per step
_QUEUE = 4096  # documents of earlier batches of pairs
_MOMENTUM = 0.98  # of the averaged weights, which are what is kept
_TEMPERATURE = 0.05
_PAIR_WEIGHT = 0.1
_RATE = 6e-3  # of the maps, relative to the root mean square of their entries
_STEP_RATE = 1e-3  # of the logarithms of the steps
_WARM_UP = 10
_FORMAT = 1


@dataclass(frozen=True)
class Lesson:
    """What is learned from: rows and queries as the metric sees them."""

    rows: FloatArray
    queries: FloatArray
    near: IntArray  # (queries, P) rows, nearest first
    pairs: tuple[FloatArray, FloatArray] | None
    metric: str
    steps: int  # per epoch


@dataclass(frozen=True)
class Plan:
    """What a checkpoint must agree on."""

    start: str  # fingerprint of the codec that training starts at
    epochs: int
    steps: int
    seed: int
    data: str  # digest of rows, queries and pairs
    fixed_queries: bool


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
    """Trains the parts of a codec; `parts` are those of the averaged weights."""

    def __init__(self, start: Parts, lesson: Lesson, plan: Plan, device: str) -> None:
        self._torch = torch = load_torch()
        self._start, self._lesson, self._plan = start, lesson, plan
        self._device = torch.device(_device(torch, device))
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
        if plan.fixed_queries:
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
        self._queue: tuple[Any, Any] | None = None
        self._unit = 1.0
        self._unit = self._error_size()

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return self._done // self._plan.steps

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self._done

    def parts(self) -> Parts:
        """Return what `recurrent_codec` takes; levels are still those of the start."""
        encode, query, log_step = (w.cpu().numpy() for w in self._average)
        if self._plan.fixed_queries:
            return {**self._start, "encode_map": np.ascontiguousarray(encode.ravel())}
        return {
            **self._start,
            "encode_map": np.ascontiguousarray(encode.ravel()),
            "query_map": np.ascontiguousarray(query.ravel()),
            "step": np.exp(log_step),
        }

    def run_epoch(self, report: Callable[[float], None]) -> float:
        """Train one epoch; returns the mean loss. Draws depend on the seed and the epoch alone."""
        torch = self._torch
        draw = np.random.Generator(np.random.PCG64([self._plan.seed, self.epoch]))
        total = 0.0
        for _ in range(self._plan.steps):
            self._set_rate()
            batch = draw.integers(0, len(self._queries), _QUERIES)
            loss = self._neighbour_loss(torch.as_tensor(batch, device=self._device))
            if self._lesson.pairs is not None:
                chosen = draw.integers(0, len(self._lesson.pairs[0]), 4 * _QUERIES)
                loss = loss + _PAIR_WEIGHT * self._pair_loss(chosen)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            self._done += 1
            keep = min(_MOMENTUM, self._done / (self._done + _WARM_UP))
            with torch.no_grad():
                for average, weight in zip(self._average, self._weights, strict=True):
                    average.mul_(keep).add_(weight, alpha=1 - keep)
            total += float(loss.detach())
            report(total / max(1, (self._done - 1) % self._plan.steps + 1))
        return total / self._plan.steps

    def _tensor(self, a: npt.NDArray[Any]) -> Any:
        return self._torch.tensor(np.asarray(a, dtype=np.float32), device=self._device)

    def _set_rate(self) -> None:
        total = self._plan.epochs * self._plan.steps
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

    def _neighbour_loss(self, batch: Any) -> Any:
        """Variance of the errors of scores among the neighbours of a query: their mean moves no rank."""
        torch = self._torch
        near = self._near[batch]
        rows = torch.unique(near)
        pool = self._rows[rows] - self._center
        errors = self._errors(self._queries[batch], pool, self._values(self._weights, pool))
        own = errors.gather(1, torch.searchsorted(rows, near))
        own = own - own.mean(1, keepdim=True)
        return (own * own).mean() / self._unit

    def _error_size(self) -> float:
        count = min(len(self._queries), 4 * _QUERIES)
        with self._torch.no_grad():
            size = float(self._neighbour_loss(self._torch.arange(count, device=self._device)))
        return size if size > 0 else 1.0

    def _pair_loss(self, chosen: IntArray) -> Any:
        """Contrast of every query's own document with those of the batch and of a queue."""
        torch = self._torch
        q, d = (self._tensor(side[chosen]) for side in self._lesson.pairs or ())
        z = d - self._center
        pools, values = [z], [self._values(self._weights, z)]
        if self._queue is not None:
            pools.append(self._queue[0])
            values.append(self._queue[1])
        pool = torch.cat(pools)
        scores = self._exact(q, pool) + self._errors(q, pool, torch.cat(values))
        with torch.no_grad():  # the queue holds codes of the averaged weights
            late = self._values(self._average, z)
            old = self._queue or (z[:0], late[:0])
            self._queue = (torch.cat([z, old[0]])[:_QUEUE], torch.cat([late, old[1]])[:_QUEUE])
        scale = _TEMPERATURE if self._lesson.metric == "cosine" else float(scores.detach().std()) + 1e-12
        return torch.nn.functional.cross_entropy(scores / scale, torch.arange(len(q), device=self._device))

    def _exact(self, q: Any, pool: Any) -> Any:
        """Similarities of queries and centred rows, up to a constant per query; halved under l2."""
        x = pool + self._center
        out = q @ x.T
        return out - (x * x).sum(1) / 2 if self._lesson.metric == "l2" else out

    # Checkpoints: one .npz per state, written atomically.

    def save(self, path: str | os.PathLike[str], best: dict[str, Any]) -> None:
        """Write all that training goes on from; ``best`` holds arrays and numbers."""
        arrays: dict[str, Any] = {f"best_{name}": value for name, value in best.items()}
        for i, (weight, average) in enumerate(zip(self._weights, self._average, strict=True)):
            arrays[f"weight_{i}"] = weight.detach().cpu().numpy()
            arrays[f"average_{i}"] = average.cpu().numpy()
            for name, value in self._optimizer.state.get(weight, {}).items():
                arrays[f"state_{i}_{name}"] = value.cpu().numpy()
        if self._queue is not None:
            arrays["queue_0"], arrays["queue_1"] = (part.cpu().numpy() for part in self._queue)
        arrays["plan"] = np.frombuffer(_plan_text(self._plan).encode(), np.uint8)
        with atomic_output(path) as file:
            np.savez(file, done=self._done, **arrays)

    def load(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Take up a checkpoint of the same plan; returns its ``best``."""
        torch = self._torch
        name = os.fsdecode(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            found = arrays["plan"].tobytes().decode()
            done = int(arrays["done"])
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise CorruptFileError(f"{name}: not a checkpoint of train_recurrent_binary ({error})") from error
        if found != _plan_text(self._plan):
            raise InvalidValueError(
                f"{name}: a checkpoint of another configuration; it was made with {found}, this call has "
                f"{_plan_text(self._plan)}. Give another path, or the same data and options"
            )
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
            self._queue = self._tensor(arrays["queue_0"]), self._tensor(arrays["queue_1"])
        self._done = done
        return {key[5:]: value for key, value in arrays.items() if key.startswith("best_")}


def _plan_text(plan: Plan) -> str:
    return json.dumps({"format": _FORMAT, **asdict(plan)}, sort_keys=True)


def _device(torch: Any, device: str) -> str:
    if device != "auto":
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise InvalidValueError(f"device {device!r} cannot be used: {error}") from error
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
