# SPDX-License-Identifier: Apache-2.0
"""What :func:`residua.build` can choose from: codecs, and what is kept beside their codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from residua._typing import Metric
from residua.codecs import Codec, RecurrentBinaryCodec, ScalarCodec

_CODE_BITS = (0.5, 1, 1.5, 2, 3, 4, 5, 6)  # of codes that are all there is; scalar codes follow
_FIRST_BITS = (0.5, 1, 2)  # of codes that choose candidates for re-ranking

Kept = Literal["float32", "float16", "int8", "none"]


@dataclass(frozen=True)
class Option:
    """A codec, or none, and what is kept beside its codes."""

    name: str
    bytes: int  # per vector
    vectors: Kept
    coding: str = ""  # equal ones share their codec
    codec: Callable[[], Codec] | None = None


@dataclass(frozen=True)
class Options:
    """All that exists for some vectors."""

    exact: Option | None
    kept: list[Option]  # codes and vectors, by bytes
    coded: list[Option]  # codes alone, the worse first

    def all(self) -> list[Option]:
        return [*self.coded, *self.kept, *([] if self.exact is None else [self.exact])]

    def within(self, budget: float | None) -> Options:
        """Those of at most so many bytes; of the kept ones the most exact per codec."""

        def fits(option: Option | None) -> bool:
            return option is not None and (budget is None or option.bytes <= budget)

        kept = {o.coding: o for o in self.kept if fits(o)}
        return replace(
            self,
            exact=self.exact if fits(self.exact) else None,
            kept=list(kept.values()),
            coded=[o for o in self.coded if fits(o)],
        )


def options(dim: int, metric: Metric, seed: int, half: bool) -> Options:
    """What exists; ``half``: float16 holds the vectors."""
    norm = 4 if metric == "cosine" else 0  # kept vectors are not unit vectors
    vectors: list[tuple[Kept, int]] = [("int8", dim + 4 + norm)]
    vectors.append(("float16", 2 * dim + norm) if half else ("float32", 4 * dim + norm))
    kept, coded = [], []
    for bits in sorted({*_CODE_BITS, *_FIRST_BITS}):
        size, name = RecurrentBinaryCodec(dim, bits).code_bytes, f"recurrent codes of {bits:g} bits per dim"
        make = _recurrent(dim, bits, seed)
        if bits in _CODE_BITS:
            coded.append(Option(name, size, "none", name, make))
        if bits in _FIRST_BITS:
            for what, more in vectors:
                kept.append(Option(f"{name}, re-ranked by {what} vectors", size + more, what, name, make))
    name = "scalar codes of 8 bits per dim"
    coded.append(
        Option(name, ScalarCodec(dim, 8).code_bytes, "none", name, lambda: ScalarCodec(dim, 8, seed=seed))
    )
    exact = Option("exact float32 vectors", 4 * dim + norm, "float32")
    return Options(exact, sorted(kept, key=lambda o: o.bytes), coded)


def _recurrent(dim: int, bits: float, seed: int) -> Callable[[], Codec]:
    return lambda: RecurrentBinaryCodec(dim, bits, seed=seed)
