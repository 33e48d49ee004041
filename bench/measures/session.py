# SPDX-License-Identifier: Apache-2.0
"""One run of one case on one set: what is built, what came out, what could not be measured and why."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.cases import Case, Spec
from bench.datasets import BenchData
from bench.environment import usable_cpus
from bench.runners.base import Engine, RowReader, Runner, UnusableSpecError
from bench.stats import Spread

__all__ = ["Outcome", "Session"]


@dataclass(frozen=True)
class Outcome:
    """A claim, the value that was measured, and the bar beside it; `must` None means that there is no bar."""

    claim: str
    value: float
    must: float | None
    unit: str
    at_most: bool = False

    @property
    def passed(self) -> bool | None:
        if self.must is None:
            return None
        return self.value <= self.must if self.at_most else self.value >= self.must


@dataclass
class Session:
    case: Case
    data: BenchData
    runners: Mapping[str, Runner]
    log: Callable[[str], None] = print
    rows: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)

    @property
    def build_threads(self) -> int:
        """All CPUs: neither building nor recall depends on the thread count; what is timed is pinned."""
        return len(usable_cpus())

    def skip(self, spec: Spec, reason: str) -> None:
        options = str(dict(spec.options)) if spec.options else ""
        self.log(f"  skipped {options or spec.engine}: {reason}")
        self.skipped.append({"engine": spec.engine, "spec": options, "reason": reason})

    @contextlib.contextmanager
    def contained(self, spec: Spec) -> Iterator[None]:
        """What goes wrong in a peer is recorded, and the run goes on; our own errors pass through."""
        try:
            yield
        except UnusableSpecError as error:
            self.skip(spec, str(error))
        except (Exception, SystemExit) as error:
            if spec.engine == "ours":
                raise
            text = f"{type(error).__name__}: {error}".strip()
            self.log(f"  error in {spec.engine} {dict(spec.options)}: {text}")
            self.errors.append({"engine": spec.engine, "spec": str(dict(spec.options)), "error": text})

    def build(self, spec: Spec) -> Engine | None:
        """The engine for `spec`, or None with the reason noted; other errors are bugs and pass through."""
        runner = self.runners[spec.engine]
        reason = runner.available()
        if reason is None:
            try:
                engine = runner.build(self.data, spec, threads=self.build_threads, seed=self.case.seed)
            except UnusableSpecError as error:
                reason = str(error)
            else:
                self.log(
                    f"  built {engine.name} {engine.label} in {engine.fit_seconds + engine.add_seconds:.1f} s"
                )
                return engine
        self.skip(spec, reason)
        return None

    def row(self, engine: Engine | RowReader, **measured: Any) -> dict[str, Any]:
        """Record one measured configuration; a `Spread` becomes a dictionary of its parts."""
        row: dict[str, Any] = {
            "engine": engine.name,
            "family": engine.family,
            "label": engine.label,
            "bytes_per_vector": engine.bytes_per_vector,
        }
        row.update({k: v.as_dict() if isinstance(v, Spread) else v for k, v in measured.items()})
        self.rows.append(row)
        return row

    def expect(
        self, claim: str, value: float, must: float | None, unit: str, *, at_most: bool = False
    ) -> None:
        self.outcomes.append(Outcome(claim, value, must, unit, at_most))

    def result(self) -> dict[str, Any]:
        return {
            "case": self.case.name,
            "title": self.case.title,
            "kind": self.case.kind,
            "settings": self.case.settings(),
            "seed": self.case.seed,
            "data": self.data.summary(),
            "rows": self.rows,
            "outcomes": [{**asdict(o), "passed": o.passed} for o in self.outcomes],
            "skipped": self.skipped,
            "errors": self.errors,
        }
