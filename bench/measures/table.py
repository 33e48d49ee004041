# SPDX-License-Identifier: Apache-2.0
"""Rows read back from codes by number: gigabytes of float32 output per second, random and in order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bench.environment import pinned
from bench.measures.session import Session
from bench.runners.base import RowReader, UnusableSpecError
from bench.stats import interleave, spread

__all__ = ["measure_table"]

_KEYS = {"random": "random_gb_per_second", "ordered": "ordered_gb_per_second"}


def measure_table(session: Session) -> None:
    """`batch` rows at random numbers, and as many in order. `[[bar]] ours = {...}, at_least = 4` is GB/s."""
    case, data = session.case, session.data
    rng = np.random.default_rng(case.seed)
    n_read = min(case.batch, len(data.base))
    ids = {"random": rng.integers(len(data.base), size=n_read), "ordered": np.arange(n_read)}
    readers: list[tuple[int, RowReader]] = []
    for i, spec in enumerate(case.specs):
        runner = session.runners[spec.engine]
        reason = runner.available()
        if reason is None:
            try:
                readers.append((i, runner.reader(data, spec, threads=session.build_threads, seed=case.seed)))
                session.log(f"  built {readers[-1][1].name} {readers[-1][1].label}")
            except UnusableSpecError as error:
                reason = str(error)
        if reason is not None:
            session.skip(spec, reason)
    actions = {
        f"{order} {i}": _action(reader, rows, case.threads)
        for i, reader in readers
        for order, rows in ids.items()
    }
    with pinned(case.threads):
        seconds = interleave(actions, case.repeats, clock=case.clock)
    size = 4e-9 * n_read * data.dim
    for i, reader in readers:
        rates = {o: spread(seconds[f"{o} {i}"]).map(lambda s: size / s) for o in ids}
        session.row(reader, **{_KEYS[o]: rate for o, rate in rates.items()})
        for bar in case.bars:
            spec = case.specs[i]
            if spec.engine == "ours" and spec.matches(bar.get("ours", {})):
                claim = f"{bar['name']}: {reader.label}, random rows"
                session.expect(claim, rates["random"].median, bar["at_least"], "GB/s")


def _action(reader: RowReader, rows: npt.NDArray[np.int64], threads: int) -> Callable[[], object]:
    return lambda: reader.read(rows, threads)
