# SPDX-License-Identifier: Apache-2.0
"""What commands show: results on stdout, progress on stderr and only on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from residua.cli._app import one_line

__all__ = ["facts_table", "output", "progress", "say"]

_WIDTH_OF_A_PIPE = 120


def output() -> Console:
    """A console on stdout; through a pipe its width is fixed, so that it does not depend on the caller."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_OF_A_PIPE)


def say(text: str) -> None:
    """Print a result line, unwrapped."""
    output().print(one_line(text), soft_wrap=True, highlight=False, markup=False)


def facts_table(title: str) -> Table:
    """Make an empty table of names and values."""
    table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    return table


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Draw a bar over `total` rows; yields a function that takes how many more are done."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
