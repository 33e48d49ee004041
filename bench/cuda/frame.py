# SPDX-License-Identifier: Apache-2.0
"""What a measure gets and gives: a `Setup` with device, sizes and clock; rows of figures, and outcomes.

A measure is a function of a `Setup`. Figures of one configuration go to `setup.row(label, ...)`, a claim with
its bar to `setup.expect(...)`, and `SkipError(reason)` is raised where it cannot be had. Modules list theirs
in `MEASURES`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from bench.cuda.device import Device
from bench.measures.session import Outcome
from bench.stats import Spread, spread

__all__ = ["Measure", "Setup", "SkipError", "run"]


class SkipError(Exception):
    """A measure, or a peer within one, cannot be had here; the message says why."""


class Measure(Protocol):
    def __call__(self, setup: Setup, /) -> None: ...


@dataclass
class Setup:
    device: Device
    repeats: int = 5
    scale: float = 1.0  # of rows and documents; below 1 no bar is judged
    log: Callable[[str], None] = print
    rows: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)

    @property
    def emulated(self) -> bool:
        return self.device.emulated

    def size(self, full: int, tiny: int) -> int:
        """Rows, documents or queries: `full` on a device, `tiny` in the emulation."""
        return tiny if self.emulated else max(1, round(full * self.scale))

    def time(self, action: Callable[[], Any]) -> Spread:
        """Seconds of a call after one that is not timed; `action` returns when its results are there."""
        if not self.emulated:
            action()
        seconds = []
        for _ in range(1 if self.emulated else self.repeats):
            start = time.perf_counter()
            action()
            seconds.append(time.perf_counter() - start)
        return spread(seconds)

    def row(self, label: str, **figures: Any) -> None:
        """Figures beside one configuration; a `Spread` keeps its ends."""
        known = {key: f.as_dict() if isinstance(f, Spread) else f for key, f in figures.items()}
        self.rows.append({"label": label, **known})
        shown = ", ".join(f"{key} {_short(f)}" for key, f in figures.items())
        self.log(f"  {label}: {shown}")

    def expect(
        self, claim: str, value: float | None, bar: float | None, unit: str, *, at_most: bool = False
    ) -> None:
        """A claim and its bar, which the emulation and other sizes drop; None for `value`: no reference."""
        if value is None:
            self.skip(claim, "no peak is known for this device, and PyTorch is not here to measure one")
            return
        judged = bar if not self.emulated and self.scale == 1 else None
        self.outcomes.append(Outcome(claim, value, judged, unit, at_most))

    def skip(self, what: str, reason: str) -> None:
        self.log(f"  SKIPPED {what}: {reason}")
        self.skipped.append({"engine": what, "spec": "", "reason": reason})

    @contextlib.contextmanager
    def contained(self, what: str) -> Iterator[None]:
        """What goes wrong is recorded, and the run goes on: GPU time is dear. The emulation raises it."""
        try:
            yield
        except SkipError as reason:
            self.skip(what, str(reason))
        except Exception as error:
            if self.emulated:
                raise
            text = f"{type(error).__name__}: {error}".strip()
            self.log(f"  FAILED {what}: {text}")
            self.errors.append({"engine": what, "spec": "", "error": text})

    def result(self) -> dict[str, Any]:
        """As the results of `python -m bench run`, so that `python -m bench report` reads them."""
        return {
            "case": "cuda",
            "title": "CUDA, emulated: nothing here is a speed" if self.emulated else "CUDA",
            "kind": "cuda",
            "settings": {
                "k": 10,
                "threads": "all",
                "repeats": self.repeats,
                "scale": self.scale,
            },
            "device": self.device.summary(),
            "data": {
                "name": self.device.name,
                "n": 0,
                "note": "rows are random",
            },
            "rows": self.rows,
            "outcomes": [{**asdict(o), "passed": o.passed} for o in self.outcomes],
            "skipped": self.skipped,
            "errors": self.errors,
        }


def _short(figure: Any) -> str:
    value = figure.median if isinstance(figure, Spread) else figure
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def run(setup: Setup, measures: Mapping[str, Measure]) -> None:
    for name, measure in measures.items():
        setup.log(name)
        with setup.contained(name):
            measure(setup)
