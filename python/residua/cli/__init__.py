# SPDX-License-Identifier: Apache-2.0
"""The command line. Needs the extra `[cli]`; the library itself never imports this package."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

import residua
from residua.cli import _app
from residua.cli.bench import bench
from residua.cli.build import build
from residua.cli.demo import demo
from residua.cli.encode import encode
from residua.cli.evaluate import evaluate
from residua.cli.inspect import inspect
from residua.cli.search import search

__all__ = ["app", "run"]

app = typer.Typer(
    name="residua",
    cls=_app.OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


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
    """Embedding compression and nearest-neighbour search.

    Vector files: .npy .npz .fvecs .bvecs .ivecs .fbin .hbin .u8bin .i8bin
    .ibin .parquet .hdf5 .h5; read in chunks, so they may be larger than memory.
    Where a file has several arrays, FILE::NAME says which.

    Exit codes: 0 done, 1 a file or its data are at fault, 2 wrong usage,
    130 interrupted.
    """


for command in (encode, build, search, inspect, bench, demo):
    app.command()(command)
app.command("eval")(evaluate)


def _end_orderly(number: int, frame: FrameType | None) -> None:
    """Leave through the `finally` blocks, which remove unfinished files."""
    sys.exit(128 + number)


def run() -> int:
    """Run the command line on `sys.argv` and return its exit code."""
    signal.signal(signal.SIGTERM, _end_orderly)
    try:
        app(prog_name="residua")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except KeyboardInterrupt:
        return _app.INTERRUPTED
    except Exception as error:
        if os.environ.get("RESIDUA_TRACEBACK"):
            raise
        _app.complain(f"internal error: {type(error).__name__}: {error}; RESIDUA_TRACEBACK=1 shows where")
        return _app.INTERNAL_ERROR
    return 0
