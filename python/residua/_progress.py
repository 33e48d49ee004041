# SPDX-License-Identifier: Apache-2.0
"""Progress of long calls: ``progress=True`` draws a line on stderr, a callable gets (done, total)."""

from __future__ import annotations

import sys
from collections.abc import Callable

from residua._typing import Progress
from residua.errors import InvalidTypeError


def reporter(progress: Progress, what: str) -> Callable[[int, int], None]:
    """Return a function to call with (done, total); total is never 0."""
    if callable(progress):
        return progress
    if progress is True:
        return _Line(what)
    if progress is False or progress is None:
        return _silent
    raise InvalidTypeError(f"progress must be True, False or a callable (done, total), got {progress!r}")


def _silent(done: int, total: int) -> None:
    pass


class _Line:
    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = -1

    def __call__(self, done: int, total: int) -> None:
        percent = 100 * done // total
        if percent == self._shown:
            return
        self._shown = percent
        filled = percent * 30 // 100
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\r{self._what} [{'#' * filled}{'.' * (30 - filled)}] {percent:3d} %{end}")
        sys.stderr.flush()
