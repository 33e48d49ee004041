# SPDX-License-Identifier: Apache-2.0
"""`residua demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residua.cli._app import complain
from residua.cli._choices import ThreadsOption

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the plot and the raw figures.")] = Path("demo-report"),
    threads: ThreadsOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions, no FAISS.")] = False,
) -> None:
    """Compress and search the sample that ships with the package; compare, plot, and check recall."""
    from residua.demo import run_demo  # loads matplotlib, which other commands should not wait for

    failures = run_demo(out, threads=threads, quick=quick)
    for failure in failures:
        complain(failure, "residua demo")
    if failures:
        raise typer.Exit(1)
