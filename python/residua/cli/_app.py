# SPDX-License-Identifier: Apache-2.0
"""How commands fail: one line on stderr and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from residua.errors import ResiduaError

__all__ = ["INTERNAL_ERROR", "INTERRUPTED", "OneLineErrors", "complain", "one_line", "usage_error"]

FAILED, INTERNAL_ERROR, INTERRUPTED = 1, 70, 130

# Typer brings click along under varying names; the bases of its public class do not vary.
_UsageError: Any = typer.BadParameter.__mro__[1]
_ClickException: Any = typer.BadParameter.__mro__[2]


def complain(message: str, command: str = "residua") -> None:
    """Print one line on stderr."""
    typer.echo(f"{command}: {one_line(message)}", err=True)


def one_line(message: str) -> str:
    """Return text on one line, with neither control characters nor half characters of file names."""
    line = " ".join(message.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def usage_error(message: str) -> Exception:
    """Make the error of options that do not go together; exit code 2."""
    error: Exception = _UsageError(message)
    return error


def _describe(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"out of memory: {error}" if str(error) else "out of memory"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _exit_code(action: Callable[[], Any]) -> int:
    """Run; every expected error becomes a line and a code, a bug goes on as it is."""
    try:
        code = action()
    except _ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "residua"
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            complain(f"{error.format_message().rstrip('.')}; see {command} --help", command)
        return int(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except (ResiduaError, OSError, MemoryError) as error:
        complain(_describe(error))
        return FAILED
    if code == INTERRUPTED:
        complain("interrupted; no unfinished file is left")
    return code if isinstance(code, int) else 0


class OneLineErrors(TyperGroup):
    """The root command; replaces Typer's framed errors, which take several lines."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # some versions of Typer print an empty line before they say Abort
            raise typer.Exit(INTERRUPTED) from None

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        run = super().main
        extra["standalone_mode"] = False
        code = _exit_code(lambda: run(*args, **extra))
        if standalone_mode:
            sys.exit(code)
        return code
