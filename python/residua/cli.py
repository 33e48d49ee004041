# SPDX-License-Identifier: Apache-2.0
"""The command line. Needs the extra `[cli]`; the library itself never imports this module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

import residua
from residua.errors import ResiduaError

__all__ = ["app", "run"]

# Options are read at run time from these annotations, so `Path` must stay importable here.
app = typer.Typer(
    name="residua",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Embedding compression and nearest-neighbour search.",
)


@contextlib.contextmanager
def _readable_errors() -> Iterator[None]:
    """Turn an expected error into one line on stderr and exit code 1; a bug keeps its traceback."""
    try:
        yield
    except (ResiduaError, OSError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        typer.echo(f"residua: {message}", err=True)
        raise typer.Exit(1) from error


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"residua {residua.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Embedding compression and nearest-neighbour search."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the plot and the raw figures.")] = Path("demo-report"),
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads; default: all that may be used.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions, no FAISS.")] = False,
) -> None:
    """Compress and search the sample that ships with the package; compare, plot, and check recall."""
    from residua.demo import run_demo  # loads matplotlib, which `residua --help` should not wait for

    with _readable_errors():
        failures = run_demo(out, threads=threads, quick=quick)
    for failure in failures:
        typer.echo(f"residua demo: {failure}", err=True)
    if failures:
        raise typer.Exit(1)


def run() -> int:
    """Run the command line on `sys.argv` and return its exit code."""
    try:
        app()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return 0
