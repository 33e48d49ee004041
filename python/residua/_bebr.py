# SPDX-License-Identifier: Apache-2.0
"""The recurrent binarization module as published, and its training; needs PyTorch.

Gan et al., "Binary Embedding-based Retrieval at Tencent" (KDD 2023): blocks of linear, batch norm, ReLU,
linear; signs with a straight-through estimator that is clipped at 1; the cosine of composed codes;
cross-entropy against the hardest documents of a batch. docs/learned.md has the details.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from residua import _core, _recurrent_fit
from residua._checkpoint import Plan, read_state, write_state
from residua._learning import Lesson, device_of, load_torch
from residua._recurrent_maps import GROUP
from residua._typing import FloatArray
from residua.errors import InvalidValueError

HIDDEN = 4  # width of the hidden layers, in dims: 2,048 for 512
PAIRS = 2048  # per step
_RATE = 0.08
_LOWER_AT = 0.6  # share of the steps after which the rate is a tenth
_DECAY = 1e-3  # of weights, not of biases and batch norms
_CLIP = 5.0
_TEMPERATURE = 0.05
_HARDEST = 5  # documents of a batch that a query is compared with
_RIDGE = 1e-3


def code_shape(dim: int, bits: float) -> tuple[int, int]:
    """Return (dims of the composed code, residual codes); up to 2 bits per dim one, as published."""
    budget = _recurrent_fit.group_budget(dim, bits)
    planes = min(max(2, int(np.ceil(bits))), budget)
    return budget // planes * GROUP, planes - 1


class BebrLearner:
    """Trains the module; what is kept is its state with batch norms folded into the layers before them."""

    def __init__(self, dim: int, bits: float, lesson: Lesson, plan: Plan, device: str) -> None:
        self._torch = torch = load_torch()
        self._lesson, self.plan, self._bits, self._dim = lesson, plan, bits, dim
        self._code_dims, self._residuals = code_shape(dim, bits)
        self._device = torch.device(device_of(torch, device))
        if lesson.pairs is None and lesson.near.shape[1] == 0:
            raise InvalidValueError("preset 'bebr' needs neighbours or pairs to learn from")
        generator = torch.Generator().manual_seed(plan.seed)
        self._blocks = [self._block(i % 2 == 1, generator) for i in range(1 + 2 * self._residuals)]
        self._optimizer = self._make_optimizer()
        self._done = 0

    def _block(self, rebuilds: bool, generator: Any) -> Any:
        """W and R_t read vectors and write codes, B_t the other way round."""
        nn = self._torch.nn
        inputs, outputs = (self._code_dims, self._dim) if rebuilds else (self._dim, self._code_dims)
        hidden = HIDDEN * self._dim
        block = nn.Sequential(
            nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )
        for layer in (block[0], block[3]):
            nn.init.xavier_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        return block.to(self._device)

    def _make_optimizer(self) -> Any:
        decayed: list[Any] = []
        plain: list[Any] = []
        for block in self._blocks:
            for name, weight in block.named_parameters():
                (decayed if name in ("0.weight", "3.weight") else plain).append(weight)
        groups = [{"params": decayed, "weight_decay": _DECAY}, {"params": plain, "weight_decay": 0.0}]
        return self._torch.optim.SGD(groups, lr=_RATE, momentum=0.9, nesterov=True)

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return self._done // self.plan.steps

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self._done

    def run_epoch(self, report: Callable[[float], None]) -> None:
        """Train one epoch; draws depend on the seed and the epoch alone."""
        torch = self._torch
        draw = np.random.Generator(np.random.PCG64([self.plan.seed, self.epoch]))
        weights = [w for block in self._blocks for w in block.parameters()]
        total = 0.0
        for block in self._blocks:
            block.train()
        for i in range(self.plan.steps):
            late = self._done >= _LOWER_AT * self.plan.epochs * self.plan.steps
            for group in self._optimizer.param_groups:
                group["lr"] = _RATE * (0.1 if late else 1.0)
            queries, documents, owner = self._draw(draw)
            codes = self.compose(torch.cat([queries, documents]))
            loss = self.contrast(codes[: len(queries)], codes[len(queries) :], owner)
            self._optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, _CLIP)
            self._optimizer.step()
            self._done += 1
            total += float(loss.detach())
            report(total / (i + 1))

    def _draw(self, draw: np.random.Generator) -> tuple[Any, Any, Any]:
        """Return queries, their documents, and numbers that are equal for equal documents."""
        lesson, count = self._lesson, self.plan.batch
        if lesson.pairs is not None:
            chosen = draw.integers(0, len(lesson.pairs.queries), count)
            queries, documents = lesson.pairs.queries[chosen], lesson.pairs.documents[chosen]
            owner = lesson.pairs.numbers[chosen]
        else:
            # The nearest neighbour stands in for the document; with farther ones codes become all alike.
            chosen = draw.integers(0, len(lesson.queries), count)
            owner = lesson.near[chosen, 0]
            queries, documents = lesson.queries[chosen], lesson.rows[owner]
        q, d, o = (self._torch.as_tensor(a, device=self._device) for a in (queries, documents, owner))
        return q, d, o

    def compose(self, x: Any) -> Any:
        """Composed codes of unit vectors, with straight-through gradients."""
        code = self._sign(self._blocks[0](x))
        for t in range(1, self._residuals + 1):
            rebuilt = self._torch.nn.functional.normalize(self._blocks[2 * t - 1](code), dim=1)
            code = code + 2.0**-t * self._sign(self._blocks[2 * t](x - rebuilt))
        return code

    def _sign(self, y: Any) -> Any:
        """+1 or -1; the gradient passes where |y| is at most 1."""
        hard = self._torch.where(y < 0, -1.0, 1.0)
        passed = y.clamp(-1, 1)
        return hard + passed - passed.detach()

    def contrast(self, queries: Any, documents: Any, owner: Any) -> Any:
        """Cross-entropy of pairs against the hardest others of the batch, in both directions."""
        torch = self._torch
        unit = torch.nn.functional.normalize
        logits = unit(queries, dim=1) @ unit(documents, dim=1).T / _TEMPERATURE
        same = owner[:, None] == owner[None, :]
        loss = 0.0
        for scores in (logits, logits.T):
            others = scores.masked_fill(same, -np.inf)
            hardest = others.topk(min(_HARDEST, len(scores)), dim=1).values
            loss = loss + torch.nn.functional.cross_entropy(
                torch.cat([scores.diagonal()[:, None], hardest], dim=1),
                torch.zeros(len(scores), dtype=torch.long, device=scores.device),
            )
        return loss

    def kept(self) -> dict[str, FloatArray]:
        """Weights of the blocks as native code takes them: batch norms are part of the first layer."""
        out = {}
        for i, block in enumerate(self._blocks):
            first, norm, _, last = block
            with self._torch.no_grad():
                factor = norm.weight / self._torch.sqrt(norm.running_var + norm.eps)
                parts = (
                    factor[:, None] * first.weight,
                    factor * (first.bias - norm.running_mean) + norm.bias,
                    last.weight,
                    last.bias,
                )
            for name, part in zip(("in", "in_bias", "out", "out_bias"), parts, strict=True):
                out[f"block{i}_{name}"] = part.detach().cpu().numpy().astype(np.float32)
        return out

    def native(self, kept: dict[str, Any]) -> _core.Codec:
        """Make the codec; codes are decoded by the linear map of least squares from codes to rows."""
        names = ("in", "in_bias", "out", "out_bias")
        blocks = [tuple(kept[f"block{i}_{name}"] for name in names) for i in range(len(self._blocks))]

        def made(decode_map: FloatArray, offset: FloatArray) -> _core.Codec:
            return _core.module_codec(
                self._dim, self._code_dims, self._bits, blocks, decode_map, offset, expansion=4.0
            )

        rows = self._lesson.rows[: _recurrent_fit._STEP_ROWS]
        zeros = np.zeros((self._dim, self._code_dims), np.float32)
        codes = made(zeros, np.zeros(self._dim, np.float32)).encode(rows, 0)
        return made(*_least_squares(_composed(codes, self._code_dims, self._residuals), rows))

    def save(self, path: str | os.PathLike[str], best: dict[str, Any]) -> None:
        """Write all that training goes on from; ``best`` holds arrays and numbers."""
        arrays: dict[str, Any] = {f"best_{name}": value for name, value in best.items()}
        for i, block in enumerate(self._blocks):
            for name, value in block.state_dict().items():
                arrays[f"weight_{i}_{name}"] = value.cpu().numpy()
        weights = [w for group in self._optimizer.param_groups for w in group["params"]]
        for i, weight in enumerate(weights):
            arrays[f"momentum_{i}"] = self._optimizer.state[weight]["momentum_buffer"].cpu().numpy()
        write_state(path, self.plan, {"done": self._done, **arrays})

    def load(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Take up a checkpoint of the same plan; returns its ``best``."""
        arrays = read_state(path, self.plan)
        for i, block in enumerate(self._blocks):
            block.load_state_dict(
                {name: self._torch.as_tensor(arrays[f"weight_{i}_{name}"]) for name in block.state_dict()}
            )
        weights = [w for group in self._optimizer.param_groups for w in group["params"]]
        for i, weight in enumerate(weights):
            buffer = self._torch.as_tensor(arrays[f"momentum_{i}"], device=self._device)
            self._optimizer.state[weight]["momentum_buffer"] = buffer
        self._done = int(arrays["done"])
        return {key[5:]: value for key, value in arrays.items() if key.startswith("best_")}


def _composed(codes: Any, dims: int, residuals: int) -> FloatArray:
    """Read composed codes of length 1 from row codes, planes of high weight first."""
    planes = np.unpackbits(
        codes[:, : (residuals + 1) * dims // 8].reshape(len(codes), residuals + 1, -1), axis=2
    )
    weights = 0.5 ** np.arange(residuals + 1)
    b = np.einsum("npd,p->nd", 2.0 * planes - 1, weights)
    return np.asarray(b / np.linalg.norm(b, axis=1, keepdims=True), np.float32)


def _least_squares(codes: FloatArray, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The map and offset from codes to rows, with a little weight on small maps."""
    mean_code, mean_row = codes.mean(axis=0, dtype=np.float64), rows.mean(axis=0, dtype=np.float64)
    b, x = codes - mean_code, rows - mean_row
    gram = b.T @ b
    gram += _RIDGE * max(np.trace(gram) / len(gram), 1e-12) * np.eye(len(gram))
    solved = np.linalg.solve(gram, b.T @ x).T
    return solved.astype(np.float32), (mean_row - solved @ mean_code).astype(np.float32)
